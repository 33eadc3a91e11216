"""A machine's disk, and how processes work on it: each operation takes its time, and may stop in the midst of it.

The disk is `tests.raft.simdisk.SimDisk`: what was not synced may be lost or torn when the power fails. Work that
blocks, which a real server does in a thread, happens here at one moment between its beginning and its end, on virtual
time; the loop goes on meanwhile. A burnt fuse ends the process in the midst of an operation.
"""

import asyncio
import random
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from tests.raft.simdisk import Crash, SimDisk
from tests.simulation.loop import SimLoop

T = TypeVar("T")


class Pace(msgspec.Struct):
    """How fast a disk is, in seconds: what any work takes, each sync, and how often a sync takes up to `slow`."""

    work: float = 0.0002
    sync: float = 0.002
    slow: float = 0.3
    tail: float = 0.02


class Drive:
    """A machine's disk. Work waits until `stalled_until`, on true time."""

    def __init__(self, loop: SimLoop, chance: random.Random) -> None:
        self.loop = loop
        self.chance = chance
        self.disk = SimDisk(chance)
        self.pace = Pace()
        self.stalled_until = 0.0

    def seconds(self, syncs: int) -> float:
        """How long work with so many syncs takes."""
        chance, pace = self.chance, self.pace
        taken = chance.expovariate(1 / pace.work)
        for _ in range(syncs):
            taken += chance.expovariate(1 / pace.sync)
            if chance.random() < pace.tail:
                taken += chance.random() * pace.slow
        return taken


class Worker:
    """Runs one process's work on a drive, one piece after the other, in order. `crashed` is told when the fuse burns
    down: the process is dead then, and its work never ends.
    """

    def __init__(self, drive: Drive, crashed: Callable[[], None]) -> None:
        self._drive = drive
        self._crashed = crashed
        self._last: asyncio.Future[None] | None = None

    async def __call__(self, function: Callable[..., T], /, *args: Any) -> T:
        """Do a piece of work when all before it is done. It is done to its end even if the caller is cancelled."""
        before, self._last = self._last, asyncio.get_running_loop().create_future()
        task = asyncio.get_running_loop().create_task(self._work(before, self._last, function, args))
        return await asyncio.shield(task)

    async def _work(
        self,
        before: "asyncio.Future[None] | None",
        done: "asyncio.Future[None]",
        function: Callable[..., T],
        args: tuple[Any, ...],
    ) -> T:
        drive = self._drive
        if before is not None:
            await before
        try:
            await self._wait(max(0.0, drive.stalled_until - drive.loop.now) + drive.seconds(0))
            syncs = drive.disk.syncs
            try:
                result = function(*args)
            except Crash:
                self._crashed()
                await asyncio.get_running_loop().create_future()
                raise
            finally:
                taken = drive.seconds(drive.disk.syncs - syncs)
            await self._wait(taken)
            return result
        finally:
            if not done.done():
                done.set_result(None)

    async def _wait(self, seconds: float) -> None:
        """True seconds: disks have no clock."""
        over = asyncio.get_running_loop().create_future()
        self._drive.loop.later(seconds, _finish, over)
        await over


def _finish(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
