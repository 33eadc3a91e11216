"""What must hold, checked at the moment when it could break, and at the end.

Everything that any server applies is known by its *position*: the number of proposals applied before it. The chain of
digests over the proposals says in a few bytes what was applied up to a position, so what is compared is everything.

- *one leader a term*: no two servers lead the same term;
- *one lease*: nobody leads a later term while a leader's lease lasts;
- *one vote*: no server votes for two in one term, nor has forgotten, when it starts again, whom it told that it votes
  for;
- *one history*: at each position all servers apply the same proposal, after a restart and from a snapshot as well; so
  what one server applied is never lost;
- *once*: no proposal is applied at two positions;
- *one state*: stores at the same position are equal;
- *fresh reads*: whoever answers a default or consistent read holds everything that was acknowledged, or read so by
  anybody, before the read was asked for;
- *linearizability* of each key's and each lock's history, by the checker, which knows nothing of positions;
- *nothing stuck*: when all is well again, what servers have proposed is applied soon;
- *nothing lost*: every acknowledged write that nothing replaced is there at the end.
"""

from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from itertools import chain
from typing import Any, Final

import msgspec

from lictor.raft.consensus import Image, Machine
from lictor.store.store import Store
from tests.simulation.loop import Broken

STORES_EVERY: Final = 64  # positions at which every server's store is compared
_MARK: Final = 8 + 16  # bytes of position and digest before a snapshot's state


class Counts(msgspec.Struct):
    """What happened in a simulation, to be added up over many."""

    seeds: int = 0
    seconds: float = 0.0
    terms: int = 0
    applied: int = 0
    snapshots: int = 0
    loads: int = 0
    crashes: int = 0
    cuts: int = 0
    pauses: int = 0
    changes: int = 0
    transfers: int = 0
    writes: int = 0
    unknown: int = 0
    reads: int = 0
    replica_reads: int = 0
    locks: int = 0
    expired: int = 0
    undecided: int = 0

    def add(self, other: "Counts") -> None:
        """Add another's."""
        for name in self.__struct_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def __str__(self) -> str:
        parts = []
        for name in self.__struct_fields__:
            value = getattr(self, name)
            parts.append(f"{name.replace('_', ' ')} {value:.0f}" if isinstance(value, float) else f"{name} {value}")
        return ", ".join(parts).replace("_", " ")


class Observer:
    """Sees all servers. `fail` is called with what broke, and raises; `newly` with each proposal that nobody had
    applied before.
    """

    def __init__(self, fail: Callable[[str], None], trace: Callable[[str], None]) -> None:
        self.leaders: dict[int, str] = {}
        self.length = 0
        self.acknowledged = 0
        self.images = 0
        self.loaded = 0
        self.newly: Callable[[bytes], None] = lambda proposal: None
        self._fail = fail
        self._trace = trace
        self._chain: dict[int, tuple[bytes, str]] = {0: (b"", "nobody")}
        self._applied: dict[bytes, int] = {}
        self._stores: dict[int, tuple[bytes, str]] = {}
        self._votes: dict[int, tuple[int, int]] = {}  # the latest term that a server voted in, and for whom

    def leads(self, who: str, term: int) -> None:
        """A server acted as leader of a term."""
        if self.leaders.setdefault(term, who) != who:
            self._fail(f"term {term} has two leaders: {self.leaders[term]} and {who}")

    def votes(self, who: str, number: int, term: int, candidate: int) -> None:
        """A server told a candidate that it votes for it; both by their numbers."""
        latest, chosen = self._votes.get(number, (0, 0))
        if term == latest and candidate != chosen:
            self._fail(f"{who} votes for {candidate} in term {term}, in which it voted for {chosen}")
        if term >= latest:
            self._votes[number] = (term, candidate)

    def remembers(self, who: str, number: int, term: int, vote: int) -> None:
        """A server has started with what it has on disk."""
        latest, chosen = self._votes.get(number, (0, 0))
        if term < latest or (term == latest and vote != chosen):
            self._fail(f"{who} starts in term {term} with a vote for {vote}, and voted for {chosen} in term {latest}")

    def applies(self, who: str, position: int, digest: bytes, proposal: bytes) -> None:
        """A server applied a proposal, and is at a position now."""
        known = self._chain.setdefault(position, (digest, who))
        if known[0] != digest:
            self._fail(f"{who} applies {proposal!r} at {position}, where {known[1]} applied something else")
        if position > self.length:
            self.length = position
            name = blake2b(proposal, digest_size=16).digest()
            before = self._applied.setdefault(name, position)
            # A session's owner and its TTL may end it at one moment: two proposals, of the same bytes.
            if before != position and b"session-destroy" not in proposal:
                self._fail(f"{who} applies {proposal!r} at {position}, which was applied at {before} already")
            self.newly(proposal)

    def loads(self, who: str, position: int, digest: bytes) -> None:
        """A server has become the state of a snapshot."""
        self.loaded += 1
        self._trace(f"{who} loads a snapshot of {position}")
        known = self._chain.get(position)
        if known is None or known[0] != digest:
            self._fail(f"{who} loads a snapshot of {position} that is not what was applied there")

    def compare(self, who: str, position: int, store: Store) -> None:
        """A server's store at a position."""
        digest = store_digest(store)
        known = self._stores.setdefault(position, (digest, who))
        if known[0] != digest:
            self._fail(f"the stores of {who} and {known[1]} differ at {position}, though they applied the same")

    def answered(self, position: int) -> None:
        """A client knows that everything up to a position was applied."""
        self.acknowledged = max(self.acknowledged, position)

    def fresh(self, who: str, position: int, needed: int, how: str) -> None:
        """A server answers a read that must show everything up to `needed`."""
        if position < needed:
            self._fail(f"{who} answers a {how} read from {position}, though {needed} was acknowledged before")


def store_digest(store: Store) -> bytes:
    """A digest of all that a store holds, whatever the order of its rows."""
    encode = msgspec.msgpack.Encoder(order="deterministic").encode
    hasher = blake2b(digest_size=16)
    hasher.update(encode((store.index, store.floor, store.base, store.now)))
    for name, table in store.tables.items():
        hasher.update(name.encode())
        for row in sorted(encode(row) for row in table):
            hasher.update(row)
    for topics in (store.touched, store.departed):
        hasher.update(encode(sorted(topics.items())))
    return hasher.digest()


class WatchedMachine:
    """The server's state machine, seen by the observer. Its snapshots carry the position and the digest."""

    def __init__(self, machine: Machine, store: Store, who: str, observer: Observer) -> None:
        self.position = 0
        self._machine = machine
        self._store = store
        self._who = who
        self._observer = observer
        self._digest = b""

    def apply(self, proposals: Sequence[bytes]) -> list[Any]:
        results = self._machine.apply(proposals)
        for proposal in proposals:
            self.position += 1
            self._digest = blake2b(self._digest + proposal, digest_size=16).digest()
            self._observer.applies(self._who, self.position, self._digest, bytes(proposal))
        if len(results) != len(proposals):
            raise Broken(f"{self._who}: {len(proposals)} proposals gave {len(results)} results")
        if self.position % STORES_EVERY < len(proposals):
            self._observer.compare(self._who, self.position, self._store)
        return results

    def image(self) -> Image:
        self._observer.images += 1
        self._observer.compare(self._who, self.position, self._store)
        return _MarkedImage(self._machine.image(), self.position, self._digest)

    def check(self, pieces: Iterator[bytes]) -> None:
        head = b""
        while len(head) < _MARK:
            head += next(pieces)
        self._machine.check(chain((head[_MARK:],), pieces))

    async def load(self, pieces: Iterator[bytes]) -> None:
        head = b""
        while len(head) < _MARK:
            head += next(pieces)
        position, digest = int.from_bytes(head[:8]), head[8:_MARK] if any(head[:8]) else b""
        if position < self.position:
            raise Broken(f"{self._who} is at {self.position} and loads a snapshot of {position}")
        await self._machine.load(chain((head[_MARK:],), pieces))
        self.position, self._digest = position, digest
        self._observer.loads(self._who, position, digest)
        self._observer.compare(self._who, position, self._store)


class _MarkedImage:
    def __init__(self, image: Image, position: int, digest: bytes) -> None:
        self._image = image
        self._mark = position.to_bytes(8) + digest.ljust(16, b"\0")

    def encode(self) -> Iterator[bytes]:
        yield self._mark
        yield from self._image.encode()
