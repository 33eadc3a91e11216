"""The end of the log that is not durable yet.

Entries and a snapshot wait here from the moment they are accepted until the shell reports them written. Meanwhile they
are handed out for writing once: `writing` is the first index that was not. When a new leader replaces entries that are
being written, they are handed out again, from the first replaced one on.

The last entry's index may be lower than what storage holds: the next write then cuts storage short.
"""

from lictor.raft.core import events
from lictor.raft.core.message import Entry, Snapshot


class Unstable:
    """Entries from `offset` on, and a snapshot that comes before them."""

    __slots__ = ("_trace", "entries", "offset", "snapshot", "snapshot_writing", "writing")

    def __init__(self, offset: int, trace: events.Trace) -> None:
        self.entries: list[Entry] = []
        self.offset = offset
        self.writing = offset
        self.snapshot: Snapshot | None = None
        self.snapshot_writing = False
        self._trace = trace

    def last_index(self) -> int | None:
        """The highest index here, None if there is neither entry nor snapshot."""
        if self.entries:
            return self.offset + len(self.entries) - 1
        return self.snapshot.index if self.snapshot is not None else None

    def term(self, index: int) -> int | None:
        """The term of an entry here, or of the snapshot's last; None for others."""
        place = index - self.offset
        if place >= 0:
            return self.entries[place].term if place < len(self.entries) else None
        if self.snapshot is not None and self.snapshot.index == index:
            return self.snapshot.term
        return None

    def unwritten(self) -> tuple[Entry, ...]:
        """The entries that were not handed out for writing."""
        return tuple(self.entries[self.writing - self.offset :])

    @property
    def has_unwritten(self) -> bool:
        """Whether there are such entries."""
        return self.writing < self.offset + len(self.entries)

    def unwritten_snapshot(self) -> Snapshot | None:
        """The snapshot, unless it was handed out for writing."""
        return None if self.snapshot_writing else self.snapshot

    def hand_out(self) -> None:
        """Everything is being written now."""
        self.writing = self.offset + len(self.entries)
        self.snapshot_writing = self.snapshot is not None

    def written(self, index: int, term: int) -> None:
        """The log up to the entry of that index and term is durable, and nothing under way will overwrite it."""
        found = self.term(index)
        if found is None:
            if self._trace:
                self._trace(events.WrittenUnknown(index))
        elif index < self.offset:
            if self._trace:
                self._trace(events.WrittenIsSnapshot(index))
        elif found != term:
            # The entries were replaced while they were being written.
            if self._trace:
                self._trace(events.WrittenReplaced(index, term, found))
        else:
            del self.entries[: index + 1 - self.offset]
            self.offset = index + 1
            self.writing = max(self.writing, self.offset)

    def snapshot_written(self, index: int) -> None:
        """The snapshot of that index is durable."""
        if self.snapshot is not None and self.snapshot.index == index:
            self.snapshot = None
            self.snapshot_writing = False

    def restore(self, snapshot: Snapshot) -> None:
        """Drop everything in favour of a snapshot."""
        self.entries = []
        self.offset = self.writing = snapshot.index + 1
        self.snapshot = snapshot
        self.snapshot_writing = False

    def append(self, entries: list[Entry] | tuple[Entry, ...]) -> None:
        """Add entries; they replace those that were at and after their first index."""
        first = entries[0].index
        if first == self.offset + len(self.entries):
            self.entries.extend(entries)
            return
        if first <= self.offset:
            if self._trace:
                self._trace(events.UnstableReplaced(first))
            self.entries = list(entries)
            self.offset = self.writing = first
            return
        if self._trace:
            self._trace(events.UnstableTruncated(first))
        self.entries[first - self.offset :] = entries
        self.writing = min(self.writing, first)
