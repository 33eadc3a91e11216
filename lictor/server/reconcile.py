"""What the leader writes into the catalog about the cluster's servers: each one of the configuration with its
`serfHealth`, and nobody else who claims to be one.

The decision is pure: a store and the servers in, commands out. `Reconcile` is the duty of the leader that carries it
out: when the leadership begins, when a server comes, goes, fails or recovers, when somebody else changed those rows,
and now and then.

A state can come from elsewhere: from a snapshot of another machine, or from a data folder whose `node-id` was lost. It
then tells of members that are no more, and they would count as healthy for ever.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence

import msgspec

from lictor.model.check import CRITICAL, PASSING, SERF_HEALTH, Check
from lictor.model.command import Command, Deregister, Register
from lictor.model.errors import LictorError
from lictor.model.host_port import split_host_port
from lictor.model.member import ALIVE, FAILED
from lictor.model.node import Node
from lictor.model.service import NodeService
from lictor.raft.consensus import Consensus, Peer
from lictor.server.hello import Hello
from lictor.server.members import Members
from lictor.server.server import Server
from lictor.store.store import Store
from lictor.store.watch import Dependent

INTERVAL = 60.0  # seconds between two comparisons where nothing calls for one
PAUSE = 0.2  # seconds at least between two comparisons
ALIVE_TEXT = "Agent alive and reachable"
DEAD_TEXT = "Agent not live or unreachable"
_HEALTH = SERF_HEALTH.lower()
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


def differences(store: Store, servers: Sequence[Listed], datacenter: str) -> list[Command]:
    """What brings the catalog in line.

    Of a node only name, id and address are written, and only where they differ: what only the node itself knows, its
    meta and tagged addresses, comes from its own agent, which may be about to write it.
    """
    commands: list[Command] = []
    names = {server.peer.node.lower() for server in servers}
    ids = {server.peer.id.lower() for server in servers}
    for node in store.nodes:
        name = node.node.lower()
        # A node with the id of one of these is that one under its former name; registering renames it.
        if name not in names and node.id.lower() not in ids and store.checks.get((name, _HEALTH)) is not None:
            commands.append(Deregister(node.node))
    for server in servers:
        if server.status == ALIVE and server.hello is not None:
            commands += _alive(store, server.peer, server.hello, datacenter)
        elif server.status == FAILED:
            commands += _failed(store, server.peer)
    return commands


def _alive(store: Store, peer: Peer, hello: Hello, datacenter: str) -> list[Command]:
    host, port = split_host_port(peer.address, 0)
    name = peer.node.lower()
    commands: list[Command] = []
    known, health = store.nodes.get(name), store.checks.get((name, _HEALTH))
    if known is not None and known.id and known.id.lower() != peer.id.lower():
        # A name belongs to whoever is healthy under it. Its holder of before is not.
        if health is not None and health.status != CRITICAL:
            commands.append(Register(known, None, (_dead(health),), skip_node_update=True))
        health = None
    service = NodeService(id="consul", service="consul", port=port, meta=_service_meta(hello))
    alive = Check(node=peer.node, check_id=SERF_HEALTH, name="Serf Health Status", status=PASSING, output=ALIVE_TEXT)
    same_node = known is not None and (known.id, known.address) == (peer.id, host)
    instance = store.services.get((name, service.id))
    registered = instance is not None and _bare(instance.service) == service
    healthy = health is not None and (health.status, health.output) == (PASSING, ALIVE_TEXT)
    if same_node and registered and healthy:
        return []
    if known is not None and known.id == peer.id:
        node = msgspec.structs.replace(known, address=host)
    else:
        node = Node(peer.id, peer.node, host, datacenter)
    return [*commands, Register(node, service, (alive,), skip_node_update=same_node or known is None)]


def _failed(store: Store, peer: Peer) -> list[Command]:
    name = peer.node.lower()
    known, health = store.nodes.get(name), store.checks.get((name, _HEALTH))
    if known is None or known.id.lower() != peer.id.lower() or health is None or health.status == CRITICAL:
        return []
    return [Register(known, None, (_dead(health),), skip_node_update=True)]


def _dead(health: Check) -> Check:
    return msgspec.structs.replace(health, status=CRITICAL, output=DEAD_TEXT)


def _bare(service: NodeService) -> NodeService:
    return msgspec.structs.replace(service, create_index=0, modify_index=0)


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

    def __init__(self, server: Server, members: Members, me: Callable[[], Hello]) -> None:
        self._server = server
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
        async with self._comparing:
            servers = listed(self._consensus.peers(), self._members)
            commands = differences(self._server.store, servers, self._me().datacenter)
            if commands:
                await self._write(commands)

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
                earliest = loop.time() + PAUSE
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(INTERVAL):
                        await self._wake.wait()
                await asyncio.sleep(max(0.0, earliest - loop.time()))
        finally:
            watches.discard(self._rows)


def _about(command: Command) -> str:
    return f"node={command.node.node if isinstance(command, Register) else ''}"
