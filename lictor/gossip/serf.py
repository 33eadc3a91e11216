"""A pool: membership with tags, graceful leave, user events, queries and coordinates, as Serf speaks them.

Theory of operation. `Swim` tells who is reachable; this layer says what that means. Every status change carries a
Lamport time, so that of a leave and a join that cross each other the later wins everywhere. A member that announced its
leave has left when it goes; one that did not has failed, is looked for again for days, and is forgotten then.

Rules of this file are those of `swim`: calls with the time come in, `take_effects` and `take_events` give what comes
out.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import msgspec

from lictor.gossip import codec
from lictor.gossip.asking import GossipError, Queries
from lictor.gossip.broadcasts import BroadcastQueue
from lictor.gossip.codec import WireError
from lictor.gossip.coordinates import Coordinates, RejectedSample
from lictor.gossip.effects import Effect, Notice, PushPull, Severity
from lictor.gossip.key_queries import INTERNAL
from lictor.gossip.keyring import Keyring
from lictor.gossip.lamport import LamportClock
from lictor.gossip.members import Member
from lictor.gossip.messages import Address, Alive, ip_text
from lictor.gossip.peers import Journal
from lictor.gossip.pool_events import (
    Change,
    EventReceived,
    Left,
    MemberChanged,
    PoolEvent,
)
from lictor.gossip.roster import PoolMember, Roster, Status, from_membership
from lictor.gossip.serf_messages import (
    JoinIntent,
    LeaveIntent,
    Query,
    QueryResponse,
    SerfKind,
    SerfState,
    UserEvent,
    decode_coordinate,
    decode_relay,
    decode_tags,
    encode,
    encode_coordinate,
    encode_tags,
)
from lictor.gossip.settings import SerfSettings, SwimSettings
from lictor.gossip.swim import MAX_META, Swim
from lictor.gossip.user_events import UserEvents
from lictor.gossip.wire import StreamMessage

CONFLICT = INTERNAL + "conflict"
ID_TAG = "id"
_SANE_EVENT_SIZE = 9 * 1024
_RELAY_VERSION = 5
_NANOSECONDS = 1_000_000_000
_LONGEST_QUERY = 3600.0

Admission = Callable[[str, str, dict[str, str]], str]


def admit_all(name: str, host: str, tags: dict[str, str]) -> str:
    """Every node may be in the pool."""
    return ""


def check_tags(tags: dict[str, str]) -> None:
    """Raise GossipError for tags that are too long to be told."""
    if len(encode_tags(tags)) > MAX_META:
        raise GossipError(f"Encoded length of tags exceeds limit of {MAX_META} bytes")


class Waiting(msgspec.Struct, frozen=True):
    """Messages that wait to be gossiped, by kind."""

    intents: int
    events: int
    queries: int


class Serf:
    """One node's part in a pool.

    `admission` returns why a node (name, address, tags) must not be in this pool, empty when it may. `journal` is what
    an earlier life of this node has seen.
    """

    def __init__(
        self,
        name: str,
        address: Address,
        tags: dict[str, str],
        *,
        rng: random.Random,
        swim_settings: SwimSettings,
        settings: SerfSettings,
        keyring: Keyring | None = None,
        journal: Journal | None = None,
        admission: Admission = admit_all,
    ) -> None:
        journal = journal or Journal()
        self.name = name
        self.tags = dict(tags)
        self.settings = settings
        self.keyring = keyring if keyring is not None else Keyring()
        self.swim = Swim(name, address, swim_settings, settings.protocol_version, rng)
        self.roster = Roster()
        self.clock = LamportClock(journal.clock + 1)
        self.user_events = UserEvents(settings.event_buffer, journal.event_clock + 1 if journal.event_clock else 0)
        self.coordinates = Coordinates(rng)
        self.status = Status.ALIVE
        self.reconnect_timeout_of: Callable[[PoolMember], float] = lambda member: self.settings.reconnect_timeout
        self._rng = rng
        self._admission = admission
        self._events: list[PoolEvent] = []
        self._ignoring_old_events = False
        self._now = 0.0
        self._intents, self._query_queue, self._event_queue = (
            BroadcastQueue(swim_settings.retransmit_mult, lambda: len(self.roster.members), settings.max_queue_depth)
            for _ in range(3)
        )
        self.queries = Queries(self, self._query_queue, journal.query_clock + 1 if journal.query_clock else 0, rng)

    # Life

    def start(self, now: float) -> None:
        """Becomes a pool of one. Raises ValueError when the tags are too long."""
        self._now = now
        self.swim.start(self, now)
        self.swim.timers.at(now + self.settings.reap_interval, self._reap)
        self.swim.timers.at(now + self.settings.reconnect_interval, self._reconnect)

    def advance(self, now: float) -> None:
        """Does what is due."""
        self._now = now
        self.swim.timers.advance(now)

    @property
    def deadline(self) -> float | None:
        """When `advance` has something to do."""
        return self.swim.timers.next

    def take_effects(self) -> list[Effect]:
        """What the shell has to do."""
        effects, self.swim.effects = self.swim.effects, []
        return effects

    def take_events(self) -> list[PoolEvent]:
        """What happened."""
        events, self._events = self._events, []
        return events

    def receive(self, content: bytes, source: Address, now: float) -> None:
        """An opened datagram. Raises WireError when it cannot be read."""
        self._now = now
        self.swim.receive(content, source, now)

    def merge(self, message: StreamMessage, join: bool, now: float, ignore_old_events: bool = False) -> None:
        """The other side of an exchange of states. Raises JoinRefused, and has then changed nothing."""
        self._now = now
        self._ignoring_old_events = ignore_old_events
        try:
            self.swim.merge(message, join, now)
        finally:
            self._ignoring_old_events = False

    def joined_pool(self, now: float) -> None:
        """A join succeeded: the pool is told that this node means to stay."""
        self._now = now
        self._announce_join()

    def _announce_join(self) -> None:
        intent = JoinIntent(self.clock.time, self.name)
        self.clock.witness(intent.l_time)
        self._join_intent(intent, self._now)
        self.gossip(self._intents, encode(SerfKind.JOIN, intent))

    def set_tags(self, tags: dict[str, str], now: float) -> None:
        """Other tags for this node. Raises GossipError when they are too long."""
        check_tags(tags)
        self._now = now
        self.tags = dict(tags)
        self.swim.update(now)

    def leave(self, now: float) -> None:
        """Leaves gracefully; `Left` comes when the pool has been told or did not take it in time."""
        if self.status is not Status.ALIVE:
            return
        self._now = now
        self.status = Status.LEAVING
        intent = LeaveIntent(self.clock.time, self.name)
        self.clock.increment()
        self._leave_intent(intent, now)
        if not self._anyone_else():
            self._leave_membership()
            return
        go_on = self._once(self._leave_membership)
        self.gossip(self._intents, encode(SerfKind.LEAVE, intent), go_on)
        self.swim.timers.at(now + self.settings.broadcast_timeout, lambda _: go_on())

    def _leave_membership(self) -> None:
        go_on = self._once(self._linger)
        self.swim.timers.at(self._now + self.settings.broadcast_timeout, lambda _: go_on())
        self.swim.leave(self._now, go_on)

    def _linger(self) -> None:
        """The message is out to some; what they pass on needs this node's Acks for a moment more."""

        def gone(now: float) -> None:
            self.status = Status.LEFT
            self.emit(Left())

        if self._anyone_else():
            self.swim.timers.at(self._now + self.settings.leave_propagate_delay, gone)
        else:
            gone(self._now)

    def _once(self, run: Callable[[], None]) -> Callable[[], None]:
        ran = False

        def guarded() -> None:
            nonlocal ran
            if not ran:
                ran = True
                run()

        return guarded

    def remove_failed(self, node: str, prune: bool, now: float) -> None:
        """Declares a failed node to have left; with `prune` its entry goes at once."""
        self._now = now
        intent = LeaveIntent(self.clock.time, node, prune)
        self.clock.increment()
        self._leave_intent(intent, now)
        self.gossip(self._intents, encode(SerfKind.LEAVE, intent))

    def stop(self) -> None:
        """Ends every round."""
        self.swim.stop()

    def members(self) -> list[PoolMember]:
        """Everyone, this node included."""
        return list(self.roster.members.values())

    def waiting(self) -> Waiting:
        """How many messages wait to be gossiped."""
        return Waiting(len(self._intents), len(self._event_queue), len(self._query_queue))

    def _anyone_else(self) -> bool:
        return any(m.name != self.name for m in self.roster.with_status(Status.ALIVE))

    def gossip(self, queue: BroadcastQueue, message: bytes, finished: Callable[[], None] | None = None) -> None:
        """A message for everyone."""
        queue.add(message, finished=finished)
        self.swim.wake_gossip(self._now)

    def tell_time(self, now: float) -> None:
        """What is done next is done at this time."""
        self._now = now

    def emit(self, event: PoolEvent) -> None:
        """Something for the agent."""
        self._events.append(event)

    def notice(self, severity: Severity, text: str) -> None:
        """Something for the log."""
        self.swim.effects.append(Notice(severity, text))

    # What membership asks

    def meta(self) -> bytes:
        """The tags."""
        return encode_tags(self.tags)

    def refusal(self, name: str, addr: bytes, meta: bytes) -> str:
        """The admission's word."""
        if self._admission is admit_all or name == self.name:
            return ""
        try:
            return self._admission(name, ip_text(addr), decode_tags(meta))
        except WireError as error:
            return str(error)

    def same_node(self, meta: bytes, other: bytes) -> bool:
        """Agents have an id of their own among their tags, which they keep for good."""
        try:
            own = decode_tags(meta).get(ID_TAG, "")
            return bool(own) and own == decode_tags(other).get(ID_TAG, "")
        except WireError:
            return False

    def broadcasts(self, overhead: int, room: int) -> list[bytes]:
        """Intents first, then queries, then events."""
        taken: list[bytes] = []
        for queue in (self._intents, self._query_queue, self._event_queue):
            found = queue.take(overhead, room)
            room -= sum(len(m) + overhead for m in found)
            taken += found
        for message in taken:
            self.swim.sample("serf.msgs.sent", len(message))
        return taken

    def ack_payload(self) -> bytes:
        """This node's coordinate."""
        return encode_coordinate(self.coordinates.own) if self.settings.coordinates else b""

    def pinged(self, member: Member, seconds: float, payload: bytes) -> None:
        """A sample for the coordinates."""
        if not payload or not self.settings.coordinates:
            return
        try:
            self.coordinates.update(member.name, decode_coordinate(payload), seconds)
        except (WireError, RejectedSample) as error:
            self.notice(Severity.DEBUG, f"Rejected coordinate from {member.name}: {error}")

    def local_state(self, join: bool) -> bytes:
        """Clocks, statuses and recent events."""
        members = self.roster.members.values()
        state = SerfState(
            self.clock.time,
            {m.name: m.status_time for m in members},
            tuple(m.name for m in members if m.status is Status.LEFT),
            self.user_events.clock.time,
            self.user_events.recent(),
            self.queries.clock.time,
        )
        return encode(SerfKind.PUSH_PULL, state)

    def merge_state(self, state: bytes, join: bool, now: float) -> None:
        """The other side's, as if its intents and events had been heard one by one."""
        try:
            if state[0] != SerfKind.PUSH_PULL:
                raise WireError(f"Remote state has bad type prefix: {state[0]}")
            remote = codec.unpack(SerfState, state[1:])
            for clock, time in (
                (self.clock, remote.l_time),
                (self.user_events.clock, remote.event_l_time),
                (self.queries.clock, remote.query_l_time),
            ):
                # The other side counts up before it sends: what it has seen is one less.
                if time > 0:
                    clock.witness(time - 1)
            left = set(remote.left_members)
            for name in left:
                self._leave_intent(LeaveIntent(remote.status_l_times.get(name, 0) + 1, name), now)
            for name, time in remote.status_l_times.items():
                if name not in left:
                    self._join_intent(JoinIntent(time, name), now)
            if join and self._ignoring_old_events:
                self.user_events.least_time = max(self.user_events.least_time, remote.event_l_time)
            for at in remote.events:
                for event in at.events:
                    self._user_event(UserEvent(at.l_time, event.name, event.payload))
        except WireError as error:
            self.notice(Severity.ERROR, f"Failed to decode remote state: {error}")

    def user_message(self, body: bytes, now: float) -> None:
        """A message of this layer. Raises WireError."""
        if not body:
            raise WireError("an empty message")
        self.swim.sample("serf.msgs.received", len(body))
        again: BroadcastQueue | None = None
        content = body[1:]
        match body[0]:
            case SerfKind.LEAVE:
                if self._leave_intent(codec.unpack(LeaveIntent, content), now):
                    again = self._intents
            case SerfKind.JOIN:
                if self._join_intent(codec.unpack(JoinIntent, content), now):
                    again = self._intents
            case SerfKind.USER_EVENT:
                if self._user_event(codec.unpack(UserEvent, content)):
                    again = self._event_queue
            case SerfKind.QUERY:
                if self.queries.arrived(codec.unpack(Query, content), now):
                    again = self._query_queue
            case SerfKind.QUERY_RESPONSE:
                self.queries.answered(codec.unpack(QueryResponse, content))
            case SerfKind.RELAY:
                header, message = decode_relay(content)
                to = Address(ip_text(header.dest_addr.ip), header.dest_addr.port & 0xFFFF)
                self.swim.send_user(to, message)
            case _:
                raise WireError(f"Received message of unknown type: {body[0]}")
        if again is not None:
            self.gossip(again, body)

    # Members

    def _tell(self, change: Change, member: PoolMember) -> None:
        self.emit(MemberChanged(change, member))

    def joined(self, member: Member, now: float) -> None:
        """A node is reachable, newly or again."""
        known = self.roster.members.get(member.name)
        if known is not None:
            found = from_membership(member, Status.ALIVE, known.status_time)
        else:
            intent = self.roster.intent(member.name)
            leaving = intent is not None and intent.leaving
            status = Status.LEAVING if leaving else Status.ALIVE
            found = from_membership(member, status, intent.time if intent is not None else 0)
        self.roster.members[member.name] = found
        self._tell(Change.JOIN, found)

    def updated(self, member: Member, now: float) -> None:
        """A node's tags changed."""
        known = self.roster.members.get(member.name)
        if known is None:
            return
        found = from_membership(member, known.status, known.status_time)
        self.roster.members[member.name] = found
        self._tell(Change.UPDATE, found)

    def left(self, member: Member, now: float) -> None:
        """A node is gone; whether that is a failure depends on what it had announced."""
        known = self.roster.members.get(member.name)
        if known is None:
            return
        if known.status is Status.LEAVING:
            self._tell(Change.LEAVE, self.roster.set(member.name, status=Status.LEFT, left_at=now))
        elif known.status is Status.ALIVE:
            self._tell(Change.FAILED, self.roster.set(member.name, status=Status.FAILED, left_at=now))

    def _leave_intent(self, intent: LeaveIntent, now: float) -> bool:
        """Whether the intent is news, to be passed on."""
        self.clock.witness(intent.l_time)
        member = self.roster.members.get(intent.node)
        if member is None:
            return self.roster.keep_intent(intent.node, True, intent.l_time, now)
        if intent.l_time <= member.status_time:
            return False
        if intent.node == self.name and self.status is Status.ALIVE:
            # Someone takes this node for gone: it means to stay.
            self._announce_join()
            return False
        member = self.roster.set(intent.node, status_time=intent.l_time)
        if member.status is Status.ALIVE:
            member = self.roster.set(intent.node, status=Status.LEAVING)
        elif member.status is Status.FAILED:
            member = self.roster.set(intent.node, status=Status.LEFT)
            self._tell(Change.LEAVE, member)
        if intent.prune:
            self._prune(member, now)
        return True

    def _prune(self, member: PoolMember, now: float) -> None:
        if member.status is not Status.LEAVING:
            self._erase(member)
            return
        settings = self.settings

        def erase(at: float) -> None:
            current = self.roster.members.get(member.name)
            if current is not None and current.status in (Status.LEAVING, Status.LEFT):
                self._erase(current)

        self.swim.timers.at(now + settings.broadcast_timeout + settings.leave_propagate_delay, erase)

    def _join_intent(self, intent: JoinIntent, now: float) -> bool:
        """Whether the intent is news, to be passed on."""
        self.clock.witness(intent.l_time)
        member = self.roster.members.get(intent.node)
        if member is None:
            return self.roster.keep_intent(intent.node, False, intent.l_time, now)
        if intent.l_time <= member.status_time:
            return False
        status = Status.ALIVE if member.status is Status.LEAVING else member.status
        self.roster.set(intent.node, status_time=intent.l_time, status=status)
        return True

    def _erase(self, member: PoolMember) -> None:
        self.roster.members.pop(member.name, None)
        self.coordinates.forget(member.name)
        self._tell(Change.REAP, member)

    def _reap(self, now: float) -> None:
        settings = self.settings
        self.swim.timers.at(now + settings.reap_interval, self._reap)
        for member in self.roster.with_status(Status.FAILED, Status.LEFT):
            failed = member.status is Status.FAILED
            limit = self.reconnect_timeout_of(member) if failed else settings.tombstone_timeout
            if now - member.left_at > limit and member.name != self.name:
                self._erase(member)
        self.roster.forget_intents(now - settings.recent_intent_timeout)

    def _reconnect(self, now: float) -> None:
        """Looks for one failed member, the more likely the more there are: a healed partition is found soon."""
        self.swim.timers.at(now + self.settings.reconnect_interval, self._reconnect)
        failed = self.roster.with_status(Status.FAILED)
        if not failed or self.status is not Status.ALIVE:
            return
        alive = max(1, len(self.roster.with_status(Status.ALIVE, Status.LEAVING)))
        if self._rng.random() <= len(failed) / alive:
            self.swim.effects.append(PushPull(self._rng.choice(failed).address, join=True))

    # User events

    def fire(self, name: str, payload: bytes, coalesce: bool, now: float) -> int:
        """Sends a user event, and returns its Lamport time. Raises GossipError when it is too long."""
        self._now = now
        limit = self.settings.user_event_size_limit
        sane = min(limit, _SANE_EVENT_SIZE)
        if len(name.encode()) + len(payload) > sane:
            raise GossipError(f"user event exceeds configured limit of {sane} bytes before encoding")
        event = UserEvent(self.user_events.clock.time, name, payload, coalesce)
        encoded = encode(SerfKind.USER_EVENT, event)
        if len(encoded) > sane:
            raise GossipError(f"encoded user event exceeds configured limit of {sane} bytes after encoding")
        self.user_events.clock.increment()
        self._user_event(event)
        self.gossip(self._event_queue, encoded)
        return event.l_time

    def _user_event(self, event: UserEvent) -> bool:
        if not self.user_events.is_new(event):
            return False
        self.emit(EventReceived(event))
        return True

    # Name conflicts

    def conflict(self, known: Member, other: Alive, now: float) -> None:
        """Another node claims a name that is taken. When it is this node's, the pool is asked who is right."""
        self._now = now
        claimant = f"{ip_text(other.addr)}:{other.port}"
        if known.name != self.name:
            self.notice(
                Severity.WARN,
                f"Name conflict for '{known.name}' both {known.address} and {claimant} are claiming",
            )
            return
        resolving = self.settings.resolve_name_conflicts
        self.notice(
            Severity.ERROR,
            f"Node name conflicts with another node at {claimant}. "
            f"Names must be unique! (Resolution enabled: {str(resolving).lower()})",
        )
        if resolving:
            self.queries.ask_who_i_am(now)
