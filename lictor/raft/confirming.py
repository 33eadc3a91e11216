"""Confirming reads: from which index on a state holds everything that was acknowledged before the question.

The questions of one moment share one answer. Only one round for each kind is under way; who asks meanwhile waits for
the next, since an answer counts only for questions that came before it was asked for.
"""

import asyncio
from collections.abc import Awaitable, Callable

from lictor.model.errors import LictorError
from lictor.model.transport import Unreachable
from lictor.raft.applied import AppliedIndex


class Rounds:
    """Rounds of one kind of question. `ask` returns the index; `applied` is what the waiting wait for after it."""

    def __init__(self, ask: Callable[[], Awaitable[int]], applied: AppliedIndex, retry: float) -> None:
        self._ask = ask
        self._applied = applied
        self._retry = retry
        self._wanted: list[asyncio.Future[None]] = []
        self._task: asyncio.Task[None] | None = None

    def join(self) -> "asyncio.Future[None]":
        """Ask with the next round. What is returned is done when this server's state is new enough."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        self._wanted.append(done)
        if self._task is None:
            self._task = loop.create_task(self._run())
        return done

    async def close(self) -> None:
        """Stop; who waits is not told."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _run(self) -> None:
        try:
            while self._wanted:
                asking, self._wanted = self._wanted, []
                try:
                    index = await self._ask()
                except (Unreachable, LictorError):
                    self._wanted = [done for done in asking if not done.done()] + self._wanted
                    await asyncio.sleep(self._retry)
                    continue
                for done in asking:
                    self._applied.when(index, done)
        finally:
            self._task = None


class LeaderReads:
    """A leader's questions to its quorum: all that wait go out with one round of heartbeats, one round at a time."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._wanted: list[asyncio.Future[int]] = []
        self._asking: list[asyncio.Future[int]] = []
        self._number = 0
        self._asked = 0.0

    def join(self) -> "asyncio.Future[int]":
        """Have the next round asked. Done with the index; fails where the leadership is lost."""
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._wanted.append(done)
        return done

    def begin(self, now: float) -> bytes | None:
        """The context of a round that is to be asked now, if one is due."""
        if not self._wanted or (self._asking and now - self._asked < self._patience):
            return None
        # Of a round that was lost with a change of leader or a message, whoever still waits asks again.
        self._asking = [done for done in self._asking if not done.done()] + self._wanted
        self._wanted = []
        self._number += 1
        self._asked = now
        return self._number.to_bytes(8, "big")

    def confirmed(self, context: bytes, index: int) -> None:
        """A round was answered."""
        if context == self._number.to_bytes(8, "big"):
            asking, self._asking = self._asking, []
            for done in asking:
                if not done.done():
                    done.set_result(index)

    def fail(self, error: LictorError) -> None:
        """The leadership is lost."""
        for done in [*self._asking, *self._wanted]:
            if not done.done():
                done.set_exception(error)
        self._asking, self._wanted = [], []
