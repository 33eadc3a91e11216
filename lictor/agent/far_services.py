"""Instances of services in other datacenters, for the proxies that this agent configures: asked for there by blocking
queries, as long as somebody holds them. While a datacenter is away, what was last heard stands.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING
from urllib.parse import quote

import msgspec

from lictor.agent.forwarding import Answered, Asked, decode_answered
from lictor.agent.logs import logger
from lictor.model.errors import LictorError, NoPath, Refused
from lictor.model.transport import UNREADABLE, Unreachable
from lictor.store.reads.health import CheckServiceNode
from lictor.store.store import View
from lictor.store.watch import Topic

if TYPE_CHECKING:
    from lictor.agent.agent import Agent

WAIT = 60.0  # seconds that a query waits for a change
PATIENCE = 2 * WAIT  # seconds that its answer may take
PACE = 0.2  # seconds at least between two queries for one service
FIRST_PAUSE = 1.0  # seconds before a datacenter is asked again that has not answered
LONGEST_PAUSE = 20.0
TELL_AT = 3  # failures in a row at which it is told: an agent that has just begun has not met all servers yet
FIRST_PATIENCE = 5.0  # seconds that the first answer of a datacenter is waited for
LINGER = 60.0  # seconds for which what nobody holds is followed still: who asks again finds it

Ask = Callable[[str, str, float], Awaitable[Answered]]
"""Has a datacenter answer a GET of a path with its query, within so many seconds. Raises `LictorError`."""

log = logger("agent")

_INDEX = re.compile(rb"\r\nx-consul-index: (\d{1,20})\r\n", re.IGNORECASE)
_decode = msgspec.json.Decoder(list[CheckServiceNode]).decode


class _Service:
    """A service of a datacenter that is followed."""

    def __init__(self) -> None:
        self.holders: set[object] = set()
        self.rows: list[CheckServiceNode] = []
        self.heard = asyncio.Event()
        self.task: asyncio.Task[None] | None = None


class FarServices:
    """See above. `fire` tells who depends on a topic that it has changed."""

    def __init__(self, ask: Ask, fire: Callable[[Iterable[Topic]], object], chance: random.Random) -> None:
        self._ask = ask
        self._fire = fire
        self._chance = chance
        self._services: dict[tuple[str, str], _Service] = {}

    def instances(self, view: View, datacenter: str, service: str) -> list[CheckServiceNode]:
        """The instances that take connections of the mesh, as they were last heard of; none while nobody holds them."""
        view.saw("agent", "elsewhere", datacenter, service)
        found = self._services.get((datacenter, service))
        return found.rows if found is not None else []

    def hold(self, holder: object, wanted: Iterable[tuple[str, str]]) -> None:
        """Follow these services (datacenter, name) for a holder, and no others any more."""
        keys = set(wanted)
        for key in keys:
            found = self._services.get(key)
            if found is None:
                found = self._services[key] = _Service()
                found.task = asyncio.get_running_loop().create_task(self._follow(key, found))
            found.holders.add(holder)
        for key, found in self._services.items():
            if key not in keys and holder in found.holders:
                found.holders.discard(holder)
                if not found.holders:
                    asyncio.get_running_loop().call_later(LINGER, self._drop, key, found)

    def _drop(self, key: tuple[str, str], found: _Service) -> None:
        if not found.holders and self._services.get(key) is found:
            del self._services[key]
            if found.task is not None:
                found.task.cancel()

    async def first(self, wanted: Iterable[tuple[str, str]]) -> bool:
        """Wait until services that are held have been heard of once, for a few seconds at most. Returns whether
        instances were found meanwhile, which those who read them are told.
        """
        new = [self._services[key] for key in set(wanted) if not self._services[key].heard.is_set()]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIRST_PATIENCE):
                for found in new:
                    await found.heard.wait()
        return any(found.rows for found in new)

    async def close(self) -> None:
        """Follow nothing any more."""
        tasks = [found.task for found in self._services.values() if found.task is not None]
        self._services.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow(self, key: tuple[str, str], found: _Service) -> None:
        datacenter, service = key
        path = f"/v1/health/connect/{quote(service, safe='')}?dc={quote(datacenter, safe='')}"
        index, pause, failures = 0, FIRST_PAUSE, 0
        while True:
            try:
                waiting = f"&index={index}&wait={WAIT:g}s" if index else ""
                seen, rows = _read(await self._ask(datacenter, path + waiting, PATIENCE if index else 0.0))
            except (LictorError, Unreachable) as error:
                failures += 1
                if failures == TELL_AT:
                    found.heard.set()  # there is nothing to wait for
                    log.warn(
                        "a service of another datacenter is not followed; what is known of it stands",
                        service=service,
                        datacenter=datacenter,
                        error=str(error),
                    )
                await asyncio.sleep(pause * self._chance.uniform(0.5, 1.0))
                pause = min(2 * pause, LONGEST_PAUSE)
                continue
            pause, failures = FIRST_PAUSE, 0
            index = seen if seen >= index else 0  # what goes back is begun anew
            if rows != found.rows:
                found.rows = rows
                self._fire((("agent", "elsewhere", datacenter, service),))
            found.heard.set()
            await asyncio.sleep(PACE)


def far_services(agent: Agent) -> FarServices:
    """What asks by way of an agent: at once on a server, else through one."""

    async def ask(datacenter: str, target: str, seconds: float) -> Answered:
        asked = Asked("GET", target, {}, "", agent.node_name)
        if agent.client is not None:
            return await agent.client.request(asked, seconds)
        if agent.wan is None:
            raise NoPath
        timeout = seconds + agent.config.limits.rpc_client_timeout
        try:
            return decode_answered(await agent.wan.request(datacenter, asked, timeout))
        except UNREADABLE as error:
            raise Refused(f"the answer cannot be read: {error}") from None

    return FarServices(ask, agent.store.watches.fire, random.SystemRandom())


def _read(answered: Answered) -> tuple[int, list[CheckServiceNode]]:
    """An answer's index and rows. Raises `Refused` for one that is none."""
    head, _, body = (answered.head + answered.rest).partition(b"\r\n\r\n")
    index = _INDEX.search(head + b"\r\n")
    if not head.startswith(b"HTTP/1.1 200 ") or index is None:
        raise Refused(body[:200].decode(errors="replace") or "the answer is empty")
    try:
        return max(1, int(index[1])), _decode(body)
    except UNREADABLE as error:
        raise Refused(f"the answer cannot be read: {error}") from None
