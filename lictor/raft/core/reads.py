"""Reads that wait until a quorum confirms the leader (Raft dissertation, 6.4).

Reads are numbered in the order in which they arrive. A heartbeat carries the number of the last one; the answer to it
proves that the sender still followed this leader after that read arrived, so it confirms all reads up to that number.
One heartbeat's round confirms everything that came before it: the number that a quorum returned is what is confirmed.
"""

from collections import deque

from lictor.raft.core.message import Message
from lictor.raft.core.quorum import Quorum


class PendingReads:
    """Reads of one leader in one term. Numbers begin at 1."""

    __slots__ = ("_acknowledged", "_confirmed", "_waiting")

    def __init__(self) -> None:
        self._waiting: deque[tuple[Message, int]] = deque()  # request, commit index when it arrived
        self._confirmed = 0
        self._acknowledged: dict[int, int] = {}

    def add(self, request: Message, commit: int) -> None:
        """A read arrived, when everything up to `commit` was committed."""
        self._waiting.append((request, commit))

    def heartbeat_context(self) -> bytes:
        """What a heartbeat carries to confirm all reads that wait; nothing if none does."""
        return (self._confirmed + len(self._waiting)).to_bytes(8, "little") if self._waiting else b""

    def acknowledge(self, node: int, context: bytes) -> None:
        """A server returned a heartbeat's context. Anything else than such a context is ignored."""
        if len(context) == 8:
            number = int.from_bytes(context, "little")
            if number <= self._confirmed + len(self._waiting):
                self._acknowledged[node] = max(number, self._acknowledged.get(node, 0))

    def take_confirmed(self, quorum: Quorum) -> list[tuple[Message, int]]:
        """The reads that are confirmed now, with their commit indexes."""
        confirmed = quorum.committed_index(lambda node: self._acknowledged.get(node, 0))
        count = min(confirmed - self._confirmed, len(self._waiting))
        if count <= 0:
            return []
        self._confirmed += count
        return [self._waiting.popleft() for _ in range(count)]
