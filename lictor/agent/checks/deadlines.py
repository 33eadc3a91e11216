"""Which of many things is due next: a heap of keys with times, made for keys whose times move often.

A TTL check renewed a thousand times a second moves its deadline a thousand times; a heap that took an entry for each
would grow without bound. So a key whose deadline moves *later* keeps its old entry, and is put back with its real time
when that comes up; only moving *earlier* adds an entry. Pure: times are seconds on the caller's clock.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Deadlines(Generic[K]):
    """Times by key, at most one per key."""

    __slots__ = ("_entries", "_queued", "_sequence", "_when")

    def __init__(self) -> None:
        self._when: dict[K, float] = {}
        self._queued: dict[K, float] = {}
        self._entries: list[tuple[float, int, K]] = []
        self._sequence = 0

    def __len__(self) -> int:
        return len(self._when)

    def set(self, key: K, when: float) -> None:
        """`key` is due at `when`, and no longer at an earlier set time."""
        self._when[key] = when
        queued = self._queued.get(key)
        if queued is None or when < queued:
            self._push(key, when)

    def discard(self, key: K) -> None:
        """`key` is no longer due at any time."""
        self._when.pop(key, None)

    def next(self) -> float | None:
        """When to call `pop_due` next; it may then find nothing due (see above). None: nothing is waited for."""
        while self._entries:
            when, _, key = self._entries[0]
            if key in self._when and self._queued.get(key) == when:
                return when
            heapq.heappop(self._entries)
            self._forget(key, when)
        return None

    def pop_due(self, now: float) -> list[K]:
        """The keys due at `now` or before, earliest first; they are no longer waited for."""
        due: list[K] = []
        while self._entries and self._entries[0][0] <= now:
            queued, _, key = heapq.heappop(self._entries)
            if self._queued.get(key) != queued:
                continue
            del self._queued[key]
            when = self._when.get(key)
            if when is None:
                continue
            if when <= now:
                del self._when[key]
                due.append(key)
            else:
                self._push(key, when)
        return due

    def _push(self, key: K, when: float) -> None:
        self._sequence += 1  # breaks ties in the order of setting, and keeps keys from being compared
        self._queued[key] = when
        heapq.heappush(self._entries, (when, self._sequence, key))

    def _forget(self, key: K, when: float) -> None:
        if self._queued.get(key) == when:
            del self._queued[key]
