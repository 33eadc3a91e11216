"""Requests sent together, cut anywhere into packets, get the answers that each gets alone, in their order.

Three ways answer requests (`lictor.http.connection`), and bytes pass from one to the other: where a cut falls decides
which one it is. It must decide nothing else.
"""

import asyncio
import contextlib
import os
import re
import time
from random import Random

import pytest

from tests.http.conftest import Door, open_agent, read_answer
from tests.patience import PATIENCE

SECONDS = float(os.environ.get("LICTOR_FUZZ_SECONDS", "1"))
SEED = int(os.environ.get("LICTOR_FUZZ_SEED", "1"))

# What differs from one time to the next: indexes have more digits as time goes on.
_PASSING = re.compile(rb"\r\n(?:Date|Content-Length|X-Consul-Index|X-Consul-Lastcontact): [^\r]*")
_INDEXES = re.compile(rb'"(?:LockIndex|CreateIndex|ModifyIndex)":\d+|"Index":\d+')


def plain(head: bytes, body: bytes) -> tuple[bytes, bytes]:
    """An answer without what passes."""
    return _PASSING.sub(b"", head), _INDEXES.sub(b"", body)


def put(key: str, value: bytes, rng: Random) -> bytes:
    """A write, with its length or in chunks."""
    head = f"PUT /v1/kv/{key} HTTP/1.1\r\nHost: x\r\n".encode()
    if rng.random() < 0.6:
        return head + b"Content-Length: %d\r\n\r\n" % len(value) + value
    chunks = b""
    at = 0
    while at < len(value):
        size = rng.randrange(1, len(value) + 1)
        piece = value[at : at + size]
        chunks += b"%x%b\r\n%b\r\n" % (len(piece), rng.choice((b"", b";a=b", b';q="x"')), piece)
        at += size
    return head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"


def some_request(rng: Random) -> bytes:
    """One request of any of the ways."""
    key = rng.choice("abc")
    kind = rng.randrange(11)
    if kind < 3:
        return f"GET /v1/kv/{key} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    if kind == 3:
        return f"GET /v1/kv/{key}?raw HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\n\r\n".encode()
    if kind == 4:
        return f"GET /v1/kv/{key}?index=99999999&wait=1ms HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    if kind == 5:
        return f"GET /v1/kv/{key} HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nxyz".encode()
    if kind == 6:
        # A body that is requests, and one that is longer than what is held back.
        trap = b"GET /v1/kv/a HTTP/1.1\r\nHost: x\r\n\r\n"
        return put(key, rng.choice((trap, trap + trap, b"z" * 20_000, b"0\r\n\r\n" + trap)), rng)
    if kind == 7:
        return f"DELETE /v1/kv/{key} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    if kind == 8:
        line = rng.choice(("HEAD /v1/kv/a", "OPTIONS /v1/kv/a", "POST /v1/kv/a", "GET /v1/none", "GET /v1//kv/a"))
        return f"{line} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    if kind == 9:
        return f"GET /v1/kv/{key}?index=x HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    return put(key, rng.choice((b"1", b"two", b"")), rng)


async def answers(door: Door, pieces: list[bytes], requests: list[bytes]) -> list[tuple[bytes, bytes]]:
    """The answers to `requests`, sent as `pieces` on one connection."""

    async def send(writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            # A turn or two, so that the pieces arrive as such.
            await asyncio.sleep(0)
            await asyncio.sleep(0.0005)

    found = []
    async with door.socket() as (reader, writer), asyncio.timeout(PATIENCE):
        sending = asyncio.create_task(send(writer))
        for request in requests:
            if request.startswith(b"HEAD"):
                found.append(plain(await reader.readuntil(b"\r\n\r\n"), b""))
            else:
                found.append(plain(*await read_answer(reader)))
        await sending
        # Nothing is left over: the next answer is to the next request.
        writer.write(b"GET /v1/status/peers HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await read_answer(reader))[1].startswith(b'["')
    return found


async def test_pipelines_cut_anywhere_are_answered_as_one_by_one() -> None:
    rng = Random(SEED)
    async with open_agent() as door:
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            requests = [some_request(rng) for _ in range(rng.randrange(1, 10))]
            await door.call("DELETE", "/v1/kv/?recurse")
            alone = [(await answers(door, [request], [request]))[0] for request in requests]
            stream = b"".join(requests)
            cuts = sorted(rng.randrange(len(stream) + 1) for _ in range(rng.choice((0, 1, 3, 8))))
            pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True) if a < b]
            await door.call("DELETE", "/v1/kv/?recurse")
            together = await answers(door, pieces, requests)
            assert together == alone, f"sent as {pieces!r}"


@pytest.mark.parametrize(
    "start",
    [
        b"PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        b"PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n12",
        b"PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nContent-Length: 1, 1\r\n\r\n1",
        b"PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nContent-Length: +1\r\n\r\n1",
        b"PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nContent-Length : 1\r\n\r\n1",
        b"PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nContent-Length: 0x1\r\n\r\n1",
        b"PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        b"PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        b"PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
        b"PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n",
        b"PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\na\n0\n\n",
        b"PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFF1\r\na\r\n0\r\n\r\n",
        b"PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nX: a\r\n Content-Length: 1\r\n\r\n1",
        b"GET /v1/kv/a HTTP/1.1\r\nHost: x\r\nX: a\nContent-Length: 30\r\n\r\n",
        b"GET /v1/kv/a HTTP/1.1\nHost: x\n\n",
        b"GET /v1/kv/a HTTP/1.1\r\nHost: x\r\nX: a\x00b\r\n\r\n",
        b"GET /v1/kv/a HTTP/1.1\r\nHost: x\r\nX: a\rb\r\n\r\n",
        b"GET /v1/kv/a HTTP/1.1\r\n\r\n",
        b"GET /v1/kv/a HTTP/9.9\r\nHost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
async def test_what_two_programs_may_read_differently_is_refused(door: Door, start: bytes) -> None:
    """Nothing that follows such a request is read as a request: that is what smuggling lives on."""
    smuggled = b"PUT /v1/kv/smuggled HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n1"
    for cut in (len(start), len(start) - 1):
        async with door.socket() as (reader, writer), asyncio.timeout(PATIENCE):
            stream = start + smuggled
            writer.write(stream[:cut])
            await asyncio.sleep(0.002)
            writer.write(stream[cut:])
            answer = b""
            # The connection is closed with bytes unread, which may reset it before the answer is taken.
            with contextlib.suppress(ConnectionError):
                while piece := await reader.read(4096):
                    answer += piece
        assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")
        assert answer.count(b"HTTP/1.1 ") <= 1
    assert (await door.get("/v1/kv/smuggled"))[0] == 404
