"""The agent: one node's store, its own services and checks, and, on a server, the server. The doors are built on this.

agent = Agent(config, logs)
await agent.start()          # state loaded, node registered, checks running
... doors opened by the caller ...
await agent.close()
"""

import asyncio
import contextlib
import random
import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from lictor.agent import authority_metrics, instruments
from lictor.agent.anti_entropy import AntiEntropy
from lictor.agent.config.keys import RuntimeConfig
from lictor.agent.coordinate_reports import CoordinateReports
from lictor.agent.data_lock import DataLock
from lictor.agent.deaf_listeners import DeafListeners
from lictor.agent.elsewhere import Elsewhere
from lictor.agent.events import WIRE_NAME, EventLog, check_event, concerns, from_wire, wire_payload
from lictor.agent.exposing import Exposing
from lictor.agent.first_state import first_authority, first_autopilot, first_entries
from lictor.agent.following import follow
from lictor.agent.forwarding import block
from lictor.agent.gossip_metrics import GossipMetrics
from lictor.agent.instruments import metrics_of
from lictor.agent.launching import launch_settings, launched_as
from lictor.agent.leaves import Leaves
from lictor.agent.leaves_files import LeafFiles
from lictor.agent.live_connections import QUERY as LIVE_CONNECTIONS
from lictor.agent.live_connections import LiveConnections
from lictor.agent.local import LocalState
from lictor.agent.logs import LogSystem, logger
from lictor.agent.metrics import Metrics, PrefixFilter
from lictor.agent.metrics_sinks import MetricsSinks
from lictor.agent.node_views import NodeViews
from lictor.agent.persistence import AgentFiles
from lictor.agent.pool_tags import SERVER, pool_tags
from lictor.agent.pools import Pools
from lictor.agent.registry import Registry, stands_for
from lictor.agent.remote_exec import EVENT as REMOTE_EXEC
from lictor.agent.signing import sign_leaf
from lictor.agent.wan import Wan
from lictor.model.authorizer import ALLOW_ALL, Authorizer
from lictor.model.command import Command, CoordinateUpdate, LeavesRevoke, Numbered, Restore, RestorePart
from lictor.model.coordinate_entry import CoordinateEntry
from lictor.model.errors import InvalidRequest, LictorError, NoLeader, NotFound, Refused
from lictor.model.host_port import join_host_port, split_host_port
from lictor.model.member import ALIVE, LEFT, Member
from lictor.model.node import Node
from lictor.model.service import NodeService
from lictor.model.service_definition import CheckDefinition, ServiceDefinition
from lictor.model.user_event import UserEvent
from lictor.model.version import API_VERSION
from lictor.raft.consensus import Consensus, Machine, ServerRecord
from lictor.raft.single import SingleVoter
from lictor.server.hello import Hello
from lictor.server.leadership import Leadership
from lictor.server.members import as_member
from lictor.server.server import Server
from lictor.store.reads import connect_ca
from lictor.store.store import Answer, Store, View

if TYPE_CHECKING:
    from lictor.agent.client import Client
    from lictor.agent.lan import ServerSeen
    from lictor.agent.launcher import Launcher
    from lictor.agent.lookup_map import LookupMap
    from lictor.agent.serving import Serving
    from lictor.rpc.security import Security
    from lictor.server.connect_ca_requests import SignedLeaf

T = TypeVar("T")

log = logger("agent")

AUTHORITY_PAUSE = 0.2  # seconds after the start of an agent with -dev until the mesh's authority is made
SYNC_PATIENCE = 2.0  # seconds that a registration waits for the catalog to have it, before it answers all the same
TOKEN_NAMES = {
    "default": "default",
    "acl_token": "default",
    "agent": "agent",
    "acl_agent_token": "agent",
    "agent_recovery": "agent_recovery",
    "agent_master": "agent_recovery",
    "acl_agent_master_token": "agent_recovery",
    "replication": "replication",
    "acl_replication_token": "replication",
    "config_file_service_registration": "config_file_service_registration",
    "dns": "dns",
}
"""The agent's tokens under every name by which they can be set."""


NEW_LEADER = "consul:new-leader"  # a user event of the pool
RESTORE_PART = 1024 * 1024  # bytes of a state in one write, so that none holds up the others
MAX_CONTACT = 9_223_372_036_854  # milliseconds, of which the nanoseconds have 63 bits; shown for never


class ExecHandler(Protocol):
    """What runs programs for `lictor exec`."""

    def handle(self, payload: bytes) -> None:
        """Begin the job that an event's payload names."""
        ...


class Agent:
    """One agent. Whoever runs it sets `on_reload` (reads the configuration anew and returns the keys that need a
    restart), `on_leave` (ends the agent) and `remote_exec`.
    """

    def __init__(self, config: RuntimeConfig, logs: LogSystem | None = None) -> None:
        self.config = config
        self.logs = logs
        self.started_at = time.time()
        folder = Path(config.data_dir) if config.data_dir and not config.dev_mode else None
        self._closing: list[Callable[[], Awaitable[None]]] = []
        if folder is not None:
            self._closing.append(DataLock(folder).close)
        self.files = AgentFiles(folder)
        self.node_id = self.files.node_id(config.node_id.lower())
        self.store = Store()
        self.metrics: Metrics = metrics_of(config)
        self.local = LocalState(self.node, self.store.watches.fire)
        self.events = EventLog(self.store.watches.fire)
        self.connections = LiveConnections(lambda: self.local.services)
        self.deaf = DeafListeners(lambda: self.local.services)
        self._set_tokens: dict[str, str] = self.files.tokens()
        self.server: Server | None = None
        self.leadership: Leadership | None = None
        self._member = True  # of the servers' configuration, as far as is known
        self.serving: Serving | None = None  # none in memory (`-dev`): such a server is alone
        self.client: Client | None = None  # what an agent that is no server has of the servers
        self.failure = ""  # why the agent ended itself
        self.lookup_map: LookupMap | None = None  # none until programs can reach the agent
        self.launcher: Launcher | None = None  # likewise; none where the agent starts no proxies
        self.has_left = False
        self._leaving = False
        self.pools = Pools(config, self.node_id, folder, self._give_up, GossipMetrics(self.metrics))
        self.pools.on_change = self._pool_changed
        self.pools.on_change_between = self._servers_elsewhere_changed
        self.wan: Wan | None = None  # a server's way to other datacenters
        self.elsewhere = Elsewhere(self)
        if not config.server:
            self.client = self._beside_servers(folder)
        else:
            self.wan = Wan(config, self.node_id, self.pools, self.metrics)
            if folder is not None:
                self.serving = self._beside_others()
                self.wan.datacenters.serve(self.serving.network)
            self.server = self.serving.server if self.serving is not None else Server(self.store, self._alone)
        self.leaves = Leaves(
            self.datacenter,
            LeafFiles(folder / "leaves" if folder is not None else None),
            self.sign_leaf,
            lambda: self.follow(connect_ca.trusted),
            node=self.node_name,
            revoke=lambda leaves: self.apply(LeavesRevoke(leaves)),
            is_local=self._has_service,
            root_spread=config.connect.test_ca_leaf_root_change_spread,
        )
        self._nodes = NodeViews(self.store, self.client)
        self.registry: Registry
        self.exposing: Exposing
        self.anti_entropy: AntiEntropy
        self.remote_exec: ExecHandler | None = None
        self.on_reload: Callable[[], Awaitable[list[str]]] | None = None
        self.on_leave: Callable[[], None] | None = None
        self._writes = instruments.Writes(self.metrics)
        self._sinks = MetricsSinks(self.metrics, config.telemetry)
        instruments.publish(self)
        authority_metrics.publish(self)

    # -- who this is --------------------------------------------------------------------------------------------------

    @property
    def node_name(self) -> str:
        """This node's name."""
        return self.config.node_name

    @property
    def datacenter(self) -> str:
        """This agent's datacenter."""
        return self.config.datacenter

    @property
    def advertise(self) -> str:
        """The address that others reach this node under."""
        return self.config.advertise_addr

    def node(self) -> Node:
        """This node as the catalog should have it."""
        config = self.config
        wan = config.advertise_addr_wan or config.advertise_addr
        tagged = {"lan": config.advertise_addr, "wan": wan}
        family = "ipv6" if ":" in config.advertise_addr else "ipv4"
        tagged[f"lan_{family}"] = config.advertise_addr
        tagged[f"wan_{family}"] = wan
        tagged.update(config.tagged_addresses)
        return Node(self.node_id, config.node_name, config.advertise_addr, config.datacenter, tagged, self.meta())

    def meta(self) -> dict[str, str]:
        """This node's meta: what configuration gives, and what every node has."""
        return {"consul-network-segment": self.config.segment, "consul-version": API_VERSION, **self.config.node_meta}

    def _beside_others(self) -> "Serving":
        from lictor.agent.serving import Serving  # takes a while to import, and -dev does without

        return Serving(self.config, self.store, self.server_record, self.meta, self._give_up)

    def _beside_servers(self, folder: Path | None) -> "Client":
        from lictor.agent.client import Client  # takes a while to import, and -dev does without

        return Client(self.config, self.store, lambda: len(self.members()), self.metrics, folder)

    def _alone(self, machine: Machine) -> Consensus:
        return SingleVoter(machine, self.server_record)

    def _give_up(self, reason: str) -> None:
        log.error("giving up", reason=reason)
        self.failure = reason
        if self.on_leave is not None:
            self.on_leave()

    def server_record(self) -> ServerRecord:
        """This server as the others should know it."""
        return ServerRecord(self.node_id, self.config.node_name, self.rpc_address)

    def hello(self) -> Hello:
        """What this server says of itself to others."""
        if self.serving is not None:
            return self.serving.formation.hello
        if self.server is None:
            raise NoLeader
        me, consensus = self.server_record(), self.server.consensus
        return Hello(
            me.id,
            me.node,
            me.address,
            self.datacenter,
            consensus.number,
            blank=False,
            leader_id=me.id,
            leader=me.address,
            is_leader=consensus.is_leader,
            term=consensus.term,
            last_index=consensus.applied,
            last_term=consensus.term,
            applied=consensus.applied,
            version=API_VERSION,
            meta=self.meta(),
        )

    @property
    def rpc_address(self) -> str:
        """Where other servers reach this one, host:port."""
        address = self.config.advertise_addr
        return f"{f'[{address}]' if ':' in address else address}:{self.config.ports.server}"

    def members(self, *, wan: bool = False) -> list[Member]:
        """The members of the datacenter's pool, or of the pool that joins datacenters, this agent first. Who shows them
        depends on the topic `("agent", "members")`.
        """
        config = self.config
        if wan and not config.server:
            return []
        found = self.pools.members(wan=wan)
        if found:
            return found
        tags = pool_tags(config, self.node_id, wan=wan)
        if wan:
            address = config.advertise_addr_wan or config.advertise_addr
            return [Member(f"{config.node_name}.{config.datacenter}", address, config.ports.serf_wan, tags)]
        own = Member(config.node_name, config.advertise_addr, config.ports.serf_lan, tags)
        if self.leadership is None:
            return [own]
        servers = self.leadership.members.servers()
        return [own, *(as_member(server) for server in servers if server.id != self.node_id)]

    def _members_changed(self) -> None:
        self.store.watches.fire((("agent", "members"),))

    def _servers_elsewhere_changed(self) -> None:
        if self.wan is not None:
            self.wan.servers_changed()
        self._members_changed()

    def _pool_changed(self) -> None:
        self._members_changed()
        if self.leadership is not None:
            self.leadership.agents_changed()

    def _servers_changed(self) -> None:
        """What is known of other servers by their calls has changed."""
        self.store.watches.fire((("agent", "members"),))
        self.pools.acquaint_soon()

    def _gossip_places(self) -> list[tuple[str, tuple[str, int]]]:
        """Where the servers that are known by their calls have their gossip, by their names."""
        if self.leadership is None:
            return []
        found = []
        for known in self.leadership.members.servers():
            if known.id != self.node_id and known.status == ALIVE and known.hello is not None and known.hello.serf_port:
                found.append((known.node, (split_host_port(known.address, 0)[0], known.hello.serf_port)))
        return found

    def authorizer(self, token: str) -> Authorizer:
        """The rights of a token: everything, until access control lands."""
        return ALLOW_ALL

    # -- servers ------------------------------------------------------------------------------------------------------

    @property
    def fresh_until(self) -> float:
        """The time of `lictor.model.clock.lease_clock` until which this agent's store may answer default reads at once:
        infinite for a server that is always alone, 0.0 where each has to be confirmed.
        """
        return self.server.consensus.fresh_until if self.server is not None else 0.0

    @property
    def last_contact(self) -> float:
        """Seconds since the leader was last heard of: 0 on the leader itself, infinite for never. On an agent that is
        no server, since what it holds was the newest there is.
        """
        if self.client is not None:
            return self.client.age
        return self.server.consensus.last_contact if self.server is not None else float("inf")

    def leader_contact(self) -> tuple[int, bool]:
        """Milliseconds since the leader was last heard of, and whether there is one."""
        contact = self.last_contact
        if self.client is not None:
            known = self.client.knows_leader
        else:
            known = self.server is not None and bool(self.server.consensus.leader)
        return MAX_CONTACT if contact > MAX_CONTACT / 1000 else int(contact * 1000), known

    async def confirm(self, consistent: bool) -> None:
        """Return once this agent's store holds everything that was acknowledged before: a default read is then safe,
        or a consistent one, for which a majority confirms the leader. Raises `NoLeader`.
        """
        if self.client is not None:
            await self.client.confirm(consistent)
            return
        if self.server is None:
            raise NoLeader
        await self.server.confirm(quorum=consistent)

    async def apply(self, command: Command) -> Any:
        """Have the servers apply a command. Returns its result; raises what it failed with."""
        if self.client is not None:
            return await self.client.apply(command)
        if self.server is None:
            raise NoLeader
        numbers = block.get()
        # Parts of a state do no harm twice, and there may be any number of them.
        if numbers is not None and not isinstance(command, Numbered | RestorePart):
            command = numbers.numbered(command)
        started = time.perf_counter()
        result = await self.server.apply(command)
        self._writes.applied(command, (time.perf_counter() - started) * 1000)
        return result

    def submit(self, command: Command, done: Callable[[Any], None]) -> None:
        """Do the same, and tell `done` the result, or the `LictorError` that it failed with; never within this call.
        Raises what the command is refused for at once.
        """
        if self.server is None:
            raise NoLeader
        started = time.perf_counter()

        def ended(result: Any) -> None:
            if not isinstance(result, LictorError):
                self._writes.applied(command, (time.perf_counter() - started) * 1000)
            done(result)

        self.server.submit(command, ended)

    async def restore(self, state: bytes) -> None:
        """Replace the whole state with that of a snapshot, which may be another machine's, and bring it in line with
        what is: this node, and what is registered here.
        """
        token, parts = secrets.token_hex(8), range(0, max(1, len(state)), RESTORE_PART)
        for number, start in enumerate(parts):
            await self.apply(RestorePart(token, number, state[start : start + RESTORE_PART]))
        await self.apply(Restore(token, len(parts)))
        if self.leadership is not None:
            await self.leadership.bring_in_line()
        self.anti_entropy.compare_soon()

    # -- reads for others than the doors ------------------------------------------------------------------------------

    async def read(self, function: Callable[[View], T]) -> Answer[T]:
        """Run a read on this agent's store, on a client agent first holding what it looks at. Raises `LictorError`."""
        return self.store.read(function) if self.client is None else await self.client.replica.read(function)

    def follow(self, function: Callable[[View], T]) -> AsyncGenerator[Answer[T], None]:
        """The answer of a read, and each that takes its place: see `lictor.agent.following`."""
        return follow(self.store, self.client.replica if self.client is not None else None, function)

    async def sign_leaf(self, request: str, token: str = "") -> "SignedLeaf":
        """Have a certificate signed: see `lictor.agent.signing`."""
        return await sign_leaf(self, request, token)

    # -- life ---------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Load the state, register this node, start its checks. Raises `OSError`, `DamagedLog`, `LictorError`; what was
        begun is then to be ended with `close`.
        """
        config = self.config
        if self.client is not None:
            self.anti_entropy = AntiEntropy(
                self.local, self.store, self.node, self.apply, self._hold_own, lambda: len(self.members())
            )
        else:
            self.anti_entropy = AntiEntropy(self.local, self.store, self.node, self.apply)
        self.registry = Registry(
            lambda: self.config, self.local, self.files, self._nodes.health, self.anti_entropy.trigger
        )
        self.registry.on_services = self._services_changed
        self.exposing = Exposing(
            lambda: self.config, self.local, self.registry.runner, self.follow, self.store.watches.fire
        )
        self._closing.append(self.registry.close)
        if self.client is not None:
            self.client.replica.on_leader = self.anti_entropy.servers_up
        self.anti_entropy.on_adopted = self.registry.adopt
        self.pools.open()
        self._closing.append(self.pools.close)
        if self.wan is not None:
            self._closing.append(self.wan.close)
        if self.server is not None:
            self.leadership = Leadership(
                self.server,
                self.serving.network if self.serving is not None else None,
                self.hello,
                members_changed=self._servers_changed,
                first_autopilot=first_autopilot(config),
                first_entries=first_entries(config),
                peer_removed=self.serving.formation.keep_out if self.serving is not None else None,
                heartbeat=self.serving.heartbeat if self.serving is not None else 0.0,
                agents=self.pools.agents,
                authority=first_authority(config),
                datacenter=self.datacenter,
                authorizer=self.authorizer,
                work=_elsewhere,
                datacenters=self.wan.datacenters if self.wan is not None else None,
                primary=config.primary_datacenter,
                replication_token=lambda: self.tokens["replication"],
            )
            self.server.consensus.on_peers(self._peers_changed)
            self.server.consensus.on_leadership(self._tell_leadership)
            running = self.serving or self.server
            self._closing.append(running.close)
            await running.start()
            self.leadership.start()
            if self.serving is not None:
                self.serving.report = self.leadership.update_coordinate
            self._closing.append(self.leadership.close)
            if config.dev_mode or config.bootstrap:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(SYNC_PATIENCE):
                        await self.leadership.duties.begun()
        await self._begin_gossip()
        await self.registry.load(config.services, config.checks)
        if config.connect.enabled:
            self.exposing.start()
            self._closing.append(self.exposing.close)
        if self.server is not None and self.server.consensus.leader:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SYNC_PATIENCE):
                    await self.anti_entropy.sync_whole()
        self._follow_leader()
        if not config.disable_coordinates:
            telling = asyncio.create_task(self._tell_coordinate())
            self._closing.append(lambda: _ended(telling))
        self.anti_entropy.start()
        self._closing.append(self.anti_entropy.close)
        await self._sinks.start()
        self._closing.append(self._sinks.close)
        self._closing.append(self.leaves.close)
        if config.connect.enabled:
            self.leaves.start()
        if self.leadership is not None:
            # What makes the authority takes a while to import: an agent in memory answers its first callers before.
            pause = AUTHORITY_PAUSE if config.dev_mode else 0.0
            asyncio.get_running_loop().call_later(pause, self.leadership.connect_ca.begin)
        log.info("started", node=config.node_name, datacenter=config.datacenter, server=config.server)

    async def _begin_gossip(self) -> None:
        pools = self.pools
        pools.servers_known = self._gossip_places
        pools.on_event = self._event_came
        pools.on_query = self._query_came
        if self.serving is not None:
            formation = self.serving.formation
            pools.on_servers = lambda servers: formation.meet([server.address for server in servers])
            pools.on_gossip = lambda places: formation.pass_over([join_host_port(*place) for place in places])
        if self.client is not None:
            pools.on_servers = self._servers_seen
            self.client.start()
            self._closing.append(self.client.close)
        if not self.config.dev_mode:
            await pools.start()
            return
        # Nobody waits for it: the ports are open.
        starting = asyncio.create_task(self._start_gossip())
        self._closing.append(lambda: _ended(starting))

    def _servers_seen(self, alive: "list[ServerSeen]") -> None:
        """The pool's servers have changed; where none was known, the catalog is told of what is registered here. One
        that gossip takes for failed is still asked where no other answers.
        """
        assert self.client is not None
        were = len(self.client.servers)
        seen = [server for server in self.pools.servers() if server.status != LEFT]
        self.client.learn(server.address for server in seen if server.datacenter == self.datacenter)
        if not were and len(self.client.servers):
            self.anti_entropy.compare_soon()

    def _tell_leadership(self, leading: bool) -> None:
        """As Consul's leaders do, so that its agents notice too."""
        if leading and self.pools.lan is not None:
            self.pools.lan.fire(NEW_LEADER, self.config.node_name.encode())

    async def _start_gossip(self) -> None:
        try:
            await self.pools.start()
        except (OSError, LictorError) as error:
            self._give_up(f"gossip cannot be started: {error}")

    def _follow_leader(self) -> None:
        """Have the catalog compared with what is registered here each time that a leader is found."""
        if self.server is None:
            return
        consensus = self.server.consensus
        known = bool(consensus.leader)

        def changed() -> None:
            nonlocal known
            before, known = known, bool(consensus.leader)
            if known and not before:
                self.anti_entropy.compare_soon()

        consensus.on_peers(changed)

    async def _tell_coordinate(self) -> None:
        """Have this node's coordinate stored: a server's first one as soon as there is a leader."""
        name = self.config.node_name
        while self.server is not None:
            try:
                if self.store.coordinates.get((name.lower(), "")) is None:
                    await self.apply(CoordinateUpdate((CoordinateEntry(name),)))
                break
            except NoLeader:
                await asyncio.sleep(1.0)
        await CoordinateReports(
            node=name,
            coordinate=lambda: self.pools.coordinate,
            members=lambda: len(self.members()),
            send=self._report_coordinate,
            chance=random.Random(),
        ).run()

    async def _report_coordinate(self, entry: CoordinateEntry) -> None:
        if self.leadership is not None:
            await self.leadership.update_coordinate(entry)
        else:
            await self.apply(CoordinateUpdate((entry,)))

    def _peers_changed(self) -> None:
        """A server that was no member for a while was taken out of the catalog, with all that it has registered."""
        server = self.server
        member = server is not None and any(peer.number == server.consensus.number for peer in server.consensus.peers())
        if member and not self._member:
            self.anti_entropy.compare_soon()
        self._member = member

    async def close(self) -> None:
        """End what was started, last first: checks and duties stop, what was accepted is written."""
        while self._closing:
            await self._closing.pop()()

    async def leave(self) -> None:
        """Leave the cluster, and end once whoever asked has been answered."""
        log.info("leaving")
        # What this agent has registered is about to go: it must not put it back.
        self._leaving = True
        await self.anti_entropy.close()
        try:
            told = self.serving is not None and await self.serving.leave()
            await self.pools.ready()
            drain = self.config.performance.leave_drain_time if told else 0.0
            await asyncio.gather(self.pools.leave(), asyncio.sleep(drain))
        except BaseException:
            self._leaving = False
            self.anti_entropy.start()
            raise
        self.has_left = True
        if self.on_leave is not None:
            asyncio.get_running_loop().call_soon(self.on_leave)

    async def join(self, address: str, *, wan: bool = False) -> None:
        """Join the agent at `address`, host or host:port; on a server, another server's `ports.server` is understood
        too. Raises `Refused` with what failed.
        """
        await self.pools.ready()
        pool = self.pools.wan if wan else self.pools.lan
        if pool is None and wan and not self.config.server:
            raise Refused("Must be a server to join WAN cluster")
        try:
            if pool is None:
                raise Refused("this agent has no gossip: ports.serf_lan or ports.serf_wan is -1")
            await pool.join([address])
        except Refused:
            if self.serving is None or wan:
                raise
            try:
                await self.serving.formation.join(address)
                return
            except Refused:
                if pool is None:
                    raise
            raise

    async def force_leave(self, node: str, *, prune: bool = False, wan: bool = False) -> None:
        """Have a failed member count as left, with `prune` be forgotten; one that is alive stays. With `wan`, do so in
        the pool between datacenters alone. Raises `Refused` for a name that no member has, and `LictorError` where the
        leader could not be had to do it.
        """
        member = next((member for member in self.members(wan=wan) if member.name == node), None)
        if member is None:
            raise Refused(f"agent: No node found with name '{node}'")
        if member.status == ALIVE:
            log.info("a member that is alive was to be forced to leave, and stays", node=node)
            return
        if wan:
            if self.pools.wan is not None:
                self.pools.wan.force_leave(node, prune=prune)
            return
        if self.serving is not None and member.status != LEFT and member.tags.get("role") == SERVER:
            await self.serving.formation.force_leave(member.tags["id"])
        for pool, name in ((self.pools.lan, node), (self.pools.wan, f"{node}.{self.datacenter}")):
            if pool is not None and pool.status_of(name):
                pool.force_leave(name, prune=prune)

    # -- services and checks ------------------------------------------------------------------------------------------

    def _services_changed(self, names: set[str], dropped: list[NodeService]) -> None:
        """Instances of services of these names were registered or deregistered here; `dropped` are those that went."""
        settings = launch_settings(self.config.connect.launch)
        launched = [service for service in dropped if launched_as(service, settings)]
        self.leaves.services_changed(names, {name for service in launched for name in stands_for(service)})

    def _has_service(self, name: str) -> bool:
        """Whether there is an instance of a service here, or a proxy for it; the name is in lower case."""
        return any(name in stands_for(service) for service in self.local.services.values())

    async def register_service(self, definition: ServiceDefinition, *, replace_checks: bool = False) -> None:
        """Register a service, its checks and its sidecar, and have the catalog know. See `Registry`."""
        await self.registry.register_service(definition, replace_checks=replace_checks)
        await self.synced()

    async def deregister_service(self, service_id: str) -> None:
        """Remove a service, its checks and its sidecars, and have the catalog know."""
        await self.registry.deregister_service(service_id)
        await self.synced()

    async def register_check(self, definition: CheckDefinition) -> None:
        """Register a check, and have the catalog know."""
        await self.registry.register_check(definition)
        await self.synced()

    async def deregister_check(self, check_id: str) -> None:
        """Remove a check, and have the catalog know."""
        await self.registry.deregister_check(check_id)
        await self.synced()

    async def update_ttl(self, check_id: str, status: str, output: str) -> None:
        """Somebody reports for a TTL check; a changed status is in the catalog when this returns."""
        self.registry.update_ttl(check_id, status, output)
        await self.synced()

    async def set_node_maintenance(self, reason: str | None) -> None:
        """Put the node into maintenance, with a reason (empty for the default text), or with None out of it."""
        await self.registry.set_node_maintenance(reason)
        await self.synced()

    async def set_service_maintenance(self, service_id: str, reason: str | None) -> None:
        """Put a service into maintenance or, with None, out of it. Raises `NotFound`."""
        await self.registry.set_service_maintenance(service_id, reason)
        await self.synced()

    async def synced(self) -> None:
        """Bring the catalog in line now, so that whoever has just written reads it; gives up after `SYNC_PATIENCE`,
        and anti-entropy goes on trying.
        """
        if self._leaving or not self.local.pending():
            return
        try:
            async with asyncio.timeout(SYNC_PATIENCE):
                if await self.anti_entropy.sync():
                    return
        except TimeoutError:
            pass
        self.anti_entropy.trigger()

    async def _hold_own(self) -> None:
        """Have the store hold what the catalog says of this node, as it is now. Raises `LictorError`."""
        if self.client is not None:
            await self._nodes.hold(self.node_name)
            await self.client.confirm(False)

    # -- events -------------------------------------------------------------------------------------------------------

    def fire_event(self, event: UserEvent) -> None:
        """Send an event to every agent, this one among them. Raises `Refused` for one that cannot be sent."""
        check_event(event)
        lan = self.pools.lan
        if lan is None:
            self.take_event(event)
        else:
            lan.fire(WIRE_NAME + event.name, wire_payload(event))

    def _event_came(self, name: str, payload: bytes, time: int) -> None:
        """A user event of the pool; what is not one of agents' is none of this agent's business."""
        if name == NEW_LEADER:
            log.info("New leader elected", payload=payload.decode(errors="replace"))
        if not name.startswith(WIRE_NAME):
            return
        try:
            event = from_wire(payload, time)
        except ValueError as error:
            log.warn("an event cannot be read", event=name, error=str(error))
            return
        self.take_event(event)

    def _query_came(self, name: str, payload: bytes, room: int) -> bytes | None:
        """A query of the pool. Returns what this agent answers, None for what is none of its business."""
        if name != LIVE_CONNECTIONS:
            return None
        return self.connections.answer(payload, room, asyncio.get_running_loop().time())

    def take_event(self, event: UserEvent) -> None:
        """An event has come: keep it, and obey it, where it is for this node."""
        if not concerns(event, self.node_name, self.local.services.values()):
            return
        if event.name == REMOTE_EXEC:
            if self.config.disable_remote_exec or self.remote_exec is None:
                log.info("ignoring a remote exec event: disable_remote_exec is set", event=event.id)
            else:
                self.remote_exec.handle(event.payload or b"")
        self.events.add(event)
        log.debug("new event", name=event.name, event=event.id)

    # -- configuration ------------------------------------------------------------------------------------------------

    async def take_config(self, config: RuntimeConfig) -> None:
        """Take over a new configuration whose differences can all change while running. Raises `LictorError` and
        changes nothing where its services or checks cannot be registered, its TLS files not be used, or its tags not be
        told.
        """
        self.pools.judge(config)
        security = self._tls_of(config)
        before, self.config = self.config, config
        try:
            await self.registry.apply_definitions(config.services, config.checks)
        except BaseException:
            self.config = before
            raise
        self.registry.configure()
        network = self.serving or self.client
        if network is not None and security is not None:
            network.reload(config, security)
            if self.wan is not None:
                self.wan.reload(config, security)
        self.pools.reload(config)
        telemetry = config.telemetry
        self.metrics.filter = PrefixFilter(tuple(telemetry.prefix_filter), telemetry.filter_default)
        self.local.node_changed()
        await self.synced()

    def _tls_of(self, config: RuntimeConfig) -> "Security | None":
        """TLS between agents, where there are others. Raises `LictorError` for files that cannot be used."""
        if self.serving is None and self.client is None:
            return None
        from lictor.agent.rpc_tls import rpc_tls  # takes a while to import, and -dev does without

        return rpc_tls(config)

    async def reload(self) -> list[str]:
        """Read the configuration anew. Returns the keys that need a restart. Raises `Refused` with what is wrong with
        it, and changes nothing then.
        """
        if self.on_reload is None:
            return []
        try:
            return await self.on_reload()
        except InvalidRequest as error:  # the files are wrong, not the request
            raise Refused(str(error)) from None

    @property
    def tokens(self) -> dict[str, str]:
        """The agent's tokens by name: those that were set while it ran over those of the configuration."""
        tokens = self.config.acl.tokens
        names = set(TOKEN_NAMES.values())
        return {**{name: getattr(tokens, name) for name in names}, **self._set_tokens}

    def set_token(self, name: str, token: str) -> None:
        """Set one of the agent's tokens, under any of TOKEN_NAMES. Raises `NotFound`, `OSError`."""
        if name not in TOKEN_NAMES:
            raise NotFound(f'Token "{name}" is unknown')
        tokens = {**self._set_tokens, TOKEN_NAMES[name]: token}
        if self.config.acl.enable_token_persistence:
            self.files.save_tokens(tokens)
        self._set_tokens = tokens


async def _elsewhere(function: Callable[..., Any], *args: Any) -> Any:
    return await asyncio.get_running_loop().run_in_executor(None, function, *args)


async def _ended(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
