"""What the consensus core reads of the durable log: the entries since some snapshot, in memory, and the snapshot's
description. Pure; the shell notes here what it has written, never before.
"""

from collections.abc import Sequence

from lictor.raft.core.membership import Membership
from lictor.raft.core.message import ENTRY_OVERHEAD, NO_LIMIT, Entry, HardState, Snapshot, fitting
from lictor.raft.core.storage import Compacted
from lictor.raft.wal import Recovered

DROPPED = 10_000  # entries that are dropped at once: many take long


class LogView:
    """A `Storage`. `bytes` counts the entries that are held."""

    def __init__(self, recovered: Recovered, snapshot: Snapshot | None) -> None:
        self.hard_state: HardState = recovered.state
        self.latest = snapshot
        self._before, self._before_term = recovered.before.index, recovered.before.term
        self._entries = recovered.entries
        self.bytes = sum([len(entry.data) for entry in self._entries]) + ENTRY_OVERHEAD * len(self._entries)

    def initial_state(self) -> tuple[HardState, Membership]:
        return self.hard_state, self.latest.membership if self.latest is not None else Membership()

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
        start = low - self._before - 1
        end = high - self._before - 1
        if limit < NO_LIMIT:
            # Far behind, a follower gets a message's worth at a time: no more than that is copied.
            end = min(end, start + max(1, limit // ENTRY_OVERHEAD))
        found = self._entries[start:end]
        if limit < NO_LIMIT:
            del found[fitting(found, limit) :]
        return found

    def snapshot(self) -> Snapshot | None:
        return self.latest

    # -- noted by the shell

    def append(self, entries: Sequence[Entry]) -> None:
        """Entries were written; they replaced those from their first index on."""
        if not entries:
            return
        place = entries[0].index - self._before - 1
        if not 0 <= place <= len(self._entries):
            raise ValueError(f"entries from {entries[0].index} on do not follow {self.last_index()}")
        for old in self._entries[place:]:
            self.bytes -= len(old.data) + ENTRY_OVERHEAD
        self._entries[place:] = entries
        self.bytes += sum([len(entry.data) for entry in entries]) + ENTRY_OVERHEAD * len(entries)

    def restore(self, snapshot: Snapshot) -> None:
        """The log was begun anew after a snapshot."""
        self.latest = snapshot
        self._before, self._before_term = snapshot.index, snapshot.term
        self._entries = []
        self.bytes = 0

    def compact(self, trailing: int, trailing_bytes: int) -> int:
        """Drop entries that the latest snapshot stands for, but for the last ones before it. Returns the index up to
        which they are gone; a further call may drop more, for no call drops more than `DROPPED`.
        """
        if self.latest is None:
            return self._before
        keep_from = self.latest.index - self._before  # the place after the snapshot's own entry
        kept = size = 0
        while kept < min(trailing, keep_from) and size < trailing_bytes:
            kept += 1
            size += len(self._entries[keep_from - kept].data) + ENTRY_OVERHEAD
        place = min(keep_from - kept, DROPPED)
        if place > 0:
            self._before_term = self._entries[place - 1].term
            self._before += place
            self.bytes -= sum([len(entry.data) + ENTRY_OVERHEAD for entry in self._entries[:place]])
            del self._entries[:place]
        return self._before
