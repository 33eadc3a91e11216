"""What fuzzing and attacks have found, one case each, so that it stays mended."""

import asyncio
import gzip
import json
import time
from pathlib import Path
from typing import Any

import pytest

from lictor.agent.config import debug_config, load, parse_flags
from lictor.agent.config.loading import SourceFile
from lictor.agent.persistence import ASIDE, write_file
from lictor.dns.door import dns_settings
from lictor.dns.settings import MAX_TTL
from lictor.http.reply import header_bytes
from lictor.model.command import KVWrite
from lictor.model.decoding import Reader
from lictor.model.errors import InvalidRequest, LictorError
from lictor.model.json_text import JsonError, decode_json
from lictor.model.service import ConnectProxyConfig
from lictor.model.service_definition import ApiDialect, decode_check
from lictor.store import commands
from lictor.store.store import Store
from tests.http.conftest import Door, open_agent, read_answer
from tests.patience import PATIENCE
from tests.server.alone import on_disk

HUGE = 10**400


async def test_an_index_of_thousands_of_digits_is_an_invalid_index(door: Door) -> None:
    status, _, body = await door.get("/v1/kv/a?index=" + "9" * 5000)
    assert (status, body) == (400, b"Invalid index")


@pytest.mark.parametrize("delay", [HUGE, -HUGE])
async def test_a_lock_delay_of_hundreds_of_digits_is_held_within_bounds(door: Door, delay: int) -> None:
    body = b'{"LockDelay": %b, "NodeChecks": []}' % str(delay).encode()
    status, answer = await door.put("/v1/session/create", body)
    assert status == 200, answer
    (session,) = await door.json(f"/v1/session/info/{json.loads(answer)['ID']}")
    assert 0 <= session["LockDelay"] <= 10**18


async def test_a_name_cannot_end_the_header_it_is_told_in(door: Door) -> None:
    for path in ("/v1/agent/health/service/id/", "/v1/agent/health/service/name/"):
        _, headers, _ = await door.get(path + "x%0d%0aX-Evil:%20yes%0d%0a%0d%0abody")
        assert "x-evil" not in headers, path


def test_control_characters_in_header_values_become_spaces() -> None:
    assert header_bytes((("A", "b\r\nC: d\x00\x7f"),)) == b"A: b  C: d  \r\n"


@pytest.mark.parametrize("body", [{"Interval": HUGE}, {"Interval": -HUGE}, {"OutputMaxSize": HUGE}, {"TTL": 1e300}])
def test_a_number_too_large_for_its_field_is_a_mistake(body: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="Request decode failed"):
        decode_check(body)


def test_a_number_of_more_than_64_bits_in_free_form_is_a_float_as_in_go() -> None:
    """One that could not be written into the log would fail every command that shares its entry."""
    reader = Reader(ApiDialect())
    tree = reader.read_record(ConnectProxyConfig, {"Config": {"a": 10**30, "b": [2**64 - 1]}}, ())
    assert tree["config"] == {"a": 1e30, "b": [2**64 - 1]}
    assert not reader.mistakes
    reader.read_record(ConnectProxyConfig, {"Config": {"a": HUGE}}, ())
    assert reader.mistakes


def test_json_that_is_nested_too_deeply_is_refused_in_gos_words() -> None:
    for depth in (3_000, 20_000):
        with pytest.raises(JsonError, match="exceeded max depth"):
            decode_json(b"[" * depth + b"]" * depth)


async def test_a_compressed_body_is_stored_as_it_came(door: Door) -> None:
    """Consul does not unpack bodies; and a megabyte of them can unpack to a gigabyte."""
    for packed in (gzip.compress(b"x" * 1000), b"this is not gzip"):
        status, _, body = await door.call("PUT", "/v1/kv/z", data=packed, headers={"Content-Encoding": "gzip"})
        assert (status, body) == (200, b"true")
        assert (await door.get("/v1/kv/z?raw"))[2] == packed


async def test_what_is_no_http_is_refused_without_a_word_of_it(door: Door, caplog: pytest.LogCaptureFixture) -> None:
    """What a client sent may be its token: it belongs neither into the log nor into the answer."""
    for request in (
        b"GET /v1/kv/a?token=s3cret\xe4 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /v1/kv/a HTTP/1.1\r\nHost: x\r\nX-Consul-Token: s3cret\x00\r\n\r\n",
        b"GET /v1/kv/a?token=s3cret HTTP/1.1\nHost: x\n\n",
        b"PUT /v1/kv/a?token=s3cret HTTP/1.1\r\nHost: x\r\nContent-Length: s3cret\r\n\r\n",
    ):
        async with door.socket() as (reader, writer):
            writer.write(request)
            head, body = await read_answer(reader)
            assert head.startswith(b"HTTP/1.1 400 ")
            assert b"aiohttp" not in head
            assert b"s3cret" not in body
    assert "s3cret" not in caplog.text
    assert "Traceback" not in caplog.text


async def test_a_client_that_takes_no_answers_is_read_no_further(door: Door) -> None:
    """Answers that nobody takes must not pile up: also after a request has gone aiohttp's way."""
    value = b"x" * 400_000
    await door.put("/v1/kv/big", value)
    request = b"GET /v1/kv/big?raw HTTP/1.1\r\nHost: x\r\n\r\n"
    async with door.socket() as (reader, writer):
        writer.write(b"PUT /v1/kv/s HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx")
        await read_answer(reader)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        transport = list(door.http._connections)[-1]._transport
        assert transport is not None
        most = 0
        for _ in range(150):
            writer.write(request)
            for _ in range(5):
                await asyncio.sleep(0)
            await asyncio.sleep(0.002)
            most = max(most, transport.get_write_buffer_size())
        assert most < 5 * len(value), f"{most} bytes wait for a client that does not read"
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        for _ in range(150):
            assert (await read_answer(reader))[1] == value


async def test_a_long_request_behind_a_blocking_query_waits_for_it(door: Door) -> None:
    await door.put("/v1/kv/a", b"1")
    value = b"y" * 100_000
    async with door.socket() as (reader, writer):
        writer.write(b"GET /v1/kv/a?index=99999&wait=200ms HTTP/1.1\r\nHost: x\r\n\r\n")
        await writer.drain()
        await asyncio.sleep(0.02)
        writer.write(b"PUT /v1/kv/b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(value) + value)
        writer.write(b"GET /v1/kv/b?raw HTTP/1.1\r\nHost: x\r\n\r\n")
        assert json.loads((await read_answer(reader))[1])[0]["Value"] == "MQ=="
        assert (await read_answer(reader))[1] == b"true"
        assert (await read_answer(reader))[1] == value


async def test_a_ttl_that_no_record_can_say_is_the_nearest_that_it_can() -> None:
    odd = 'service_ttl { neg = "-5s" big = "2000000h" } node_ttl = "2000000h" soa { min_ttl = 4294967295 }'
    async with open_agent(f"-hcl=dns_config {{ {odd} }}") as door:
        settings = dns_settings(door.agent)
    assert settings.service_ttl == {"neg": 0, "big": MAX_TTL}
    assert (settings.node_ttl, settings.soa.min_ttl) == (MAX_TTL, MAX_TTL)


def test_the_effective_configuration_shows_no_credentials() -> None:
    text = """
        services = [{ name = "web", token = "PLANT1", check {
            http = "http://x", interval = "10s", header { Authorization = ["PLANT2"] } } }]
        watches = [{ type = "key", key = "a", token = "PLANT3", handler_type = "http",
                     http_handler_config { path = "http://x", header { Authorization = ["PLANT4"] } } }]
        ui_config { metrics_proxy { base_url = "http://x", add_headers = [{ name = "A", value = "PLANT5" }] } }
        config_entries { bootstrap = [{ Kind = "inline-certificate", Name = "c", PrivateKey = "PLANT6" }] }
        http_config { response_headers { "X-Own" = "shown" } }
    """
    config, _ = load(parse_flags(["-dev"]), [SourceFile("f", text, "hcl")], [], "host")
    shown = json.dumps(debug_config(config), default=str)
    assert "PLANT" not in shown
    assert "shown" in shown


def test_a_link_in_the_data_folder_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / ("state" + ASIDE)).symlink_to(victim)
    write_file(tmp_path / "state", b"new")
    assert victim.read_text() == "precious"
    assert (tmp_path / "state").read_bytes() == b"new"
    assert not (tmp_path / "state").is_symlink()
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o600


def test_a_long_text_that_is_no_json_is_refused_at_once() -> None:
    begun = time.process_time()
    for text in (b"[" + b'{"a":1},' * 500_000 + b"{}}", b"[" * 4_000_000, b'{"a":' * 800_000):
        with pytest.raises(JsonError):
            decode_json(text)
    assert time.process_time() - begun < 3


async def test_a_fault_in_one_command_ends_neither_writing_nor_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The entry is in the log when it is applied: a fault that got out would be met again at every start."""
    carry_out = commands._HANDLERS[KVWrite]

    def faulty(store: Store, command: KVWrite) -> Any:
        done = carry_out(store, command)
        if command.key == "bad":
            raise TypeError("a mistake of the program")
        return done

    monkeypatch.setitem(commands._HANDLERS, KVWrite, faulty)

    first = await on_disk(Store(), tmp_path)
    async with asyncio.timeout(PATIENCE):
        writes = (first.apply(KVWrite("set", key, b"1")) for key in ("a", "bad", "b"))
        results = await asyncio.gather(*writes, return_exceptions=True)
        assert await first.apply(KVWrite("set", "c", b"1"))
    await first.close()
    assert results[0] is True and results[2] is True
    assert isinstance(results[1], LictorError) and "TypeError" not in str(results[1])
    assert "a mistake of the program" in caplog.text
    second = await on_disk(Store(), tmp_path)
    await second.confirm(quorum=True)
    for store in (first.store, second.store):
        assert [row.key for row in store.kv.under("")] == ["a", "b", "c"]
    await second.close()
