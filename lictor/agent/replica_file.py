"""The file in which a client agent keeps its replica, so that it knows its mesh and its services also where it is
started while every server is away: `data_dir/replica`.

It is written some seconds after a change, sooner where that says who may talk to whom, seldom where it is large; at an
end at once; never while nothing changes. Readable by its owner only, written whole or not at all. One that cannot be
used is named in the log, and the next one takes its place.
"""

import asyncio
import contextlib
import errno
import os
import stat
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from lictor.agent.logs import logger
from lictor.agent.persistence import write_file
from lictor.agent.replica import PartialReplica
from lictor.agent.replica_image import MOST, Image, Moment, decides, may_be_kept, read_image
from lictor.agent.worker import Worker
from lictor.model.clock import lease_clock
from lictor.store.watch import Topic

NAME: Final = "replica"
SOON: Final = 0.5  # seconds from a change of what decides to the file
QUIET: Final = 5.0  # seconds from any other
RATE: Final = 32 * 1024  # bytes a second that are written over a long time, but for what is urgent
URGENT_RATE: Final = 4 * 1024 * 1024
LONGEST: Final = 600.0  # seconds between two, however large the file
AGAIN: Final = 60.0  # seconds after which it is tried again where it could not be written
RESTLESS: Final = frozenset(("coordinates", "coordinate"))  # always on the move, and worth no write

_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")

log = logger("agent.replica")


def _regular(path: str, flags: int) -> int:
    """Open a file; what is none, such as a pipe, is refused and not waited for."""
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no file", path)
    return descriptor


def present() -> Moment:
    """This moment."""
    boot = ""
    with contextlib.suppress(OSError):  # elsewhere than on Linux
        boot = _BOOT.read_text().strip()
    return Moment(time.time(), boot, lease_clock())


class Debounce:
    """When the file is due. Times are seconds of one clock. Pure."""

    def __init__(self) -> None:
        self.due: float | None = None
        self._earliest = self._earliest_urgent = float("-inf")

    def changed(self, now: float, *, urgent: bool) -> None:
        """Something is other than in the file."""
        when = max(now + SOON, self._earliest_urgent) if urgent else max(now + QUIET, self._earliest)
        self.due = when if self.due is None else min(self.due, when)

    def begun(self) -> None:
        """It is being written, with all that has changed."""
        self.due = None

    def written(self, now: float, size: int) -> None:
        """It has so many bytes."""
        self._earliest = now + min(LONGEST, size / RATE)
        self._earliest_urgent = now + size / URGENT_RATE

    def failed(self, now: float) -> None:
        """It could not be written."""
        self._earliest = self._earliest_urgent = self.due = now + AGAIN


class ReplicaFile:
    """See above. `folder` is the data folder; made on a running loop."""

    def __init__(
        self,
        folder: Path,
        replica: PartialReplica,
        datacenter: str,
        *,
        moment: Callable[[], Moment] = present,
        worker: Worker | None = None,
    ) -> None:
        self._path = folder / NAME
        self._replica = replica
        self._datacenter = datacenter
        self._moment = moment
        self._loop = asyncio.get_running_loop()
        self._debounce = Debounce()
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Task[None] | None = None
        self._worker = worker or Worker("replica")
        self._failing = False
        self._closed = False
        self.writes = 0

    @property
    def current(self) -> bool:
        """Whether all that is to be kept is in the file."""
        return self._debounce.due is None and self._writing is None

    def load(self) -> None:
        """Have the replica hold what was kept; before it holds anything. Blocks for as long as it is read."""
        self._replica.on_change = self._changed
        try:
            with open(self._path, "rb", opener=_regular) as file:
                data = file.read(2 * MOST)
            found = read_image(data, self._datacenter)
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            log.warn(
                "what was kept of the servers' state cannot be used: until a server answers, nothing is known of it",
                file=str(self._path),
                error=str(error),
            )
            return
        now = self._moment()
        self._replica.resume(found, now)
        log.info(
            "what was kept of the servers' state is answered from until a server tells what has changed",
            topics=self._replica.topics,
            rows=self._replica.rows,
            age=f"{found.age_at(now):.0f} s",
        )

    def _changed(self, topics: Iterable[Topic]) -> None:
        kept = [topic for topic in topics if may_be_kept(topic) and topic[0] not in RESTLESS]
        if kept:
            self._debounce.changed(self._loop.time(), urgent=decides(kept))
            self._schedule()

    def _schedule(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._debounce.due is not None and self._writing is None and not self._closed:
            self._timer = self._loop.call_at(self._debounce.due, self._begin)

    def _begin(self) -> None:
        self._timer = None
        self._debounce.begun()
        self._writing = self._loop.create_task(self._write())

    async def _write(self) -> None:
        try:
            image = self._replica.image(self._datacenter, self._moment())
            if not image:
                return
            size = await self._worker(_put, self._path, image)
        except OSError as error:
            if not self._failing:
                log.error(
                    "what is held of the servers' state cannot be kept on disk, and is tried again: an agent that is "
                    "started while every server is away knows of none of it, or of an older state",
                    file=str(self._path),
                    error=str(error),
                )
            self._failing = True
            self._debounce.failed(self._loop.time())
        else:
            self.writes += 1
            self._failing = False
            self._debounce.written(self._loop.time(), size)
        finally:
            self._writing = None
            self._schedule()

    async def close(self) -> None:
        """Write what is held as it is now, and end."""
        self._replica.on_change = None
        self._closed = True
        if self._writing is not None:
            await asyncio.wait([self._writing])
        self._schedule()
        await self._write()
        self._worker.close()  # it has nothing left to do


def forget(folder: Path) -> None:
    """Remove the file of an earlier run, where nothing is to be kept any more. Raises `OSError`."""
    (folder / NAME).unlink(missing_ok=True)


def _put(path: Path, image: Image) -> int:
    data = image.encode()
    write_file(path, data)
    return len(data)
