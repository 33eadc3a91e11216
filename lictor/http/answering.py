"""A read's answer for whoever has a task of its own: confirmed first where need be, and waited for."""

import asyncio
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from lictor.http.reply import Encoded
from lictor.http.waiting import Waiting
from lictor.model.errors import LictorError

if TYPE_CHECKING:
    from lictor.http.api import Reading


class Caller(Protocol):
    """Whoever asked. `when_lost` is called once it has gone away."""

    when_lost: Callable[[], None] | None


class _Pending:
    """A waiter that wakes a task."""

    def __init__(self) -> None:
        self.done: asyncio.Future[Encoded | None] = asyncio.get_running_loop().create_future()

    def give_up(self) -> None:
        """The caller is gone: there is nobody to wait for."""
        if not self.done.done():
            self.done.set_result(None)

    def finish(self, answer: Encoded) -> None:
        if not self.done.done():
            self.done.set_result(answer)


async def answer(reading: "Reading", caller: Caller, key: bytes | None = None) -> Encoded | None:
    """A read's answer; None where the caller has gone before. Callers with the same `key` wait together, and may be
    given the same answer. Raises `LictorError`.
    """
    api = reading.api
    group = api.waiting.get(key) if key is not None else None
    if group is not None and reading.open:
        encoded = await _waited(reading, caller, group[0])
    else:
        if not reading.open:
            await _confirm(reading)
        found, moved = reading.evaluate()
        if moved:
            encoded = reading.encode(found)
            if key is not None:
                api.remember(key, reading, found, encoded)
            return encoded
        encoded = await _waited(reading, caller, api.start_waiting(key, reading, found))
    if encoded is None or encoded.max_stale == math.inf or api.freshness.open(encoded.gate, encoded.max_stale):
        return encoded
    # It became too old while it was waited for.
    await _confirm(reading)
    return reading.encode(reading.evaluate()[0])


async def _waited(reading: "Reading", caller: Caller, waiting: Waiting) -> Encoded | None:
    pending = _Pending()
    waiting.join(pending, reading.seconds)
    # A handler may run on when its caller has gone: it would wait for minutes, with all that it holds.
    caller.when_lost = pending.give_up
    try:
        return await pending.done
    finally:
        caller.when_lost = None
        waiting.leave(pending)


async def _confirm(reading: "Reading") -> None:
    """Return once a read may be answered. Raises `NoLeader`."""
    try:
        await reading.api.agent.confirm(reading.to_confirm())
    except LictorError as error:
        if not reading.unconfirmed(error):
            raise
