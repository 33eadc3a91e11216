"""How far each follower is, as its leader sees it, and how much may be under way to it.

A follower is in one of three states:

- PROBE: where its log ends is not known. One message with entries at a time, the next after an answer or a heartbeat.
- REPLICATE: it keeps up. `next` runs ahead of what it acknowledged; messages go out without waiting, until the window
  is full (in messages or in bytes).
- SNAPSHOT: what it needs is no longer in the log. Nothing is sent until it has the snapshot.

It begins as PROBE; an acknowledgement makes it REPLICATE; a refusal or a lost connection make it PROBE again.

A `Window` holds the last index and the size of every message under way. Acknowledging an index frees all messages up to
it. When the window is full, one empty message goes out per heartbeat: its answer tells whether the others were lost.
"""

from collections import deque
from enum import Enum


class ProgressState(Enum):
    """How the leader treats a follower."""

    PROBE = "probe"
    REPLICATE = "replicate"
    SNAPSHOT = "snapshot"


class Window:
    """The messages under way to one follower, oldest first. The byte limit may be exceeded by one message."""

    __slots__ = ("_bytes", "_bytes_limit", "_messages", "_messages_limit")

    def __init__(self, messages_limit: int, bytes_limit: int) -> None:
        self._messages_limit = messages_limit
        self._bytes_limit = bytes_limit
        self._messages: deque[tuple[int, int]] = deque()  # (last index, bytes)
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def full(self) -> bool:
        """Whether nothing more may be sent."""
        return len(self._messages) >= self._messages_limit or self._bytes >= self._bytes_limit

    def add(self, last_index: int, size: int) -> None:
        """A message went out. Its last index is higher than those before."""
        if self.full:
            raise RuntimeError("a message was sent to a follower whose window is full")
        self._messages.append((last_index, size))
        self._bytes += size

    def free(self, index: int) -> None:
        """Everything up to `index` arrived."""
        messages = self._messages
        while messages and messages[0][0] <= index:
            self._bytes -= messages.popleft()[1]

    def clear(self) -> None:
        """Nothing is under way any more."""
        self._messages.clear()
        self._bytes = 0

    def copy(self) -> "Window":
        """The same, for looking at."""
        window = Window(self._messages_limit, self._bytes_limit)
        window._messages = self._messages.copy()
        window._bytes = self._bytes
        return window


class Progress:
    """One follower's progress. Always `match < next`.

    `match`: the last index known to be in its log. `next`: the index to send next. `pending_snapshot`: in SNAPSHOT, the
    index of the one on its way. `active`: whether it was heard of since the last check. `paused`: nothing more is sent
    until an answer or a heartbeat's answer arrives. `window`: what is under way.
    """

    __slots__ = (
        "_sent_commit",
        "active",
        "is_learner",
        "match",
        "next",
        "paused",
        "pending_snapshot",
        "state",
        "window",
    )

    def __init__(self, next_index: int, window: Window, *, is_learner: bool) -> None:
        self.match = 0
        self.next = next_index
        self.state = ProgressState.PROBE
        self.pending_snapshot = 0
        self.active = False
        self.paused = False
        self.window = window
        self.is_learner = is_learner
        self._sent_commit = 0

    @property
    def blocked(self) -> bool:
        """Whether no entries may be sent now."""
        return self.paused or self.state is ProgressState.SNAPSHOT

    def probe(self) -> None:
        """Find out anew where the follower is; after a snapshot, suppose that it arrived."""
        start = max(self.match, self.pending_snapshot if self.state is ProgressState.SNAPSHOT else 0)
        self._enter(ProgressState.PROBE, start + 1)
        self._sent_commit = min(self._sent_commit, start)

    def replicate(self) -> None:
        """Send without waiting for answers, from where the follower is."""
        self._enter(ProgressState.REPLICATE, self.match + 1)

    def await_snapshot(self, index: int) -> None:
        """The follower is being sent the snapshot of `index`."""
        self._enter(ProgressState.SNAPSHOT, index + 1)
        self.pending_snapshot = index
        self._sent_commit = index

    def _enter(self, state: ProgressState, next_index: int) -> None:
        self.state = state
        self.next = next_index
        self.paused = False
        self.pending_snapshot = 0
        self.window.clear()

    def sent(self, count: int, size: int, commit: int) -> None:
        """A message with `count` entries from `next` on went out, and told the commit index."""
        if self.state is ProgressState.REPLICATE:
            if count:
                self.next += count
                self.window.add(self.next - 1, size)
            self.paused = self.window.full
        elif count:
            self.paused = True
        self._sent_commit = commit

    def told_commit(self, commit: int) -> None:
        """A heartbeat told the commit index."""
        self._sent_commit = commit

    def wants_commit(self, commit: int) -> bool:
        """Whether telling `commit` would let the follower commit more than what it was told already."""
        return commit > self._sent_commit and self._sent_commit < self.next - 1

    def acknowledge(self, index: int) -> bool:
        """The follower has everything up to `index`. Returns whether that is news."""
        if index <= self.match:
            return False
        self.match = index
        self.next = max(self.next, index + 1)
        self.paused = False
        return True

    def refuse(self, index: int, hint: int) -> bool:
        """The follower lacks the entry at `index`; what it has might match up to `hint`.

        Steps `next` back. Returns False for an old refusal, one that was overtaken by other answers.
        """
        if self.state is ProgressState.REPLICATE:
            if index <= self.match:
                return False
            self.next = self.match + 1
        elif self.next - 1 != index:
            return False
        else:
            self.next = max(min(index, hint + 1), self.match + 1)
            self.paused = False
        self._sent_commit = min(self._sent_commit, self.next - 1)
        return True

    def copy(self) -> "Progress":
        """The same, for looking at."""
        progress = Progress(self.next, self.window.copy(), is_learner=self.is_learner)
        progress.match = self.match
        progress.state = self.state
        progress.pending_snapshot = self.pending_snapshot
        progress.active = self.active
        progress.paused = self.paused
        progress._sent_commit = self._sent_commit
        return progress
