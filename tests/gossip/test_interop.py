"""One pool with the programs that people run today: the `serf` agent and a Consul agent.

Skipped by name where they are not installed: `serf` is looked for in PATH, Consul where LICTOR_REFERENCE_CONSUL says.
Their ports are on loopback addresses of their own, so that nothing else in the suite meets them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lictor.gossip import codec, key_queries, wire
from lictor.gossip.codec import Record
from lictor.gossip.key_queries import KeyOperation
from lictor.gossip.keyring import Keyring, decode_key, encode_key
from lictor.gossip.messages import Ack, Address, Alive, Dead, IndirectPing, Kind, Nack, Ping, Suspect
from lictor.gossip.pool import Pool, PoolConfig
from lictor.gossip.pool_events import EventReceived, PoolEvent, QueryReceived
from lictor.gossip.roster import Status
from lictor.gossip.serf_messages import (
    JoinIntent,
    LeaveIntent,
    Query,
    QueryResponse,
    SerfKind,
    UserEvent,
    decode_coordinate,
    decode_tags,
    encode_coordinate,
    encode_tags,
)
from lictor.gossip.settings import LOCAL
from tests.gossip.test_pool import status
from tests.patience import Waiting, soon
from tests.ports import free_port

MEMBERSHIP: dict[int, type[Record]] = {
    Kind.PING: Ping,
    Kind.INDIRECT_PING: IndirectPing,
    Kind.ACK: Ack,
    Kind.NACK: Nack,
    Kind.SUSPECT: Suspect,
    Kind.ALIVE: Alive,
    Kind.DEAD: Dead,
}
SERFS_OWN: dict[int, type[Record]] = {
    SerfKind.JOIN: JoinIntent,
    SerfKind.LEAVE: LeaveIntent,
    SerfKind.USER_EVENT: UserEvent,
    SerfKind.QUERY: Query,
    SerfKind.QUERY_RESPONSE: QueryResponse,
}

SERF = os.environ.get("LICTOR_REFERENCE_SERF") or shutil.which("serf")
CONSUL = os.environ.get("LICTOR_REFERENCE_CONSUL")
KEY = "cg8StVXbQJ0gPvMd9o7yrg=="
OURS, SERFS, CONSULS = "127.0.0.61", "127.0.0.62", "127.0.0.63"
# What Consul's agents ask of each other's tags.
CONSUL_TAGS = {
    "role": "node",
    "dc": "dc1",
    "segment": "",
    "id": "5c8a2b38-8c3b-4d1a-9f6e-0d7a5be0c0de",
    "vsn": "2",
    "vsn_min": "2",
    "vsn_max": "3",
    "build": "1.8.7:",
}


class Agent:
    """Another program's agent."""

    def __init__(self, process: asyncio.subprocess.Process, gossip: Address, api: str, log: Path) -> None:
        self.process = process
        self.gossip = gossip
        self.api = api
        self.log = log

    async def serf(self, *arguments: str) -> str:
        """What the `serf` command says when it is run against this agent."""
        verb, *rest = arguments
        assert SERF is not None
        command = [SERF, verb, f"-rpc-addr={self.api}", *rest]
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        out, _ = await process.communicate()
        return out.decode()

    async def serf_sees(self, name: str, state: str, tag: str = "") -> None:
        """Waits until the agent's member list says so."""
        waiting = Waiting()
        while True:
            told = await self.serf("members")
            for line in told.splitlines():
                if line.startswith(name + " ") and f" {state} " in line + " " and tag in line:
                    return
            pause = waiting.pause()
            assert pause is not None, f"serf sees {name} {state}; it says {told}"
            await asyncio.sleep(pause)

    async def get(self, path: str) -> Any:
        """An answer of Consul's HTTP API."""

        def ask() -> Any:
            with urllib.request.urlopen(f"http://{self.api}{path}", timeout=5) as answer:
                return json.load(answer)

        return await asyncio.to_thread(ask)

    async def put(self, path: str, body: bytes = b"") -> None:
        """A request to Consul's HTTP API."""

        def ask() -> None:
            request = urllib.request.Request(f"http://{self.api}{path}", data=body, method="PUT")
            with urllib.request.urlopen(request, timeout=30) as answer:
                answer.read()

        await asyncio.to_thread(ask)

    async def consul_sees(self, name: str, state: Status) -> dict[str, str]:
        """Waits until Consul's member list says so; the member's tags."""
        waiting = Waiting()
        while True:
            with contextlib.suppress(OSError):
                for member in await self.get("/v1/agent/members"):
                    if member["Name"] == name and member["Status"] == state:
                        tags: dict[str, str] = member["Tags"]
                        return tags
            pause = waiting.pause()
            assert pause is not None, f"Consul sees {name} {state.name}"
            await asyncio.sleep(pause)

    async def end(self) -> None:
        """Ends the process, without a leave."""
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()


@contextlib.asynccontextmanager
async def launched(command: list[str], gossip: Address, api: str, folder: Path) -> AsyncIterator[Agent]:
    """A running agent, which is killed at the end."""
    log = folder / f"{gossip.host}.log"
    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            *command, stdout=out, stderr=out, stdin=asyncio.subprocess.DEVNULL
        )
    agent = Agent(process, gossip, api, log)
    try:
        await soon(lambda: listening(gossip), f"{command[0]} listens")
        yield agent
    finally:
        await agent.end()


def listening(address: Address) -> bool:
    """Whether a stream can be opened."""
    with socket.socket() as sock:
        sock.settimeout(0.2)
        return sock.connect_ex((address.host, address.port)) == 0


def serf_agent(folder: Path, *arguments: str) -> contextlib.AbstractAsyncContextManager[Agent]:
    """A `serf` agent with the local profile."""
    if SERF is None:
        pytest.skip("there is no serf in PATH, and LICTOR_REFERENCE_SERF does not say where it is")
    ports = [free_port() for _ in range(2)]
    gossip, api = Address(SERFS, ports[0]), f"{SERFS}:{ports[1]}"
    command = [SERF, "agent", "-node=theirs", f"-bind={gossip}", f"-rpc-addr={api}", "-profile=local"]
    command += ["-tag=color=red", "-log-level=debug", *arguments]
    return launched(command, gossip, api, folder)


def consul_agent(folder: Path, *arguments: str) -> contextlib.AbstractAsyncContextManager[Agent]:
    """A Consul server in development mode, which also makes its gossip quick."""
    if CONSUL is None:
        pytest.skip("LICTOR_REFERENCE_CONSUL does not say where Consul is")
    ports = [free_port() for _ in range(5)]
    gossip, api = Address(CONSULS, ports[0]), f"{CONSULS}:{ports[1]}"
    command = [CONSUL, "agent", "-dev", "-node=theirs", f"-bind={CONSULS}", f"-client={CONSULS}"]
    command += [f"-serf-lan-port={ports[0]}", f"-http-port={ports[1]}", f"-serf-wan-port={ports[2]}"]
    command += [f"-server-port={ports[3]}", f"-dns-port={ports[4]}", "-grpc-port=-1", *arguments]
    return launched(command, gossip, api, folder)


class Ours:
    """This project's pool and what it told."""

    def __init__(self) -> None:
        self.pool: Pool
        self.events: list[PoolEvent] = []

    def heard(self, name: str, payload: bytes) -> bool:
        """Whether a user event arrived."""
        told = [e.event for e in self.events if isinstance(e, EventReceived)]
        return any((e.name, e.payload) == (name, payload) for e in told)

    async def sees(self, name: str, wanted: Status) -> None:
        """Waits until a member is in this state."""
        await soon(lambda: status(self.pool, name) is wanted, f"{name} is {wanted.name}")


@contextlib.asynccontextmanager
async def ours(key: str = "", tags: dict[str, str] | None = None, compressing: bool = False) -> AsyncIterator[Ours]:
    """A pool of this project's."""
    made = Ours()
    config = PoolConfig(name="ours", bind=Address(OURS, 0), tags=tags or {}, swim=LOCAL, compressing=compressing)
    if key:
        config = msgspec.structs.replace(config, keyring=Keyring(decode_key(key)))
    made.pool = await Pool.start(config, made.events.append)
    try:
        yield made
    finally:
        await made.pool.stop()


@pytest.mark.parametrize("key", ["", KEY], ids=["plain", "encrypted"])
async def test_serf_joins_us_and_all_is_seen_both_ways(tmp_path: Path, key: str) -> None:
    encrypt = [f"-encrypt={key}"] if key else []
    async with ours(key, {"color": "blue"}) as we, serf_agent(tmp_path, f"-join={we.pool.address}", *encrypt) as serf:
        await we.sees("theirs", Status.ALIVE)
        assert we.pool.serf.roster.members["theirs"].tags == {"color": "red"}
        await serf.serf_sees("ours", "alive", "color=blue")
        we.pool.do(lambda core, now: core.fire("from-us", b"1", False, now))
        await serf.serf("event", "-coalesce=false", "from-them", "2")
        await soon(lambda: we.heard("from-them", b"2"), "their event arrives")
        await soon(lambda: "from-us" in serf.log.read_text(), "our event arrives")
        await soon(lambda: "theirs" in we.pool.serf.coordinates.known, "their coordinate arrives")
        # They leave, gracefully.
        await serf.serf("leave")
        await we.sees("theirs", Status.LEFT)


@pytest.mark.parametrize("key", ["", KEY], ids=["plain", "encrypted"])
async def test_we_join_serf_and_leave_it(tmp_path: Path, key: str) -> None:
    encrypt = [f"-encrypt={key}"] if key else []
    async with serf_agent(tmp_path, *encrypt) as serf, ours(key, {"color": "blue"}, compressing=True) as we:
        await we.pool.join([serf.gossip])
        await serf.serf_sees("ours", "alive", "color=blue")
        we.pool.do(lambda core, now: core.set_tags({"color": "green"}, now))
        await serf.serf_sees("ours", "alive", "color=green")
        await we.pool.leave()
        await serf.serf_sees("ours", "left")


class Comparing(Pool):
    """A pool that writes again whatever it reads, and keeps what comes out different."""

    same: Counter[str]
    different: dict[str, tuple[bytes, bytes]]

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Compares, then goes on."""
        for message in wire.messages_in(self._sealer.open_packet(data)):
            kind, body = MEMBERSHIP.get(message.kind), message.body
            if message.kind == Kind.USER:
                kind, body = SERFS_OWN.get(body[0]), body[1:]
            if kind is not None:
                self.compare(kind.__name__, body, codec.pack(codec.unpack(kind, body)))
            if kind is Ack and (payload := codec.unpack(Ack, body).payload):
                self.compare("coordinate", payload, encode_coordinate(decode_coordinate(payload)))
            if kind is Alive and (meta := codec.unpack(Alive, body).meta):
                self.compare("tags", meta, encode_tags(decode_tags(meta)))
        super().datagram_received(data, addr)

    def compare(self, what: str, theirs: bytes, ours: bytes) -> None:
        """Counts what is the same."""
        if theirs == ours:
            self.same[what] += 1
        else:
            self.different[what] = (theirs, ours)


async def test_every_message_of_serf_s_is_byte_for_byte_what_we_would_write(tmp_path: Path) -> None:
    async with serf_agent(tmp_path) as serf:
        pools = []
        for name in ("a", "b"):
            config = PoolConfig(name=name, bind=Address(OURS, 0), tags={"color": "blue"}, swim=LOCAL)
            pool = await Comparing.start(config, lambda _: None)
            assert isinstance(pool, Comparing)
            pool.same, pool.different = Counter(), {}
            pools.append(pool)
        try:
            for pool in pools:
                await pool.join([serf.gossip])
            await serf.serf("event", "deploy", "v1")
            await pools[0].query("_serf_list-keys", b"", ask_acks=True, enough=1)
            await pools[1].stop()
            await soon(lambda: status(pools[0], "b") is Status.FAILED, "b has failed")
            await serf.serf("leave")
            await soon(lambda: status(pools[0], "theirs") is Status.LEFT, "serf has left")
        finally:
            for pool in pools:
                await pool.stop()
        assert pools[0].different == {}
        wanted = {"Ping", "Ack", "coordinate", "Alive", "Suspect", "Dead", "JoinIntent", "LeaveIntent", "UserEvent"}
        assert wanted <= set(pools[0].same)


async def test_failures_are_seen_both_ways(tmp_path: Path) -> None:
    async with ours() as we, serf_agent(tmp_path, f"-join={we.pool.address}") as serf:
        await we.sees("theirs", Status.ALIVE)
        await serf.serf_sees("ours", "alive")
        await serf.end()
        await we.sees("theirs", Status.FAILED)
    async with ours() as we, serf_agent(tmp_path, f"-join={we.pool.address}") as serf:
        await serf.serf_sees("ours", "alive")
        await we.pool.stop()
        await serf.serf_sees("ours", "failed")


async def test_queries_are_answered_both_ways(tmp_path: Path) -> None:
    async with ours() as we, serf_agent(tmp_path, "-event-handler=query:how=printf fine") as serf:
        await we.pool.join([serf.gossip])
        await serf.serf_sees("ours", "alive")
        pending = await we.pool.query("how", b"", ask_acks=True, tags={"color": "r.d"}, enough=1, timeout=60.0)
        assert pending.responses == {"theirs": b"fine"}
        assert pending.acks == ["theirs"]

        async def answer() -> None:
            await soon(lambda: any(isinstance(e, QueryReceived) for e in we.events), "their query arrives")
            received = next(e for e in we.events if isinstance(e, QueryReceived) and e.query.name == "load")
            we.pool.do(lambda core, now: core.queries.respond(received, b"0.5", now))

        waiting = Waiting()
        told = ""
        while "Response from 'ours': 0.5" not in told:
            assert waiting.pause() is not None, f"serf has our answer; it says {told}"
            we.events.clear()
            answering = asyncio.create_task(answer())
            told = await serf.serf("query", "-timeout=5s", "-node=ours", "load", "?")
            await answering


async def test_keys_are_rotated_together_with_serf(tmp_path: Path) -> None:
    new = encode_key(bytes(range(16)))
    ring = tmp_path / "keyring"
    ring.write_text(json.dumps([KEY]))
    async with ours(KEY) as we, serf_agent(tmp_path, f"-keyring-file={ring}") as serf:
        await we.pool.join([serf.gossip])
        await serf.serf_sees("ours", "alive")
        # They install it everywhere, we use it everywhere, they list what there is.
        assert "Successfully installed" in await serf.serf("keys", f"-install={new}")
        assert we.pool.serf.keyring.keys[1] == decode_key(new)
        pending = await we.pool.query(
            KeyOperation.USE.value, key_queries.request(decode_key(new)), enough=2, timeout=60
        )
        assert key_queries.result(pending, 2).errors == 0
        listed = await serf.serf("keys", "-list")
        assert f"{new} [2/2]" in " ".join(listed.split())
        assert await serf.serf("keys", f"-remove={KEY}")
        assert we.pool.serf.keyring.keys == (decode_key(new),)


@pytest.mark.parametrize("key", ["", KEY], ids=["plain", "encrypted"])
async def test_consul_takes_us_for_one_of_its_clients(tmp_path: Path, key: str) -> None:
    encrypt = [f"-encrypt={key}"] if key else []
    async with consul_agent(tmp_path, *encrypt) as consul, ours(key, CONSUL_TAGS) as we:
        await we.pool.join([consul.gossip])
        await we.sees("theirs", Status.ALIVE)
        tags = we.pool.serf.roster.members["theirs"].tags
        assert (tags["role"], tags["dc"], tags["port"].isdigit()) == ("consul", "dc1", True)
        assert await consul.consul_sees("ours", Status.ALIVE) == CONSUL_TAGS
        await consul.put("/v1/event/fire/deploy", b"v1")
        await soon(lambda: any(isinstance(e, EventReceived) for e in we.events), "Consul's event arrives")
        await we.pool.leave()
        await consul.consul_sees("ours", Status.LEFT)


async def test_consul_joins_us_and_both_see_failures(tmp_path: Path) -> None:
    async with consul_agent(tmp_path) as consul, ours("", CONSUL_TAGS) as we:
        await consul.consul_sees("theirs", Status.ALIVE)
        await consul.put(f"/v1/agent/join/{we.pool.address}")
        await we.sees("theirs", Status.ALIVE)
        await we.pool.stop()
        await consul.consul_sees("ours", Status.FAILED)
    async with consul_agent(tmp_path) as consul, ours("", CONSUL_TAGS) as we:
        await we.pool.join([consul.gossip])
        await we.sees("theirs", Status.ALIVE)
        await consul.end()
        await we.sees("theirs", Status.FAILED)
