"""A pool of many nodes in one process, on virtual time: the production core, a network made of one seed.

The network loses, delays, duplicates and partitions; nodes pause (a stopped process whose packets wait), crash, and run
slow. Everything follows from the seed, so a failure replays exactly. Packets are the core's messages as they stand;
sealing has its own tests. Run as a program for larger pools: `python -m tests.gossip.simulation --nodes 1000`.
"""

from __future__ import annotations

import argparse
import heapq
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable

import msgspec

from lictor.gossip.broadcasts import BroadcastQueue
from lictor.gossip.codec import WireError
from lictor.gossip.effects import Effect, JoinRefused, PingStream, PushPull, SendPacket, as_alive
from lictor.gossip.keyring import Keyring
from lictor.gossip.messages import Address
from lictor.gossip.pool_events import Change, MemberChanged, PoolEvent
from lictor.gossip.roster import Status
from lictor.gossip.serf import Serf
from lictor.gossip.settings import LAN, SerfSettings, SwimSettings
from lictor.gossip.wire import Sealer, StreamReader

PORT = 7946


class Network(msgspec.Struct):
    """What happens to packets: a share of them is lost, one way takes `delay` to `delay` + `jitter` seconds. A share is
    recorded by somebody, and `replays` sends it again after `replay_delay` seconds.
    """

    loss: float = 0.0
    delay: float = 0.0005
    jitter: float = 0.001
    duplicates: float = 0.0
    streams_lose_too: bool = False
    replays: float = 0.0
    replay_delay: float = 40.0


class Node:
    """One node of the pool."""

    def __init__(self, serf: Serf) -> None:
        self.serf = serf
        self.up = True
        self.paused_until = 0.0
        self.events: list[tuple[float, PoolEvent]] = []
        self.scheduled: float | None = None
        self.sent = 0
        self.sent_bytes = 0
        self.exchanged_bytes = 0
        self.group = 0


class Simulation:
    """Nodes, their network and the clock."""

    def __init__(self, seed: int, network: Network | None = None) -> None:
        self.rng = random.Random(seed)
        self.network = network or Network()
        self.now = 0.0
        self.nodes: dict[str, Node] = {}
        self.by_address: dict[Address, Node] = {}
        self.kinds: Counter[int] = Counter()
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._serial = 0
        self._plain = Sealer(Keyring())

    # Building

    def add(
        self,
        name: str,
        settings: SwimSettings = LAN,
        serf_settings: SerfSettings | None = None,
        host: str = "",
        tags: dict[str, str] | None = None,
    ) -> Node:
        """A new node, alone."""
        number = len(self.nodes)
        address = Address(host or f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}", PORT)
        serf = Serf(
            name,
            address,
            tags or {"role": "node"},
            rng=random.Random(self.rng.getrandbits(64)),
            swim_settings=settings,
            settings=serf_settings or SerfSettings(),
            keyring=Keyring(),
        )
        node = Node(serf)
        self.nodes[name] = node
        self.by_address[address] = node
        serf.start(self.now)
        self._drain(node)
        return node

    def add_many(self, count: int, settings: SwimSettings = LAN) -> list[Node]:
        """Nodes n0, n1, ..."""
        return [self.add(f"n{i}", settings) for i in range(count)]

    def acquaint(self) -> None:
        """Everyone knows everyone at once, as after a long time together."""
        states = [node.serf.swim.me.as_state() for node in self.nodes.values()]
        for node in self.nodes.values():
            swim = node.serf.swim
            for state in states:
                swim.alive(as_alive(state), self.now)
            # What they would gossip about it has long been said.
            swim.broadcasts = BroadcastQueue(swim.settings.retransmit_mult, lambda swim=swim: len(swim.members))  # type: ignore[misc]
            node.serf.take_events()
            node.serf.take_effects()

    def join(self, name: str, to: str) -> None:
        """`name` joins the pool of `to`."""
        node = self.nodes[name]
        self._do(node, PushPull(self.nodes[to].serf.swim.me.address, join=True), announced=True)
        self._drain(node)

    # Running

    def at(self, when: float, run: Callable[[], None]) -> None:
        """Something to do at a time."""
        self._serial += 1
        heapq.heappush(self._queue, (when, self._serial, run))

    def run(self, seconds: float, until: Callable[[], bool] | None = None) -> float:
        """Lets time pass; returns how much did, which is less when `until` came true."""
        began, end = self.now, self.now + seconds
        checked = self.now
        while self._queue and self._queue[0][0] <= end:
            when, _, run = heapq.heappop(self._queue)
            self.now = max(self.now, when)
            run()
            if until is not None and self.now - checked >= 0.05:
                checked = self.now
                if until():
                    return self.now - began
        self.now = end
        return seconds

    def crash(self, name: str) -> None:
        """The node's process is gone."""
        self.nodes[name].up = False

    def pause(self, name: str, seconds: float) -> None:
        """The node's process stops for a while; what arrives waits for it."""
        self.nodes[name].paused_until = self.now + seconds

    def partition(self, *groups: Iterable[str]) -> None:
        """Only nodes of one group reach each other; who is named in none is in the first."""
        for node in self.nodes.values():
            node.group = 0
        for number, names in enumerate(groups):
            for name in names:
                self.nodes[name].group = number

    def heal(self) -> None:
        """Everyone reaches everyone."""
        self.partition()

    def touch(self, name: str) -> None:
        """Carries out what a direct call of a node's API has caused."""
        self._drain(self.nodes[name])

    def _when_running(self, node: Node, run: Callable[[], None]) -> None:
        if node.paused_until > self.now:
            self.at(node.paused_until + self.rng.random() * 1e-3, lambda: self._when_running(node, run))
        elif node.up:
            run()

    def _wake(self, node: Node) -> None:
        def run() -> None:
            node.scheduled = None
            node.serf.advance(self.now)
            self._drain(node)

        self._when_running(node, run)

    def _drain(self, node: Node) -> None:
        for effect in node.serf.take_effects():
            self._do(node, effect)
        node.events += [(self.now, event) for event in node.serf.take_events()]
        deadline = node.serf.deadline
        if deadline is not None and (node.scheduled is None or deadline < node.scheduled):
            node.scheduled = deadline
            self.at(max(deadline, self.now), lambda: self._wake(node) if node.scheduled == deadline else None)

    def _trip(self) -> float:
        return self.network.delay + self.rng.random() * self.network.jitter

    def _reaches(self, node: Node, other: Node | None) -> bool:
        return other is not None and other.up and node.up and node.group == other.group

    def _do(self, node: Node, effect: Effect, announced: bool = False) -> None:
        if isinstance(effect, SendPacket):
            self._send(node, effect)
        elif isinstance(effect, PingStream):
            self._ping_stream(node, effect)
        elif isinstance(effect, PushPull):
            self._push_pull(node, effect, announced)

    def _send(self, node: Node, effect: SendPacket) -> None:
        node.sent += 1
        node.sent_bytes += len(effect.content)
        source = node.serf.swim.me.address
        if self.network.replays and self.rng.random() < self.network.replays:
            self.at(self.now + self.network.replay_delay, lambda: self._arrive(node, source, effect))
        copies = 2 if self.rng.random() < self.network.duplicates else 1
        for _ in range(copies):
            if self.rng.random() < self.network.loss:
                continue
            self.at(self.now + self._trip(), lambda: self._arrive(node, source, effect))

    def _arrive(self, sender: Node, source: Address, effect: SendPacket) -> None:
        other = self.by_address.get(effect.to)
        if other is None or not self._reaches(sender, other):
            return

        def take() -> None:
            try:
                other.serf.receive(effect.content, source, self.now)
            except WireError:
                raise AssertionError(f"a node sent what another cannot read: {effect.content!r}") from None
            self._drain(other)

        self._when_running(other, take)

    def _stream_fails(self) -> bool:
        return self.network.streams_lose_too and self.rng.random() < self.network.loss

    def _ping_stream(self, node: Node, effect: PingStream) -> None:
        other = self.by_address.get(effect.to)
        if other is None or not self._reaches(node, other) or self._stream_fails():
            return

        def answer() -> None:
            if other.serf.swim.stream_ping(effect.content[1:]) is not None:
                self.at(self.now + self._trip(), acked)

        def acked() -> None:
            if self._reaches(node, other) and self.now <= effect.deadline:
                self._when_running(node, lambda: node.serf.swim.stream_ack(effect.seq_no))

        self.at(self.now + self._trip(), lambda: self._when_running(other, answer))

    def _push_pull(self, node: Node, effect: PushPull, announced: bool) -> None:
        other = self.by_address.get(effect.to)
        if other is None or not self._reaches(node, other) or self._stream_fails():
            return
        mine = node.serf.swim.local_state(effect.join)
        node.exchanged_bytes += len(mine)

        def merge(into: Node, data: bytes) -> None:
            message = StreamReader(self._plain, labelled=False).feed(data)
            assert message is not None
            assert message.header is not None
            try:
                into.serf.merge(message, message.header.join, self.now)
            except JoinRefused:
                return
            self._drain(into)

        def arrived() -> None:
            theirs = other.serf.swim.local_state(effect.join)
            other.exchanged_bytes += len(theirs)
            merge(other, mine)
            self.at(self.now + self._trip(), lambda: self._when_running(node, lambda: back(theirs)))

        def back(theirs: bytes) -> None:
            merge(node, theirs)
            if announced:
                node.serf.joined_pool(self.now)
                self._drain(node)

        self.at(self.now + self._trip(), lambda: self._when_running(other, arrived))

    # Looking

    def converged(self) -> bool:
        """Whether every node that is up sees exactly these as alive."""
        up = [n for n in self.nodes.values() if n.up]
        return all(len(n.serf.roster.with_status(Status.ALIVE)) == len(up) for n in up)

    def seen_as(self, name: str) -> Counter[Status]:
        """How the other nodes that are up see a node."""
        return Counter(
            n.serf.roster.members[name].status if name in n.serf.roster.members else Status.NONE
            for n in self.nodes.values()
            if n.up and n.serf.name != name
        )

    def failures(self, but: Iterable[str] = ()) -> list[tuple[float, str, str]]:
        """Every failure that was told: when, by whom, of whom; those of `but` are left out."""
        left_out = set(but)
        return [
            (when, node.serf.name, event.member.name)
            for node in self.nodes.values()
            for when, event in node.events
            if isinstance(event, MemberChanged) and event.change is Change.FAILED and event.member.name not in left_out
        ]


def main() -> None:
    """Figures of a large pool: traffic at rest, detection of a crash, false positives under loss."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--loss", type=float, default=0.0)
    parser.add_argument("--crashes", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    simulation = Simulation(asked.seed, Network(loss=asked.loss))
    began = time.perf_counter()
    simulation.add_many(asked.nodes)
    simulation.acquaint()
    print(f"{asked.nodes} nodes acquainted in {time.perf_counter() - began:.1f} s of real time")
    simulation.run(asked.seconds)
    sent = sum(n.sent for n in simulation.nodes.values()) / asked.nodes / asked.seconds
    size = sum(n.sent_bytes for n in simulation.nodes.values()) / asked.nodes / asked.seconds
    exchanged = sum(n.exchanged_bytes for n in simulation.nodes.values()) / asked.nodes / asked.seconds
    print(
        f"at rest: {sent:.2f} packets of {size:.0f} bytes and {exchanged:.0f} bytes of exchanges a node and second, "
        f"{len(simulation.failures())} failures told"
    )
    crashed = [f"n{i}" for i in range(asked.crashes)]
    for name in crashed:
        simulation.crash(name)
    at = simulation.now
    simulation.run(120, lambda: all(set(simulation.seen_as(name)) == {Status.FAILED} for name in crashed))
    found = simulation.failures()
    for name in crashed:
        times = sorted(when - at for when, _, of in found if of == name)
        if times:
            middle = times[len(times) // 2]
            print(f"{name}: first {times[0]:.1f} s, median {middle:.1f} s, last {times[-1]:.1f} s, by {len(times)}")
    print(f"false positives: {len(simulation.failures(crashed))}; {time.perf_counter() - began:.1f} s of real time")


if __name__ == "__main__":
    main()
