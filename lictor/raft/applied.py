"""Waiting for an index to be applied."""

import asyncio
import heapq


class AppliedIndex:
    """The index that the machine has reached, and who waits for a later one."""

    def __init__(self) -> None:
        self.index = 0
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._count = 0

    def reach(self, index: int) -> None:
        """The machine holds everything up to an index."""
        self.index = index
        while self._waiting and self._waiting[0][0] <= index:
            _, _, done = heapq.heappop(self._waiting)
            if not done.done():
                done.set_result(None)

    def when(self, index: int, done: "asyncio.Future[None]") -> None:
        """Set `done` once an index is reached."""
        if index <= self.index:
            if not done.done():
                done.set_result(None)
            return
        self._count += 1
        heapq.heappush(self._waiting, (index, self._count, done))
