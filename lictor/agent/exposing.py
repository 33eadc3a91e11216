"""Checks of services that their proxies expose (`Expose.Checks`): the service may then listen for its proxy alone.

For each HTTP or gRPC check of its service such a proxy has a listener on a port of the agent's range
(`ports.expose_min_port` to `expose_max_port`), which lets through the check's path and nothing else; the check is run
against that. A check keeps its port while it is exposed. Which proxies do so follows from their registrations and the
config entries, as all that proxies are told; the built-in proxy, where the agent starts that, exposes nothing.

`allot` is pure; `Exposing` follows what it depends on, and carries it out.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import aclosing
from typing import Any

import msgspec

from lictor.agent.checks.exposed import Through, through
from lictor.agent.checks.runner import CheckRunner
from lictor.agent.config.keys import RuntimeConfig
from lictor.agent.launching import LaunchSettings, launched_as
from lictor.agent.local import LocalState
from lictor.agent.logs import logger
from lictor.model.service import BUILTIN, CONNECT_PROXY, ExposePath
from lictor.store.reads.central import centrally
from lictor.store.store import Answer, View
from lictor.store.watch import Topic

TOPIC = ("agent", "exposed")
_LOOPBACK = "127.0.0.1"

log = logger("agent")

Follow = Callable[[Callable[[View], Any]], AsyncGenerator[Answer[Any], None]]


class Wish(msgspec.Struct, frozen=True):
    """A check that a proxy is to expose, at the proxy's address."""

    check_id: str
    proxy_id: str
    host: str
    what: Through


class Exposure(msgspec.Struct, frozen=True):
    """A check that is exposed on a port of its proxy's."""

    wish: Wish
    port: int

    @property
    def target(self) -> str:
        """Where the check is run against."""
        host = f"[{self.wish.host}]" if ":" in self.wish.host else self.wish.host
        return f"{host}:{self.port}"

    @property
    def path(self) -> ExposePath:
        """What the proxy is to let through."""
        what = self.wish.what
        return ExposePath(self.port, what.path, what.port, what.protocol, parsed_from_check=True)


class Wanted(msgspec.Struct, frozen=True):
    """What is to be exposed, and the ports that proxies have for other paths."""

    wishes: tuple[Wish, ...]
    taken: frozenset[int]


def allot(wanted: Wanted, ports: range, before: Mapping[str, Exposure]) -> dict[str, Exposure]:
    """The exposed checks by id. A check keeps the port that it has; those for which none is left are not exposed."""
    kept = {one.check_id: before[one.check_id].port for one in wanted.wishes if one.check_id in before}
    kept = {check_id: port for check_id, port in kept.items() if port in ports and port not in wanted.taken}
    free = (port for port in ports if port not in wanted.taken and port not in kept.values())
    found: dict[str, Exposure] = {}
    for wish in wanted.wishes:
        port = kept.get(wish.check_id) or next(free, None)
        if port is not None:
            found[wish.check_id] = Exposure(wish, port)
    return found


class Exposing:
    """See above. `tell` is called with the topics that a change touches."""

    def __init__(
        self,
        config: Callable[[], RuntimeConfig],
        local: LocalState,
        runner: CheckRunner,
        follow: Follow,
        tell: Callable[[Iterable[Topic]], object],
    ) -> None:
        self._config = config
        self._local = local
        self._runner = runner
        self._follow = follow
        self._tell = tell
        self._exposed: dict[str, Exposure] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to follow what is to be exposed."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Stop; what is exposed stays so."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def paths(self, view: View, proxy_id: str) -> tuple[ExposePath, ...]:
        """What a proxy exposes for checks. A part of reads."""
        view.saw(*TOPIC)
        return tuple(one.path for one in self._exposed.values() if one.wish.proxy_id == proxy_id)

    async def _run(self) -> None:
        async with aclosing(self._follow(self.wanted)) as answers:
            async for answer in answers:
                self.take(answer.value)

    def wanted(self, view: View) -> Wanted:
        """The checks of services whose proxies are to expose them; each is exposed by one proxy. A read."""
        view.saw("agent", "services")
        launch = self._config().connect.launch
        settings = LaunchSettings(launch.enabled, launch.default, launch.one_process)
        wishes: dict[str, Wish] = {}
        taken: set[int] = set()
        for proxy_id, registered in sorted(self._local.services.items()):
            if registered.kind != CONNECT_PROXY or launched_as(registered, settings) == BUILTIN:
                continue
            service = centrally(view, registered)
            taken.update(path.listener_port for path in service.proxy.expose.paths)
            if not service.proxy.expose.checks or not service.proxy.destination_service_id:
                continue
            view.saw("agent", "checks")
            for check in self._local.checks_of(service.proxy.destination_service_id):
                definition = self._runner.definition(check.check_id)
                what = through(definition) if definition is not None else None
                if what is not None:
                    host = service.address or _LOOPBACK
                    wishes.setdefault(check.check_id, Wish(check.check_id, proxy_id, host, what))
        return Wanted(tuple(wishes.values()), frozenset(taken))

    def take(self, wanted: Wanted) -> None:
        """Have just these exposed."""
        ports = self._config().ports
        possible = range(ports.expose_min_port, ports.expose_max_port + 1) if ports.expose_min_port > 0 else range(0)
        before, now = self._exposed, allot(wanted, possible, self._exposed)
        for wish in wanted.wishes:
            if wish.check_id not in now:
                reason = "no port is left from ports.expose_min_port to ports.expose_max_port"
                log.warn("a check cannot be exposed", check=wish.check_id, proxy=wish.proxy_id, reason=reason)
        self._exposed = now
        for check_id in {**before, **now}:
            one = now.get(check_id)
            if one != before.get(check_id):
                self._runner.redirect(check_id, one.target if one is not None else "")
                self._local.expose_check(check_id, one.port if one is not None else 0)
        if now != before:
            self._tell((TOPIC,))
