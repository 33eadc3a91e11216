"""Blocking queries: reads that answer once their index, or their content's hash, is no longer the one the caller has.

Callers whose requests are the same to the byte wait together: a change runs the read once, encodes it once, and gives
the same bytes to all of them.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol

from lictor.http.reply import Encoded
from lictor.store.store import Answer
from lictor.store.watch import Dependent, Watches

WAIT_DEFAULT = 300.0  # seconds
WAIT_MAX = 600.0
JITTER = 16.0  # a wait is stretched by up to a 16th of itself, so that many do not end together


class Waiter(Protocol):
    """Whoever waits: a connection, or a handler's task."""

    def finish(self, answer: Encoded) -> None:
        """Called once with the answer."""
        ...


class Waiting(Dependent):
    """The callers that wait for one read.

    `evaluate` runs the read and says whether it has moved past what the callers have; `encode` makes its answer's
    bytes, `failed` those of an error that either has met; `over` is called when the last one has gone.
    """

    __slots__ = ("_encode", "_evaluate", "_failed", "_latest", "_over", "_scheduled", "_waiters", "_watches", "key")

    def __init__(
        self,
        key: bytes,
        watches: Watches,
        evaluate: Callable[[], tuple[Answer[object], bool]],
        encode: Callable[[Answer[object]], Encoded],
        failed: Callable[[Exception], Encoded],
        over: Callable[["Waiting"], None],
    ) -> None:
        self.key = key
        self.seen = ()
        self._watches = watches
        self._evaluate = evaluate
        self._encode = encode
        self._failed = failed
        self._over = over
        self._waiters: dict[Waiter, asyncio.TimerHandle] = {}
        self._scheduled = False
        # The answer as it stands, for those whose time runs out: made when the first needs it.
        self._latest: Encoded | None = None

    def __len__(self) -> int:
        return len(self._waiters)

    def watch(self, answer: Answer[object]) -> None:
        """Begin: what `answer` looked at is what is waited for."""
        self._watches.add(self, answer.seen)

    def join(self, waiter: Waiter, seconds: float) -> None:
        """Add a caller, for at most `seconds`."""
        loop = asyncio.get_running_loop()
        self._waiters[waiter] = loop.call_later(seconds, self._time_out, waiter)

    def leave(self, waiter: Waiter) -> None:
        """Remove a caller that is gone; harmless where it is not waiting."""
        timer = self._waiters.pop(waiter, None)
        if timer is not None:
            timer.cancel()
            self._end_if_empty()

    def changed(self) -> None:
        """The store has changed: look again once the loop has applied whatever else it has at hand."""
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._look_again)

    def _look_again(self) -> None:
        self._scheduled = False
        if not self._waiters:
            return
        self._watches.discard(self)
        try:
            answer, moved = self._evaluate()
            if not moved:
                self._latest = None
                self._watches.add(self, answer.seen)
                return
            encoded = self._encode(answer)
        except Exception as error:
            encoded = self._failed(error)
        waiters, self._waiters = self._waiters, {}
        self._over(self)
        for waiter, timer in waiters.items():
            timer.cancel()
            waiter.finish(encoded)

    def _time_out(self, waiter: Waiter) -> None:
        if self._waiters.pop(waiter, None) is None:
            return
        if self._latest is None:
            try:
                self._latest = self._encode(self._evaluate()[0])
            except Exception as error:
                self._latest = self._failed(error)
        self._end_if_empty()
        waiter.finish(self._latest)

    def _end_if_empty(self) -> None:
        if not self._waiters:
            self._watches.discard(self)
            self._over(self)
