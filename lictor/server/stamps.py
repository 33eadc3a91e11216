"""The times that a server stamps its proposals with: its wall clock's, without the jumps.

A lock delay, and what is remembered of agents for a while, are measured in these times. A wall clock that is set
forward by an hour must not end them, so the stamps follow it only little by little: in a second of steady time they go
on by two seconds at most, and by half a second at least.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

FASTEST: Final = 2.0  # seconds of stamps to one of steady time, at most
SLOWEST: Final = 0.5  # and at least


class Stamps:
    """Stamps in seconds since 1970. `wall` is the clock that they follow."""

    def __init__(self, wall: Callable[[], float]) -> None:
        self._wall = wall
        self._last: tuple[float, float] | None = None  # steady time and stamp

    def at(self, steady: float) -> float:
        """The stamp for now, which is `steady` on a clock that does not jump, in seconds. The first is the wall's."""
        stamp = self._wall()
        if self._last is not None:
            before, last = self._last
            passed = max(0.0, steady - before)
            stamp = min(max(stamp, last + SLOWEST * passed), last + FASTEST * passed)
        self._last = steady, stamp
        return stamp
