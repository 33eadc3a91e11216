"""Pools of agents on the loopback, made of configurations as the agent makes them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from lictor.agent.config import RuntimeConfig, load, parse_flags
from lictor.agent.lan import LanPool
from lictor.agent.pools import Pools
from lictor.model.ids import new_id
from lictor.model.member import Member
from tests.ports import free_port

QUICK = 'gossip_interval = "20ms" probe_interval = "500ms" probe_timeout = "250ms" suspicion_mult = 2'
"""Who fails is found soon; on a machine that stands still, somebody may also be taken for failed for a moment."""

STEADY = 'gossip_interval = "20ms" probe_interval = "1h"'
"""News travels, and nobody is found to have failed."""

PROBING = ("-hcl", f"gossip_lan {{ {QUICK} }}")
"""Flags for an agent that looks for who fails."""


def config(name: str, *flags: str, server: bool = False, folder: Path | None = None) -> RuntimeConfig:
    """The configuration of an agent that looks for nobody who fails, unless it is told to."""
    given = [f"-node={name}", "-bind=127.0.0.1", f"-serf-lan-port={free_port()}", f"-serf-wan-port={free_port()}"]
    given += [f"-server-port={free_port()}", "-hcl", f"gossip_lan {{ {STEADY} }} gossip_wan {{ {STEADY} }}"]
    given.append(f"-data-dir={folder if folder is not None else '/nonexistent'}")
    given += ["-server", "-bootstrap-expect=1"] if server else []
    found, _ = load(parse_flags([*given, *flags]), [], [], "host")
    return found


class Agents:
    """Pools that are closed with the block."""

    def __init__(self) -> None:
        self._running: list[LanPool | Pools] = []

    async def lan(
        self, name: str, *flags: str, server: bool = False, folder: Path | None = None, node_id: str = ""
    ) -> LanPool:
        """An agent's pool of its datacenter, started."""
        made = LanPool(config(name, *flags, server=server, folder=folder), node_id or new_id(), folder)
        await made.start()
        self._running.append(made)
        return made

    async def pools(self, name: str, *flags: str, server: bool = False, prepare: Callable[[Pools], Any] = id) -> Pools:
        """All pools of an agent, started."""
        made = Pools(config(name, *flags, server=server), new_id(), None, lambda reason: None)
        self._running.append(made)
        prepare(made)
        made.open()
        await made.start()
        return made

    async def end(self, pool: LanPool | Pools) -> None:
        """End one as a crash does."""
        self._running.remove(pool)
        await pool.close()


@contextlib.asynccontextmanager
async def agents() -> AsyncIterator[Agents]:
    """Nobody at first."""
    made = Agents()
    try:
        yield made
    finally:
        for pool in made._running:
            await pool.close()


def address(pool: LanPool) -> str:
    """Where others join a pool."""
    own = pool.members()[0]
    return f"{own.addr}:{own.port}"


def seen(pool: LanPool) -> dict[str, int]:
    """The status of every member."""
    return {member.name: member.status for member in pool.members()}


def member(pool: LanPool, name: str) -> Member:
    """One that is there."""
    return next(found for found in pool.members() if found.name == name)
