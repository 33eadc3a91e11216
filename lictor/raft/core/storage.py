"""What the core reads of the durable log, and a storage that keeps it in memory.

The core only reads here. Writing is the shell's part: it appends what a `Ready` tells it to. Everything that was once
reported as written must be found again; what is still being written is in `unstable`.
"""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from lictor.raft.core.membership import Membership
from lictor.raft.core.message import BLANK_STATE, NO_LIMIT, Entry, HardState, Snapshot, fitting


class Compacted(LookupError):
    """The entries asked for are no longer in the log; a snapshot stands for them."""


class SnapshotOutdated(ValueError):
    """A snapshot is older than the one that is there."""


class Storage(Protocol):
    """The durable log. Reads must be quick: they happen within the loop's turn."""

    def initial_state(self) -> tuple[HardState, Membership]:
        """What was saved last, and the membership of the latest snapshot."""
        ...

    def first_index(self) -> int:
        """The lowest index whose entry is there; one more than the last, if there are none."""
        ...

    def last_index(self) -> int:
        """The highest index whose entry is there, or the snapshot's index."""
        ...

    def term(self, index: int) -> int | None:
        """The term of an entry between `first_index() - 1` and `last_index()`, None outside of that."""
        ...

    def entries(self, low: int, high: int, limit: int) -> Sequence[Entry]:
        """The entries from `low` until before `high`, no more than `limit` bytes of them, but one at least.

        Raises `Compacted`.
        """
        ...

    def snapshot(self) -> Snapshot | None:
        """The latest snapshot; None while it cannot be had, it is then asked for again later."""
        ...


class MemoryStorage:
    """A `Storage` in memory, with what a shell needs to write to it."""

    def __init__(self, membership: Membership | None = None) -> None:
        self.hard_state = BLANK_STATE
        self._snapshot = Snapshot(0, 0, membership or Membership())
        self._before = 0  # the index before the first entry, and its term
        self._before_term = 0
        self._entries: list[Entry] = []

    def initial_state(self) -> tuple[HardState, Membership]:
        return self.hard_state, self._snapshot.membership

    def first_index(self) -> int:
        return self._before + 1

    def last_index(self) -> int:
        return self._before + len(self._entries)

    def term(self, index: int) -> int | None:
        place = index - self._before
        if place == 0:
            return self._before_term
        return self._entries[place - 1].term if 0 < place <= len(self._entries) else None

    def entries(self, low: int, high: int, limit: int = NO_LIMIT) -> Sequence[Entry]:
        if low <= self._before:
            raise Compacted(f"entry {low} is gone, the log begins at {self._before + 1}")
        found = self._entries[low - self._before - 1 : high - self._before - 1]
        if limit < NO_LIMIT:
            del found[fitting(found, limit) :]
        return found

    def snapshot(self) -> Snapshot | None:
        return self._snapshot if self._snapshot.index else None

    def save(self, hard_state: HardState) -> None:
        """Keep a state."""
        self.hard_state = hard_state

    def append(self, entries: Sequence[Entry]) -> None:
        """Add entries; they replace those that were at and after their first index."""
        if not entries or entries[-1].index <= self._before:
            return
        entries = entries[max(0, self._before + 1 - entries[0].index) :]
        place = entries[0].index - self._before - 1
        if place > len(self._entries):
            raise ValueError(f"entries from {entries[0].index} on leave a gap after {self.last_index()}")
        self._entries[place:] = entries

    def restore(self, snapshot: Snapshot) -> None:
        """Begin anew from a snapshot. Raises `SnapshotOutdated`."""
        if snapshot.index <= self._snapshot.index != 0:
            raise SnapshotOutdated(f"snapshot {snapshot.index} is not newer than snapshot {self._snapshot.index}")
        self._snapshot = snapshot
        self._before, self._before_term = snapshot.index, snapshot.term
        self._entries = []

    def take_snapshot(self, index: int, membership: Membership, data: bytes) -> Snapshot:
        """Note the state after an entry as the latest snapshot. Raises `SnapshotOutdated`."""
        if index <= self._snapshot.index:
            raise SnapshotOutdated(f"snapshot {index} is not newer than snapshot {self._snapshot.index}")
        term = self.term(index)
        if term is None:
            raise ValueError(f"no entry {index} to take a snapshot of: the log ends at {self.last_index()}")
        self._snapshot = Snapshot(index, term, membership, data)
        return self._snapshot

    def compact(self, index: int) -> None:
        """Drop the entries up to `index`, which were applied. Raises `Compacted`."""
        if index <= self._before:
            raise Compacted(f"entry {index} is gone, the log begins at {self._before + 1}")
        term = self.term(index)
        if term is None:
            raise ValueError(f"cannot compact to {index}: the log ends at {self.last_index()}")
        self._entries = self._entries[index - self._before :]
        self._before, self._before_term = index, term

    def copy(self) -> "MemoryStorage":
        """The same at this moment, as a disk would be found after a crash."""
        copied = MemoryStorage()
        copied.hard_state = msgspec.structs.replace(self.hard_state)
        copied._snapshot = self._snapshot
        copied._before, copied._before_term = self._before, self._before_term
        copied._entries = list(self._entries)
        return copied
