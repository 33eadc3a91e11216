"""The one who does the faults: which, when, and for how long, from one seed.

A nemesis is named after what it does: one fault (`kill`), several of which one is done at a time (`kill+isolate`), or
`all` that make sense here. Where there are several, a second fault sometimes falls on the first. `none` does nothing.
"""

import asyncio
import contextlib
import random
from typing import Final

from jepsen import faults
from jepsen.cluster import Cluster
from jepsen.journal import Fault, Journal

QUIET: Final = (1.0, 4.0)  # seconds between two faults
_RECOVERY: Final = 10.0  # seconds that the servers have to agree on a leader before the next fault
_OVERLAP: Final = 0.3  # how often another fault comes on top


class Unfit(Exception):
    """The faults that were asked for cannot be done here; the message says why."""


def kinds(nemesis: str, *, servers: int, transfers: bool, sandbox_obstacle: str) -> dict[str, faults.Kind]:
    """The faults of a nemesis. Raises `Unfit` where one that is named is unknown or cannot be done; `all` leaves out
    what cannot.
    """
    if nemesis == "none":
        return {}
    able = {}
    for name, kind in faults.KINDS.items():
        why = _obstacle(kind, servers, transfers, sandbox_obstacle)
        if not why:
            able[name] = kind
        elif name in nemesis.split("+"):
            raise Unfit(f"{name}: {why}")
    if nemesis == "all":
        return able
    unknown = [name for name in nemesis.split("+") if name not in able]
    if unknown:
        raise Unfit(f"there is no nemesis {', '.join(unknown)}; there are none, all, {', '.join(faults.KINDS)}")
    return {name: able[name] for name in nemesis.split("+")}


def _obstacle(kind: faults.Kind, servers: int, transfers: bool, sandbox_obstacle: str) -> str:
    if (kind.lan or kind.disk) and sandbox_obstacle:
        return sandbox_obstacle
    if kind.transfers and not transfers:
        return "the program cannot hand the leadership over"
    if servers < kind.servers:
        return f"it needs {kind.servers} servers"
    return ""


class Nemesis:
    """Does faults until it is told that time is up, and undoes them all."""

    def __init__(
        self, cluster: Cluster, journal: Journal, kinds: dict[str, faults.Kind], chance: random.Random
    ) -> None:
        self._cluster = cluster
        self._journal = journal
        self._kinds = kinds
        self._chance = chance
        self._on_top = [name for name, kind in kinds.items() if not kind.alone]

    async def run(self, until: asyncio.Event) -> None:
        """Do faults until the event is set; one at least. Raises `NeverHappened` where a server does not come back."""
        if not self._kinds:
            await until.wait()
            return
        while True:
            await self._recovered(until)
            await self._pause(until, 0.0, self._chance.uniform(*QUIET))
            await self._do(self._chance.choice(list(self._kinds)), until)
            if until.is_set():
                return

    async def _recovered(self, until: asyncio.Event) -> None:
        """Wait for a leader, but not for ever: faults may come one upon the other, not only before anybody works."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_RECOVERY):
                while not until.is_set() and await self._cluster.leader() is None:
                    await asyncio.sleep(0.2)

    async def _do(self, name: str, until: asyncio.Event, above: tuple[str, ...] = ()) -> None:
        """Do one fault, now and then with another on top that is not among those that are being done already."""
        kind = self._kinds[name]
        began = struck = self._journal.now()
        hit = faults.Hit(())
        try:
            async with kind.fault(self._cluster, self._chance) as hit:
                struck = self._journal.now()
                await self._pause(until, kind.seconds[0], self._chance.uniform(*kind.seconds))
                others = [other for other in self._on_top if other not in (name, *above)]
                if others and self._chance.random() < _OVERLAP:
                    await self._do(self._chance.choice(others), until, (name, *above))
        finally:
            servers = tuple(server.name for server in hit.servers)
            self._journal.write(Fault(name, servers, began, struck, self._journal.now(), hit.note))

    async def _pause(self, until: asyncio.Event, least: float, seconds: float) -> None:
        """Let some seconds pass; where time is up only the least."""
        await asyncio.sleep(least)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds - least):
                await until.wait()


def describe() -> str:
    """Every fault with what it does, a line each."""
    return "\n".join(f"  {name:<15} {kind.what}" for name, kind in faults.KINDS.items())
