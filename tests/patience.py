"""How tests wait: for a condition, for long, and never for a fixed time.

A machine can stand still for seconds at any moment, for this process alone or for all, so nothing is told from a wait
that is over but from what was waited for. Time in which this process could not look does not count.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

PATIENCE = 120.0  # seconds, for what takes a moment on a machine that does not stand still
SHORTEST, LONGEST = 0.01, 0.1  # seconds between two looks at a condition: often at first, for whoever waits for little
COUNTED = 5.0  # seconds at most that count between two looks


class Waiting:
    """How long has been waited for one thing."""

    def __init__(self, seconds: float = PATIENCE) -> None:
        self._left = seconds
        self._looked = time.monotonic()
        self._pause = SHORTEST

    def pause(self) -> float | None:
        """How long to wait before the next look, in seconds; None where there has been enough of it."""
        now = time.monotonic()
        self._left -= min(now - self._looked, COUNTED)
        self._looked = now
        self._pause = min(self._pause * 1.2, LONGEST)
        return self._pause if self._left > 0 else None


def eventually(condition: Callable[[], Any], what: str) -> Any:
    """Wait for a condition to be true, and return its value."""
    waiting = Waiting()
    while not (value := condition()):
        pause = waiting.pause()
        assert pause is not None, f"expected in the end: {what}"
        time.sleep(pause)
    return value


async def soon(condition: Callable[[], Any], what: str) -> Any:
    """Wait for a condition to be true, on an event loop of real time, and return its value."""
    waiting = Waiting()
    while not (value := condition()):
        pause = waiting.pause()
        assert pause is not None, f"expected in the end: {what}"
        await asyncio.sleep(pause)
    return value


def settles(get: Callable[[], Any], wanted: Any, what: str) -> None:
    """Wait until what is asked for is what is wanted; the last answer is shown where it never is."""
    waiting = Waiting()
    while (found := get()) != wanted:
        pause = waiting.pause()
        if pause is None:
            assert found == wanted, f"expected in the end: {what}"
            return
        time.sleep(pause)
