"""The gossip pools of one agent: that of its datacenter and, on a server, that of the servers of all datacenters.

Servers that know of each other by their calls meet in the pool, servers that meet in the pool get to know each other by
their calls, and those of one datacenter's pool meet in the one between datacenters.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
from collections.abc import Callable, Coroutine, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from lictor.agent.config.join_sources import JoinSource
from lictor.agent.config.keys import RuntimeConfig
from lictor.agent.gossip_metrics import GossipMetrics
from lictor.agent.logs import logger
from lictor.gossip.sockets import Sockets, bind
from lictor.model.coordinate_entry import Coord, CoordinateEntry
from lictor.model.errors import Refused
from lictor.model.member import ALIVE, Member
from lictor.server.agents import NO_GOSSIP, Agents

if TYPE_CHECKING:
    from lictor.agent.joining import Place
    from lictor.agent.lan import LanPool, ServerSeen

RECONNECT = 72 * 3600.0  # seconds after which a failed member is forgotten, where the configuration does not say
SETTLED = 60.0  # seconds in which whoever is alive is heard of
ACQUAINT_INTERVAL = 10.0  # seconds between two looks at who is missing in a pool

log = logger("agent")


KEY_OPERATIONS = ("list", "install", "use", "remove")


class KeyringState(msgspec.Struct, frozen=True):
    """How an operation on the gossip keys went in one pool: on how many members each key is (the primary one), what
    members said, and what was wrong.
    """

    wan: bool
    datacenter: str
    keys: dict[str, int]
    primary_keys: dict[str, int]
    nodes: int
    messages: dict[str, str]
    error: str = ""


class Pools:
    """See above. Whoever runs it sets the callbacks before `open`.

    `on_change` is told that the datacenter's members changed, `on_change_between` that those of the pool between
    datacenters did, `on_event` a user event, `on_query` is asked the queries of members (their name and payload, and
    the room for an answer), `on_servers` is told the servers of this datacenter that are alive, `on_gossip` places
    where gossip was found and so no server's calls are; `servers_known` gives node names and gossip places of servers
    that are known by their calls.
    """

    def __init__(
        self,
        config: RuntimeConfig,
        node_id: str,
        folder: Path | None,
        give_up: Callable[[str], None],
        meter: GossipMetrics | None = None,
    ) -> None:
        self.lan: LanPool | None = None
        self.wan: LanPool | None = None
        self.on_change: Callable[[], None] = _nothing
        self.on_change_between: Callable[[], None] = _nothing
        self.on_event: Callable[[str, bytes, int], None] | None = None
        self.on_query: Callable[[str, bytes, int], bytes | None] | None = None
        self.on_servers: Callable[[list[ServerSeen]], None] | None = None
        self.on_gossip: Callable[[Sequence[Place]], None] | None = None
        self.servers_known: Callable[[], Iterable[tuple[str, Place]]] | None = None
        self._config = config
        self._node_id = node_id
        self._folder = folder
        self._give_up = give_up
        self._meter = meter
        self._sockets: dict[bool, Sockets] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._wake = asyncio.Event()
        self._ready = asyncio.Event()
        self._since = 0.0  # the loop's time at which gossip began

    # -- life ---------------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Have the ports; what comes waits until `start`. Raises `OSError`."""
        listen = self._config.listen
        for wan, endpoint in ((False, listen.serf_lan), (True, listen.serf_wan if self._config.server else None)):
            if endpoint is None:
                continue
            try:
                self._sockets[wan] = bind(endpoint.host, endpoint.port)
            except OSError as error:
                raise OSError(f"cannot listen on {endpoint} for gossip: {error.strerror or error}") from None

    async def start(self) -> None:
        """Be in the pools, and join others as the configuration says. Raises `OSError`, `LictorError`."""
        try:
            if self._sockets:
                await self._start()
        finally:
            self._ready.set()

    async def ready(self) -> None:
        """Return once the pools are there, as far as they are to be."""
        await self._ready.wait()

    async def _start(self) -> None:
        # What gossip needs takes a while to import, and nobody has to wait for it.
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, importlib.import_module, "lictor.agent.lan")
        from lictor.agent.lan import LanPool

        config = self._config
        for wan in (False, True):
            if wan not in self._sockets:
                continue
            pool = LanPool(config, self._node_id, self._folder, wan=wan, meter=self._meter)
            pool.on_change = self._changed if not wan else self._changed_between
            await pool.start(self._sockets.pop(wan))
            if wan:
                self.wan = pool
            else:
                pool.on_event = self.on_event
                pool.on_query = self.on_query
                self.lan = pool
                self._since = loop.time()
        if self.lan is not None:
            # A server in memory is a cluster of its own, which joins nobody.
            if not (config.dev_mode and config.server):
                self._keep_joining(self.lan, config.join_lan, config.retry_interval, config.retry_max)
            self._spawn(self._acquaint())
        if self.wan is not None:
            self._keep_joining(self.wan, config.join_wan, config.retry_interval_wan, config.retry_max_wan)
        self._changed()

    def _keep_joining(self, pool: LanPool, sources: Sequence[JoinSource], interval: float, most: int) -> None:
        from lictor.agent.retry_join import RetryJoin

        if not sources:
            return
        calls = self.on_gossip if not pool.wan else None
        # A server of which others may be known by their calls is given up by whoever asks there.
        retry = RetryJoin(
            pool=pool,
            sources=sources,
            interval=interval,
            most=most if calls is None else 0,
            patient=calls is not None,
            give_up=self._give_up,
            reached=calls or _unheard,
            # Agents that were started while the servers were away, and found each other, must find these too.
            enough=lambda: pool.wan or self._config.server or any(one.status == ALIVE for one in self.servers()),
        )
        self._spawn(retry.run())

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        self._tasks.append(asyncio.get_running_loop().create_task(work))

    async def leave(self) -> None:
        """Tell the members of both pools that this agent goes for good."""
        await asyncio.gather(*(pool.leave() for pool in self.running()))

    async def close(self) -> None:
        """Stop."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for pool in self.running():
            await pool.close()
        for sockets in self._sockets.values():
            for opened in sockets:
                opened.close()

    def running(self) -> list[LanPool]:
        """The pools that there are."""
        return [pool for pool in (self.lan, self.wan) if pool is not None]

    def judge(self, config: RuntimeConfig) -> None:
        """Raise `LictorError` where `reload` could not take it over."""
        for pool in self.running():
            pool.judge(config)

    def reload(self, config: RuntimeConfig) -> None:
        """Take over what may change while running. Raises `LictorError`."""
        for pool in self.running():
            pool.reload(config)
        self._config = config

    async def keys(self, operation: str, key: str, relays: int, *, local: bool) -> list[KeyringState]:
        """Have every member do one of `KEY_OPERATIONS` with a gossip key, with `local` those of the datacenter's pool
        alone. `relays` is through how many others each answer comes besides.
        """
        await self.ready()
        pools = [pool for pool in (self.wan if not local else None, self.lan) if pool is not None]
        return list(await asyncio.gather(*(pool.keys(operation, key, relays) for pool in pools)))

    # -- members ------------------------------------------------------------------------------------------------------

    def members(self, *, wan: bool = False) -> list[Member]:
        """The members of a pool, this agent first; none before the pool is there."""
        pool = self.wan if wan else self.lan
        return pool.members() if pool is not None else []

    def servers(self) -> list[ServerSeen]:
        """The servers of the datacenter."""
        return self.lan.servers() if self.lan is not None else []

    def agents(self) -> Agents:
        """What gossip knows of the datacenter's agents."""
        if self.lan is None:
            return NO_GOSSIP if self._config.listen.serf_lan is None else Agents()
        age = asyncio.get_running_loop().time() - self._since
        keep = self._config.reconnect_timeout or RECONNECT
        return Agents(self.lan.members(), self.lan.forgotten, settled=age >= SETTLED, complete=age >= keep)

    @property
    def coordinate(self) -> Coord:
        """Where this agent is in its datacenter's network."""
        return self.lan.coordinate if self.lan is not None else Coord()

    def coordinates_between(self) -> list[CoordinateEntry]:
        """Where the servers are in the network between datacenters, by the names of the pool's members; those that are
        known.
        """
        return self.wan.coordinates() if self.wan is not None else []

    def acquaint_soon(self) -> None:
        """Servers may have become known by their calls."""
        self._wake.set()

    def _changed(self) -> None:
        self._wake.set()
        if self.on_servers is not None:
            self.on_servers([server for server in self.servers() if server.status == ALIVE])
        self.on_change()

    def _changed_between(self) -> None:
        self._wake.set()
        self.on_change_between()

    async def _acquaint(self) -> None:
        """Have those meet in a pool who know of each other by other ways."""
        while True:
            self._wake.clear()
            if self.lan is not None and self.servers_known is not None:
                await self._invite(self.lan, self.servers_known())
            if self.lan is not None and self.wan is not None:
                await self._invite(self.wan, _wan_places(self.lan))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ACQUAINT_INTERVAL):
                    await self._wake.wait()

    async def _invite(self, pool: LanPool, known: Iterable[tuple[str, Place]]) -> None:
        for name, place in list(known):
            if pool.status_of(name) or pool.is_own(place):
                continue
            try:
                await pool.join_places([place])
            except Refused as error:
                log.debug("a server is not in gossip", cluster=pool.label, server=name, error=str(error))


def _wan_places(lan: LanPool) -> list[tuple[str, Place]]:
    """The servers of the datacenter as members of the pool between datacenters."""
    found = []
    for member in lan.members()[1:]:
        tags = member.tags
        port = tags.get("wan_join_port", "")
        if tags.get("role") == "consul" and member.status == ALIVE and port.isdigit() and 0 < int(port) < 65536:
            found.append((f"{member.name}.{tags.get('dc', '')}", (member.addr, int(port))))
    return found


def _nothing() -> None:
    pass


def _unheard(found: Sequence[Place]) -> None:
    pass
