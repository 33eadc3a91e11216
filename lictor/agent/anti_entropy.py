"""Anti-entropy: brings the servers' catalog in line with the node's own state.

A change is sent at once, with whatever else has changed by then; everything is compared anew at an interval that grows
with the cluster, and after an error sooner.
"""

import asyncio
import contextlib
import math
import random
from collections.abc import Awaitable, Callable

from lictor.agent.local import Change, LocalState
from lictor.agent.logs import logger
from lictor.model.check import SERF_HEALTH, Check
from lictor.model.command import Command, Deregister
from lictor.model.errors import LictorError, NoLeader
from lictor.model.node import Node
from lictor.store.reads import catalog, health
from lictor.store.store import Store

INTERVAL = 60.0  # seconds, for up to SCALE_FROM nodes
SCALE_FROM = 128
RETRY = 15.0
SERVERS_UP = 3.0  # seconds within which it is tried again once servers answer, longer in a large cluster
AT_ONCE = 128  # changes that are under way together

log = logger("agent")

# What the servers register for a node on their own.
SERVER_SERVICES = frozenset({"consul"})
SERVER_CHECKS = frozenset({SERF_HEALTH})

Apply = Callable[[Command], Awaitable[object]]


def scaled(interval: float, nodes: int) -> float:
    """The interval for a cluster of that size: longer by itself each time the cluster doubles past `SCALE_FROM`."""
    if nodes <= SCALE_FROM:
        return interval
    return interval * (math.ceil(math.log2(nodes) - math.log2(SCALE_FROM)) + 1)


async def _held() -> None:
    """A server's store holds the whole catalog."""


class AntiEntropy:
    """The loop that keeps the catalog in line. `apply` sends a command to the servers, `hold` has the store hold what
    the catalog says of this node, and `nodes` tells how many nodes there are.
    """

    def __init__(
        self,
        local: LocalState,
        store: Store,
        node: Callable[[], Node],
        apply: Apply,
        hold: Callable[[], Awaitable[None]] = _held,
        nodes: Callable[[], int] | None = None,
    ) -> None:
        self.on_adopted: Callable[[list[Check]], None] = lambda checks: None
        self._hold = hold
        self._nodes = nodes or (lambda: len(store.nodes))
        self._local = local
        self._store = store
        self._node = node
        self._apply = apply
        self._wake = asyncio.Event()
        self._whole = True
        self._task: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()
        self._good = True  # as it went last time
        self._soon: asyncio.TimerHandle | None = None
        self.failures = 0

    def start(self) -> None:
        """Begin, with a whole comparison."""
        self._task = asyncio.create_task(self._run())

    def trigger(self) -> None:
        """Something has changed: send it soon."""
        self._wake.set()

    def compare_soon(self) -> None:
        """The catalog is another one than before: compare everything soon."""
        self._whole = True
        self._wake.set()

    def servers_up(self) -> None:
        """Servers answer again: what has failed meanwhile, or may yet fail, is tried again, by each agent when its turn
        comes.
        """
        if self._soon is None and (not self._good or self._lock.locked()):
            seconds = random.uniform(0, scaled(SERVERS_UP, self._nodes()))
            self._soon = asyncio.get_running_loop().call_later(seconds, self._try_again)

    def _try_again(self) -> None:
        self._soon = None
        self.compare_soon()

    async def sync(self) -> bool:
        """Send what is pending now. Returns whether all of it arrived."""
        async with self._lock:
            return await self._send()

    async def sync_whole(self) -> bool:
        """Compare everything with the catalog now and send what differs. Returns whether all of it arrived."""
        async with self._lock:
            return await self._compare_and_send()

    async def close(self) -> None:
        """Stop."""
        if self._soon is not None:
            self._soon.cancel()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        next_full = loop.time()
        while True:
            # What is told of while this turn sends belongs to the next turn.
            self._wake.clear()
            if self._whole or loop.time() >= next_full:
                self._whole = False
                async with self._lock:
                    good = await self._compare_and_send()
                interval = scaled(INTERVAL, self._nodes()) if good else RETRY
                next_full = loop.time() + interval + random.uniform(0, interval)
            else:
                async with self._lock:
                    good = await self._send()
            if not good:
                next_full = min(next_full, loop.time() + RETRY + random.uniform(0, RETRY))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, next_full - loop.time())):
                    await self._wake.wait()

    async def _compare_and_send(self) -> bool:
        try:
            await self._hold()
        except LictorError as error:
            self.failures += 1
            self._good = False
            log.warn("could not compare this node with the catalog", error=str(error))
            return False
        self._compare()
        return await self._send()

    def _compare(self) -> None:
        name = self._node().node
        answer = self._store.read(catalog.node_services, name)
        checks = self._store.read(health.checks_of_node, name)
        found = answer.value
        adopted = self._local.compare(
            found.node if found is not None else None,
            found.services if found is not None else {},
            {c.check_id: c for c in checks.value},
            keep_services=SERVER_SERVICES,
            keep_checks=SERVER_CHECKS,
        )
        if adopted:
            self.on_adopted(adopted)

    async def _send(self) -> bool:
        self._good = good = await self._send_changes()
        return good

    async def _send_changes(self) -> bool:
        changes = self._local.pending()
        good = True
        for start in range(0, len(changes), AT_ONCE):
            part = changes[start : start + AT_ONCE]
            # Started in order and together: the server puts them into one entry of its log, in that order.
            results = await asyncio.gather(*(self._apply(c.command) for c in part), return_exceptions=True)
            for change, result in zip(part, results, strict=True):
                if not isinstance(result, BaseException):
                    self._local.done(change)
                    _tell(change)
                elif isinstance(result, NoLeader):
                    # Nothing more will arrive until there is one.
                    self.failures += 1
                    log.warn("could not update the catalog", error=str(result))
                    return False
                elif isinstance(result, LictorError):
                    good = False
                    self.failures += 1
                    log.warn("could not update the catalog", error=str(result), **_about(change))
                else:
                    raise result
        return good


def _tell(change: Change) -> None:
    """Log what has reached the catalog, as Consul words it."""
    done = "Deregistered" if isinstance(change.command, Deregister) else "Synced"
    for service_id, _ in change.services:
        log.info(f"{done} service", service=service_id)
    for check_id, _ in change.checks:
        log.debug(f"{done} check", check=check_id)
    if change.node:
        log.info("Synced node info")


def _about(change: Change) -> dict[str, str]:
    """The fields that tell in the log what a change is about."""
    about = {"service": ",".join(i for i, _ in change.services), "check": ",".join(i for i, _ in change.checks)}
    return {key: value for key, value in about.items() if value}
