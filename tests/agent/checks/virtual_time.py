"""An event loop on virtual time: instead of waiting it moves its clock to the next timer, so that hours of timers pass
in moments. Sockets on loopback within the process work, since what they are sent is there almost at once; threads and
other processes are not waited for.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
LOOPBACK = 0.002  # seconds in which what was sent to a socket of this process arrives


class _JumpingSelector(selectors.DefaultSelector):
    jump: Callable[[float], None]

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        sockets = len(self.get_map()) > 1  # besides the loop's own
        ready = super().select(0) or (super().select(LOOPBACK) if sockets and timeout != 0 else [])
        if not ready and timeout is None:
            raise RuntimeError("nothing will ever happen: no timer is set and no socket is ready")
        if not ready and timeout is not None:
            self.jump(timeout)
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Starts at 1000 seconds, so that nothing takes zero for the beginning of time."""

    def __init__(self) -> None:
        self._now = 1000.0
        selector = _JumpingSelector()
        selector.jump = self._jump
        super().__init__(selector)

    def time(self) -> float:
        """The virtual clock."""
        return self._now

    def _jump(self, seconds: float) -> None:
        self._now += seconds


def run_virtually(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` to its end on a fresh loop on virtual time."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(work)
