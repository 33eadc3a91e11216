"""What is done to the servers: single faults, each begun on entry and undone on exit.

A fault is an async context manager that tells which servers it hit, and a note. Faults may overlap: one that finds its
servers down already does what is left to do. None of them ever leaves something behind.
"""

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from itertools import pairwise, permutations, product
from typing import Final

import msgspec

from jepsen.client import Answer, Lost, NotSent
from jepsen.cluster import Cluster, Server
from jepsen.programs import SERVER_PORT


class Hit(msgspec.Struct, frozen=True):
    """What a fault was done to."""

    servers: tuple[Server, ...]
    note: str = ""


Fault = Callable[[Cluster, random.Random], AbstractAsyncContextManager[Hit]]


class Kind(msgspec.Struct, frozen=True):
    """A fault by its name. `lan`: it needs a network that can be cut. `disk`: it needs a disk for each server.
    `transfers`: it needs a program that can hand the leadership over. `alone`: it needs a majority, so it is not done
    on top of another. `seconds`: how long it lasts, at least and at most. `servers`: from how many on it makes sense.
    """

    what: str
    fault: Fault
    seconds: tuple[float, float] = (2.0, 8.0)
    lan: bool = False
    disk: bool = False
    transfers: bool = False
    alone: bool = False
    servers: int = 3


async def _leader(cluster: Cluster, chance: random.Random) -> Server:
    """The leader, or any server where there is none."""
    return await cluster.leader() or chance.choice(cluster.servers)


# -- Processes --------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def _killed(*servers: Server) -> AsyncIterator[Hit]:
    await asyncio.gather(*(server.end(signal.SIGKILL) for server in servers))
    try:
        yield Hit(servers)
    finally:
        await asyncio.gather(*(server.start() for server in servers))


@asynccontextmanager
async def kill(cluster: Cluster, chance: random.Random) -> AsyncIterator[Hit]:
    async with _killed(chance.choice(cluster.servers)) as hit:
        yield hit


@asynccontextmanager
async def kill_leader(cluster: Cluster, chance: random.Random) -> AsyncIterator[Hit]:
    async with _killed(await _leader(cluster, chance)) as hit:
        yield hit


@asynccontextmanager
async def kill_all(cluster: Cluster, chance: random.Random) -> AsyncIterator[Hit]:
    async with _killed(*cluster.servers) as hit:
        yield hit


@asynccontextmanager
async def _frozen(server: Server) -> AsyncIterator[Hit]:
    server.freeze()
    try:
        yield Hit((server,))
    finally:
        server.thaw()


@asynccontextmanager
async def pause(cluster: Cluster, chance: random.Random) -> AsyncIterator[Hit]:
    async with _frozen(chance.choice(cluster.servers)) as hit:
        yield hit


@asynccontextmanager
async def pause_leader(cluster: Cluster, chance: random.Random) -> AsyncIterator[Hit]:
    async with _frozen(await _leader(cluster, chance)) as hit:
        yield hit


@asynccontextmanager
async def rolling(cluster: Cluster, chance: random.Random) -> AsyncIterator[Hit]:
    """One server after the other is ended gracefully and started again, the next when this one serves again."""
    order = chance.sample(cluster.servers, len(cluster.servers))
    for server in order:
        await server.end(signal.SIGTERM)
        await server.start()
        await cluster.eventually(partial(cluster.ready, server), f"{server} is back after a restart")
    yield Hit(tuple(order))


# -- The network ------------------------------------------------------------------------------------------------------


def _between(some: list[Server], others: list[Server]) -> list[tuple[int, int]]:
    """Both directions between two groups."""
    pairs = [(one.number, other.number) for one, other in product(some, others)]
    return pairs + [(to, sender) for sender, to in pairs]


@asynccontextmanager
async def _cut(cluster: Cluster, pairs: list[tuple[int, int]], hit: Hit) -> AsyncIterator[Hit]:
    await cluster.lan.cut(pairs)
    try:
        yield hit
    finally:
        await cluster.lan.mend(pairs)


def _isolated(cluster: Cluster, server: Server) -> AbstractAsyncContextManager[Hit]:
    others = [one for one in cluster.servers if one is not server]
    return _cut(cluster, _between([server], others), Hit((server,)))


@asynccontextmanager
async def isolate(cluster: Cluster, chance: random.Random) -> AsyncIterator[Hit]:
    async with _isolated(cluster, chance.choice(cluster.servers)) as hit:
        yield hit


@asynccontextmanager
async def isolate_leader(cluster: Cluster, chance: random.Random) -> AsyncIterator[Hit]:
    async with _isolated(cluster, await _leader(cluster, chance)) as hit:
        yield hit


@asynccontextmanager
async def halves(cluster: Cluster, chance: random.Random) -> AsyncIterator[Hit]:
    order = chance.sample(cluster.servers, len(cluster.servers))
    few, many = order[: len(order) // 2], order[len(order) // 2 :]
    note = f"{' '.join(map(str, few))} | {' '.join(map(str, many))}"
    async with _cut(cluster, _between(few, many), Hit(tuple(few), note)) as hit:
        yield hit


@asynccontextmanager
async def one_way(cluster: Cluster, chance: random.Random) -> AsyncIterator[Hit]:
    """A server hears nothing from some others, or they nothing from it; the other direction goes on."""
    server = await _leader(cluster, chance) if chance.random() < 0.5 else chance.choice(cluster.servers)
    others = [one for one in cluster.servers if one is not server]
    some = chance.sample(others, chance.randint(1, len(others)))
    deaf = chance.random() < 0.5
    pairs = [(one.number, server.number) if deaf else (server.number, one.number) for one in some]
    names = " ".join(map(str, some))
    note = f"{server} hears nothing from {names}" if deaf else f"{names} hears nothing from {server}"
    async with _cut(cluster, pairs, Hit((server,), note)) as hit:
        yield hit


@asynccontextmanager
async def bridge(cluster: Cluster, chance: random.Random) -> AsyncIterator[Hit]:
    """Two groups that see each other no more, and one server between them that sees all."""
    middle, *rest = chance.sample(cluster.servers, len(cluster.servers))
    left, right = rest[: len(rest) // 2], rest[len(rest) // 2 :]
    note = f"{' '.join(map(str, left))} - {middle} - {' '.join(map(str, right))}"
    async with _cut(cluster, _between(left, right), Hit((middle,), note)) as hit:
        yield hit


@asynccontextmanager
async def ring(cluster: Cluster, chance: random.Random) -> AsyncIterator[Hit]:
    """Every server sees a majority, and no two see the same one."""
    order = chance.sample(cluster.servers, len(cluster.servers))
    seen = {(one.number, other.number) for one, other in pairwise([*order, order[0]])}
    every = permutations([one.number for one in order], 2)
    pairs = [(one, other) for one, other in every if (one, other) not in seen and (other, one) not in seen]
    async with _cut(cluster, pairs, Hit(tuple(order), " - ".join(map(str, order)))) as hit:
        yield hit


@asynccontextmanager
async def slow(cluster: Cluster, chance: random.Random) -> AsyncIterator[Hit]:
    """A thin line: what a server sends waits in a queue."""
    server, kbit = await _leader(cluster, chance), chance.choice([256, 512, 1024])
    await cluster.lan.narrow(server.number, kbit)
    try:
        yield Hit((server,), f"{kbit} kbit/s")
    finally:
        await cluster.lan.narrow(server.number, 0)


@asynccontextmanager
async def lossy(cluster: Cluster, chance: random.Random) -> AsyncIterator[Hit]:
    """Packets between servers are lost, so that they come late: TCP sends them again."""
    percent = chance.choice([5, 15, 30])
    for server in cluster.servers:
        await cluster.lan.lose(server.number, percent)
    try:
        yield Hit(tuple(cluster.servers), f"{percent} % of all packets")
    finally:
        for server in cluster.servers:
            await cluster.lan.lose(server.number, -percent)


# -- Disks ------------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def _full(*servers: Server) -> AsyncIterator[Hit]:
    try:
        for server in servers:
            _fill(server)
        yield Hit(servers)
    finally:
        for server in servers:
            (server.data / "ballast").unlink(missing_ok=True)
            if server.crashed:
                await server.start()


def _fill(server: Server) -> None:
    """Take all room that is left."""
    taken = 0
    with (server.data / "ballast").open("wb") as ballast:
        while free := os.statvfs(server.data).f_bavail:
            size = free * os.statvfs(server.data).f_frsize
            with contextlib.suppress(OSError):  # the server took some in between
                os.posix_fallocate(ballast.fileno(), taken, size)
                taken += size


@asynccontextmanager
async def disk(cluster: Cluster, chance: random.Random) -> AsyncIterator[Hit]:
    async with _full(chance.choice(cluster.servers)) as hit:
        yield hit


@asynccontextmanager
async def disk_leader(cluster: Cluster, chance: random.Random) -> AsyncIterator[Hit]:
    async with _full(await _leader(cluster, chance)) as hit:
        yield hit


@asynccontextmanager
async def disk_all(cluster: Cluster, chance: random.Random) -> AsyncIterator[Hit]:
    async with _full(*cluster.servers) as hit:
        yield hit


# -- Membership -------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def remove(cluster: Cluster, chance: random.Random) -> AsyncIterator[Hit]:
    """A server dies, is removed, loses all that it had stored, and joins as a new one."""
    server = chance.choice(cluster.servers)
    await server.end(signal.SIGKILL)
    try:
        await cluster.eventually(partial(_removed, cluster, server), f"{server} is removed")
        server.wipe()
        yield Hit((server,))
    finally:
        await server.start()
    await cluster.eventually(partial(cluster.ready, server), f"{server} is a voter again")


async def _removed(cluster: Cluster, server: Server) -> bool:
    """Ask the leader to remove a server. Whether it is not, or no longer, one of the peers."""
    leader = await cluster.leader()
    if leader is None or leader is server:
        return False
    try:
        address = f"{server.address}:{SERVER_PORT}"
        await cluster.ask(leader, "DELETE", f"/v1/operator/raft/peer?address={address}", timeout=10.0)
        peers = await cluster.ask(leader, "GET", "/v1/operator/raft/configuration", timeout=10.0)
        return peers.status == 200 and server.name not in _names(peers)
    except (NotSent, Lost):
        return False


def _names(peers: Answer) -> set[str]:
    return {one["Node"] for one in msgspec.json.decode(peers.body)["Servers"]}


@asynccontextmanager
async def transfer(cluster: Cluster, chance: random.Random) -> AsyncIterator[Hit]:
    """The leadership is handed over, a few times in a row."""
    hit = []
    for _ in range(chance.randint(1, 3)):
        leader = await cluster.any_leader()
        hit.append(leader)
        try:
            await cluster.ask(leader, "POST", "/v1/operator/raft/transfer-leader", timeout=10.0)
        except (NotSent, Lost):
            break
    yield Hit(tuple(hit))


KINDS: Final = {
    "kill": Kind("kill -9 of one server, then start it again", kill),
    "kill-leader": Kind("kill -9 of the leader, then start it again", kill_leader),
    "kill-all": Kind("kill -9 of all servers at once, then start them again", kill_all, seconds=(0.0, 2.0)),
    "pause": Kind("SIGSTOP of one server, then SIGCONT", pause),
    "pause-leader": Kind("SIGSTOP of the leader, then SIGCONT", pause_leader),
    "rolling": Kind("graceful restart of all servers, one after the other", rolling, seconds=(0.0, 0.0), alone=True),
    "isolate": Kind("one server is cut off from the others", isolate, lan=True),
    "isolate-leader": Kind("the leader is cut off from the others", isolate_leader, lan=True),
    "halves": Kind("a minority is cut off from the majority", halves, lan=True),
    "one-way": Kind("a server does not hear others that hear it, or the reverse", one_way, lan=True),
    "bridge": Kind("two groups see each other no more, but one server sees both", bridge, lan=True),
    "ring": Kind("every server sees another majority", ring, lan=True, servers=5),
    "slow": Kind("the leader's line is thin", slow, lan=True),
    "lossy": Kind("packets between servers are lost", lossy, lan=True),
    "disk": Kind("one server's disk is full", disk, disk=True),
    "disk-leader": Kind("the leader's disk is full", disk_leader, disk=True),
    "disk-all": Kind("the disks of all servers are full", disk_all, disk=True),
    "remove": Kind("a server dies, is removed, wiped, and joins anew", remove, seconds=(0.0, 3.0), alone=True),
    "transfer": Kind("the leadership is handed over", transfer, seconds=(0.0, 0.5), transfers=True, alone=True),
}
