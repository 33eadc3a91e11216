"""The nodes that this one knows, in the order that it probes them, and random picks among them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from lictor.gossip.messages import Address, Alive, NodeState, State, ip_text

_VERSIONS = 6


class Member:
    """What is known of a node. `changed` is when its state last changed; `vsn` is as in Alive, or empty."""

    __slots__ = ("_address", "addr", "changed", "incarnation", "meta", "name", "port", "state", "vsn")

    def __init__(self, alive: Alive, now: float) -> None:
        self.name = alive.node
        self.state = State.DEAD
        self.changed = now
        self.incarnation = 0
        self.vsn = b""
        self._address: Address | None = None
        self.take(alive)
        self.incarnation = 0

    def take(self, alive: Alive) -> None:
        """Its new place, metadata, incarnation and, when they are told, versions."""
        self.addr = alive.addr
        self.port = alive.port
        self.meta = alive.meta
        self.incarnation = alive.incarnation
        self._address = None
        if len(alive.vsn) >= _VERSIONS:
            self.vsn = alive.vsn[:_VERSIONS]

    @property
    def address(self) -> Address:
        """Where it listens."""
        if self._address is None:
            self._address = Address(ip_text(self.addr), self.port)
        return self._address

    @property
    def protocol_max(self) -> int:
        """The highest protocol version that it understands, 0 when it did not say."""
        return self.vsn[1] if self.vsn else 0

    @property
    def gone(self) -> bool:
        """Whether it failed or left."""
        return self.state >= State.DEAD

    def as_state(self) -> NodeState:
        """As an exchange of states tells it."""
        return NodeState(self.name, self.addr, self.port, self.incarnation, self.state, self.meta, self.vsn)


class Members:
    """All members, this node among them."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._order: list[Member] = []
        self._by_name: dict[str, Member] = {}
        self._next = 0

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[Member]:
        return iter(self._order)

    def get(self, name: str) -> Member | None:
        """The member of this name."""
        return self._by_name.get(name)

    def add(self, member: Member) -> None:
        """A new member, at a random place of the round, which keeps the time to its first probe short on average."""
        self._by_name[member.name] = member
        at = self._rng.randrange(len(self._order) + 1)
        self._order.append(member)
        self._order[at], self._order[-1] = self._order[-1], self._order[at]

    def next_probed(self, wanted: Callable[[Member], bool], forget: Callable[[Member], bool]) -> Member | None:
        """The next of the round-robin; with each round the order is shuffled and what `forget` says is dropped.

        Every member is thus probed within two rounds (SWIM, section 4.3), which is what bounds detection in time.
        """
        for _ in range(2 * len(self._order) + 1):
            if self._next >= len(self._order):
                self._next = 0
                self._begin_round(forget)
                if not self._order:
                    return None
            member = self._order[self._next]
            self._next += 1
            if wanted(member):
                return member
        return None

    def _begin_round(self, forget: Callable[[Member], bool]) -> None:
        kept = [m for m in self._order if not forget(m)]
        for member in self._order:
            if forget(member):
                del self._by_name[member.name]
        self._rng.shuffle(kept)
        self._order = kept

    def in_state(self, state: State) -> int:
        """How many are in a state."""
        return sum(1 for member in self._by_name.values() if member.state is state)

    def pick(self, count: int, wanted: Callable[[Member], bool]) -> list[Member]:
        """Up to `count` different members at random."""
        total = len(self._order)
        if total < 3 * count:
            candidates = [m for m in self._order if wanted(m)]
            return self._rng.sample(candidates, min(count, len(candidates)))
        picked: list[Member] = []
        for _ in range(3 * total):
            member = self._order[int(self._rng.random() * total)]
            if member not in picked and wanted(member):
                picked.append(member)
                if len(picked) == count:
                    break
        return picked
