"""Every endpoint, given spoiled bodies, parameters and names: it answers, says nothing of Python, and stays whole.

`LICTOR_FUZZ_SECONDS` and `LICTOR_FUZZ_SEED` make a longer run, or another one, of the same.
"""

import asyncio
import json
import logging
import os
import time
from collections.abc import AsyncIterator
from random import Random
from urllib.parse import quote

import pytest

from lictor.http.door import FAMILIES
from lictor.http.routes import Endpoint
from tests.fuzz import nasty
from tests.fuzz.endpoints import BODIES, FILTERS, LEFT_OUT, PARAMETERS
from tests.http.conftest import Door, open_agent
from tests.patience import PATIENCE

SECONDS = float(os.environ.get("LICTOR_FUZZ_SECONDS", "1.5"))
SEED = int(os.environ.get("LICTOR_FUZZ_SEED", "1"))

ENDPOINTS = [e for family in FAMILIES for e in family.endpoints if e.pattern not in LEFT_OUT]
# Of these, what is there is read after everything else was spoiled: one value that cannot be told would spoil them all.
WHOLE = (
    "/v1/catalog/nodes",
    "/v1/catalog/services",
    "/v1/agent/services",
    "/v1/agent/checks",
    "/v1/agent/self",
    "/v1/health/state/any",
    "/v1/health/service/web",
    "/v1/kv/?recurse",
    "/v1/session/list",
    "/v1/query",
    "/v1/coordinate/nodes",
    "/v1/internal/ui/services",
    "/v1/internal/ui/nodes",
    "/v1/internal/ui/catalog-overview",
    "/v1/operator/autopilot/configuration",
    "/v1/event/list",
    "/v1/agent/metrics",
    "/v1/config/service-defaults",
    "/v1/config/service-router",
    "/v1/config/service-resolver",
    "/v1/config/service-intentions",
    "/v1/config/proxy-defaults",
    "/v1/connect/intentions",
    "/v1/connect/intentions/match?by=destination&name=web&name=db",
    "/v1/connect/intentions/match?by=source&name=web",
    "/v1/agent/connect/connections",
    "/v1/connect/ca/roots",
    "/v1/agent/connect/ca/roots",
    "/v1/agent/connect/ca/leaf/web",
    "/v1/connect/ca/configuration",
    "/v1/connect/ca/revoked",
)
# Words of Python's own errors, which no answer may hold.
PYTHON = (
    b"Traceback",
    b"got itself in trouble",
    b"NoneType",
    b"object has no",
    b"not supported between",
    b"unhashable",
    b"codec can't",
    b"surrogates",
    b"recursion",
    b"out of range for",
    b"unexpected keyword",
    b"positional argument",
    b"not subscriptable",
    b"not iterable",
    b"invalid literal",
    b"can't be encoded",
    b"cannot convert",
    b"maximum",
    b"internal error",
)


class Faults(logging.Handler):
    """Gathers what the program logs of its own mistakes."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info is not None or record.levelno >= logging.ERROR:
            formatted = logging.Formatter().format(record)
            self.found.append(formatted)


@pytest.fixture
async def faults() -> AsyncIterator[Faults]:
    """The mistakes that are logged while a test runs."""
    handler = Faults()
    logging.getLogger().addHandler(handler)
    yield handler
    logging.getLogger().removeHandler(handler)


def request_bytes(endpoint: Endpoint, rng: Random) -> bytes:
    """One request, spoiled somewhere."""
    segments = []
    for segment in endpoint.pattern.split("/"):
        if segment[:1] in (":", "*"):
            name = rng.choice(("web", "web1", "n1", "q", "q-web", "t1", "a/b", "any", "service-defaults"))
            if rng.random() < 0.5:
                name = rng.choice(nasty.TEXTS)[:3000]
            segment = quote(name, safe="" if rng.random() < 0.7 else "/")
            if rng.random() < 0.1:
                segment += rng.choice(("%ff", "%00", "%c0%ae", "%ed%a0%80", "%0d%0aX:1", "%25"))
        segments.append(segment)
    target = "/".join(segments)
    parameters = []
    for _ in range(rng.choice((0, 0, 1, 1, 2, 4))):
        name = rng.choice(PARAMETERS)
        value = rng.choice(nasty.TEXTS)[:2000]
        if name == "filter":
            value = rng.choice(FILTERS) if rng.random() < 0.7 else value
            if rng.random() < 0.5:
                at = rng.randrange(len(value) + 1)
                value = value[:at] + rng.choice(nasty.TEXTS)[:50] + value[at + 1 :]
        elif name in ("index", "hash", "wait"):
            parameters.append("wait=1ms")
            value = rng.choice(("0", "1", "5", "9" * 20, "9" * 5000, value))
            name = "index" if name == "wait" else name
        parameters.append(f"{name}={quote(value)}" if rng.random() < 0.9 else name)
    if parameters:
        target += "?" + "&".join(parameters)
    good = BODIES.get((endpoint.method, endpoint.pattern))
    body = nasty.body(rng.choice(good), rng) if good is not None else b""
    if good is None and rng.random() < 0.05:
        body = rng.choice(nasty.RAW)
    head = f"{endpoint.method} {target} HTTP/1.1\r\nHost: x\r\n"
    if body or endpoint.method != "GET":
        head += f"Content-Length: {len(body)}\r\n"
    if rng.random() < 0.1:
        head += f"{rng.choice(('X-Consul-Token', 'Accept-Encoding', 'Cache-Control'))}: {rng.choice(FIELDS)}\r\n"
    return head.encode() + b"\r\n" + body


FIELDS = ("gzip", "max-age=x", "\xe4\xff", "stale-if-error=99999999999999999999", "x" * 3000, "no-cache,max-age=")


async def ask(door: Door, request: bytes) -> tuple[int, bytes]:
    """Status and body of the answer on a connection of its own."""
    async with door.socket() as (reader, writer), asyncio.timeout(PATIENCE):
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        status = int(head.split(b" ", 2)[1])
        length = 0
        for line in head.split(b"\r\n")[1:]:
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
            elif line.lower().startswith(b"transfer-encoding"):
                return status, b""
        assert b"\r\nX-Evil" not in head and b"\r\nX:1" not in head, f"a header was injected by {request[:300]!r}"
        return status, await reader.readexactly(length)


def shown(request: bytes) -> str:
    """A request as a failure names it."""
    return repr(request if len(request) < 3000 else request[:1500] + b" ... " + request[-500:])


async def test_spoiled_requests_are_answered_and_spoil_nothing(faults: Faults) -> None:
    rng = Random(SEED)
    async with open_agent() as door:
        end = time.monotonic() + SECONDS
        count = 0
        while time.monotonic() < end:
            request = request_bytes(rng.choice(ENDPOINTS), rng)
            count += 1
            try:
                status, body = await ask(door, request)
            except (asyncio.IncompleteReadError, ConnectionError, TimeoutError) as error:
                pytest.fail(f"no answer ({error!r}) to {shown(request)}\n{faults.found[-1:]}")
            assert not faults.found, f"{shown(request)}\n{faults.found[-1]}"
            assert not any(word in body for word in PYTHON if status >= 400), f"{body[:300]!r} to {shown(request)}"
            if count % 100 == 0:
                for path in WHOLE:
                    status, body = await ask(door, f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                    assert status in (200, 404), f"{path}: {status} {body[:300]!r} after {shown(request)}"
                    if status == 200:
                        json.loads(body)
        assert count > 50
        assert door.http.api.waiting == {}
