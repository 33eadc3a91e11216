"""Confirmations of reads for the doors: whoever asks in one turn of the loop shares one task.

A confirmation counts for those who asked before it began, so a batch is closed when its task starts. Many batches may
be under way: consensus has the ones of a moment share a round.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from lictor.agent.logs import logger

log = logger("agent")


class Reader(Protocol):
    """Whoever waits for a confirmation."""

    def confirmed(self, error: Exception | None) -> None:
        """Called once: the own store may be read now or, with an error, may not."""
        ...


class Batch:
    """The readers that wait for one confirmation."""

    __slots__ = ("readers",)

    def __init__(self) -> None:
        self.readers: dict[Reader, None] = {}

    def leave(self, reader: Reader) -> None:
        """Remove a reader that is gone; harmless where it is not waiting."""
        self.readers.pop(reader, None)


class Confirmations:
    """Asks `confirm(consistent)` for many readers. `confirm` raises where there is nobody to confirm."""

    def __init__(self, confirm: Callable[[bool], Awaitable[None]]) -> None:
        self._confirm = confirm
        self._open: dict[bool, Batch] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def ask(self, reader: Reader, *, consistent: bool) -> Batch:
        """Have `reader` told once a default or, with `consistent`, a consistent read is safe; never within this call.
        Returns what it leaves if it goes away before.
        """
        batch = self._open.get(consistent)
        if batch is None:
            batch = self._open[consistent] = Batch()
            asyncio.get_running_loop().call_soon(self._begin, consistent)
        batch.readers[reader] = None
        return batch

    def close(self) -> None:
        """Stop; who waits is not told."""
        for task in self._tasks:
            task.cancel()

    def _begin(self, consistent: bool) -> None:
        task = asyncio.get_running_loop().create_task(self._run(self._open.pop(consistent), consistent))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, batch: Batch, consistent: bool) -> None:
        failed: Exception | None = None
        try:
            await self._confirm(consistent)
        except Exception as error:
            failed = error
        for reader in list(batch.readers):
            try:
                reader.confirmed(failed)
            except Exception as fault:
                log.error("a read has met a mistake of this program; please report it", exc_info=fault)
