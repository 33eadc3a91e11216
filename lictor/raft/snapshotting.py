"""Taking snapshots: when there is enough to be worth it, in a thread, without holding up anything; then the log's older
part goes.
"""

import asyncio
import logging
import random
from collections.abc import Iterator
from typing import Protocol

from lictor.raft.applied import AppliedIndex
from lictor.raft.core.membership import Membership
from lictor.raft.core.message import Snapshot
from lictor.raft.log_view import LogView
from lictor.raft.roster import Roster
from lictor.raft.settings import RaftSettings, World
from lictor.raft.wal import DiskFailed, DiskFull, Log, SnapshotStore

AGAIN = 10.0  # seconds from one that had no room to the next: each takes the room that the log needs, for a while

log = logging.getLogger("lictor.server.raft")


class Host(Protocol):
    """The replica, as far as it is needed here."""

    settings: RaftSettings
    chance: random.Random
    applied_index: AppliedIndex

    @property
    def loading(self) -> bool: ...
    @property
    def membership(self) -> Membership: ...
    @property
    def roster(self) -> Roster: ...
    def state(self) -> Iterator[bytes]: ...


class Snapshotting:
    """What a replica does for its own snapshots."""

    def __init__(self, host: Host, world: World, view: LogView, wal: Log, store: SnapshotStore) -> None:
        self._host = host
        self._world = world
        self._view = view
        self._wal = wal
        self._store = store
        self._task: asyncio.Task[None] | None = None
        self._next = 0.0
        self._hindered_until = 0.0

    def look(self, now: float) -> None:
        """Take a snapshot where enough came since the last. `now` is the loop's time."""
        host, settings, view = self._host, self._host.settings, self._view
        if self._task is not None or host.loading or not host.applied_index.index or now < self._hindered_until:
            return
        if view.bytes < settings.snapshot_bytes + settings.trailing_bytes and now < self._next:
            return
        self._next = now + settings.snapshot_interval * (1 + host.chance.random())
        since = host.applied_index.index - (view.latest.index if view.latest is not None else 0)
        if since >= settings.snapshot_threshold or (since and view.bytes >= settings.snapshot_bytes):
            self._task = asyncio.get_running_loop().create_task(self._take())

    async def close(self) -> None:
        """Give up what is being taken."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _take(self) -> None:
        host, view, settings = self._host, self._view, self._host.settings
        index = host.applied_index.index
        term = view.term(index)
        try:
            if term is None:
                return  # applied, and not durable here yet
            snapshot = Snapshot(index, term, host.membership, host.roster.encode())
            await self._world.snapshot_work(self._store.write, snapshot, host.state())
            if view.latest is not None and view.latest.index >= index:
                return  # one from the leader came meanwhile
            view.latest = snapshot
            gone = -1
            while gone < (so_far := view.compact(settings.trailing, settings.trailing_bytes)):
                gone = so_far
                await asyncio.sleep(0)
            await self._world.log_work(self._wal.compact, min(gone, index))
            await self._world.snapshot_work(self._store.remove_older)
            log.info("took a snapshot: index=%d", index)
        except DiskFull as error:
            self._hindered_until = asyncio.get_running_loop().time() + AGAIN
            log.error("no room for a snapshot, the log goes on growing: %s", error)
        except DiskFailed as error:
            self._world.fatal(error)
        finally:
            self._task = None
