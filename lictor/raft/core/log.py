"""The replicated log as its server sees it: storage, and behind it what is not durable yet.

Three marks move over it, always applied <= applying <= committed:

- `committed`: enough servers have it durably; it will never change.
- `applying`: handed to the state machine;
- `applied`: the state machine is done with it.

How much may be in the state machine's hands at once is limited in bytes, so that a long log is not read into memory.
"""

from collections.abc import Callable, Sequence

from lictor.raft.core import events
from lictor.raft.core.message import NO_LIMIT, Entry, Snapshot, fitting, log_bytes
from lictor.raft.core.storage import Compacted, Storage
from lictor.raft.core.unstable import Unstable


class InvariantBroken(RuntimeError):
    """Something that consensus rests on does not hold; the server must stop. Not for catching."""


class Log:
    """The log. Indexes begin at 1; 0 is before the first entry, with term 0."""

    __slots__ = (
        "_applying_bytes",
        "_limit",
        "_storage",
        "_trace",
        "applied",
        "applying",
        "apply_paused",
        "committed",
        "unstable",
    )

    def __init__(self, storage: Storage, applying_limit: int, trace: events.Trace) -> None:
        before = storage.first_index() - 1
        self._storage = storage
        self._limit = applying_limit
        self._applying_bytes = 0
        self._trace = trace
        self.unstable = Unstable(storage.last_index() + 1, trace)
        self.committed = self.applying = self.applied = before
        self.apply_paused = False

    def first_index(self) -> int:
        """The lowest index that may be read."""
        snapshot = self.unstable.snapshot
        return snapshot.index + 1 if snapshot is not None else self._storage.first_index()

    def last_index(self) -> int:
        """The highest index."""
        last = self.unstable.last_index()
        return self._storage.last_index() if last is None else last

    def term(self, index: int) -> int | None:
        """The term of an entry, or of the one before the first; None where the log does not reach."""
        term = self.unstable.term(index)
        if term is not None:
            return term
        if self.first_index() - 1 <= index <= self.last_index():
            return self._storage.term(index)
        return None

    def last_term(self) -> int:
        """The term of the last entry."""
        last = self.last_index()
        term = self.term(last)
        if term is None:
            raise InvariantBroken(f"the log has no term for its last entry, {last}: is it damaged?")
        return term

    def matches(self, index: int, term: int) -> bool:
        """Whether the entry at `index` is of that term; then all before it are the same, too."""
        return self.term(index) == term

    def up_to_date(self, term: int, index: int) -> bool:
        """Whether a log that ends so holds at least what this one holds (Raft paper, 5.4.1)."""
        return (term, index) >= (self.last_term(), self.last_index())

    def snapshot(self) -> Snapshot | None:
        """The latest snapshot, None while it cannot be had."""
        return self.unstable.snapshot or self._storage.snapshot()

    def entries(self, low: int, limit: int) -> tuple[Entry, ...] | None:
        """The entries from `low` on, up to `limit` bytes, but one at least. None if they are no longer in the log."""
        high = self.last_index() + 1
        return () if low >= high else self.slice(low, high, limit)

    def slice(self, low: int, high: int, limit: int) -> tuple[Entry, ...] | None:
        """Those from `low` until before `high`; otherwise as `entries`."""
        if low < self.first_index():
            return None
        unstable = self.unstable
        offset = unstable.offset
        if low >= offset:
            found = unstable.entries[low - offset : high - offset]
            return tuple(found[: fitting(found, limit)]) if limit < NO_LIMIT else tuple(found)
        try:
            durable = self._storage.entries(low, min(high, offset), limit)
        except Compacted:
            return None
        if high <= offset or len(durable) < offset - low:
            return tuple(durable)
        left = limit if limit >= NO_LIMIT else limit - log_bytes(durable)
        if left <= 0:
            return tuple(durable)
        rest = unstable.entries[: high - offset]
        count = fitting(rest, left)
        if count == 1 and log_bytes(rest[:1]) > left:
            count = 0
        return (*durable, *rest[:count])

    def append(self, entries: list[Entry] | tuple[Entry, ...]) -> None:
        """Add entries, in place of those that were at and after their first index."""
        if entries[0].index <= self.committed:
            raise InvariantBroken(
                f"entry {entries[0].index} would replace a committed one; {self.committed} are committed"
            )
        self.unstable.append(entries)

    def accept(self, previous: int, previous_term: int, entries: tuple[Entry, ...], commit: int) -> int | None:
        """Take over a leader's entries, if this log has the one before them. Returns the last index, None if not."""
        if not self.matches(previous, previous_term):
            return None
        for place, entry in enumerate(entries):
            found = self.term(entry.index)
            if found == entry.term:
                continue
            if found is not None and self._trace:
                self._trace(events.ConflictFound(entry.index, found, entry.term))
            self.append(entries[place:] if place else entries)
            break
        last = previous + len(entries)
        self.commit(min(commit, last))
        return last

    def match_candidate(self, index: int, term: int) -> tuple[int, int]:
        """The highest index, and its term, at which a log whose entry `index` is of `term` might match this one.

        Terms never decrease along a log: entries here with a higher term cannot be in the other one up to there. It
        takes few steps in a log of any length, for whoever asks may ask often.
        """
        if index <= 0:
            return 0, 0
        found = self.term(index)
        if found is None or found <= term:
            return index, found or 0
        low, high = self.first_index() - 1, index  # the term at `high` is too high
        lowest = self.term(low)
        if lowest is None or lowest > term:
            return max(0, low - 1), 0
        while high - low > 1:
            middle = (low + high) // 2
            if (self.term(middle) or 0) <= term:
                low = middle
            else:
                high = middle
        return low, self.term(low) or 0

    def commit(self, index: int) -> None:
        """Everything up to `index` is committed."""
        if index > self.committed:
            if index > self.last_index():
                raise InvariantBroken(
                    f"entry {index} is committed, but the log ends at {self.last_index()}: entries that were "
                    "reported as durable are gone. Take this server out of the cluster, and add it again with an "
                    "empty disk."
                )
            self.committed = index

    def restore(self, snapshot: Snapshot) -> None:
        """Begin anew from a snapshot."""
        if self._trace:
            unstable = self.unstable
            self._trace(
                events.RestoreStarted(
                    self.committed,
                    self.applied,
                    self.applying,
                    unstable.offset,
                    unstable.writing,
                    len(unstable.entries),
                    snapshot.index,
                    snapshot.term,
                )
            )
        self.committed = snapshot.index
        self.unstable.restore(snapshot)

    def _appliable(self, unstable_too: bool) -> int:
        return self.committed if unstable_too else min(self.committed, self.unstable.offset - 1)

    def has_committed_entries(self, unstable_too: bool) -> bool:
        """Whether there is something to hand to the state machine. A snapshot goes first."""
        return (
            self.applying < self._appliable(unstable_too) and not self.apply_paused and self.unstable.snapshot is None
        )

    def committed_entries(self, unstable_too: bool) -> tuple[Entry, ...]:
        """What to hand to the state machine next. `unstable_too`: even if it is not durable on this server."""
        if not self.has_committed_entries(unstable_too):
            return ()
        low, high = self.applying + 1, self._appliable(unstable_too) + 1
        found = self.slice(low, high, self._limit if self._limit >= NO_LIMIT else self._limit - self._applying_bytes)
        if found is None:
            raise InvariantBroken(f"entry {low} is committed and not applied, but it is no longer in the log")
        return found

    def hand_out(self, entries: Sequence[Entry], unstable_too: bool) -> None:
        """The state machine is applying these."""
        self.applying = entries[-1].index
        self._applying_bytes += log_bytes(entries)
        self.apply_paused = self._applying_bytes >= self._limit or self.applying < self._appliable(unstable_too)

    def applied_to(self, index: int, size: int) -> None:
        """The state machine applied everything up to `index`, the latest `size` bytes of it."""
        if not self.applied <= index <= self.committed:
            raise InvariantBroken(f"{index} applied, but {self.applied} was before, and {self.committed} are committed")
        self.applied = index
        self.applying = max(self.applying, index)
        self._applying_bytes = max(0, self._applying_bytes - size)
        self.apply_paused = self._applying_bytes >= self._limit

    def find_committed(self, wanted: Callable[[Entry], bool]) -> bool:
        """Whether an entry among the committed ones that were not applied is as wanted. Reads a page at a time."""
        low = self.applied + 1
        while low <= self.committed:
            found = self.slice(low, self.committed + 1, self._limit)
            if not found:
                raise InvariantBroken(f"entry {low} is committed and not applied, but it is no longer in the log")
            if any(map(wanted, found)):
                return True
            low += len(found)
        return False
