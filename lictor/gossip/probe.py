"""Failure detection: one member at a time is pinged, then asked for through others and over a stream, then suspected.

SWIM's probe (Das, Gupta, Motivala, "SWIM", section 3.1) with what Lifeguard adds: the helpers' Nacks tell this node
whether its own network works, and the time that it waits grows while it takes itself to be slow. A stream is tried
beside the helpers, for networks that lose datagrams alone.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import msgspec

from lictor.gossip import wire
from lictor.gossip.effects import Notice, PingStream, Severity
from lictor.gossip.members import Member
from lictor.gossip.messages import Ack, Address, IndirectPing, Kind, Nack, Ping, State, Suspect, ip_text
from lictor.gossip.timers import Timer

if TYPE_CHECKING:
    from lictor.gossip.swim import Swim

_STREAM_PING_VERSION = 3
_NACK_VERSION = 4
_MAX_RELAYS = 1024  # indirect pings under way for others


class _Probe:
    """The probe under way."""

    def __init__(self, member: Member, ping: Ping, sent: float, deadline: float) -> None:
        self.member = member
        self.ping = ping
        self.sent = sent
        self.deadline = deadline
        self.indirect = False
        self.stream_acked = False
        self.nacks = 0
        self.nacks_expected = 0
        self.timers: list[Timer] = []


class _Relay(msgspec.Struct):
    """A ping on another node's behalf."""

    asker: Address
    seq_no: int
    timer: Timer


class Prober:
    """The rounds of one node."""

    def __init__(self, swim: Swim, rng: random.Random) -> None:
        self._swim = swim
        self._rng = rng
        self._seq_no = rng.getrandbits(16)
        self._probe: _Probe | None = None
        self._relays: dict[int, _Relay] = {}
        self._missed = False
        self._hurried: Member | None = None

    def start(self, now: float) -> None:
        """Begins the rounds, at a random moment so that a pool started at once does not probe at once."""
        self._swim.timers.at(now + self._rng.random() * self._swim.settings.probe_interval, self._tick)

    def hurry(self, member: Member, now: float) -> None:
        """Probes a member next, at once where none is being probed."""
        self._hurried = member
        if self._probe is None:
            self._next_member(now)

    def next_seq_no(self) -> int:
        """A number that an Ack can be told by."""
        self._seq_no = (self._seq_no + 1) & 0xFFFF_FFFF
        return self._seq_no

    def _tick(self, now: float) -> None:
        swim = self._swim
        if swim.stopped:
            return
        swim.timers.at(now + swim.settings.probe_interval, self._tick)
        if self._probe is None:
            self._next_member(now)
        else:
            self._missed = True

    def _next_member(self, now: float) -> None:
        swim = self._swim
        hurried, self._hurried = self._hurried, None
        if hurried is not None and not hurried.gone:
            self._begin(hurried, now)
            return
        to_the_dead = swim.settings.gossip_to_the_dead
        member = swim.members.next_probed(
            wanted=lambda m: not m.gone and m.name != swim.name,
            forget=lambda m: m.gone and now - m.changed > to_the_dead and m.name != swim.name,
        )
        if member is not None:
            self._begin(member, now)

    def _ping(self, node: str) -> Ping:
        swim = self._swim
        return Ping(self.next_seq_no(), node, swim.me.addr, swim.me.port, swim.name)

    def _begin(self, member: Member, now: float) -> None:
        swim = self._swim
        ping = self._ping(member.name)
        probe = _Probe(member, ping, now, now + swim.awareness.scaled(swim.settings.probe_interval))
        self._probe = probe
        if swim.awareness.score > 0:
            swim.counts["memberlist.degraded.probe"] += 1
        message = wire.encode(Kind.PING, ping)
        if member.state is State.ALIVE:
            swim.send(member.address, message, member)
        else:
            # A suspect hears of the accusation with the ping, so that it can refute at once.
            accusation = wire.encode(Kind.SUSPECT, Suspect(member.incarnation, member.name, swim.name))
            swim.send(member.address, wire.compound([message, accusation]), member, piggyback=False)
        probe.timers = [
            swim.timers.at(now + swim.settings.probe_timeout, lambda at: self._go_indirect(probe, at)),
            swim.timers.at(probe.deadline, lambda at: self._conclude(probe, at)),
        ]

    def _go_indirect(self, probe: _Probe, now: float) -> None:
        swim = self._swim
        probe.indirect = True
        target, ping = probe.member, probe.ping
        helpers = swim.members.pick(
            swim.settings.indirect_checks,
            lambda m: m.state is State.ALIVE and m.name not in (swim.name, target.name),
        )
        for helper in helpers:
            nack = helper.protocol_max >= _NACK_VERSION
            probe.nacks_expected += nack
            asked = IndirectPing(
                ping.seq_no, target.addr, target.port, target.name, nack, swim.me.addr, swim.me.port, swim.name
            )
            swim.send(helper.address, wire.encode(Kind.INDIRECT_PING, asked), helper)
        if swim.settings.stream_pings and target.protocol_max >= _STREAM_PING_VERSION:
            message = wire.encode(Kind.PING, ping)
            swim.effects.append(PingStream(target.address, message, ping.seq_no, probe.deadline))

    def _finish(self, now: float) -> None:
        probe, self._probe = self._probe, None
        if probe is not None:
            self._swim.sample("memberlist.probeNode", (now - probe.sent) * 1000)
            for timer in probe.timers:
                timer.cancel()
        if self._missed:
            self._missed = False
            # Not from here: an answer that comes at once would nest round in round.
            self._swim.timers.at(now, self._after_missed)

    def _after_missed(self, now: float) -> None:
        if self._probe is None and not self._swim.stopped:
            self._next_member(now)

    def _conclude(self, probe: _Probe, now: float) -> None:
        swim = self._swim
        member = probe.member
        if probe.stream_acked:
            swim.awareness.add(-1)
            swim.effects.append(
                Notice(
                    Severity.WARN,
                    f"Was able to connect to {member.name} over TCP but UDP probes failed, "
                    "network may be misconfigured",
                )
            )
        else:
            swim.awareness.add(probe.nacks_expected - probe.nacks if probe.nacks_expected else 1)
            swim.suspect(Suspect(member.incarnation, member.name, swim.name), now)
        self._finish(now)

    def acked(self, ack: Ack, now: float) -> None:
        """An Ack arrived: for a ping of ours, or for one that another node asked for."""
        relay = self._relays.pop(ack.seq_no, None)
        if relay is not None:
            relay.timer.cancel()
            self._swim.send(relay.asker, wire.encode(Kind.ACK, Ack(relay.seq_no)))
            return
        probe = self._probe
        if probe is None or probe.ping.seq_no != ack.seq_no:
            return
        self._swim.awareness.add(-1)
        if not probe.indirect:
            self._swim.delegate.pinged(probe.member, now - probe.sent, ack.payload)
        self._finish(now)

    def stream_acked(self, seq_no: int) -> None:
        """The probe under way was answered over a stream. Datagrams keep their time, to see whether they work too."""
        if self._probe is not None and self._probe.ping.seq_no == seq_no:
            self._probe.stream_acked = True

    def nacked(self, nack: Nack) -> None:
        """A helper is alive and could not reach the probed node either."""
        probe = self._probe
        if probe is not None and probe.ping.seq_no == nack.seq_no and probe.nacks < probe.nacks_expected:
            probe.nacks += 1

    def asked(self, request: IndirectPing, source: Address, now: float) -> None:
        """Another node asks for a ping on its behalf."""
        if len(self._relays) >= _MAX_RELAYS:
            return
        swim = self._swim
        asker = source
        if request.source_addr and request.source_port:
            asker = Address(ip_text(request.source_addr), request.source_port)
        target = Address(ip_text(request.target), request.port or swim.me.port)
        ping = self._ping(request.node)

        def give_up(at: float) -> None:
            self._relays.pop(ping.seq_no, None)
            if request.nack:
                swim.send(asker, wire.encode(Kind.NACK, Nack(request.seq_no)))

        timer = swim.timers.at(now + swim.settings.probe_timeout, give_up)
        self._relays[ping.seq_no] = _Relay(asker, request.seq_no, timer)
        swim.send(target, wire.encode(Kind.PING, ping))
