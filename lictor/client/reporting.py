"""Tells the agent who is connected to a service of this program, so that `lictor intention explain -dry-run` can say
whom a change would cut.

In the background, beside what follows the agent: at most once a second when connections have come or gone, every half
minute while there are any, and that there are none when the program's client closes. A report that fails is made again
with the next; nobody is told, as nothing depends on it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Protocol

from lictor.client.errors import ClientError

PAUSE = 1.0  # seconds between two reports at least
EVERY = 30.0  # seconds in which what is live is said again
LAST = 1.0  # seconds that the last report may take
MOST = 2_000  # sources that the agent takes

Send = Callable[[dict[str, int]], Awaitable[None]]


class Connected(Protocol):
    """Who knows of the connections: an `Identity`."""

    def inbound(self) -> dict[str, int]:
        """How many live connections there are, by source."""
        ...

    def when_moved(self, moved: Callable[[], None]) -> None:
        """Have `moved` called, from any thread, when they may have changed."""
        ...


class Reports:
    """Of one identity's connections. `send` says which sources have how many connections, and raises `ClientError`."""

    def __init__(self, connected: Connected, send: Send) -> None:
        self._connected = connected
        self._send = send
        self._loop = asyncio.get_running_loop()
        self._moved = asyncio.Event()
        self._told: dict[str, int] = {}  # what the agent may hold
        connected.when_moved(self._move)

    def _move(self) -> None:
        if not self._moved.is_set():
            with suppress(RuntimeError):  # the loop has ended, and with it the client
                self._loop.call_soon_threadsafe(self._moved.set)

    async def run(self) -> None:
        """Report until it is cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(EVERY if self._told else None):
                    await self._moved.wait()
            self._moved.clear()
            live = self._connected.inbound()
            if live or self._told:
                await self._tell(live)
            await asyncio.sleep(PAUSE)

    async def _tell(self, live: dict[str, int]) -> None:
        most = sorted(live, key=lambda source: -live[source])[:MOST]
        told = {source: live[source] for source in most}
        self._told = self._told | told  # an answer that is lost may have been given
        with suppress(ClientError):
            await self._send(told)
            self._told = told

    async def close(self) -> None:
        """Say that there are none, where anything else was said."""
        if self._told:
            with suppress(TimeoutError):
                async with asyncio.timeout(LAST):
                    await self._tell({})
