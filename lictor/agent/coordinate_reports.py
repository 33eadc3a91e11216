"""Tells the servers now and then where this node is in the network, as gossip estimates it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import msgspec

from lictor.agent.logs import logger
from lictor.model.coordinate_entry import Coord, CoordinateEntry
from lictor.model.errors import LictorError

INTERVAL = 15.0  # seconds at least between two reports
FIRST = 2.0  # seconds before the first, in which gossip has learnt something
RATE = 64.0  # reports a second that all agents of a datacenter make together

log = logger("agent")


def pause(members: int, least: float, chance: random.Random) -> float:
    """Seconds until the next report: longer where there are more agents, and never at the same time as others'."""
    seconds = max(least, members / RATE)
    return seconds + chance.uniform(0.0, seconds)


class CoordinateReports(msgspec.Struct, frozen=True, kw_only=True):
    """One agent's. `send` has an entry written before long."""

    node: str
    coordinate: Callable[[], Coord]
    members: Callable[[], int]
    send: Callable[[CoordinateEntry], Awaitable[None]]
    chance: random.Random

    async def run(self) -> None:
        """Report for ever."""
        least = FIRST
        while True:
            await asyncio.sleep(pause(self.members(), least, self.chance))
            try:
                await self.send(CoordinateEntry(self.node, "", self.coordinate()))
                least = INTERVAL
            except LictorError as error:
                log.debug("the coordinate could not be reported", error=str(error))
