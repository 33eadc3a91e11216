"""The consistency modes at the doors of three servers: replicas with disks and a network between them. Each door
answers from its own server's store.
"""

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from lictor.agent.agent import Agent
from lictor.agent.config import load, parse_flags
from lictor.http.door import http_settings, open_door
from lictor.raft.consensus import ServerRecord
from lictor.raft.replica import Replica
from lictor.raft.settings import RaftSettings, World
from lictor.rpc.network import Network
from lictor.server.server import StoreMachine
from tests.http.conftest import Door, eventually
from tests.patience import PATIENCE

QUICK = RaftSettings(election_timeout=1.0)
HOLD = 60.0  # seconds that a read or write waits for a leader: longer than the machine may stall


async def _work(function: Any, /, *args: Any) -> Any:
    return await asyncio.to_thread(function, *args)


def _fatal(error: BaseException) -> None:
    raise AssertionError("a server wanted to end its process") from error


class Host:
    """One server and its door."""

    def __init__(self, name: str, folder: Path, client: aiohttp.ClientSession) -> None:
        flags = ["-dev", f"-node={name}", "-bind=127.0.0.1", f'-hcl=performance {{ rpc_hold_timeout = "{HOLD:g}s" }}']
        flags += ["-serf-lan-port=-1", "-serf-wan-port=-1"]
        config, _ = load(parse_flags(flags), [], [], "host")
        self.agent = Agent(config)
        assert self.agent.server is not None
        self.server = self.agent.server
        self.network = Network(random.Random(name))
        self.address = ""
        self.replica = Replica(
            StoreMachine(self.agent.store),
            self.record,
            folder,
            self.network,
            QUICK,
            World(log_work=_work, snapshot_work=_work, fatal=_fatal),
        )
        self.server.consensus = self.replica
        self._client = client
        self.door: Door
        self.up = True

    def record(self) -> ServerRecord:
        """This server as the others know it."""
        record = ServerRecord(self.agent.node_id, self.agent.node_name, self.address)
        return msgspec.structs.replace(record, number=self.replica.number)

    async def start(self) -> None:
        """Load what is on disk, and open the doors."""
        self.address = f"127.0.0.1:{await self.network.listen('127.0.0.1', 0)}"
        await self.server.start()
        http = open_door(self.agent, http_settings(self.agent.config))
        self.door = Door(self.agent, http, await http.listen("127.0.0.1", 0), self._client)

    async def stop_serving(self) -> None:
        """End the server; its door is left to the client's complaints."""
        if self.up:
            self.up = False
            await self.server.close()
            await self.network.close()

    async def stop(self) -> None:
        """End it all."""
        await self.stop_serving()
        await self.door.http.close()
        await self.agent.close()


class Trio:
    """Three servers."""

    def __init__(self, hosts: list[Host]) -> None:
        self.hosts = hosts

    async def leader(self) -> Host:
        """Who leads, once somebody does."""
        await self.led()
        return next(host for host in self.hosts if host.up and host.replica.is_leader)

    @property
    def followers(self) -> list[Host]:
        """Who follows."""
        return [host for host in self.hosts if host.up and not host.replica.is_leader]

    async def led(self) -> None:
        """Return once somebody leads, and all know it."""
        up = [host for host in self.hosts if host.up]
        await eventually(
            lambda: any(h.replica.is_leader for h in up) and all(h.replica.leader for h in up), "somebody leads"
        )

    async def lose_quorum(self, left: Host) -> None:
        """Only one server is left, and it does not wait for long."""
        left.server.hold = 1.0
        for host in self.hosts:
            if host is not left:
                await host.stop_serving()
        await eventually(lambda: not left.replica.leader, "the one that is left knows of no leader")


@pytest.fixture
async def trio(tmp_path: Path) -> AsyncIterator[Trio]:
    async with aiohttp.ClientSession(auto_decompress=False) as client, contextlib.AsyncExitStack() as stack:
        hosts = []
        for name in ("n1", "n2", "n3"):
            host = Host(name, tmp_path / name, client)
            await host.start()
            stack.push_async_callback(host.stop)
            hosts.append(host)
        records = [host.record() for host in hosts]
        await asyncio.gather(*(host.replica.form(records) for host in hosts))
        trio = Trio(hosts)
        await trio.led()
        yield trio


MODES = ["", "&consistent"]


@pytest.mark.parametrize("mode", MODES, ids=["default", "consistent"])
async def test_every_server_sees_what_any_of_them_acknowledged(trio: Trio, mode: str) -> None:
    for number in range(60):
        writer, *readers = random.sample(trio.hosts, 3)
        assert await writer.door.put("/v1/kv/a", str(number)) == (200, b"true")
        for host in (writer, *readers):
            status, headers, value = await host.door.get(f"/v1/kv/a?raw{mode}")
            assert (status, value) == (200, str(number).encode())
            assert (headers["x-consul-knownleader"], headers["x-consul-lastcontact"]) == ("true", "0")


async def test_reads_beside_writes_never_miss_one_that_was_acknowledged_before_they_began(trio: Trio) -> None:
    acknowledged = 0
    seen = 0

    async def write() -> None:
        nonlocal acknowledged
        for number in range(1, 120):
            await random.choice(trio.hosts).door.put("/v1/kv/a", str(number))
            acknowledged = number

    async def read(host: Host, mode: str) -> None:
        nonlocal seen
        while not writing.done():
            before = acknowledged
            _, _, value = await host.door.get(f"/v1/kv/a?raw{mode}")
            assert int(value or 0) >= before
            seen += 1

    writing = asyncio.create_task(write())
    await asyncio.gather(writing, *(read(host, mode) for host in trio.hosts for mode in MODES for _ in range(2)))
    assert seen > 20
    hits = [host.door.http.api.hits for host in trio.followers]
    assert all(hits), "followers answer from memory what is confirmed"


async def test_who_writes_through_a_server_reads_it_there_even_stale(trio: Trio) -> None:
    for number in range(30):
        for host in trio.hosts:
            await host.door.put("/v1/kv/a", f"{host.address}/{number}")
            _, headers, value = await host.door.get("/v1/kv/a?raw&stale")
            assert value == f"{host.address}/{number}".encode()
            assert headers["x-consul-effective-consistency"] == "stale"


async def test_indexes_are_the_same_everywhere_and_wake_queries_on_any_server(trio: Trio) -> None:
    door = (await trio.leader()).door
    await door.put("/v1/kv/a", b"one")
    found = [(await host.door.get("/v1/kv/a?raw"))[1]["x-consul-index"] for host in trio.hosts]
    assert len(set(found)) == 1
    waiting = [
        asyncio.create_task(host.door.get(f"/v1/kv/a?raw&index={found[0]}&wait=60s{mode}"))
        for host in trio.hosts
        for mode in ("", "&stale", "&consistent")
    ]
    await eventually(
        lambda: all(sum(len(g) for g, _ in h.door.http.api.waiting.values()) == 3 for h in trio.hosts), "all nine wait"
    )
    await trio.followers[0].door.put("/v1/kv/a", b"two")
    async with asyncio.timeout(PATIENCE):
        answers = await asyncio.gather(*waiting)
    assert {value for _, _, value in answers} == {b"two"}
    (after,) = {headers["x-consul-index"] for _, headers, _ in answers}
    assert int(after) > int(found[0])


@pytest.mark.parametrize("led", [False, True], ids=["a follower is left", "the leader is left"])
async def test_without_a_leader_only_stale_reads_are_answered(trio: Trio, led: bool) -> None:
    await (await trio.leader()).door.put("/v1/kv/a", b"one")
    await asyncio.gather(*(host.door.get("/v1/kv/a") for host in trio.hosts))
    leader = await trio.leader()
    left = leader if led else trio.followers[0]
    await trio.lose_quorum(left)
    door = left.door
    _, headers, value = await door.get("/v1/kv/a?raw&stale")
    assert value == b"one"
    assert headers["x-consul-knownleader"] == "false"
    first = int(headers["x-consul-lastcontact"])
    calls = [
        ("GET", "/v1/kv/a", None),
        ("GET", "/v1/kv/a?consistent", None),
        ("GET", "/v1/kv/a?index=1", None),
        ("GET", "/v1/health/service/web?max_stale=1ms", None),
        ("GET", "/v1/operator/raft/configuration", None),
        ("GET", "/v1/snapshot", None),
        ("PUT", "/v1/kv/a", b"two"),
        ("PUT", "/v1/session/create", b"{}"),
        ("PUT", "/v1/txn", json.dumps([{"KV": {"Verb": "get", "Key": "a"}}]).encode()),
    ]
    async with asyncio.timeout(PATIENCE):
        answers = await asyncio.gather(*(door.call(method, path, data=body) for method, path, body in calls))
    assert [(status, body) for status, _, body in answers] == [(500, b"No cluster leader")] * len(calls)
    _, headers, _ = await door.get("/v1/kv/a?raw&stale")
    assert int(headers["x-consul-lastcontact"]) > first
    assert await door.json("/v1/status/leader") == ""
    assert sorted(await door.json("/v1/status/peers")) == sorted(host.address for host in trio.hosts)
    assert len((await door.json("/v1/operator/raft/configuration?stale"))["Servers"]) == 3


async def test_after_a_change_of_leader_reads_go_on(trio: Trio) -> None:
    await (await trio.leader()).door.put("/v1/kv/a", b"one")
    former = await trio.leader()
    await former.stop_serving()
    await trio.led()
    for number, host in enumerate(trio.hosts * 2):
        if host.up:
            assert await host.door.put("/v1/kv/a", str(number)) == (200, b"true")
            for other in trio.hosts:
                if other.up:
                    assert (await other.door.get("/v1/kv/a?raw"))[2] == str(number).encode()
