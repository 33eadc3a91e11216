"""The TTLs of sessions, as the leader counts them down. Pure: times are handed in, in seconds of any steady clock.

A session may last up to twice its TTL after it was last renewed; a new leader starts every count anew.
"""

import heapq
from collections.abc import Iterable

from lictor.model.duration import parse_duration
from lictor.model.session import TTL_MULTIPLIER, Session


class SessionTimers:
    """When each session with a TTL ends."""

    def __init__(self) -> None:
        self._ends: dict[str, float] = {}
        self._ttls: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []

    def __len__(self) -> int:
        return len(self._ends)

    def follow(self, sessions: Iterable[Session], now: float) -> None:
        """Count for exactly these sessions: new ones from now on, known ones as before, others no more."""
        wanted = {s.id: s for s in sessions if s.ttl}
        for session_id in [i for i in self._ends if i not in wanted]:
            del self._ends[session_id]
            del self._ttls[session_id]
        for session_id, session in wanted.items():
            if session_id not in self._ends:
                self._ttls[session_id] = parse_duration(session.ttl)
                self.renew(session_id, now)

    def renew(self, session_id: str, now: float) -> None:
        """Begin a session's count anew; harmless for one that has none."""
        ttl = self._ttls.get(session_id)
        if ttl is not None:
            self._ends[session_id] = end = now + ttl * TTL_MULTIPLIER
            heapq.heappush(self._heap, (end, session_id))
            if len(self._heap) > 2 * len(self._ends) + 1000:
                self._heap = [(end, i) for i, end in self._ends.items()]
                heapq.heapify(self._heap)

    def due(self, now: float) -> list[str]:
        """The sessions whose time is over. They count no more until they are followed anew."""
        ended = []
        while self._heap and self._heap[0][0] <= now:
            end, session_id = heapq.heappop(self._heap)
            if self._ends.get(session_id) == end:
                del self._ends[session_id]
                del self._ttls[session_id]
                ended.append(session_id)
        return ended

    def next(self) -> float | None:
        """When the next session ends, if it is not renewed."""
        while self._heap and self._ends.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None
