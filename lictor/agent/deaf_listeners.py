"""The addresses that this agent's proxies cannot listen on, as they tell of them: a port that another program has.

A proxy says so as soon as it finds out, and again every half minute; what is not said again within 90 seconds is
forgotten. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Annotated

import msgspec

KEPT = 90.0  # seconds
MOST = 256  # addresses of one proxy that are kept
MAX_TEXT = 512  # characters of an address or a reason

Text = Annotated[str, msgspec.Meta(max_length=MAX_TEXT)]


class Deaf(msgspec.Struct, frozen=True, rename="pascal"):
    """An address that cannot be listened on, and why, in the system's words."""

    address: Text
    reason: Text


class DeafListeners:
    """What the proxies have said. `registered` tells which there are: of others nothing is kept."""

    def __init__(self, registered: Callable[[], Container[str]]) -> None:
        self._registered = registered
        self._told: dict[str, tuple[float, tuple[Deaf, ...]]] = {}

    def report(self, proxy: str, deaf: tuple[Deaf, ...], now: float) -> None:
        """A proxy names all of its addresses that cannot be listened on, in the place of what it said before."""
        self._told.pop(proxy, None)
        if deaf:
            self._told[proxy] = (now, deaf[:MOST])

    def reports(self, now: float) -> dict[str, tuple[Deaf, ...]]:
        """Those that have been named of late, by proxy."""
        there = self._registered()
        self._told = {proxy: told for proxy, told in self._told.items() if now - told[0] <= KEPT and proxy in there}
        return {proxy: deaf for proxy, (_, deaf) in self._told.items()}
