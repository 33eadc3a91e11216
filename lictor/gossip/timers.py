"""Things to do at a time, on a clock that is told from outside. The core has no other notion of waiting."""

from __future__ import annotations

import heapq
from collections.abc import Callable


class Timer:
    """Something to do at a time, unless cancelled before."""

    __slots__ = ("_run",)

    def __init__(self, run: Callable[[float], None]) -> None:
        self._run: Callable[[float], None] | None = run

    def cancel(self) -> None:
        """It will not run; that it has run already is no error."""
        self._run = None

    @property
    def waiting(self) -> bool:
        """Whether it has neither run nor been cancelled."""
        return self._run is not None

    def fire(self, now: float) -> None:
        """Runs it, once."""
        run, self._run = self._run, None
        if run is not None:
            run(now)


class Timers:
    """Timers in the order of their times; equal times in the order they were set."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._set = 0

    def at(self, when: float, run: Callable[[float], None]) -> Timer:
        """Runs `run(now)` as soon as the clock reaches `when`."""
        timer = Timer(run)
        self._set += 1
        heapq.heappush(self._heap, (when, self._set, timer))
        return timer

    @property
    def next(self) -> float | None:
        """The time of the next one, None while nothing waits."""
        while self._heap and not self._heap[0][2].waiting:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def advance(self, now: float) -> None:
        """Runs what is due. What a timer sets for `now` or before runs at the next call, so this always ends."""
        due = []
        while self._heap and self._heap[0][0] <= now:
            due.append(heapq.heappop(self._heap)[2])
        for timer in due:
            timer.fire(now)
