"""Joins a pool and goes on trying: at the places of `retry_join` until somebody is there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import msgspec

from lictor.agent.config.join_sources import JoinAddress, JoinSource
from lictor.agent.joining import NotFoundThere, Place, places
from lictor.agent.lan import LanPool
from lictor.agent.logs import logger
from lictor.model.errors import Refused

EXPLICIT_PATIENCE = 2.0  # seconds that servers have to meet by their calls at places that may be no gossip's

log = logger("agent")


class RetryJoin(msgspec.Struct, frozen=True, kw_only=True):
    """One pool's. `interval` seconds lie between two attempts; after `most` that reached nobody, if that is not 0,
    `give_up` is told why. `reached` is told the places where gossip was found. With `patient`, places with a port are
    not tried at once: what is there may be a server's calls. Where others alone are not `enough`, it goes on, without a
    word and without end, until they are.
    """

    pool: LanPool
    sources: Sequence[JoinSource]
    interval: float
    most: int = 0
    patient: bool = False
    give_up: Callable[[str], None]
    reached: Callable[[Sequence[Place]], None] = lambda found: None
    enough: Callable[[], bool] = lambda: True

    async def run(self) -> None:
        """Return once somebody else is in the pool, and that is enough."""
        attempts = 0
        if self.patient and all(isinstance(source, JoinAddress) and source.port for source in self.sources):
            await asyncio.sleep(EXPLICIT_PATIENCE)
        while self.pool.alone() or not self.enough():
            alone = self.pool.alone()
            problem = await self._attempt(log.info if alone else log.debug)
            if not problem and self.enough():
                continue
            if not alone or not problem:
                await asyncio.sleep(self.interval)
                continue
            attempts += 1
            if 0 < self.most <= attempts:
                log.error("max join retry exhausted, exiting", cluster=self.pool.label, attempts=attempts)
                self.give_up(f"retry_max = {self.most}: nobody could be joined: {problem}")
                return
            log.warn(
                "Join cluster failed, will retry",
                cluster=self.pool.label,
                retry_interval=f"{self.interval:g}s",
                error=problem,
            )
            await asyncio.sleep(self.interval)

    async def _attempt(self, say: Callable[..., None]) -> str:
        """Returns what is in the way, empty where somebody was reached."""
        say("Joining cluster...", cluster=self.pool.label)
        found: dict[Place, None] = {}
        problems = []
        for source in self.sources:
            try:
                found.update(dict.fromkeys(await places(source, self.pool.default_port)))
            except NotFoundThere as error:
                problems.append(str(error))
        others = [place for place in found if not self.pool.is_own(place)]
        joined = []
        for place in others:
            try:
                await self.pool.join_places([place])
                joined.append(place)
            except Refused as error:
                problems.append(str(error).partition("* ")[2].strip())
        if joined:
            self.reached(joined)
            say(
                "Join cluster completed. Synced with initial agents",
                cluster=self.pool.label,
                num_agents=len(joined),
            )
            return ""
        return "; ".join(problems) or "there is no address but this agent's own"
