"""What happens to bytes from a socket: kept answers, plain requests, aiohttp's way, and the changes between them."""

import asyncio
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lictor.http.plain import parse_plain, parse_write
from tests.http.conftest import Door, eventually, open_agent, read_answer
from tests.patience import PATIENCE

GET = b"GET /v1/kv/a HTTP/1.1\r\nHost: x\r\n\r\n"
PUT = b"PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\none"


class TestPlainRequests:
    def test_a_get_with_ordinary_headers_is_plain(self) -> None:
        found = parse_plain(b"GET /v1/kv/a?raw HTTP/1.1\r\nHost: x:1\r\nAccept-Encoding:  gzip \r\n\r\n")
        assert found == ("/v1/kv/a?raw", {"host": "x:1", "accept-encoding": "gzip"}, True)

    @pytest.mark.parametrize(
        "data",
        [
            b"POST /v1/kv/a HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET /v1/kv/a HTTP/1.1\r\nHost: x\r\n",
            b"GET /v1/kv/a HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET /v1/kv/a HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
            b"GET /v1/kv/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"GET /v1/kv/a HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
            b"GET /v1/kv/a HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n",
            b"GET /v1/kv/a HTTP/1.1\r\nHost : x\r\n\r\n",
            b"GET /v1/kv/a HTTP/1.1\r\nHost: x\nEvil: y\r\n\r\n",
            b"GET /v1/kv/a  HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET /v1/kv/a HTTP/2.0\r\nHost: x\r\n\r\n",
            b"GET /v1/kv/a HTTP/1.1\r\n\r\n",
            b"GET /v1/kv/\xc3\xa4 HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET http://x/v1/kv/a HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET /v1/kv/a HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\r\n",
            b"GET /v1/kv/a HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 9000 + b"\r\n\r\n",
        ],
    )
    def test_anything_unusual_is_left_to_the_full_parser(self, data: bytes) -> None:
        assert parse_plain(data) is None

    def test_an_old_client_is_answered_and_its_connection_closed(self) -> None:
        assert parse_plain(b"GET /v1/kv/a HTTP/1.0\r\n\r\n") == ("/v1/kv/a", {}, False)

    @given(st.binary(max_size=300))
    @settings(max_examples=300, deadline=None)
    def test_any_bytes_are_parsed_or_left(self, data: bytes) -> None:
        for candidate in (data, b"GET /" + data + b"\r\n\r\n"):
            found = parse_plain(candidate)
            assert found is None or candidate.endswith(b"\r\n\r\n")


async def test_the_same_bytes_get_the_kept_answer_until_the_key_changes(door: Door) -> None:
    async with door.socket() as (reader, writer):
        writer.write(PUT)
        assert (await read_answer(reader))[1] == b"true"
        writer.write(GET)
        first = await read_answer(reader)
        writer.write(GET)
        assert (await read_answer(reader))[1] == first[1]
        hits = door.http.api.hits
        writer.write(GET)
        assert (await read_answer(reader))[1] == first[1]
        assert door.http.api.hits == hits + 1, "asked for a second time, the answer is kept"
        writer.write(PUT.replace(b"one", b"two"))
        await read_answer(reader)
        writer.write(GET)
        assert b"dHdv" in (await read_answer(reader))[1]
        assert door.http.api.hits == hits + 1


async def test_pipelined_requests_are_answered_in_order(door: Door) -> None:
    async with door.socket() as (reader, writer):
        writer.write(PUT)
        await read_answer(reader)
        writer.write(GET + PUT.replace(b"one", b"two") + GET + GET.replace(b"/a", b"/b"))
        bodies = [(await read_answer(reader))[1] for _ in range(4)]
        assert b"b25l" in bodies[0]
        assert bodies[1] == b"true"
        assert b"dHdv" in bodies[2]
        assert bodies[3] == b""
        writer.write(GET)
        assert b"dHdv" in (await read_answer(reader))[1]


async def test_bytes_inside_a_body_are_not_taken_for_a_request(door: Door) -> None:
    """A chunk of a body that is, to the byte, a request whose answer is kept must be stored, not answered."""
    async with door.socket() as (reader, writer):
        writer.write(PUT)
        await read_answer(reader)
        writer.write(GET)
        await read_answer(reader)
        head = f"PUT /v1/kv/body HTTP/1.1\r\nHost: x\r\nContent-Length: {2 * len(GET)}\r\n\r\n".encode()
        for part in (head, GET, GET):
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.02)
        assert (await read_answer(reader))[1] == b"true"
    status, _, body = await door.get("/v1/kv/body?raw")
    assert (status, body) == (200, GET + GET)


@pytest.mark.parametrize("cut", [1, 4, 20, 33])
async def test_a_request_in_two_pieces_is_one_request(door: Door, cut: int) -> None:
    async with door.socket() as (reader, writer):
        writer.write(PUT)
        await read_answer(reader)
        writer.write(GET)
        expected = await read_answer(reader)
        writer.write(GET[:cut])
        await writer.drain()
        await asyncio.sleep(0.02)
        writer.write(GET[cut:])
        assert (await read_answer(reader))[1] == expected[1]
        writer.write(GET)
        assert (await read_answer(reader))[1] == expected[1]


async def test_a_header_value_that_looks_like_a_request_does_not_become_one(door: Door) -> None:
    async with door.socket() as (reader, writer):
        writer.write(PUT)
        await read_answer(reader)
        writer.write(GET)
        await read_answer(reader)
        writer.write(b"GET /v1/kv/other HTTP/1.1\r\nHost: x\r\nX-Odd: ")
        await writer.drain()
        await asyncio.sleep(0.02)
        writer.write(GET)
        head, _ = await read_answer(reader)
        assert b" 404 " in head or b" 400 " in head


async def test_a_blocking_query_returns_when_its_key_changes(door: Door) -> None:
    await door.put("/v1/kv/a", b"1")
    _, headers, _ = await door.get("/v1/kv/a")
    index = headers["x-consul-index"]
    waiting = asyncio.create_task(door.get(f"/v1/kv/a?index={index}&wait=60s"))
    await eventually(lambda: len(door.http.api.waiting) == 1, "the query waits")
    await door.put("/v1/kv/b", b"1")
    await door.put("/v1/kv/a", b"2")
    async with asyncio.timeout(PATIENCE):
        _, headers, body = await waiting
    assert b"Mg==" in body
    assert int(headers["x-consul-index"]) > int(index)
    assert door.http.api.waiting == {}


async def test_another_key_does_not_wake_a_blocking_query(door: Door) -> None:
    await door.put("/v1/kv/a", b"1")
    _, headers, _ = await door.get("/v1/kv/a")
    waiting = asyncio.create_task(door.get(f"/v1/kv/a?index={headers['x-consul-index']}&wait=300ms"))
    await eventually(lambda: len(door.http.api.waiting) == 1, "the query waits")
    for n in range(20):
        await door.put("/v1/kv/b", str(n))
    _, after, _ = await waiting
    assert after["x-consul-index"] == headers["x-consul-index"]


async def test_many_watchers_of_one_service_share_one_read(door: Door) -> None:
    await door.put("/v1/kv/a", b"1")
    _, headers, _ = await door.get("/v1/kv/a")
    request = f"GET /v1/kv/a?index={headers['x-consul-index']}&wait=60s HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    reads = 0
    read = door.agent.store.read

    def counted(*args, **kwargs):  # type: ignore[no-untyped-def]
        nonlocal reads
        reads += 1
        return read(*args, **kwargs)

    door.agent.store.read = counted  # type: ignore[method-assign]
    clients = [await asyncio.open_connection("127.0.0.1", door.port) for _ in range(100)]
    for _, writer in clients:
        writer.write(request)
    await eventually(lambda: sum(len(w) for w, _ in door.http.api.waiting.values()) == 100, "all 100 wait")
    reads = 0
    await door.put("/v1/kv/a", b"2")
    for reader, writer in clients:
        assert b"Mg==" in (await read_answer(reader))[1]
        writer.close()
    assert reads == 1


async def test_a_client_that_goes_away_leaves_nothing_behind(door: Door) -> None:
    request = b"GET /v1/kv/a?index=1&wait=60s HTTP/1.1\r\nHost: x\r\n\r\n"
    async with door.socket() as (_, writer):
        writer.write(request)
        await eventually(lambda: len(door.http.api.waiting) == 1, "the query waits")
    await eventually(lambda: len(door.http.api.waiting) == 0, "nobody waits")
    await eventually(lambda: door.http.open_connections == 0, "no connection is open")


async def test_what_is_sent_while_a_query_waits_is_answered_after_it(door: Door) -> None:
    await door.put("/v1/kv/a", b"1")
    async with door.socket() as (reader, writer):
        writer.write(b"GET /v1/kv/a?index=99999&wait=200ms HTTP/1.1\r\nHost: x\r\n\r\n")
        await eventually(lambda: len(door.http.api.waiting) == 1, "the query waits")
        writer.write(GET)
        assert b"MQ==" in (await read_answer(reader))[1]
        assert b"MQ==" in (await read_answer(reader))[1]


async def test_a_client_with_too_many_connections_is_refused() -> None:
    limited = open_agent("-hcl=limits { http_max_conns_per_client = 2 }")
    async with limited as door, door.socket() as one, door.socket() as two, door.socket() as three:
        for reader, writer in (one, two):
            writer.write(GET)
            await read_answer(reader)
        three[1].write(GET)
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await read_answer(three[0])


async def test_garbage_is_refused_and_harms_nobody(door: Door) -> None:
    rng = random.Random(7)
    for _ in range(60):
        async with door.socket() as (reader, writer):
            data = bytearray(rng.choice([GET, PUT]))
            for _ in range(rng.randrange(1, 6)):
                data[rng.randrange(len(data))] = rng.randrange(256)
            writer.write(bytes(data))
            writer.write_eof()
            async with asyncio.timeout(PATIENCE):
                await reader.read()
    assert (await door.get("/v1/status/leader"))[0] == 200


async def test_a_long_answer_is_compressed_only_for_those_who_ask(door: Door) -> None:
    for n in range(50):
        await door.put(f"/v1/kv/long/{n}", b"x" * 100)
    _, headers, packed = await door.call("GET", "/v1/kv/long/?recurse", headers={"Accept-Encoding": "gzip"})
    assert headers["content-encoding"] == "gzip"
    async with door.socket() as (reader, writer):
        writer.write(b"GET /v1/kv/long/?recurse HTTP/1.1\r\nHost: x\r\n\r\n")
        head, plain = await read_answer(reader)
    assert b"gzip" not in head
    assert len(packed) < len(plain) / 3


async def test_pretty_json_is_indented(door: Door) -> None:
    await door.put("/v1/kv/a", b"1")
    _, _, body = await door.get("/v1/kv/a?pretty")
    assert body.startswith(b"[\n    {\n") and body.endswith(b"\n")


async def test_the_configured_headers_are_on_every_answer() -> None:
    async with open_agent('-hcl=http_config { response_headers { "X-Own" = "yes" } }') as door:
        for path in ("/v1/kv/none", "/v1/catalog/nodes", "/v1/nothing", "/v1/status/leader"):
            assert (await door.get(path))[1]["x-own"] == "yes", path


async def test_unknown_paths_and_methods_say_so(door: Door) -> None:
    assert (await door.get("/v1/nothing"))[0] == 404
    status, headers, body = await door.call("POST", "/v1/kv/a", data=b"x")
    assert (status, headers["allow"], body) == (405, "OPTIONS,GET,PUT,DELETE", b"method POST not allowed")
    status, headers, _ = await door.call("OPTIONS", "/v1/kv/a")
    assert (status, headers["allow"]) == (200, "OPTIONS,GET,PUT,DELETE")


async def test_a_head_that_never_ends_is_given_up(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lictor.http.connection.HEAD_PATIENCE", 0.2)
    async with door.socket() as (reader, writer):
        writer.write(GET)
        await read_answer(reader)
        writer.write(b"GET /v1/kv/a HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        async with asyncio.timeout(PATIENCE):
            assert await reader.read() == b""
    await eventually(lambda: door.http.open_connections == 0, "the connection is closed")


async def test_a_slow_body_is_not_given_up_with_its_head(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lictor.http.connection.HEAD_PATIENCE", 0.1)
    async with door.socket() as (reader, writer):
        writer.write(PUT[:-2])
        await asyncio.sleep(0.3)
        writer.write(PUT[-2:])
        assert (await read_answer(reader))[1] == b"true"


async def test_a_path_that_is_not_utf_8_is_refused(door: Door) -> None:
    """Two keys that differ only in such bytes would be one."""
    async with door.socket() as (reader, writer):
        for method in (b"GET", b"PUT"):
            writer.write(method + b" /v1/kv/%ff HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await read_answer(reader))[0].startswith(b"HTTP/1.1 400 ")


async def test_a_whole_url_as_target_means_its_path(door: Door) -> None:
    await door.put("/v1/kv/a", b"1")
    async with door.socket() as (reader, writer):
        writer.write(b"GET http://somebody:8500/v1/kv/a?raw HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await read_answer(reader))[1] == b"1"


class TestPlainWrites:
    def test_a_put_with_its_length_is_plain(self) -> None:
        found = parse_write(PUT)
        assert found is not None
        assert (found.method, found.target, found.keep, PUT[found.body : found.end]) == (
            "PUT",
            "/v1/kv/a",
            True,
            b"one",
        )

    def test_one_whose_body_is_still_to_come_says_how_much(self) -> None:
        found = parse_write(PUT[:-2])
        assert found is not None
        assert found.end == len(PUT)

    def test_a_delete_needs_no_body(self) -> None:
        found = parse_write(b"DELETE /v1/kv/a HTTP/1.1\r\nHost: x\r\n\r\n")
        assert found is not None
        assert (found.method, found.body, found.end) == ("DELETE", 37, 37)

    @pytest.mark.parametrize(
        "data",
        [
            GET,
            PUT + b"P",
            PUT[:40],
            PUT.replace(b"PUT", b"PATCH"),
            PUT.replace(b"Content-Length: 3", b"Transfer-Encoding: chunked"),
            PUT.replace(b"Content-Length: 3", b"Content-Length: 3\r\nContent-Length: 3"),
            PUT.replace(b"Content-Length: 3", b"Content-Length: 3\r\nExpect: 100-continue"),
            PUT.replace(b"Content-Length: 3", b"Content-Length: +3"),
            PUT.replace(b"Content-Length: 3", b"Content-Length: 3, 3"),
            PUT.replace(b"Content-Length: 3", b"Content-Length:"),
            PUT.replace(b"Content-Length: 3", b"Content-Length: 65537"),
            PUT.replace(b"Host: x", b"Host: " + b"x" * 9000),
            PUT.replace(b"\r\n", b"\n"),
        ],
    )
    def test_anything_unusual_is_left_to_the_full_parser(self, data: bytes) -> None:
        assert parse_write(data) is None


async def test_a_write_cut_anywhere_has_its_effect(door: Door) -> None:
    async with door.socket() as (reader, writer):
        for cut in range(1, len(PUT)):
            await door.put("/v1/kv/a", b"none")
            writer.write(PUT[:cut])
            await asyncio.sleep(0)
            writer.write(PUT[cut:] + GET.replace(b"/a", b"/a?raw"))
            assert (await read_answer(reader))[1] == b"true"
            assert (await read_answer(reader))[1] == b"one"


async def test_a_body_that_comes_in_many_parts_is_waited_for(door: Door) -> None:
    body = bytes(range(256)) * 256
    request = b"PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    async with door.socket() as (reader, writer):
        for start in range(0, len(request), 5000):
            writer.write(request[start : start + 5000])
            await writer.drain()
            await asyncio.sleep(0)
        assert (await read_answer(reader))[1] == b"true"
    assert (await door.get("/v1/kv/a?raw"))[2] == body


async def test_writes_sent_together_are_done_in_their_order(door: Door) -> None:
    puts = [PUT.replace(b"one", b"%03d" % n) for n in range(50)]
    async with door.socket() as (reader, writer):
        writer.write(puts[0])
        writer.write(b"".join(puts[1:]))
        for _ in puts:
            assert (await read_answer(reader))[1] == b"true"
    assert (await door.get("/v1/kv/a?raw"))[2] == b"049"


async def test_a_client_that_closed_its_side_still_hears_of_its_write(door: Door) -> None:
    async with door.socket() as (reader, writer):
        writer.write(PUT)
        writer.write_eof()
        assert (await read_answer(reader))[1] == b"true"
        assert await reader.read() == b""


async def test_a_write_that_is_refused_leaves_the_connection_open(door: Door) -> None:
    async with door.socket() as (reader, writer):
        writer.write(PUT.replace(b"/a ", b"/a?cas=1&acquire=x "))
        head, body = await read_answer(reader)
        assert head.startswith(b"HTTP/1.1 400 "), body
        writer.write(PUT)
        assert (await read_answer(reader))[1] == b"true"


async def test_the_door_closes_after_the_writes_that_are_under_way(door: Door) -> None:
    async with door.socket() as (reader, writer):
        writer.write(GET)
        await read_answer(reader)
        (connection,) = door.http._connections
        connection.data_received(PUT)
        await door.http.close(30)
        assert (await read_answer(reader))[1] == b"true"
        assert await reader.read() == b""
