"""Waiting for a change of the store, in what answers calls of other servers."""

import asyncio

from lictor.store.store import Store
from lictor.store.watch import Dependent, Topic


class _Once(Dependent):
    """Whoever waits for one change."""

    __slots__ = ("told",)

    def __init__(self) -> None:
        self.told: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.seen = ()

    def changed(self) -> None:
        if not self.told.done():
            self.told.set_result(None)


async def touched(store: Store, topics: tuple[Topic, ...], end: float) -> None:
    """Return once one of the topics has changed, or at `end`, by the loop's clock."""
    once = _Once()
    store.watches.add(once, topics)
    try:
        await asyncio.wait([once.told], timeout=end - asyncio.get_running_loop().time())
    finally:
        store.watches.discard(once)
