"""Which commands are proposed together. An entry of the log costs much and a command in it little; and clients that
were answered together come again together, but over several turns of the loop.

So what comes waits until turns bring no more of it. While a proposal is under way what comes waits for its end, whose
clients then come along; but not for long.
"""

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

QUIET = 2  # turns that must bring nothing
TURNS = 32  # at most
PATIENCE = 0.005  # seconds that a proposal under way is waited for


class Gathering(Generic[T]):
    """Gives `propose` what was gathered. Whoever proposes says with `ended` when that is over."""

    def __init__(self, propose: Callable[[list[T]], None]) -> None:
        self._propose = propose
        self._items: list[T] = []
        self._under_way = 0
        self._turning = False
        self._turns = self._quiet = self._seen = 0
        self._timer: asyncio.TimerHandle | None = None

    def add(self, item: T) -> None:
        """Have an item proposed, never within this call."""
        self._items.append(item)
        if self._turning or self._timer is not None:
            return
        if self._under_way:
            self._timer = asyncio.get_running_loop().call_later(PATIENCE, self._expire)
        else:
            self._begin()

    def ended(self) -> None:
        """A proposal is over."""
        self._under_way -= 1
        if self._items and not self._turning and not self._under_way:
            self._begin()

    def go(self) -> None:
        """Propose at once what waits."""
        self._stop_waiting()
        items, self._items = self._items, []
        if items:
            self._under_way += 1
            self._propose(items)

    def _expire(self) -> None:
        self._timer = None
        if not self._turning:
            self._begin()

    def _begin(self) -> None:
        self._turning = True
        self._turns = self._quiet = 0
        self._seen = len(self._items)
        asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        if not self._turning:
            return
        self._turns += 1
        if len(self._items) > self._seen:
            self._seen, self._quiet = len(self._items), 0
        else:
            self._quiet += 1
        if self._quiet < QUIET and self._turns < TURNS:
            asyncio.get_running_loop().call_soon(self._turn)
        else:
            self.go()

    def _stop_waiting(self) -> None:
        self._turning = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
