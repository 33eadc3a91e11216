"""The leader's duties: each runs from gaining the leadership, when all former entries are applied, to losing it.

A duty is a coroutine function that is started anew with each leadership. It may go on for ever, or do its work and
return. One that fails is logged and begun again after a pause, as long as the leadership lasts: it takes no other with
it. One that finds that this server leads no more (`NotLeader`, `NoLeader`) is not worth a word: it is about to be
ended.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from lictor.model.errors import LictorError, NoLeader, NotLeader
from lictor.raft.consensus import Consensus

PAUSE = 10.0  # seconds before a duty that failed is begun again

Duty = Callable[[], Awaitable[None]]

log = logging.getLogger("lictor.server.leader")


class Duties:
    """The duties of one server. All are added before consensus starts."""

    def __init__(self, consensus: Consensus) -> None:
        self._duties: list[tuple[str, Duty]] = []
        self._first: list[tuple[str, Duty]] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._ending: set[asyncio.Task[None]] = set()
        self._done = asyncio.Event()
        consensus.on_leadership(self._told)

    def add(self, name: str, duty: Duty) -> None:
        """Add a duty that goes on."""
        self._duties.append((name, duty))

    def add_first(self, name: str, duty: Duty) -> None:
        """Add a duty that is done once, when the leadership begins; `begun` waits for it."""
        self._first.append((name, duty))

    async def begun(self) -> None:
        """Return once everything that begins a leadership of this server was done."""
        await self._done.wait()

    async def close(self) -> None:
        """The server stops: return when nothing runs any more."""
        self._end()
        await asyncio.gather(*self._ending, return_exceptions=True)

    def _told(self, leading: bool) -> None:
        self._end()
        if leading:
            self._begin()

    def _begin(self) -> None:
        loop = asyncio.get_running_loop()
        first = [loop.create_task(self._run(name, duty), name=name) for name, duty in self._first]
        going_on = [loop.create_task(self._run(name, duty), name=name) for name, duty in self._duties]
        self._tasks = [*first, *going_on, loop.create_task(self._note_begun(first))]

    def _end(self) -> None:
        self._done.clear()
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            if not task.done():
                task.cancel()
                self._ending.add(task)
                task.add_done_callback(self._ending.discard)

    async def _note_begun(self, first: list[asyncio.Task[None]]) -> None:
        await asyncio.gather(*first)
        self._done.set()

    async def _run(self, name: str, duty: Duty) -> None:
        while True:
            try:
                await duty()
            except (NoLeader, NotLeader) as error:
                log.debug("a leader's duty was interrupted: duty=%s error=%s", name, error)
            except LictorError as error:
                log.warning("a leader's duty failed: duty=%s error=%s", name, error)
            except Exception:
                log.exception("a leader's duty has met a mistake of this program; please report it: duty=%s", name)
            else:
                return
            await asyncio.sleep(PAUSE)
