"""A read somebody goes on depending on, such as a proxy's configuration: its answer, and each that takes its place.

    async for answer in agent.follow(lambda view: ...):
        ...

What the read looks at is watched, never polled, and on an agent that is no server held in its replica. Many changes of
one turn of the loop are one new answer, and so are those that come while the last one is still being worked on; an
answer that is equal to the last one is not given again. While the servers are away, the last answer stands.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Protocol, TypeVar

from lictor.agent.logs import logger
from lictor.model.errors import LictorError
from lictor.store.store import Answer, Store, View
from lictor.store.watch import Dependent

PAUSE = 1.0  # seconds before what could not be held is asked for again

T = TypeVar("T")

log = logger("agent")


class Holder(Protocol):
    """What makes a partial store hold what reads look at: a client agent's `PartialReplica`."""

    async def read(self, function: Callable[[View], T]) -> Answer[T]:
        """Run a read, holding what it looks at. Raises `LictorError` where it cannot."""
        ...


class Woken(Dependent):
    """A dependent that a task waits for: `future` is done once something has changed."""

    __slots__ = ("future",)

    def __init__(self) -> None:
        self.future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.seen = ()

    def changed(self) -> None:
        if not self.future.done():
            self.future.set_result(None)


async def follow(store: Store, holder: Holder | None, function: Callable[[View], T]) -> AsyncGenerator[Answer[T], None]:
    """See above. `holder` is None where the store holds everything. Goes on for ever: close it where it is left early
    (`contextlib.aclosing`). What the read raises of `LictorError` is said in the log, and it is tried again.
    """
    last: Answer[T] | None = None
    while True:
        try:
            answer = store.read(function) if holder is None else await holder.read(function)
        except LictorError as error:
            log.debug("a read that is followed cannot be made", error=str(error))
            await asyncio.sleep(PAUSE)
            continue
        woken = Woken()
        store.watches.add(woken, answer.seen)
        try:
            if last is None or answer.value != last.value:
                yield answer
                last = answer
            await woken.future
            await asyncio.sleep(0)  # what else this turn brings is looked at together with it
        finally:
            store.watches.discard(woken)
