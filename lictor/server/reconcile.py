"""What the leader writes into the catalog about its datacenter's agents: the servers of the configuration, each with
the service `consul` and as the servers see it, and the others as gossip tells of them, see `agents`.

The decision is pure: a store, the servers and gossip's members in, commands out. `Reconcile` is the leader's duty that
carries it out: when the leadership begins, when an agent comes, goes, fails or recovers, when somebody else changed
those rows, and now and then.

A state can come from elsewhere: from a snapshot of another machine, or from a data folder whose `node-id` was lost. It
then tells of members that are no more, and they would count as healthy for ever.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence

import msgspec

from lictor.model.command import Command, Deregister, Register
from lictor.model.errors import LictorError
from lictor.model.host_port import split_host_port
from lictor.model.member import ALIVE, FAILED, LEFT
from lictor.model.service import NodeService
from lictor.raft.consensus import Consensus, Peer, ServerChange, ServerRecord
from lictor.server.agents import NO_GOSSIP, Agents, agent_differences, alive, failed
from lictor.server.hello import Hello
from lictor.server.members import Members
from lictor.server.server import Server
from lictor.store.store import Store
from lictor.store.watch import Dependent

INTERVAL = 60.0  # seconds between two comparisons where nothing calls for one
PAUSE = 0.2  # seconds at least between two comparisons, and more with many nodes:
PAUSE_EACH = 0.0002  # seconds for each
BATCH = 256  # commands in one proposal
_OWN = ("service", "consul")  # the topic of all that is written here

log = logging.getLogger("lictor.server.leader")


class Listed(msgspec.Struct, frozen=True):
    """A server of the configuration: its place there, how it was seen, and what it said of itself, if anything yet."""

    peer: Peer
    status: int
    hello: Hello | None


def listed(peers: Sequence[Peer], members: Members) -> list[Listed]:
    """The servers of the configuration with what is known of each."""
    known = {server.id: server for server in members.servers()}
    found = []
    for peer in peers:
        server = known.get(peer.id)
        found.append(Listed(peer, server.status, server.hello) if server is not None else Listed(peer, 0, None))
    return found


def differences(store: Store, servers: Sequence[Listed], datacenter: str, agents: Agents = NO_GOSSIP) -> list[Command]:
    """What brings the catalog in line: `servers` are those of the configuration, `agents` all that gossip knows."""
    names = {server.peer.node.lower() for server in servers}
    ids = {server.peer.id.lower() for server in servers}
    commands = agent_differences(store, agents, names, ids, datacenter)
    for server in servers:
        peer = server.peer
        if server.status == ALIVE and server.hello is not None:
            host, port = split_host_port(peer.address, 0)
            service = NodeService(id="consul", service="consul", port=port, meta=_service_meta(server.hello))
            commands += alive(store, peer.node, peer.id, host, datacenter, service)
        elif server.status == FAILED:
            commands += failed(store, peer.node, peer.id)
    return commands


def departed(servers: Sequence[Listed], agents: Agents) -> list[Peer]:
    """The servers of the configuration that have left gossip on purpose and do not answer: they are members no more."""
    left = {member.tags.get("id", "") for member in agents.members if member.status == LEFT}
    return [server.peer for server in servers if server.status == FAILED and server.peer.id in left]


def _service_meta(hello: Hello) -> dict[str, str]:
    replica = str(hello.read_replica).lower()
    return {
        "non_voter": replica,
        "read_replica": replica,
        "raft_version": str(hello.raft_protocol),
        "serf_protocol_current": "2",
        "serf_protocol_max": "5",
        "serf_protocol_min": "1",
        "version": hello.version,
    }


class _RowsChanged(Dependent):
    __slots__ = ("told",)

    def __init__(self, told: Callable[[], None]) -> None:
        self.told = told
        self.seen = ()

    def changed(self) -> None:
        self.told()


class Reconcile:
    """The duty."""

    def __init__(self, server: Server, members: Members, me: Callable[[], Hello], agents: Callable[[], Agents]) -> None:
        self._server = server
        self._agents = agents
        self._consensus: Consensus = server.consensus
        self._members = members
        self._me = me
        self._comparing = asyncio.Lock()
        self._wake = asyncio.Event()
        self._rows = _RowsChanged(self._wake.set)
        self._consensus.on_peers(self._wake.set)

    def soon(self) -> None:
        """Something has changed: compare soon."""
        self._wake.set()

    async def once(self) -> None:
        """Compare, and write what differs. Raises `NotLeader`."""
        await self._compare(self._agents())

    async def anew(self) -> None:
        """Do the same for a catalog that was another one a moment ago, of which gossip need not know anybody. Raises
        `NotLeader`.
        """
        await self._compare(msgspec.structs.replace(self._agents(), complete=True))

    async def _compare(self, agents: Agents) -> None:
        async with self._comparing:
            servers = listed(self._consensus.peers(), self._members)
            commands = differences(self._server.store, servers, self._me().datacenter, agents)
            for start in range(0, len(commands), BATCH):
                await self._write(commands[start : start + BATCH])
            for peer in departed(servers, agents):
                log.info("a server has left: it is taken out of the configuration: node=%s", peer.node)
                record = ServerRecord(peer.id, peer.node, peer.address)
                await self._consensus.change(ServerChange.REMOVE, record, self._server.hold)

    async def _write(self, commands: list[Command]) -> None:
        for command in commands:
            if isinstance(command, Deregister):
                log.warning("a member that the catalog knew is not there any more: removed: node=%s", command.node)
        for command, result in zip(commands, await self._server.apply_leading(commands), strict=True):
            if isinstance(result, LictorError):
                log.warning("could not reconcile a member: %s error=%s", _about(command), result)

    async def run(self) -> None:
        """Keep the catalog in line."""
        watches, loop = self._server.store.watches, asyncio.get_running_loop()
        try:
            while True:
                self._wake.clear()
                watches.discard(self._rows)
                watches.add(self._rows, (_OWN,))
                await self.once()
                earliest = loop.time() + PAUSE + PAUSE_EACH * len(self._server.store.nodes)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(INTERVAL):
                        await self._wake.wait()
                await asyncio.sleep(max(0.0, earliest - loop.time()))
        finally:
            watches.discard(self._rows)


def _about(command: Command) -> str:
    return f"node={command.node.node if isinstance(command, Register) else ''}"
