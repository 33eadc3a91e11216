"""The leader's duties: ends sessions whose TTL ran out, forgets old tombstones, and registers the servers in the
catalog.
"""

import asyncio
import contextlib
import logging
from collections import deque

from lictor.model.command import Command, Reap, SessionDestroy
from lictor.model.errors import LictorError
from lictor.server.server import Server
from lictor.server.session_timers import SessionTimers
from lictor.store.watch import Dependent

TOMBSTONE_TTL = 15 * 60.0  # seconds
REAP_INTERVAL = 30.0

log = logging.getLogger("lictor.server.leader")


class _SessionsChanged(Dependent):
    __slots__ = ("duties",)

    def __init__(self, duties: "Duties") -> None:
        self.duties = duties
        self.seen = ()

    def changed(self) -> None:
        self.duties.follow_sessions()


class Duties:
    """Runs from gaining leadership to losing it."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._timers = SessionTimers()
        self._changed = _SessionsChanged(self)
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Leadership is gained."""
        self.follow_sessions()
        self._tasks = [asyncio.create_task(self._end_sessions()), asyncio.create_task(self._reap())]

    async def close(self) -> None:
        """Leadership is lost, or the server stops."""
        self._server.store.watches.discard(self._changed)
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._tasks.clear()

    def follow_sessions(self) -> None:
        """Sessions were made or ended: count for those there are."""
        store = self._server.store
        self._timers.follow(store.sessions, asyncio.get_running_loop().time())
        store.watches.discard(self._changed)
        store.watches.add(self._changed, (("sessions",),))
        self._wake.set()

    def renew_session(self, session_id: str) -> None:
        """A session's owner is alive."""
        self._timers.renew(session_id, asyncio.get_running_loop().time())

    async def apply_quietly(self, command: Command) -> bool:
        """Apply a command of the leader's own; a failure is logged. Returns whether it succeeded."""
        try:
            await self._server.apply(command)
        except LictorError as error:
            log.warning("leader's command failed: %s", error)
            return False
        return True

    async def _end_sessions(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            for session_id in self._timers.due(loop.time()):
                log.debug("session TTL expired: session=%s", session_id)
                await self.apply_quietly(SessionDestroy(session_id))
            self._wake.clear()
            following = self._timers.next()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if following is None else max(0.0, following - loop.time())):
                    await self._wake.wait()

    async def _reap(self) -> None:
        """Note the index at intervals; what was removed at or before the one of `TOMBSTONE_TTL` ago is forgotten."""
        store, loop = self._server.store, asyncio.get_running_loop()
        noted: deque[tuple[float, int]] = deque()
        while True:
            await asyncio.sleep(REAP_INTERVAL)
            now = loop.time()
            noted.append((now, store.index))
            up_to = 0
            while noted and noted[0][0] <= now - TOMBSTONE_TTL:
                up_to = noted.popleft()[1]
            if up_to and store.has_removed(up_to):
                await self.apply_quietly(Reap(up_to))
