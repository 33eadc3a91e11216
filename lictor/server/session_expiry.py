"""A duty of the leader: ends the sessions whose TTL ran out.

Only the leader counts. Renewals reach it from wherever the session's owner asks, and are in no log; so a new leader
starts every count anew, and a session may last longer for it, but never shorter.
"""

import asyncio
import contextlib
import logging

from lictor.model.command import SessionDestroy
from lictor.model.session import Session
from lictor.server.server import Server
from lictor.server.session_timers import SessionTimers
from lictor.store.watch import Dependent

FOLLOW_PAUSE = 1.0  # seconds at least between two looks at all sessions
AT_ONCE = 256  # sessions that are ended by one proposal

log = logging.getLogger("lictor.server.leader")


class _SessionsChanged(Dependent):
    __slots__ = ("wake",)

    def __init__(self, wake: asyncio.Event) -> None:
        self.wake = wake
        self.seen = ()

    def changed(self) -> None:
        self.wake.set()


class SessionExpiry:
    """The counts of one leadership after the other."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._timers = SessionTimers()
        self._ending: frozenset[str] = frozenset()

    def renew(self, session_id: str) -> Session | None:
        """A session's owner is alive. Returns the session, None where there is none, or not for long any more."""
        if session_id in self._ending:
            return None
        self._timers.renew(session_id, asyncio.get_running_loop().time())
        session: Session | None = self._server.store.sessions.get(session_id)
        return session

    async def run(self) -> None:
        """Count down for all sessions, from their whole TTL, and end those whose time is over."""
        store, loop = self._server.store, asyncio.get_running_loop()
        self._timers = SessionTimers()
        wake = asyncio.Event()
        wake.set()
        changed = _SessionsChanged(wake)
        next_look = 0.0
        try:
            while True:
                now = loop.time()
                if wake.is_set() and now >= next_look:
                    wake.clear()
                    store.watches.add(changed, (("sessions",),))
                    self._timers.follow(store.sessions, now)
                    next_look = now + FOLLOW_PAUSE
                due = self._timers.due(now)
                if due:
                    await self._end(due)
                    continue
                following = self._timers.next()
                if wake.is_set():
                    await asyncio.sleep(next_look - now if following is None else min(next_look, following) - now)
                    continue
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(following):
                        await wake.wait()
        finally:
            store.watches.discard(changed)
            self._ending = frozenset()

    async def _end(self, due: list[str]) -> None:
        for start in range(0, len(due), AT_ONCE):
            part = due[start : start + AT_ONCE]
            self._ending = frozenset(part)
            log.debug("session TTL expired: sessions=%s", part)
            await self._server.apply_leading([SessionDestroy(session_id) for session_id in part])
        self._ending = frozenset()
