"""What grows with what strangers send has a bound, in bytes, whatever they send."""

import asyncio
import tracemalloc
from random import Random

import pytest

from lictor.store.watch import Dependent, Watches
from tests.http.conftest import Door, eventually, open_agent, read_answer

MIB = 1024 * 1024


async def ready(door: Door) -> None:
    """Wait until what an agent does when it starts is done: the modules that it loads for that are in memory."""
    for path in ("/v1/agent/connect/ca/roots", "/v1/catalog/services"):
        assert (await door.get(path, Connection="close"))[0] == 200


async def test_requests_that_come_once_are_not_kept(door: Door) -> None:
    await ready(door)
    async with door.socket() as (reader, writer):
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            for n in range(1500):
                writer.write(b"GET /v1/catalog/services?cached&x=%d%b HTTP/1.1\r\nHost: x\r\n\r\n" % (n, b"y" * 7000))
                await read_answer(reader)
            grown = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
    assert grown < 3 * MIB, f"{grown} bytes are kept of requests that came once"


async def test_kept_answers_have_a_bound_in_bytes(door: Door) -> None:
    answers = door.http.api.answers
    answers.limit = MIB
    async with door.socket() as (reader, writer):
        for n in range(1200):
            for _ in range(2):
                writer.write(b"GET /v1/kv/%d%b HTTP/1.1\r\nHost: x\r\n\r\n" % (n, b"k" * 2000))
                await read_answer(reader)
    assert 0 < answers.size <= MIB
    assert sum(len(key) for key in answers.answers) <= MIB
    await door.put("/v1/kv/x", b"1")
    assert len(door.agent.store.watches) <= len(answers.answers) + 10


async def test_half_requests_hold_little_and_are_counted() -> None:
    async with open_agent("-hcl=limits { http_max_conns_per_client = 50 }") as door:
        await ready(door)
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            clients = [await asyncio.open_connection("127.0.0.1", door.port) for _ in range(60)]
            for _, writer in clients:
                writer.write(b"PUT /v1/kv/z HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 60_000)
            await eventually(lambda: door.http.refused == 10, "ten of sixty are refused")
            await eventually(lambda: door.http.open_connections == 50, "fifty are open")
            grown = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
        assert grown < 50 * 256 * 1024
        for _, writer in clients:
            writer.close()
        await eventually(lambda: door.http.open_connections == 0, "no connection is left")
        assert (await door.get("/v1/status/leader"))[0] == 200


async def test_a_write_costs_the_same_however_many_prefixes_are_watched() -> None:
    class Watcher(Dependent):
        def __init__(self) -> None:
            self.seen = ()

        def changed(self) -> None:
            raise AssertionError("nobody watches this key")

    rng = Random(1)
    watches = Watches()
    for n in range(10_000):
        watches.add(Watcher(), (("kv/", f"{n}/" + "p" * rng.randrange(40)),))
    assert watches.fire([("kv", "other/key/" + "x" * 500)]) == 0
    assert len(watches._prefix_lengths) < 60, "a key is looked up once for each length of the prefixes"


async def test_clients_that_vanish_leave_no_waiting_query(door: Door) -> None:
    rng = Random(2)
    for _ in range(3):
        clients = []
        for n in range(40):
            reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
            clients.append(writer)
            head = b"GET /v1/kv/v%d?index=%d&wait=5m HTTP/1.1\r\nHost: x\r\n" % (n % 7, rng.randrange(2, 9) * 10**6)
            # With a body's length the request goes aiohttp's way, and waits in a task.
            writer.write(head + (b"Content-Length: 0\r\n\r\n" if n % 2 else b"\r\n"))
        await eventually(lambda: door.http.api.waiting != {}, "queries wait")
        for writer in clients:
            writer.transport.abort()
        await eventually(lambda: door.http.open_connections == 0, "no connection is left")
    assert door.http.api.waiting == {}
    watches = door.agent.store.watches
    await eventually(lambda: not any(topic[0] == "kv" for topic in watches.topics()), "no key is watched any more")


@pytest.mark.parametrize(("path", "limit"), [("/v1/kv/a", 524288), ("/v1/txn", 524288), ("/v1/config", 2 * MIB)])
async def test_a_body_over_its_limit_is_not_gathered(door: Door, path: str, limit: int) -> None:
    """Two hundred connections that each send tens of megabytes would fill the memory of an agent."""
    head = b"PUT %b HTTP/1.1\r\nHost: x\r\n" % path.encode()
    async with door.socket() as (reader, writer):
        writer.write(head + b"Content-Length: %d\r\n\r\n" % (limit + 1))  # and not one byte of it
        answer, body = await read_answer(reader)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert body.startswith(b"Request body(%d bytes) too large, max size: %d bytes." % (limit + 1, limit))
    async with door.socket() as (reader, writer):
        writer.write(head + b"Transfer-Encoding: chunked\r\n\r\n")
        for _ in range(limit // 65536 + 2):
            writer.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")
        answer, body = await read_answer(reader)
    assert answer.startswith(b"HTTP/1.1 413 ")
