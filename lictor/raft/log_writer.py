"""Writes what the consensus core wants durable, and tells it when it is.

Work that arrives while a write is under way goes out together with the next one: one sync for all of it. A commit index
alone is not worth a sync; it goes with whatever is written next. Unless it commits a change of membership: whoever was
removed by it may be gone for good, and a server that forgot of it would wait for that one's vote.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable

from lictor.raft.core.message import ENTRY_OVERHEAD, Entry, EntryKind, HardState, Message, Snapshot
from lictor.raft.log_view import LogView
from lictor.raft.settings import World
from lictor.raft.wal import Batch, DiskFull, Log, Position

BATCH_BYTES = 32 * 1024 * 1024
RETRY = 1.0  # seconds between two looks at whether there is room again

log = logging.getLogger("lictor.server.raft")


class LogWriter:
    """The one who appends to the log. `done` gets the responses of finished work, `restored` a snapshot in whose place
    the log now begins, `full` whether there is no room.
    """

    def __init__(
        self,
        world: World,
        wal: Log,
        view: LogView,
        done: Callable[[list[Message]], None],
        restored: Callable[[Snapshot], Awaitable[None]],
        full: Callable[[bool], None],
    ) -> None:
        self._world = world
        self._wal = wal
        self._view = view
        self._done = done
        self._restored = restored
        self._full = full
        self._queue: deque[Message] = deque()
        self._late: HardState | None = None
        self._settling: list[asyncio.Future[None]] = []
        self._wake = asyncio.Event()
        self._closing = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    def add(self, work: Message) -> None:
        """Have storage work done, after what was added before."""
        self._queue.append(work)
        self._wake.set()

    async def settled(self) -> None:
        """Return once everything that was added so far is done."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._settling.append(done)
        self._wake.set()
        await done

    async def close(self) -> None:
        """Write what was added, and stop."""
        self._closing = True
        self._wake.set()
        if self._task is not None:
            await self._task
            self._task = None

    async def _run(self) -> None:
        try:
            while True:
                if self._queue:
                    if self._queue[0].snapshot is not None:
                        await self._restore(self._queue.popleft())
                    else:
                        await self._append()
                elif self._closing:
                    if self._late is not None:
                        await self._write(Batch(state=self._late))
                    return
                else:
                    settling, self._settling = self._settling, []
                    for done in settling:
                        if not done.done():
                            done.set_result(None)
                    self._wake.clear()
                    await self._wake.wait()
        except _Stopped:
            pass
        except Exception as error:  # a failed disk; anything else is a mistake of this program, and as bad
            self._world.fatal(error)

    async def _append(self) -> None:
        """Write all that waits, up to a snapshot, as one."""
        entries: list[Entry] = []
        responses: list[Message] = []
        state = self._late
        size = 0
        while self._queue and self._queue[0].snapshot is None and size < BATCH_BYTES:
            work = self._queue.popleft()
            if work.entries:
                first = work.entries[0].index
                if entries and first <= entries[-1].index:
                    del entries[max(0, first - entries[0].index) :]
                entries += work.entries
                size += sum([len(entry.data) for entry in work.entries]) + ENTRY_OVERHEAD * len(work.entries)
            if work.term or work.vote or work.commit:
                state = HardState(work.term, work.vote, work.commit)
            responses += work.responses
        saved = self._view.hard_state
        if entries or (state is not None and self._is_worth_a_sync(saved, state)):
            await self._write(Batch(tuple(entries), state))
            self._view.append(entries)
            if state is not None:
                self._view.hard_state = state
            self._late = None
        else:
            self._late = state
        self._done(responses)

    def _is_worth_a_sync(self, saved: HardState, state: HardState) -> bool:
        if (state.term, state.vote) != (saved.term, saved.vote):
            return True
        low = max(saved.commit + 1, self._view.first_index())
        if low > state.commit:
            return False
        return any(entry.kind is not EntryKind.NORMAL for entry in self._view.entries(low, state.commit + 1))

    async def _restore(self, work: Message) -> None:
        snapshot = work.snapshot
        assert snapshot is not None
        state = HardState(work.term, work.vote, work.commit) if work.term or work.vote or work.commit else self._late
        await self._write(Batch(work.entries, state, restored=Position(snapshot.index, snapshot.term)))
        self._view.restore(snapshot)
        self._view.append(work.entries)
        if state is not None:
            self._view.hard_state = state
        self._late = None
        await self._restored(snapshot)
        self._done(list(work.responses))

    async def _write(self, batch: Batch) -> None:
        """Append a batch, however long there is no room for it. Raises `DiskFailed`."""
        told = False
        while True:
            try:
                await self._world.log_work(self._wal.append, batch)
                break
            except DiskFull as error:
                if not told:
                    told = True
                    log.error("the log cannot be written, waiting for room: %s", error)
                    self._full(True)
                if self._closing:
                    raise _Stopped from None
                await asyncio.sleep(RETRY)
        if told:
            log.warning("there is room for the log again")
            self._full(False)


class _Stopped(Exception):
    """There is no room, and no time to wait for it."""
