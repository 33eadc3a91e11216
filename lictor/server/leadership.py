"""All that a server does for the cluster while it leads, and the way for any server to have the leader do it.

leadership = Leadership(server, transport, me, ...)      # before the server starts
... the server starts ...
leadership.start()
await leadership.renew_session(...)                      # on any server
await leadership.close()
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from lictor.model.authorizer import ALLOW_ALL, Authorizer
from lictor.model.command import ConfigWrite
from lictor.model.coordinate_entry import CoordinateEntry
from lictor.model.errors import LictorError, NotLeader, Refused
from lictor.model.session import Session
from lictor.model.transport import Transport
from lictor.raft.consensus import ServerChange, ServerRecord
from lictor.server import autopilot_config, revoked_leaves, tombstones
from lictor.server.agents import NO_GOSSIP, Agents
from lictor.server.autopilot_config import AutopilotConfig
from lictor.server.autopilot_duty import Autopilot
from lictor.server.autopilot_state import State
from lictor.server.connect_ca import ConnectCA, here, serve_signing
from lictor.server.connect_ca_settings import NO_MESH, CASettings
from lictor.server.coordinate_batches import CoordinateBatches
from lictor.server.datacenters import Datacenters
from lictor.server.duties import Duties, log
from lictor.server.for_secondaries import ForSecondaries
from lictor.server.from_primary import Primary
from lictor.server.from_primary_entries import EntriesFromPrimary
from lictor.server.hello import Hello
from lictor.server.leader_calls import LeaderCalls
from lictor.server.member_polls import MemberPolls
from lictor.server.members import Members
from lictor.server.reconcile import Reconcile
from lictor.server.revoked_elsewhere import RevokedElsewhere
from lictor.server.server import Server
from lictor.server.session_expiry import SessionExpiry
from lictor.store.store import config_key

STATE_PATIENCE = 2.0  # seconds that autopilot's first round is waited for

RENEW = "session.renew"
COORDINATE = "coordinate.update"
AUTOPILOT = "autopilot.state"
REMOVE_PEER = "raft.remove-peer"
TRANSFER = "raft.transfer"


class PeerRemoval(msgspec.Struct, frozen=True):
    """Which server is to be removed: by `id` or `address`."""

    kind: str
    value: str


_encode = msgspec.msgpack.Encoder().encode
_decode_text = msgspec.msgpack.Decoder(str).decode
_decode_session = msgspec.msgpack.Decoder(Session | None).decode
_decode_coordinate = msgspec.msgpack.Decoder(CoordinateEntry).decode
_decode_state = msgspec.msgpack.Decoder(State).decode
_decode_removal = msgspec.msgpack.Decoder(PeerRemoval).decode


class Leadership:
    """The duties and the calls of one server.

    `transport` is None for a server that is always alone. `me` is what this server says of itself; `members_changed` is
    told when what is shown of the other servers changes. `first_autopilot` and `first_entries` are what a new cluster
    begins with. `peer_removed` is told, on the leader, the node id of a server that an operator removed.
    `heartbeat` is the longest silence of a leader that is well, in seconds. `agents` is what gossip knows; whoever
    gives it calls `agents_changed`. `authority` is what the mesh's authority begins with (see `connect_ca`), in a
    datacenter; `authorizer` gives the rights of a token; `work` does elsewhere what takes long. `datacenters`
    makes calls to servers of other datacenters, and answers theirs; `primary` is the name of the primary one, which is
    asked by the rights of `replication_token`.
    """

    def __init__(
        self,
        server: Server,
        transport: Transport | None,
        me: Callable[[], Hello],
        *,
        members_changed: Callable[[], object],
        first_autopilot: AutopilotConfig,
        first_entries: Sequence[ConfigWrite] = (),
        peer_removed: Callable[[str], None] | None = None,
        heartbeat: float = 0.0,
        agents: Callable[[], Agents] = lambda: NO_GOSSIP,
        authority: CASettings = NO_MESH,
        datacenter: str = "",
        authorizer: Callable[[str], Authorizer] = lambda token: ALLOW_ALL,
        work: Callable[..., Awaitable[Any]] = here,
        datacenters: Datacenters | None = None,
        primary: str = "",
        replication_token: Callable[[], str] = lambda: "",
    ) -> None:
        self._server = server
        self.datacenters = datacenters
        self._consensus = server.consensus
        self._members_changed = members_changed
        self._first_autopilot = first_autopilot
        self._first_entries = first_entries
        self._peer_removed = peer_removed
        self.members = Members(me, self._changed)
        self.autopilot = Autopilot(server, self.members, transport, heartbeat)
        self._polls = MemberPolls(self.members, server.consensus, transport)
        self._sessions = SessionExpiry(server)
        self._coordinates = CoordinateBatches(server)
        self._reconcile = Reconcile(server, self.members, me, agents)
        self._calls = LeaderCalls(server.consensus, transport, server.hold)
        above: Primary | None = None
        if datacenters is not None and primary not in ("", datacenter):
            above = Primary(primary, datacenters, replication_token)
        self.connect_ca = ConnectCA(
            server, self._calls, authority, datacenter, authorizer=authorizer, work=work, primary=above
        )
        if datacenters is not None and above is None:
            ForSecondaries(server, self.connect_ca, datacenters, authorizer)
        self.entries_from_primary = EntriesFromPrimary(server, above) if above is not None else None
        if transport is not None:
            serve_signing(transport, self.connect_ca)
        self._register_calls()
        self.duties = Duties(server.consensus)
        self.duties.add_first("reconcile members", self._reconcile.once)
        self.duties.add_first("first autopilot configuration", self._set_first_autopilot)
        self.duties.add_first("first config entries", self._put_first_entries)
        self.duties.add("end sessions", self._sessions.run)
        self.duties.add("reap tombstones", lambda: tombstones.reap(server))
        self.duties.add("forget revoked certificates", lambda: revoked_leaves.forget(server))
        self.duties.add("write coordinates", self._coordinates.run)
        self.duties.add("keep members in line", self._reconcile.run)
        self.duties.add("autopilot", self.autopilot.run)
        self.duties.add("keep the mesh's authority", self.connect_ca.run)
        if self.entries_from_primary is not None:
            self.duties.add("copy the primary's config entries", self.entries_from_primary.run)
        if datacenters is not None and authority.enabled:
            self.duties.add("hear what is revoked elsewhere", RevokedElsewhere(server, datacenters).run)

    def start(self) -> None:
        """Begin to watch the other servers; the server has started. The duties begin with the leadership."""
        self._polls.start()

    async def close(self) -> None:
        """Stop."""
        await self._polls.close()
        await self.duties.close()

    def _changed(self) -> None:
        self._reconcile.soon()
        self._members_changed()

    def agents_changed(self) -> None:
        """Gossip knows something new of the datacenter's agents."""
        self._reconcile.soon()

    # -- on any server ------------------------------------------------------------------------------------------------

    async def renew_session(self, session_id: str) -> Session | None:
        """Begin a session's TTL anew. Returns the session, None where there is none. Raises `NoLeader`."""
        session: Session | None = _decode_session(await self._calls.call(RENEW, _encode(session_id)))
        return session

    async def update_coordinate(self, entry: CoordinateEntry) -> None:
        """Have a node's coordinate written before long. Raises `NoLeader`."""
        await self._calls.call(COORDINATE, _encode(entry))

    async def autopilot_state(self) -> State:
        """The servers as the leader's autopilot sees them. Raises `NoLeader`."""
        return _decode_state(await self._calls.call(AUTOPILOT, b""))

    async def remove_peer(self, kind: str, value: str) -> None:
        """Remove the server whose `id` or `address` (`kind`) is `value` from the configuration. Raises `Refused`,
        `NoLeader`.
        """
        await self._calls.call(REMOVE_PEER, _encode(PeerRemoval(kind, value)))

    async def transfer(self, to: str) -> None:
        """Hand the leadership to the voter with a node id, or to any. Raises `Refused`, `NoLeader`."""
        await self._calls.call(TRANSFER, _encode(to))

    async def bring_in_line(self) -> None:
        """Where this server leads, compare the catalog with the servers now: it was replaced by another one."""
        try:
            await self._reconcile.anew()
        except NotLeader:
            self._reconcile.soon()

    # -- on the leader ------------------------------------------------------------------------------------------------

    def _register_calls(self) -> None:
        calls = self._calls
        calls.register(RENEW, self._on_renew, repeatable=True)
        calls.register(COORDINATE, self._on_coordinate, repeatable=True)
        calls.register(AUTOPILOT, self._on_autopilot, repeatable=True)
        calls.register(REMOVE_PEER, self._on_remove_peer, repeatable=False)
        calls.register(TRANSFER, self._on_transfer, repeatable=False)

    async def _on_renew(self, body: bytes) -> bytes:
        session_id = _decode_text(body)
        # A leader without a lease may be one no more, and its counts nobody's.
        await self._server.confirm(quorum=False)
        if not self._consensus.is_leader:
            raise NotLeader(self._consensus.leader)
        return _encode(self._sessions.renew(session_id))

    async def _on_coordinate(self, body: bytes) -> bytes:
        self._coordinates.take(_decode_coordinate(body))
        return b""

    async def _on_autopilot(self, body: bytes) -> bytes:
        try:
            async with asyncio.timeout(STATE_PATIENCE):
                return _encode(await self.autopilot.state())
        except TimeoutError:
            raise NotLeader(self._consensus.leader) from None

    async def _on_remove_peer(self, body: bytes) -> bytes:
        removal = _decode_removal(body)
        for peer in self._consensus.peers():
            if removal.value == (peer.id if removal.kind == "id" else peer.address):
                log.warning("removing a peer as an operator wishes: node=%s address=%s", peer.node, peer.address)
                record = ServerRecord(peer.id, peer.node, peer.address)
                await self._consensus.change(ServerChange.REMOVE, record, self._server.hold)
                if self._peer_removed is not None:
                    self._peer_removed(peer.id)
                return b""
        raise Refused(f'{removal.kind} "{removal.value}" was not found in the Raft configuration')

    async def _on_transfer(self, body: bytes) -> bytes:
        await self._consensus.transfer(_decode_text(body), self._server.hold)
        return b""

    async def _set_first_autopilot(self) -> None:
        await autopilot_config.set_first(self._server, self._first_autopilot)

    async def _put_first_entries(self) -> None:
        """The entries are stored where none of that kind and name is."""
        store = self._server.store
        first = self._first_entries
        wanted = [entry for entry in first if store.config.get(config_key(entry.kind, entry.name)) is None]
        if not wanted:
            return
        for entry, result in zip(wanted, await self._server.apply_leading(wanted), strict=True):
            if isinstance(result, LictorError):
                log.error("config_entries.bootstrap: %s %s: %s", entry.kind, entry.name, result)
