"""One server of several: drives the consensus core with a clock, a disk and a network, and the machine with what is
committed.

Everything happens in turns of the event loop. Whatever arrives (messages, proposals, finished writes, ticks) is given
to the core at once; one `_pump` at the end of the turn takes the work that came of it all: messages leave in one
envelope for each server, writes go to the log's writer, committed entries to the machine. So what came in one turn
shares one message, one entry, one sync.

The order within a turn matters in one place: a commit index leaves this server (in a message, or as a result) only
after `fresh_until` has been taken back where the machine is behind it.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lictor.model.errors import LictorError, NoLeader, NotLeader, Refused
from lictor.model.transport import Transport
from lictor.raft import opening, standing
from lictor.raft.applied import AppliedIndex
from lictor.raft.applying import SLICE_BYTES, SLICE_PROPOSALS, Applying
from lictor.raft.configuring import Configuring, furthest, noted
from lictor.raft.consensus import Machine, Peer, Progress, ServerChange, ServerRecord
from lictor.raft.core.config import Config
from lictor.raft.core.log import InvariantBroken
from lictor.raft.core.membership import Membership
from lictor.raft.core.message import APPEND_THREAD, APPLY_THREAD, Entry, EntryKind, Message, MessageKind, Snapshot
from lictor.raft.core.node import MessageRefused, Node, ProposalDropped, StrangerAnswered
from lictor.raft.handing_in import HandingIn
from lictor.raft.log_view import LogView
from lictor.raft.log_writer import LogWriter
from lictor.raft.notices import Notices
from lictor.raft.post import Post
from lictor.raft.reading import Reading
from lictor.raft.roster import Roster, cluster_of
from lictor.raft.settings import ELECTION_TICKS, RaftSettings, World
from lictor.raft.shipping import Shipping
from lictor.raft.snapshotting import Snapshotting
from lictor.raft.wal import Log, SnapshotStore

log = logging.getLogger("lictor.server.raft")


class Replica:
    """A `Consensus` with a disk and peers. `record` is this server as it should be known; `folder` its raft folder."""

    def __init__(
        self,
        machine: Machine,
        record: Callable[[], ServerRecord],
        folder: Path,
        transport: Transport,
        settings: RaftSettings,
        world: World,
    ) -> None:
        self._record = record
        self._folder = folder
        self._transport = transport
        self.settings = settings
        self._world = world
        self.chance = world.chance
        self._number = 0
        self._node: Node
        self._view: LogView
        self._wal: Log
        self._store: SnapshotStore
        self._writer: LogWriter
        self._shipping: Shipping
        self._content = partial(opening.check_state, machine=machine.check)
        self._roster = Roster()
        self.applied_index = AppliedIndex()
        self._post = Post(self, transport, record, world, self._handed_over)
        self._notices = Notices(self._post.send)
        self._proposals = HandingIn(self, transport, self.chance.getrandbits(62) | 1, self._notices.awaited)
        self._applying = Applying(
            machine,
            self.applied_index,
            self._proposals.applied,
            self._proposals.result,
            self._apply_change,
            self.step,
            self.touch,
        )
        self._reading = Reading(self, transport)
        self._fresh_until = 0.0
        self._leading = False
        self._lead_term = 0
        self._lead_index = 0
        self._seen_leader = 0
        self._seen_term = 0
        self._leaderless_since = 0.0
        self._full = False
        self._full_since = 0.0
        self._deaf = False
        self._pumping = False
        self._running = False
        self._snapshots: Snapshotting
        self._timer: asyncio.TimerHandle | None = None
        self._on_leadership: list[Callable[[bool], None]] = []
        self._on_peers: list[Callable[[], None]] = []
        self._shown: object = None

    # -- what others see ----------------------------------------------------------------------------------------------

    @property
    def number(self) -> int:
        """What names this server to the others."""
        return self._number

    @property
    def is_leader(self) -> bool:
        """Whether this server leads, and has applied all that was committed before it did."""
        return self._leading

    @property
    def leader(self) -> str:
        """The leader's address, or empty."""
        return self.address(self._leader_number())

    @property
    def leader_id(self) -> str:
        """The leader's node id, or empty."""
        record = self._roster.records.get(self._leader_number())
        return record.id if record is not None else ""

    def _leader_number(self) -> int:
        if not self._running or (self._node.is_leader and not self._leading):
            return 0
        if not self._node.is_leader and self.last_contact > 2 * self.settings.election_timeout:
            return 0  # who has no vote does not stand for election, and goes on believing in a leader
        return self._node.leader

    @property
    def last_contact(self) -> float:
        """Seconds since the leader was last heard of: 0 on the leader itself, infinite for never."""
        if self._leading:
            return 0.0
        return asyncio.get_running_loop().time() - self._post.heard_at

    @property
    def fresh_until(self) -> float:
        """Until when this server's state is the newest there is; see `Consensus`."""
        return self._fresh_until

    @property
    def blank(self) -> bool:
        """Whether this server belongs to no cluster yet."""
        return not self._node.membership.members and self._node.last_index == 0

    @property
    def cluster(self) -> str:
        """What names the cluster, or empty."""
        return self._roster.cluster

    @property
    def term(self) -> int:
        """The present term."""
        return self._node.term

    @property
    def applied(self) -> int:
        """The index of the last entry that the machine holds."""
        return self.applied_index.index

    @property
    def last_entry(self) -> tuple[int, int]:
        """Index and term of the log's last entry."""
        last = self._node.last_index
        return last, self._node.entry_term(last) or 0

    @property
    def node(self) -> Node:
        """The consensus core, for the parts of this shell."""
        return self._node

    @property
    def roster(self) -> Roster:
        """Who the members are, for the parts of this shell."""
        return self._roster

    @property
    def full(self) -> bool:
        """Whether there is no room for the log."""
        return self._full

    @property
    def loading(self) -> bool:
        """Whether the machine is becoming the state of a snapshot."""
        return self._applying.loading

    @property
    def running(self) -> bool:
        """Whether it was started, and not closed."""
        return self._running

    @property
    def membership(self) -> Membership:
        """Who votes and who learns, by number."""
        return self._node.membership

    def on_leadership(self, told: Callable[[bool], None]) -> None:
        """Have gaining and losing the leadership told."""
        self._on_leadership.append(told)

    def on_peers(self, told: Callable[[], None]) -> None:
        """Have changes of `peers`, and of who leads, told."""
        self._on_peers.append(told)

    def peers(self) -> list[Peer]:
        """The configuration's servers, in order of their names."""
        return standing.peers(self._node.membership, self._roster, self._leader_number())

    def progress(self) -> dict[str, Progress]:
        """On the leader, how far each other server is."""
        if not self._leading:
            return {}
        now = self._world.lease_clock()
        found = {}
        for number, progress in self._node.status().progress.items():
            record, heard = self._roster.records.get(number), self._post.lease.heard(number)
            if record is not None and number != self._number:
                found[record.id] = Progress(progress.match, None if heard is None else max(0.0, now - heard))
        return found

    def stats(self) -> dict[str, str]:
        """What `agent/self` shows under `raft`."""
        return standing.stats(
            self._node,
            self._roster,
            self._view,
            applied=self.applied_index.index,
            pending=len(self._applying),
            contact=self.last_contact,
        )

    # -- life ---------------------------------------------------------------------------------------------------------

    async def start(self, recover: Sequence[Peer] | None = None) -> None:
        """Load what is on disk, and begin. Raises `DamagedLog`, `DiskFull`, `DiskFailed`.

        With `recover`, the configuration becomes these servers, by their ids: for a cluster that lost its majority,
        and only with all of its servers stopped. Raises `Refused` where that cannot be.
        """
        found = await self._world.log_work(
            opening.open_folder, self._folder, self._world.files, self.settings.segment_bytes, self.chance
        )
        self._number, self._wal, self._store = found.number, found.wal, found.store
        self._view = LogView(found.recovered, found.snapshot)
        if found.snapshot is not None:
            await self._load(found.snapshot)
        if recover is not None:
            await self._recover(recover)
        self._node = self._new_node()
        self._configuring = Configuring(self)
        self._writer = self._new_writer()
        self._snapshots = Snapshotting(self, self._world, self._view, self._wal, self._store)
        self._shipping = Shipping(
            self._number,
            self.settings,
            self._world,
            self._store,
            self._transport,
            lambda: self._node,
            self.address,
            self._content,
            self._shipped,
            self.take,
        )
        self._post.serve(restarted=not found.new)
        self._proposals.serve()
        self._reading.serve()
        loop = asyncio.get_running_loop()
        self._running = True
        self._leaderless_since = loop.time()
        self._writer.start()
        self._stand_if_alone()
        self._tick()
        self.touch()

    async def close(self) -> None:
        """Finish what was accepted, and stop."""
        if not self._running:
            return
        self._running = False
        self._notices.drop()
        if self._timer is not None:
            self._timer.cancel()
        await self._reading.close()
        await self._snapshots.close()
        await self._shipping.close()
        await self._writer.close()
        await self._world.log_work(self._wal.close)
        self._proposals.close()
        self._reading.lead_no_more(NoLeader())
        self._fresh_until = 0.0
        if self._leading:
            self._leading = False
            for told in self._on_leadership:
                told(False)

    async def form(self, servers: Sequence[ServerRecord]) -> None:
        """Begin a new cluster of these servers, with this server's present state."""
        if not self.blank:
            raise Refused("this server belongs to a cluster already")
        if self._number not in [server.number for server in servers]:
            raise Refused("this server is not among those that form the cluster")
        roster = Roster(servers, cluster_of(servers), 1)
        snapshot = Snapshot(1, 1, opening.voters(roster.records), roster.encode())
        # Others may have formed already and ask for a vote: what is promised meanwhile must not be forgotten.
        self._deaf = True
        try:
            await self._writer.close()
            await self._begin_after(snapshot, roster)
        finally:
            # Also where there was no room for it: what the former ones had not written yet was told to nobody.
            self._node, self._writer, self._full = self._new_node(), self._new_writer(), False
            self._writer.start()
            self._deaf = False
        self._stand_if_alone()
        if self._number == min(servers, key=lambda server: server.id).number:
            # All begin at the same time: one that does not wait for its timeout spares them seconds.
            asyncio.get_running_loop().call_later(self.settings.tick, self._stand_first)
        self.touch()

    def _stand_first(self) -> None:
        if self.hears and not self._node.leader:
            self._node.campaign()
            self.touch()

    async def _begin_after(self, snapshot: Snapshot, roster: Roster, tail: Sequence[Entry] = ()) -> None:
        """Have the present state as a snapshot, and nothing but that and the tail."""
        beginning = opening.beginning(snapshot, self._view.hard_state, tail)
        await self._world.snapshot_work(self._store.write, snapshot, self.state())
        await self._world.log_work(self._wal.append, beginning)
        self._view.restore(snapshot)
        self._view.append(tail)
        self._view.hard_state = beginning.state or self._view.hard_state
        self._roster = roster
        self.applied_index.reach(snapshot.index)

    def _new_writer(self) -> LogWriter:
        return LogWriter(self._world, self._wal, self._view, self._written, self._restored, self._set_full)

    def _new_node(self) -> Node:
        settings = self.settings
        config = Config(
            id=self._number,
            election_ticks=ELECTION_TICKS,
            applied=self.applied_index.index,
            async_storage=True,
            max_message_bytes=settings.message_bytes,
            max_applying_bytes=8 * SLICE_BYTES,
            max_uncommitted_bytes=settings.queued_bytes,
            max_inflight=settings.inflight,
            max_inflight_bytes=settings.inflight_bytes,
            check_quorum=True,
            pre_vote=True,
            forward_proposals=False,
        )
        return Node(config, self._view, self.chance)

    def _stand_if_alone(self) -> None:
        """Whoever is the only voter needs nobody's vote, and no time to wait for it."""
        quorum = self._node.membership.quorum
        if quorum.incoming == {self._number} and not quorum.joint:
            self._node.campaign()

    async def _recover(self, servers: Sequence[Peer]) -> None:
        """Go on from a snapshot of what is committed, with another configuration.

        What follows in the log stays there: the servers that are left hold different tails perhaps, of which their
        election decides. Changes of the configuration in a tail would be to the former one, and count as nothing.
        """
        last = self._view.last_index()
        if not last:
            raise Refused("this server holds no data: remove peers.json here, and let it join the others")
        commit = max(self.applied_index.index, min(self._view.hard_state.commit, last))
        for entry in self._view.entries(self.applied_index.index + 1, commit + 1):
            self._applying.apply(entry)
            if entry.index % SLICE_PROPOSALS == 0:
                await asyncio.sleep(0)
        rest = self._view.entries(commit + 1, last + 1)
        known = Roster(self._roster.records.values())
        tail = []
        for entry in rest:
            if entry.kind is EntryKind.NORMAL:
                tail.append(entry)
            else:
                known.put(noted(entry).records)
                tail.append(Entry(entry.term, entry.index))
        membership, records = opening.successors(servers, known, self._number, self._record())
        roster = Roster(records, self._roster.cluster, commit)
        snapshot = Snapshot(commit, self._view.term(commit) or 1, membership, roster.encode())
        await self._begin_after(snapshot, roster, tail)
        log.warning("the configuration was replaced: servers=%s", ", ".join(record.address for record in records))

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        # No tick is made up for: timeouts may become longer by it, and never shorter.
        self._timer = loop.call_later(self.settings.tick, self._tick)
        self._node.tick()
        now = loop.time()
        self._proposals.tick(now, self._leaderless_since)
        self._snapshots.look(now)
        self.touch()

    # -- proposals ----------------------------------------------------------------------------------------------------

    async def propose(self, proposal: bytes, timeout: float) -> Any:
        """Have a proposal applied once; see `Consensus`."""
        return await self._proposals.propose(proposal, timeout)

    async def propose_leading(self, proposal: bytes) -> Any:
        """Have a proposal applied in this leadership, or not at all; see `Consensus`."""
        return await self._proposals.propose_leading(proposal)

    # -- the configuration --------------------------------------------------------------------------------------------

    async def change(self, kind: ServerChange, server: ServerRecord, timeout: float) -> None:
        """Change the configuration; see `Consensus`."""
        await self._configuring.change(kind, server, timeout)

    async def transfer(self, to: str, timeout: float) -> None:
        """Hand the leadership over; see `Consensus`."""
        await self._configuring.transfer(to, timeout)

    # -- messages -----------------------------------------------------------------------------------------------------

    def step(self, message: Message) -> None:
        """Give the core a message of this server's own."""
        try:
            self.take(message)
        except MessageRefused as error:
            log.warning("a message of this server's own was refused: %s", error)

    def take(self, message: Message) -> None:
        """Give the core a message. Raises `MessageRefused`, and has changed nothing then."""
        try:
            self._node.step(message)
        except (ProposalDropped, StrangerAnswered):
            pass  # what is lost is sent again by whoever needs it
        except InvariantBroken as error:
            self._fail(error)
        self.touch()

    def address(self, number: int) -> str:
        """Where a server is."""
        return self._post.address(number)

    def locate(self, number: int, address: str) -> None:
        """A server of the configuration was met at an address."""
        self._post.locate(number, address)

    def _handed_over(self) -> None:
        self._fresh_until = 0.0

    def hasten(self) -> None:
        """Another server was told what is committed, and waits to have it."""
        self._notices.go()

    @property
    def hears(self) -> bool:
        """Whether messages are taken."""
        return self._running and not self._deaf

    # -- the turn -----------------------------------------------------------------------------------------------------

    def touch(self) -> None:
        """Something came: look for work at the end of this turn."""
        if not self._pumping and self._running:
            self._pumping = True
            asyncio.get_running_loop().call_soon(self._pump)

    async def settled(self) -> None:
        """Return once all that the core wanted durable so far is."""
        await self._writer.settled()

    def _pump(self) -> None:
        self._pumping = False
        if self.hears:
            try:
                self._work()
            except Exception as error:  # a mistake of this program: what it would do next cannot be trusted
                self._fail(error)

    def _fail(self, error: BaseException) -> None:
        self._running = False
        self._fresh_until = 0.0
        self._world.fatal(error)

    def _work(self) -> None:
        node = self._node
        self._notice()
        self._proposals.hand_in()
        self._reading.begin()
        self._applying.work()  # what the last turn left
        while node.has_ready():
            ready = node.ready()
            if node.committed > self.applied_index.index:
                self._fresh_until = 0.0
            outgoing: dict[int, list[Message]] = {}
            for message in ready.messages:
                if message.to == APPEND_THREAD:
                    self._writer.add(message)
                elif message.to == APPLY_THREAD:
                    self._applying.add(message)
                elif message.kind is MessageKind.SNAPSHOT:
                    self._shipping.send(message)
                else:
                    outgoing.setdefault(message.to, []).append(message)
            mute = self._full and node.is_leader and self._silent()
            for to, messages in outgoing.items():
                if not mute:
                    going = self._notices.sort(to, messages, node.last_index) if node.is_leader else messages
                    if going:
                        self._post.send(to, going)
            for read in ready.read_states:
                self._reading.confirmed(read.context, read.index)
            self._applying.work()
            self._notice()
            self._proposals.hand_in()
        self._fresh_until = self._lease_end()

    def _notice(self) -> None:
        """Tell of changes of leader and leadership."""
        node = self._node
        led = self._leading
        if (node.leader, node.term) != (self._seen_leader, self._seen_term):
            led = False
            if self._seen_leader and not node.leader:
                self._leaderless_since = asyncio.get_running_loop().time()
            if node.leader:
                log.info("new leader elected: leader=%s term=%d", self.address(node.leader), node.term)
            elif self._seen_leader:
                log.warning("there is no leader: term=%d", node.term)
            self._seen_leader, self._seen_term = node.leader, node.term
            self._proposals.led_by(self.address(node.leader))
            if node.is_leader:
                self._post.lease.begin(node.term)
                self._lead_term, self._lead_index = node.term, node.last_index
                self._notices.begin(node.last_index)
            else:
                self._notices.drop()
                self._reading.lead_no_more(NotLeader(self.address(node.leader)))
                self._configuring.lead_no_more()
        leading = (
            node.is_leader
            and node.term == self._lead_term
            and not self._full
            and (led or (node.committed_in_term and self.applied_index.index >= self._lead_index))
        )
        if leading != self._leading:
            self._leading = leading
            self._post.heard_at = asyncio.get_running_loop().time()  # of itself: until now its state was the newest
            log.info("cluster leadership acquired" if leading else "cluster leadership lost")
            for told in self._on_leadership:
                told(leading)
        shown = (self._seen_leader, self._leading, id(self._roster), self._roster.changes)
        if shown != self._shown:
            self._shown = shown
            for told_peers in self._on_peers:
                told_peers()

    def _lease_end(self) -> float:
        node = self._node
        if not self._leading or node.committed > self.applied_index.index:
            return 0.0
        now = self._world.lease_clock()
        return max(0.0, self._post.lease.until(node.membership.quorum, now))

    # -- the disk -----------------------------------------------------------------------------------------------------

    def _written(self, responses: list[Message]) -> None:
        """Work of the log's writer is done."""
        outgoing: dict[int, list[Message]] = {}
        for response in responses:
            if response.to == self._number:
                self.step(response)
            else:
                outgoing.setdefault(response.to, []).append(response)
        for to, messages in outgoing.items():
            self._post.send(to, messages)
        self.touch()

    def _set_full(self, full: bool) -> None:
        """The disk is full, or has room again: a leader hands over, since it could acknowledge nothing."""
        self._full = full
        self._full_since = asyncio.get_running_loop().time()
        if full and self._node.is_leader:
            best = furthest(self._node)
            log.error("stepping down: no room for the log")
            if best:
                self._node.transfer_leader(best)
        self.touch()

    def _silent(self) -> bool:
        """Whether a leader without room keeps silent, since nobody took over when it was asked."""
        return asyncio.get_running_loop().time() - self._full_since > self.settings.election_timeout

    async def _restored(self, snapshot: Snapshot) -> None:
        """The log begins after a snapshot from the leader: become its state."""
        waiting = self._proposals.waiting()
        self._fresh_until = 0.0
        await self._load(snapshot)
        unknown = LictorError("the write took effect or was given up, but its result was lost with a change of servers")
        self._proposals.lose(waiting, self._applying.has, unknown)
        self.touch()

    async def _load(self, snapshot: Snapshot) -> None:
        await self._applying.load(snapshot, self._store)
        self._roster = Roster.decode(snapshot.data)

    def _apply_change(self, entry: Entry) -> None:
        if not self._running:
            self._roster.put(noted(entry).records)  # a log that is being recovered: the membership will be another one
            return
        for record in self._configuring.apply(entry):
            self._post.forget(record.number)

    # -- snapshots ----------------------------------------------------------------------------------------------------

    def state(self) -> Iterator[bytes]:
        """The state as it is now: the applied numbers, then the machine's. To be run through in a thread."""
        return self._applying.state()

    def _shipped(self, peer: int, arrived: bool) -> None:
        if self._running:
            (self._node.snapshot_sent if arrived else self._node.snapshot_failed)(peer)
            self.touch()

    # -- reads --------------------------------------------------------------------------------------------------------

    async def confirm(self, *, quorum: bool, timeout: float) -> None:
        """Return once this server's state is new enough; see `Consensus`."""
        if not self._running:
            raise NoLeader
        if quorum or self._world.lease_clock() >= self._fresh_until:
            await self._reading.confirm(quorum, timeout)

    def leased(self) -> bool:
        """Whether this server leads, and need not ask anybody whether it still does."""
        now = self._world.lease_clock()
        return self._leading and now < self._post.lease.until(self._node.membership.quorum, now)
