"""A gossip pool as the agent uses it: that of its datacenter, which every agent is in, or that of the servers of all
datacenters. Members are told in the words of the API, addresses to join are what users write.

pool = LanPool(config, node_id, folder)
pool.on_change = ...                       # members came, changed or went
await pool.start()
await pool.join(["10.0.0.5", "node7:8301"])
pool.members(), pool.servers()
await pool.leave()
await pool.close()
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec

from lictor.agent.admission import Admission, networks_of
from lictor.agent.checks.connection import explain_dial
from lictor.agent.config.join_sources import JoinSource
from lictor.agent.config.keys import RuntimeConfig
from lictor.agent.gossip_metrics import GossipMetrics
from lictor.agent.joining import NotFoundThere, Place, places, problems_text, read_address
from lictor.agent.keyring_file import open_keyring, save_keyring
from lictor.agent.logs import logger
from lictor.agent.persistence import make_folder
from lictor.agent.pool_tags import RECONNECT_TAG, SERVER, pool_tags
from lictor.agent.pools import KEY_OPERATIONS, RECONNECT, KeyringState
from lictor.gossip import key_queries
from lictor.gossip.asking import GossipError
from lictor.gossip.codec import WireError
from lictor.gossip.effects import JoinRefused
from lictor.gossip.key_queries import KeyOperation
from lictor.gossip.keyring import Keyring, KeyringError, decode_key
from lictor.gossip.messages import Address
from lictor.gossip.meter import NoMeter
from lictor.gossip.pool import Pool, PoolConfig
from lictor.gossip.pool_events import Change, EventReceived, KeyringChanged, MemberChanged, PoolEvent, QueryReceived
from lictor.gossip.roster import PoolMember, Status
from lictor.gossip.serf import Serf, check_tags
from lictor.gossip.settings import LAN, WAN, SerfSettings, SwimSettings
from lictor.gossip.sockets import Sockets
from lictor.model.coordinate_entry import Coord, CoordinateEntry
from lictor.model.duration import parse_duration
from lictor.model.errors import LictorError, Refused
from lictor.model.host_port import join_host_port
from lictor.model.member import ALIVE, Member

RECLAIM = 30.0  # seconds after a node's failure before another one may have its name
FOLDER = "serf"
QUERY_FRAME = 64  # bytes that an answer to a query takes beside the member's name and what it says
_OPERATIONS = dict(
    zip(KEY_OPERATIONS, (KeyOperation.LIST, KeyOperation.INSTALL, KeyOperation.USE, KeyOperation.REMOVE), strict=True)
)

log = logger("agent.gossip")

Event = Callable[[str, bytes, int], None]
"""Is told a user event: its name, its payload and its Lamport time."""

Answer = Callable[[str, bytes, int], bytes | None]
"""Is asked a query: its name, its payload, and how many bytes an answer may have. None for no answer."""


class ServerSeen(msgspec.Struct, frozen=True):
    """A server that gossip tells of; `address` is where it takes calls, host:port; `status` is a member's."""

    node: str
    id: str
    address: str
    datacenter: str
    status: int


class LanPool:
    """See above. `folder` is the agent's data folder, None where nothing is kept. `on_change` is told once for all
    that changed in one turn of the loop, `on_event` each user event; `on_query` is asked the queries of members.
    """

    def __init__(
        self,
        config: RuntimeConfig,
        node_id: str,
        folder: Path | None,
        *,
        wan: bool = False,
        meter: GossipMetrics | None = None,
    ) -> None:
        self.wan = wan
        self.name = f"{config.node_name}.{config.datacenter}" if wan else config.node_name
        self.on_change: Callable[[], None] = _nothing
        self.on_event: Event | None = None
        self.on_query: Answer | None = None
        self.forgotten: set[str] = set()
        self._config = config
        self._node_id = node_id
        self._folder = folder / FOLDER if folder is not None else None
        self._keyring = Keyring()
        self._meter = meter
        self._ids: dict[str, str] = {}
        self._pool: Pool | None = None
        self._telling = False
        self._rejoining: asyncio.Task[bool] | None = None

    @property
    def label(self) -> str:
        """The pool's name in messages."""
        return "WAN" if self.wan else "LAN"

    @property
    def default_port(self) -> int:
        """The port that an address without one means."""
        ports = self._config.ports
        return ports.serf_wan if self.wan else ports.serf_lan

    # -- life ---------------------------------------------------------------------------------------------------------

    async def start(self, sockets: Sockets | None = None) -> None:
        """Be a pool of one, on sockets that are open already or on new ones, and look for who was there before. Raises
        `OSError`, `LictorError`.
        """
        config = self._config
        endpoint = config.listen.serf_wan if self.wan else config.listen.serf_lan
        advertised = config.advertise_serf_wan if self.wan else config.advertise_serf_lan
        if endpoint is None:
            raise LictorError(f"the {self.label} pool has no port")
        kept = self._folder if not config.disable_keyring_file else None
        self._keyring = open_keyring(self._file("keyring", kept), config.encrypt)
        if self._folder is not None:
            make_folder(self._folder)
        try:
            self._pool = await Pool.start(
                PoolConfig(
                    name=self.name,
                    bind=Address(endpoint.host, endpoint.port),
                    advertise=Address(advertised.host, advertised.port) if advertised is not None else None,
                    tags=pool_tags(config, self._node_id, wan=self.wan),
                    swim=self._swim(),
                    serf=self._serf(),
                    keyring=self._keyring,
                    verify_incoming=config.encrypt_verify_incoming,
                    verify_outgoing=config.encrypt_verify_outgoing,
                    journal=self._file("snapshot", self._folder),
                    admission=self._admission(),
                    meter=self._meter or NoMeter(),
                ),
                self._told,
                logging.getLogger(f"lictor.gossip.{self.label.lower()}"),
                sockets,
            )
        except ValueError as error:
            raise LictorError(f"this agent cannot be told of in gossip: {error}") from None
        if self._meter is not None:
            swim = self._pool.serf.swim
            self._meter.publish(self.label.lower(), self.figures, swim.members.in_state, lambda: len(swim.broadcasts))
        self._pool.serf.reconnect_timeout_of = self._reconnect_timeout
        self._rejoining = asyncio.get_running_loop().create_task(self._pool.rejoin())

    async def leave(self) -> None:
        """Tell all that this agent goes for good; returns when they were told, or did not take it in time."""
        if self._pool is not None:
            await self._pool.leave()

    async def close(self) -> None:
        """Stop, without a word to the others."""
        if self._rejoining is not None:
            self._rejoining.cancel()
            await asyncio.gather(self._rejoining, return_exceptions=True)
        if self._pool is not None:
            await self._pool.stop()

    def judge(self, config: RuntimeConfig) -> None:
        """Raise `LictorError` where `reload` could not take it over: where its tags are too long."""
        try:
            check_tags(pool_tags(config, self._node_id, wan=self.wan))
        except GossipError as error:
            raise LictorError(str(error)) from None

    def reload(self, config: RuntimeConfig) -> None:
        """Take over what may change while running: the tags. Raises `LictorError` where they are too long."""
        self.judge(config)
        tags = pool_tags(config, self._node_id, wan=self.wan)
        if self._pool is not None and tags != self._pool.serf.tags:
            self._do(lambda serf, now: serf.set_tags(tags, now))
        self._config = config

    def _file(self, kind: str, folder: Path | None) -> Path | None:
        return folder / f"{'remote' if self.wan else 'local'}.{kind}" if folder is not None else None

    def _swim(self) -> SwimSettings:
        asked = self._config.gossip_wan if self.wan else self._config.gossip_lan
        return msgspec.structs.replace(
            WAN if self.wan else LAN,
            gossip_interval=asked.gossip_interval,
            gossip_nodes=asked.gossip_nodes,
            probe_interval=asked.probe_interval,
            probe_timeout=asked.probe_timeout,
            suspicion_mult=asked.suspicion_mult,
            retransmit_mult=asked.retransmit_mult,
            dead_node_reclaim=RECLAIM,
        )

    def _serf(self) -> SerfSettings:
        config = self._config
        return SerfSettings(
            reconnect_interval=(config.gossip_wan if self.wan else config.gossip_lan).reconnect_interval,
            reconnect_timeout=(config.reconnect_timeout_wan if self.wan else config.reconnect_timeout) or RECONNECT,
            rejoin_after_leave=config.rejoin_after_leave,
            coordinates=not config.disable_coordinates,
            # A minority that ends itself over a name would be a server lost to a mistake of another node.
            resolve_name_conflicts=False,
        )

    def _reconnect_timeout(self, member: PoolMember) -> float:
        """Seconds that a failed member is kept, which it may have asked for itself."""
        asked = member.tags.get(RECONNECT_TAG, "")
        try:
            seconds = parse_duration(asked) if asked else 0.0
        except ValueError:
            seconds = 0.0
        return seconds if seconds > 0 else self._serf().reconnect_timeout

    def _admission(self) -> Admission:
        config = self._config
        return Admission(
            wan=self.wan,
            datacenter=config.datacenter,
            node_id=self._node_id,
            member_name=self.name,
            networks=networks_of(config.serf_wan_allowed_cidrs if self.wan else config.serf_lan_allowed_cidrs),
            holder=lambda node_id: self._ids.get(node_id, ""),
        )

    def _do(self, call: Callable[[Serf, float], object]) -> None:
        if self._pool is None:
            raise LictorError(f"the {self.label} pool is not running")
        self._pool.do(call)

    # -- members ------------------------------------------------------------------------------------------------------

    def members(self) -> list[Member]:
        """Everyone, this agent first, the others by name."""
        if self._pool is None:
            return []
        found = sorted(self._pool.serf.members(), key=lambda member: (member.name != self.name, member.name))
        return [_shown(member) for member in found]

    def status_of(self, name: str) -> int:
        """A member's status; 0 for a name that nobody has."""
        member = self._pool.serf.roster.members.get(name) if self._pool is not None else None
        return int(member.status) if member is not None else 0

    def servers(self) -> list[ServerSeen]:
        """The members that are servers, this one among them."""
        found = []
        for member in self.members():
            tags = member.tags
            if tags.get("role") == SERVER and tags.get("port", "").isdigit():
                datacenter = tags.get("dc", "")
                node = member.name.removesuffix(f".{datacenter}") if self.wan else member.name
                address = join_host_port(member.addr, int(tags["port"]))
                found.append(ServerSeen(node, tags.get("id", ""), address, datacenter, member.status))
        return found

    def alone(self) -> bool:
        """Whether nobody else is alive here."""
        return not any(member.status == ALIVE for member in self.members()[1:])

    def is_own(self, place: Place) -> bool:
        """Whether a place is this agent's own."""
        own = self._pool.serf.swim.me.address if self._pool is not None else None
        return own is not None and place == (own.host, own.port)

    # -- joining ------------------------------------------------------------------------------------------------------

    async def join(self, texts: Sequence[str]) -> int:
        """Join the agents at these addresses, host or host:port. Returns how many were reached. Raises `Refused` with
        what was in the way where it is none.
        """
        return await self.join_sources([read_address(text) for text in texts])

    async def join_sources(self, sources: Iterable[JoinSource]) -> int:
        """Do the same for sources of the configuration."""
        found: dict[Place, None] = {}
        problems = []
        for source in sources:
            try:
                found.update(dict.fromkeys(await places(source, self.default_port)))
            except NotFoundThere as error:
                problems.append(str(error))
        return await self.join_places(found, problems)

    async def join_places(self, found: Iterable[Place], problems: Sequence[str] = ()) -> int:
        """Do the same for places; `problems` are to be told with others where nobody is reached."""
        if self._pool is None:
            raise Refused(problems_text([f"the {self.label} pool is not running"]))
        joined, problems = 0, list(problems)
        for host, port in found:
            try:
                await self._pool.meet(Address(host, port), ignore_old_events=True)
                joined += 1
            except TimeoutError:
                problems.append(f"Failed to join {host}: dial tcp {join_host_port(host, port)}: i/o timeout")
            except OSError as error:
                problems.append(f"Failed to join {host}: {explain_dial(error, host, port)}")
            except (EOFError, WireError, JoinRefused) as error:
                problems.append(f"Failed to join {host}: {error}")
        if not joined and problems:
            raise Refused(problems_text(problems))
        return joined

    def force_leave(self, name: str, *, prune: bool) -> None:
        """Have a failed member count as left in the whole pool; with `prune`, be forgotten."""
        self._do(lambda serf, now: serf.remove_failed(name, prune, now))

    # -- events -------------------------------------------------------------------------------------------------------

    def fire(self, name: str, payload: bytes) -> None:
        """Send a user event to every member, this one among them. Raises `Refused` for one that is too long."""
        try:
            self._do(lambda serf, now: serf.fire(name, payload, False, now))
        except GossipError as error:
            raise Refused(str(error)) from None

    async def query(self, name: str, payload: bytes) -> tuple[dict[str, bytes], list[str]]:
        """Ask every member, and wait until those that are alive have answered, or for as long as queries last. Returns
        the answers by member, and who was alive. Raises `Refused` for a question that is too long.
        """
        if self._pool is None:
            return {}, []
        alive = [member.name for member in self.members() if member.status == ALIVE]
        try:
            pending = await self._pool.query(name, payload, enough=len(alive))
        except GossipError as error:
            raise Refused(str(error)) from None
        return dict(pending.responses), alive

    def _answer(self, received: QueryReceived) -> None:
        if self.on_query is None or self._pool is None:
            return
        query = received.query
        room = self._pool.serf.settings.query_response_size_limit - len(self._pool.serf.name.encode()) - QUERY_FRAME
        payload = self.on_query(query.name, query.payload, room)
        if payload is None:
            return
        try:
            self._do(lambda serf, now: serf.queries.respond(received, payload, now))
        except GossipError as error:
            log.debug("a query cannot be answered", query=query.name, error=str(error))

    def _told(self, event: PoolEvent) -> None:
        match event:
            case MemberChanged(change, member):
                self._note(change, member)
                self._tell_soon()
            case EventReceived(user):
                if self.on_event is not None:
                    self.on_event(user.name, user.payload, user.l_time)
            case KeyringChanged():
                self._save_keys()
            case QueryReceived():
                # The pool is in the middle of what brought it.
                asyncio.get_running_loop().call_soon(self._answer, event)
            case _:
                pass

    def _save_keys(self) -> None:
        path = self._file("keyring", self._folder)
        if path is None or self._config.disable_keyring_file:
            return
        try:
            save_keyring(path, self._keyring)
        except OSError as error:
            log.error(
                "the gossip keys cannot be kept, and are lost with the next start", file=str(path), error=str(error)
            )

    def _note(self, change: Change, member: PoolMember) -> None:
        node_id = member.tags.get("id", "")
        if change in (Change.JOIN, Change.UPDATE) and member.status is Status.ALIVE:
            self.forgotten.discard(member.name)
            if node_id:
                self._ids[node_id] = member.name
        elif self._ids.get(node_id) == member.name:
            del self._ids[node_id]
        if change is Change.REAP:
            self.forgotten.add(member.name)

    def _tell_soon(self) -> None:
        if not self._telling:
            self._telling = True
            asyncio.get_running_loop().call_soon(self._tell)

    def _tell(self) -> None:
        self._telling = False
        self.on_change()

    async def keys(self, operation: str, key: str, relays: int) -> KeyringState:
        """Have every member do one of `KEY_OPERATIONS` with a key in base64, and wait for their answers."""
        datacenter = self._config.datacenter
        if self._pool is None:
            return KeyringState(self.wan, datacenter, {}, {}, 0, {}, "gossip is not running")
        payload = b""
        if operation != "list" and self._keyring.primary is not None:
            try:
                payload = key_queries.request(decode_key(key))
            except KeyringError as error:
                return KeyringState(self.wan, datacenter, {}, {}, 0, {}, str(error))
        nodes = self._pool.serf.swim.alive_count()
        pending = await self._pool.query(_OPERATIONS[operation].value, payload, relay_factor=relays, enough=nodes)
        found = key_queries.result(pending, nodes)
        problem = ""
        if found.errors:
            problem = f"{found.errors}/{nodes} nodes reported failure"
        elif found.responses < nodes:
            problem = f"{found.responses}/{nodes} nodes reported success"
        return KeyringState(self.wan, datacenter, found.keys, found.primary_keys, nodes, found.messages, problem)

    # -- coordinates --------------------------------------------------------------------------------------------------

    @property
    def coordinate(self) -> Coord:
        """Where this agent is in the pool's network, as it estimates it."""
        return self._pool.serf.coordinates.own if self._pool is not None else Coord()

    def coordinate_of(self, name: str) -> Coord | None:
        """Where a member is; None for not known."""
        if self._pool is None:
            return None
        if name == self.name:
            return self.coordinate
        return self._pool.serf.coordinates.known.get(name)

    def coordinates(self) -> list[CoordinateEntry]:
        """Where every member is, as far as it is known."""
        if self._pool is None:
            return []
        known = {**self._pool.serf.coordinates.known, self.name: self.coordinate}
        return [CoordinateEntry(found.name, "", known[found.name]) for found in self.members() if found.name in known]

    # -- figures ------------------------------------------------------------------------------------------------------

    def figures(self) -> dict[str, int]:
        """The pool's numbers, under the names that `lictor info` shows."""
        if self._pool is None:
            return {}
        serf = self._pool.serf
        waiting = serf.waiting()
        return {
            "coordinate_resets": serf.coordinates.resets,
            "event_queue": waiting.events,
            "event_time": serf.user_events.clock.time,
            "failed": len(serf.roster.with_status(Status.FAILED)),
            "health_score": serf.swim.awareness.score,
            "intent_queue": waiting.intents,
            "left": len(serf.roster.with_status(Status.LEFT)),
            "member_time": serf.clock.time,
            "members": len(serf.roster.members),
            "query_queue": waiting.queries,
            "query_time": serf.queries.clock.time,
        }

    @property
    def encrypted(self) -> bool:
        """Whether gossip is sealed."""
        return self._keyring.primary is not None


def _shown(member: PoolMember) -> Member:
    """A member as the API shows it."""
    return Member(
        member.name,
        member.address.host,
        member.address.port,
        member.tags,
        int(member.status),
        *(member.vsn or bytes(6)),
    )


def _nothing() -> None:
    pass
