"""Membership: who is alive, suspect, dead or gone, as this node sees it, and how it tells the others.

Theory of operation. Every node is known by name and carries an *incarnation*, a number that only the node itself
raises. News is one of three messages: Alive, Suspect, Dead. News of an older incarnation than the known one is void; at
equal incarnations Suspect beats Alive and Dead beats both; a node that hears itself accused raises its incarnation and
says Alive, which beats the accusation everywhere. Accepted news is passed on, a limited number of times, on the back of
whatever packets go out. Now and then two nodes exchange all that they know, which heals what gossip missed.

Sources: Das, Gupta, Motivala, "SWIM: Scalable Weakly-consistent Infection-style Process Group Membership Protocol"
(2002), section 4; the Lifeguard paper; memberlist for everything that can be seen on the wire.

Rules of this file: no socket, no clock, no randomness of its own. Whatever happens comes in as a call with the time;
whatever is to be done is appended to `effects`; waiting is a timer in `timers`, which the owner advances.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

from lictor.gossip import codec, scale, wire
from lictor.gossip.awareness import Awareness
from lictor.gossip.broadcasts import BroadcastQueue
from lictor.gossip.codec import WireError
from lictor.gossip.effects import Delegate, Effect, JoinRefused, Notice, PushPull, SendPacket, Severity, as_alive
from lictor.gossip.members import Member, Members
from lictor.gossip.messages import (
    Ack,
    Address,
    Alive,
    Dead,
    IndirectPing,
    Kind,
    Nack,
    NodeState,
    Ping,
    State,
    Suspect,
    ip_text,
    packed_ip,
)
from lictor.gossip.meter import Meter
from lictor.gossip.probe import Prober
from lictor.gossip.settings import SwimSettings
from lictor.gossip.suspicion import Suspicion
from lictor.gossip.timers import Timers
from lictor.gossip.versions import incompatibility, own_versions
from lictor.gossip.wire import Message, StreamMessage

MAX_META = 512
_MAX_INCARNATION = 0xFFFF_FFFF
_MAX_MEMBERS = 200_000  # a bound against forged names
_CLAIM_SECONDS = 60.0  # for which a node is remembered that is said to be at another address now
_CHECKSUM_VERSION = 5
_COUNTED = {
    Kind.ALIVE: "memberlist.msg.alive",
    Kind.SUSPECT: "memberlist.msg.suspect",
    Kind.DEAD: "memberlist.msg.dead",
}


class Swim:
    """One node's membership."""

    def __init__(
        self, name: str, address: Address, settings: SwimSettings, delegate_version: int, rng: random.Random
    ) -> None:
        self.name = name
        self.settings = settings
        self.timers = Timers()
        self.effects: list[Effect] = []
        self.awareness = Awareness(settings.awareness_max)
        self.members = Members(rng)
        self.broadcasts = BroadcastQueue(settings.retransmit_mult, lambda: len(self.members))
        self.counts: Counter[str] = Counter()
        self.samples: dict[str, list[float]] = {}
        self.leaving = False
        self.stopped = False
        self.delegate: Delegate
        self.me: Member
        self._address = address
        self._versions = own_versions(settings.protocol_version, delegate_version)
        self._rng = rng
        self._incarnation = 0
        self._suspicions: dict[str, Suspicion] = {}
        self._claims: dict[str, tuple[float, Alive]] = {}  # of members, by their names, with the time
        self._gossiping = False
        self._gossip_phase = 0.0
        self._prober = Prober(self, rng)

    # Life

    def start(self, delegate: Delegate, now: float) -> None:
        """Becomes a pool of one and begins its rounds. Raises ValueError for metadata that is too long."""
        self.delegate = delegate
        self._announce(now)
        self._prober.start(now)
        self._gossip_phase = now + self._rng.random() * self.settings.gossip_interval
        interval = self.settings.push_pull_interval
        if interval > 0:
            self.timers.at(now + self._rng.random() * interval, self._schedule_push_pull)

    def update(self, now: float) -> None:
        """Tells the pool this node's changed metadata. Raises ValueError when it is too long."""
        self._announce(now)

    def leave(self, now: float, finished: Callable[[], None]) -> None:
        """Tells the pool that this node goes; `finished` when it has been told, at once when nobody is there."""
        if self.leaving:
            return
        self.leaving = True
        others = any(m.state is State.ALIVE and m is not self.me for m in self.members)
        self.dead(Dead(self.me.incarnation, self.name, self.name), now, finished if others else None)
        if not others:
            finished()

    def report(self, meter: Meter) -> None:
        """Tells what has been counted since the last time."""
        if self.counts:
            for name, number in self.counts.items():
                meter.count(name, number)
            self.counts.clear()
        if self.samples:
            for name, values in self.samples.items():
                for value in values:
                    meter.sample(name, value)
            self.samples.clear()

    def sample(self, name: str, value: float) -> None:
        """Takes a sample for the meter."""
        self.samples.setdefault(name, []).append(value)

    def stop(self) -> None:
        """Ends every round; nothing is sent any more."""
        self.stopped = True

    def _announce(self, now: float) -> None:
        meta = self.delegate.meta()
        if len(meta) > MAX_META:
            raise ValueError(f"metadata of {len(meta)} bytes exceeds the limit of {MAX_META}")
        self._incarnation = min(self._incarnation + 1, _MAX_INCARNATION)
        host = packed_ip(self._address.host)
        self.alive(Alive(self._incarnation, self.name, host, self._address.port, meta, self._versions), now, own=True)

    def alive_count(self) -> int:
        """How many members are neither dead nor gone, this one included."""
        return sum(not m.gone for m in self.members)

    # Input

    def receive(self, content: bytes, source: Address, now: float) -> None:
        """An opened datagram; one bad message in it does not void the others. Raises WireError if none is legible."""
        for message in wire.messages_in(content):
            try:
                self._handle(message, source, now)
            except WireError as error:
                self._notice(Severity.ERROR, f"Failed to decode message of type {message.kind} from {source}: {error}")

    def _handle(self, message: Message, source: Address, now: float) -> None:
        body = message.body
        match message.kind:
            case Kind.PING:
                self._pinged(codec.unpack(Ping, body), source)
            case Kind.ACK:
                self._prober.acked(codec.unpack(Ack, body), now)
            case Kind.NACK:
                self._prober.nacked(codec.unpack(Nack, body))
            case Kind.INDIRECT_PING:
                self._prober.asked(codec.unpack(IndirectPing, body), source, now)
            case Kind.ALIVE:
                self.alive(codec.unpack(Alive, body), now)
            case Kind.SUSPECT:
                self.suspect(codec.unpack(Suspect, body), now)
            case Kind.DEAD:
                self.dead(codec.unpack(Dead, body), now)
            case Kind.USER:
                self.delegate.user_message(body, now)
            case _:
                raise WireError(f"msg type ({message.kind}) not supported")

    def _pinged(self, ping: Ping, source: Address) -> None:
        if ping.node and ping.node != self.name:
            self._notice(Severity.WARN, f"Got ping for unexpected node '{ping.node}' from={source}")
            return
        if ping.source_addr and ping.source_port:
            source = Address(ip_text(ping.source_addr), ping.source_port)
        self.send(source, wire.encode(Kind.ACK, Ack(ping.seq_no, self.delegate.ack_payload())))

    def stream_ping(self, body: bytes) -> bytes | None:
        """The answer to a ping that came over a stream, None when it was for another. Raises WireError."""
        ping = codec.unpack(Ping, body)
        if ping.node and ping.node != self.name:
            return None
        return wire.encode(Kind.ACK, Ack(ping.seq_no))

    def stream_ack(self, seq_no: int) -> None:
        """A PingStream was answered."""
        self._prober.stream_acked(seq_no)

    def local_state(self, join: bool) -> bytes:
        """This side of an exchange of states."""
        return wire.push_pull([m.as_state() for m in self.members], self.delegate.local_state(join), join)

    def merge(self, message: StreamMessage, join: bool, now: float) -> None:
        """The other side of an exchange. Raises JoinRefused, and has then changed nothing."""
        problem = incompatibility(message.states, self.members)
        if problem:
            raise JoinRefused(problem)
        if join:
            for state in message.states:
                problem = self.delegate.refusal(state.name, state.addr, state.meta)
                if problem:
                    raise JoinRefused(problem)
        for state in message.states:
            self._merge_one(state, now)
        if message.user:
            self.delegate.merge_state(message.user, join, now)

    def _merge_one(self, state: NodeState, now: float) -> None:
        match state.state:
            case State.ALIVE:
                try:
                    self.alive(as_alive(state), now)
                except WireError as error:
                    self._notice(Severity.ERROR, f"state of '{state.name}' is not usable: {error}")
            case State.LEFT:
                self.dead(Dead(state.incarnation, state.name, state.name), now)
            case State.SUSPECT | State.DEAD:
                # Second-hand death is a suspicion: the node gets its chance to refute.
                self.suspect(Suspect(state.incarnation, state.name, self.name), now)
            case _:
                pass

    # News

    def alive(self, news: Alive, now: float, own: bool = False) -> None:
        """A node is there. `own` when this node says it of itself. Raises WireError for an impossible address."""
        if self.leaving and news.node == self.name:
            return
        if not news.port:
            news = Alive(news.incarnation, news.node, news.addr, self._address.port, news.meta, news.vsn)
        host = ip_text(news.addr)
        if len(news.vsn) >= 3 and (news.vsn[0] == 0 or news.vsn[1] == 0 or news.vsn[0] > news.vsn[1]):
            self._notice(Severity.WARN, f"Ignoring an alive message for '{news.node}': protocol version(s) are wrong")
            return
        if len(news.meta) > MAX_META or not news.node:
            raise WireError("metadata is too long, or the node has no name")
        if not own and (problem := self.delegate.refusal(news.node, news.addr, news.meta)):
            self._notice(Severity.WARN, f"ignoring alive message for '{news.node}': {problem}")
            return
        member = self.members.get(news.node)
        moved = False
        if member is None:
            if len(self.members) >= _MAX_MEMBERS:
                self._notice(Severity.WARN, f"ignoring new node '{news.node}': there are {_MAX_MEMBERS} already")
                return
            member = Member(news, now)
            self.members.add(member)
            if own:
                self.me = member
        elif member.address != Address(host, news.port):
            moved = self._may_move(member, news, now)
            if not moved and member is not self.me and self.delegate.same_node(member.meta, news.meta):
                self._claim(member, news, now)
                return
            if not moved:
                self._notice(
                    Severity.ERROR,
                    f"Conflicting address for {member.name}. Mine: {member.address} Theirs: {Address(host, news.port)} "
                    f"Old state: {member.state.value}",
                )
                self.delegate.conflict(member, news, now)
                return
        if member is self.me and not own:
            self._hear_of_myself(news, now)
            return
        if news.incarnation <= member.incarnation and not moved and not own:
            return
        self._suspicions.pop(news.node, None)
        self._broadcast(Kind.ALIVE, news, news.node, now)
        before, old_meta = member.state, member.meta
        member.take(news)
        if before is not State.ALIVE:
            member.state, member.changed = State.ALIVE, now
        if before >= State.DEAD:
            self.delegate.joined(member, now)
        elif old_meta != member.meta:
            self.delegate.updated(member, now)

    def _may_move(self, member: Member, news: Alive, now: float) -> bool:
        """Whether a name may have another address: its holder has left, or failed and is the one that comes back, or
        failed long ago.
        """
        if member.state is not State.DEAD:
            return member.state is State.LEFT
        reclaim = self.settings.dead_node_reclaim
        return reclaim > 0 and (now - member.changed > reclaim or self.delegate.same_node(member.meta, news.meta))

    def _claim(self, member: Member, news: Alive, now: float) -> None:
        """A member is said to be at another address now. Two may have been started with one identity; so it is probed
        where it is known to be, at once, and only once it has failed there is it the other one.
        """
        known = self._claims.get(member.name)
        self._claims[member.name] = (now, news)
        if known is None or now - known[0] > self.settings.probe_interval:
            there = Address(ip_text(news.addr), news.port)
            self._notice(Severity.INFO, f"{member.name} is said to be at {there}, probing {member.address}")
            self._prober.hurry(member, now)

    def _hear_of_myself(self, news: Alive, now: float) -> None:
        """An Alive about this node is an echo, or the memory of an earlier life that has to be outbid."""
        me = self.me
        if news.incarnation < me.incarnation:
            return
        if news.incarnation == me.incarnation and news.meta == me.meta and news.vsn == me.vsn:
            return
        self._refute(news.incarnation, "an alive message", now)

    def _refute(self, accused: int, what: str, now: float) -> None:
        self._incarnation = min(max(self._incarnation, accused) + 1, _MAX_INCARNATION)
        me = self.me
        me.incarnation = self._incarnation
        self.awareness.add(1)
        self._notice(Severity.WARN, f"Refuting {what}")
        self._broadcast(Kind.ALIVE, as_alive(me.as_state()), me.name, now)

    def suspect(self, news: Suspect, now: float) -> None:
        """A node is suspected by another."""
        member = self.members.get(news.node)
        if member is None or news.incarnation < member.incarnation:
            return
        running = self._suspicions.get(news.node)
        if running is not None:
            if running.confirm(news.sender):
                self._broadcast(Kind.SUSPECT, news, news.node, now)
                self._await_refutation(member, running)
            return
        if member.state is not State.ALIVE:
            return
        if member is self.me:
            self._refute(news.incarnation, f"a suspect message (from: {news.sender})", now)
            return
        self._broadcast(Kind.SUSPECT, news, news.node, now)
        member.incarnation = news.incarnation
        member.state, member.changed = State.SUSPECT, now
        settings, nodes = self.settings, len(self.members)
        # Two fewer than the multiplier: accusers probe out of phase. A pool too small to have them expects none.
        expected = settings.suspicion_mult - 2
        if nodes - 2 < expected:
            expected = 0
        shortest = scale.suspicion_timeout(settings.suspicion_mult, nodes, settings.probe_interval)
        longest = shortest * settings.suspicion_max_timeout_mult
        suspicion = Suspicion(news.sender, expected, shortest, longest, now)
        self._suspicions[news.node] = suspicion
        self._await_refutation(member, suspicion)

    def _await_refutation(self, member: Member, suspicion: Suspicion) -> None:
        def expired(now: float) -> None:
            # A later timer of the same suspicion, or one that a confirmation has brought forward, finds it gone.
            if self._suspicions.get(member.name) is suspicion and now >= suspicion.deadline:
                self._notice(
                    Severity.INFO,
                    f"Marking {member.name} as failed, suspect timeout reached "
                    f"({suspicion.confirmations} peer confirmations)",
                )
                if not suspicion.confirmed:
                    self.counts["memberlist.degraded.timeout"] += 1
                self.dead(Dead(member.incarnation, member.name, self.name), now)

        self.timers.at(suspicion.deadline, expired)

    def dead(self, news: Dead, now: float, finished: Callable[[], None] | None = None) -> None:
        """A node failed, or left when it says so itself; `finished` when enough of the pool has been told."""
        member = self.members.get(news.node)
        if member is None or news.incarnation < member.incarnation:
            return
        self._suspicions.pop(news.node, None)
        if member.gone:
            return
        if member is self.me and not self.leaving:
            self._refute(news.incarnation, f"a dead message (from: {news.sender})", now)
            return
        self._broadcast(Kind.DEAD, news, news.node, now, finished)
        member.incarnation = news.incarnation
        member.state = State.LEFT if news.node == news.sender else State.DEAD
        member.changed = now
        self.delegate.left(member, now)
        claimed = self._claims.pop(member.name, None)
        if claimed is not None and now - claimed[0] <= _CLAIM_SECONDS:
            self.alive(claimed[1], now)

    # Output

    def _notice(self, severity: Severity, text: str) -> None:
        self.effects.append(Notice(severity, text))

    def _broadcast(
        self,
        kind: Kind,
        news: Alive | Suspect | Dead,
        name: str,
        now: float,
        finished: Callable[[], None] | None = None,
    ) -> None:
        self.counts[_COUNTED[kind]] += 1
        self.broadcasts.add(wire.encode(kind, news), name, finished)
        self.wake_gossip(now)

    def wake_gossip(self, now: float) -> None:
        """Something waits to be gossiped. While nothing does, no gossip timer runs."""
        if self._gossiping or self.stopped:
            return
        self._gossiping = True
        self.timers.at(self._next_gossip(now), self._gossip)

    def _next_gossip(self, now: float) -> float:
        interval = self.settings.gossip_interval
        if now >= self._gossip_phase:
            self._gossip_phase += ((now - self._gossip_phase) // interval + 1) * interval
        return self._gossip_phase

    def _gossip(self, now: float) -> None:
        if self.stopped:
            return
        settings = self.settings
        room = settings.packet_size - settings.packet_overhead - wire.COMPOUND_OVERHEAD
        for member in self.members.pick(settings.gossip_nodes, lambda m: self._hears_gossip(m, now)):
            waiting = self._waiting(room)
            if not waiting:
                self._gossiping = False
                return
            for at in range(0, len(waiting), wire.MAX_COMPOUND):
                self._packet(member.address, wire.compound(waiting[at : at + wire.MAX_COMPOUND]), member)
        self.timers.at(self._next_gossip(now), self._gossip)

    def _hears_gossip(self, member: Member, now: float) -> bool:
        if member is self.me or member.state is State.LEFT:
            return False
        # The dead hear of their death for a while: one that lives after all refutes it.
        return member.state is not State.DEAD or now - member.changed <= self.settings.gossip_to_the_dead

    def _waiting(self, room: int) -> list[bytes]:
        part = wire.COMPOUND_PART_OVERHEAD
        own = self.broadcasts.take(part, room)
        room -= sum(len(m) + part for m in own)
        return own + [bytes((Kind.USER,)) + m for m in self.delegate.broadcasts(part + 1, room)]

    def send(self, to: Address, message: bytes, member: Member | None = None, piggyback: bool = True) -> None:
        """A message to one node, with as much gossip as its packet has room for."""
        parts = [message]
        if piggyback:
            settings = self.settings
            own = len(message) + wire.COMPOUND_OVERHEAD + wire.COMPOUND_PART_OVERHEAD
            parts += self._waiting(settings.packet_size - settings.packet_overhead - own)[: wire.MAX_COMPOUND - 1]
        self._packet(to, wire.compound(parts), member)

    def send_user(self, to: Address, message: bytes) -> None:
        """A message of the layer above to one node."""
        self._packet(to, bytes((Kind.USER,)) + message, None)

    def _packet(self, to: Address, content: bytes, member: Member | None) -> None:
        checksummed = member is not None and member.protocol_max >= _CHECKSUM_VERSION
        self.effects.append(SendPacket(to, content, checksummed))

    def _schedule_push_pull(self, now: float) -> None:
        interval = scale.push_pull_interval(self.settings.push_pull_interval, len(self.members))
        self.timers.at(now + interval, self._push_pull)

    def _push_pull(self, now: float) -> None:
        if self.stopped:
            return
        self._schedule_push_pull(now)
        for member in self.members.pick(1, lambda m: m is not self.me and m.state is State.ALIVE):
            self.effects.append(PushPull(member.address, join=False))
