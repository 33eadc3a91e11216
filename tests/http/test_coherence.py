"""An answer that is kept is the answer that would be made afresh, whatever was written in between."""

import asyncio
import random
from typing import Any

import pytest

from tests.http.conftest import Door, read_answer

NODES, SERVICES, KEYS = ("n1", "m1", "m2"), ("web", "db"), ("a", "a/b", "c")
ENTRY = {"Kind": "service-defaults", "Name": "web"}

READS = (
    "/v1/catalog/nodes",
    "/v1/catalog/nodes?near=m1",
    "/v1/catalog/nodes?node-meta=k:v&filter=Address!=x",
    "/v1/catalog/services",
    "/v1/catalog/services?node-meta=k:v",
    "/v1/catalog/node/m1",
    "/v1/catalog/node-services/m1?merge-central-config",
    "/v1/catalog/service/web",
    "/v1/catalog/service/web?tag=t&pretty",
    "/v1/catalog/connect/web?merge-central-config",
    "/v1/catalog/gateway-services/in",
    "/v1/health/service/web",
    "/v1/health/service/web?passing",
    "/v1/health/service/web?near=m1&stale",
    "/v1/health/connect/web?merge-central-config",
    "/v1/health/ingress/web",
    "/v1/health/node/m1",
    "/v1/health/checks/web",
    "/v1/health/state/any",
    "/v1/health/state/critical?node-meta=k:v",
    "/v1/kv/a",
    "/v1/kv/a?raw",
    "/v1/kv/?recurse",
    "/v1/kv/a/?keys&separator=/",
    "/v1/session/list",
    "/v1/session/node/m1",
    "/v1/query",
    "/v1/coordinate/nodes",
    "/v1/coordinate/node/m1",
    "/v1/config/service-defaults",
    "/v1/config/service-defaults/web",
    "/v1/operator/usage",
    "/v1/internal/ui/nodes",
    "/v1/internal/ui/node/m1",
    "/v1/internal/ui/services",
    "/v1/internal/ui/service-topology/web?kind=",
    "/v1/internal/ui/catalog-overview",
    "/v1/internal/ui/gateway-services-nodes/in",
    "/v1/exported-services",
    "/v1/catalog/nodes?index=1",
)


class Writer:
    """Random writes over HTTP."""

    def __init__(self, door: Door, seed: int) -> None:
        self._door = door
        self._random = random.Random(seed)
        self._sessions: list[str] = []

    async def write(self) -> str:
        """One write; returns what it was. It may be refused."""
        kind = self._random.choice(
            (self._register, self._register, self._register, self._deregister, self._kv, self._kv, self._session)
            + (self._txn, self._config, self._query, self._coordinate)
        )
        method, path, body = kind()
        options: dict[str, Any] = {"data": body} if isinstance(body, bytes) else {"json": body}
        status, _, answer = await self._door.call(method, path, **options)
        assert status in (200, 409, 500), f"{method} {path} {body}: {status} {answer!r}"
        if path == "/v1/session/create" and status == 200:
            self._sessions.append(answer.decode().split('"')[3])
        return f"{method} {path} {body}"

    def _one(self, *choices: Any) -> Any:
        return self._random.choice(choices)

    def _node(self) -> dict[str, Any]:
        return {
            "Node": self._one(*NODES[1:]),
            "Address": self._one("10.0.0.1", "10.0.0.2"),
            "NodeMeta": self._one(None, {"k": "v"}),
        }

    def _check(self) -> dict[str, Any]:
        status = self._one("passing", "warning", "critical")
        return {"CheckID": self._one("c1", "c2"), "Name": "c", "Status": status, "ServiceID": self._one("", "s1")}

    def _register(self) -> tuple[str, str, Any]:
        body = self._node()
        kind = self._random.randrange(3)
        if kind == 0:
            body["Service"] = {
                "ID": "s1",
                "Service": self._one(*SERVICES),
                "Port": self._one(1, 2),
                "Tags": self._one([], ["t"]),
            }
        elif kind == 1:
            body["Service"] = {
                "Kind": "connect-proxy",
                "ID": "p1",
                "Service": "web-proxy",
                "Port": 3,
                "Proxy": {"DestinationServiceName": self._one(*SERVICES)},
            }
        if self._one(True, False):
            body["Check"] = self._check()
        return "PUT", "/v1/catalog/register", body

    def _deregister(self) -> tuple[str, str, Any]:
        what = self._one({"ServiceID": "s1"}, {"CheckID": "c1"}, {"ServiceID": "p1"}, {})
        return "PUT", "/v1/catalog/deregister", {"Node": self._one(*NODES[1:])} | what

    def _kv(self) -> tuple[str, str, Any]:
        key, session = self._one(*KEYS), self._one(*self._sessions) if self._sessions else ""
        chosen: tuple[str, str, Any] = self._one(
            ("PUT", f"/v1/kv/{key}", self._one(b"x", b"y", b"")),
            ("PUT", f"/v1/kv/{key}?flags={self._one(1, 2)}", b"x"),
            ("PUT", f"/v1/kv/{key}?acquire={session}", b"z"),
            ("PUT", f"/v1/kv/{key}?release={session}", b"z"),
            ("DELETE", f"/v1/kv/{key}", b""),
            ("DELETE", "/v1/kv/a?recurse", b""),
        )
        return chosen

    def _session(self) -> tuple[str, str, Any]:
        if self._sessions and self._one(True, False):
            return "PUT", f"/v1/session/destroy/{self._sessions.pop()}", b""
        body = {"Node": self._one(*NODES), "Checks": [], "NodeChecks": [], "Behavior": self._one("release", "delete")}
        return "PUT", "/v1/session/create", body

    def _txn(self) -> tuple[str, str, Any]:
        operations = [
            {"KV": {"Verb": self._one("set", "delete", "get"), "Key": self._one(*KEYS), "Value": "eA=="}},
            {"Node": {"Verb": "set", "Node": self._node() | {"NodeMeta": None}}},
        ]
        operations[1]["Node"]["Node"].pop("NodeMeta")
        return "PUT", "/v1/txn", operations[: self._one(1, 2)]

    def _config(self) -> tuple[str, str, Any]:
        if self._one(True, False, False):
            return "DELETE", "/v1/config/service-defaults/web", b""
        gateway = {
            "Kind": "ingress-gateway",
            "Name": "in",
            "Listeners": [{"Port": 80, "Protocol": "http", "Services": [{"Name": "*"}]}],
        }
        return "PUT", "/v1/config", self._one(ENTRY | {"Protocol": self._one("http", "grpc")}, gateway)

    def _query(self) -> tuple[str, str, Any]:
        return "POST", "/v1/query", {"Name": self._one("q1", "q2"), "Service": {"Service": "web"}}

    def _coordinate(self) -> tuple[str, str, Any]:
        coord = {"Vec": [self._one(0, 1, 2), *[0] * 7], "Error": 1, "Adjustment": 0, "Height": 0}
        return "PUT", "/v1/coordinate/update", {"Node": self._one(*NODES), "Coord": coord}


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str) -> tuple[list[bytes], bytes]:
    """The answer to a plain GET: its head without the date, and its body."""
    writer.write(f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
    head, body = await read_answer(reader)
    return [line for line in head.split(b"\r\n") if not line.startswith(b"Date:")], body


@pytest.mark.parametrize("seed", range(3))
async def test_kept_answers_are_the_fresh_ones(door: Door, seed: int) -> None:
    writes = Writer(door, seed)
    fresh = 0
    async with door.socket() as (reader, writer):
        for path in READS * 2:
            await ask(reader, writer, path)
        for _ in range(60):
            last = await writes.write()
            for path in READS:
                # What is asked for a second time is kept from then on, so the second of these is.
                await ask(reader, writer, path)
                kept = await ask(reader, writer, path)
                fresh += 1
                made = await ask(reader, writer, f"{path}{'&' if '?' in path else '?'}fresh={fresh}")
                assert kept == made, f"{path} after {last}"
    assert door.http.api.hits > fresh / 3, "most answers are kept ones"


async def test_what_is_kept_has_a_bound(door: Door) -> None:
    """However many different requests there are, the kept answers stay within their limit in bytes."""
    cache = door.http.api.answers
    cache.limit = 64 * 1024
    await door.put("/v1/kv/big", b"x" * 3000)
    async with door.socket() as (reader, writer):
        for number in range(300):
            for _ in range(2):
                await ask(reader, writer, f"/v1/kv/big?n={number}")
            assert cache.size <= cache.limit
    assert cache.evicted > 200
    assert cache.size == sum(entry.size for entry in cache._entries.values())
    assert len(cache.answers) == len(cache._entries)
    await door.put("/v1/kv/big", b"y")
    assert (cache.size, len(cache.answers)) == (0, 0)
