"""One proxy of a service: its listeners, kept as the registration, the certificates and the intentions say.

Everything that it needs is watched. After a change of any of it `_settle` compares what is with what should be:
listeners are opened and drained, and those that stay take the news over without ending a connection, save for those
which are not allowed any more.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import msgspec

from lictor.agent.logs import Logger
from lictor.client.errors import ClientError
from lictor.connect_proxy.access_log import AccessLog
from lictor.connect_proxy.authorizing import Authorizer
from lictor.connect_proxy.certificates import Identity
from lictor.connect_proxy.endpoints import Endpoints, Target, targets_of
from lictor.connect_proxy.idle import Idle
from lictor.connect_proxy.inbound import InboundListener
from lictor.connect_proxy.listener import Listener, bind
from lictor.connect_proxy.outbound import OutboundListener
from lictor.connect_proxy.passage import Deadlines
from lictor.connect_proxy.settings import (
    PREPARED_QUERY,
    STATIC,
    Address,
    OutboundSettings,
    SidecarSettings,
    UpstreamKey,
)
from lictor.connect_proxy.source import Source, Watch
from lictor.model.connect_ca import plain_serial
from lictor.model.service import AccessLogs

BIND_PAUSE = 2.0  # seconds until an address that is in use is tried again
REPORT_PAUSE = 1.0  # seconds between two reports of the live connections
REPORT_EVERY = 30.0


class World:
    """What the proxies of a process share. `handed` are listening sockets of an earlier process, by address."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, source: Source, log: Logger, chance: Callable[[], float]
    ) -> None:
        self.loop = loop
        self.source = source
        self.log = log
        self.chance = chance
        self.deadlines = Deadlines(loop)
        self.idle = Idle(loop)
        self.handed: dict[str, socket.socket] = {}
        self.tasks: set[asyncio.Task[Any]] = set()

    def listen(self, address: Address, mode: int) -> socket.socket:
        """A socket that listens: that of an earlier process, else another. Raises `OSError`."""
        handed = self.handed.pop(str(address), None)
        return handed if handed is not None else bind(address, mode)

    def background(self, work: Any) -> None:
        """Have a coroutine run to its end."""
        task = self.loop.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.log.error("Something in the background has failed", error=error, exc_info=error)


class Sidecar:
    """See above. `report` has the agent told of live connections, where it knows the proxy."""

    def __init__(self, world: World, settings: SidecarSettings, *, report: bool = True) -> None:
        self.world = world
        self.settings = settings
        self.identity: Identity | None = None
        self.authorizer = Authorizer()
        self.inbound: InboundListener | None = None
        self.outbound: dict[str, OutboundListener] = {}
        self.draining: set[Listener] = set()
        self.closed = False
        self._deaf: dict[str, str] = {}  # why addresses cannot be listened on
        self._kept: dict[str, socket.socket] = {}  # sockets of upstreams that another is about to have
        self._report = report
        self._access = AccessLog(AccessLogs())
        self._retry: asyncio.TimerHandle | None = None
        self._reporting: asyncio.TimerHandle | None = None
        self._revoked_told: tuple[str, ...] = ()
        self._revoked: frozenset[str] = frozenset()
        self._last_report: dict[str, int] = {}
        self._last_deaf: dict[str, str] = {}
        self._upstreams: dict[UpstreamKey, tuple[Watch[Any] | None, Endpoints]] = {}
        source = world.source
        self._roots = source.roots(self, self._settle)
        self._leaf = source.leaf(settings.service, self, self._settle)
        self._rules = source.intentions(settings.service, self, self._judge) if settings.inbound else None
        self._use_access_log()
        self._judge()
        self._settle()
        if report:
            self._reporting = world.loop.call_later(REPORT_PAUSE, self._report_now)

    # -- what it is to be --------------------------------------------------------------------------------------------

    def update(self, settings: SidecarSettings) -> None:
        """Take over a changed registration. The service it stands for must be the same."""
        if settings == self.settings or self.closed:
            return
        before, self.settings = self.settings, settings
        if settings.inbound is not None and self._rules is None:
            self._rules = self.world.source.intentions(settings.service, self, self._judge)
        if settings.access_log != before.access_log:
            self._use_access_log()
        self._settle()

    @property
    def ready(self) -> bool:
        """Whether it listens wherever it should."""
        inbound = self.settings.inbound is None or self.inbound is not None
        return inbound and len(self.outbound) == len({str(one.bind) for one in self.settings.outbound})

    @property
    def listeners(self) -> list[Listener]:
        """Every listener that accepts connections."""
        return [*([self.inbound] if self.inbound is not None else []), *self.outbound.values()]

    async def drain(self, *, keep_paths: bool = False, seconds: float | None = None) -> None:
        """Accept no more, let what is live end, and close. With `keep_paths` another process has the listeners."""
        self.closed = True
        if self._reporting is not None:
            self._reporting.cancel()
            self._reporting = None
        limit = self.settings.drain_timeout if seconds is None else seconds
        leaving = self.listeners
        self.inbound, self.outbound = None, {}
        self.draining.update(leaving)
        await asyncio.gather(*(listener.drain(limit, keep_path=keep_paths) for listener in leaving))
        self._release()

    def hand_on(self) -> None:
        """Leave the sockets of the listeners to another sidecar of this process, and drain beside it."""
        for listener in self.listeners:
            self._hand_on(listener)
        self.world.background(self.drain(keep_paths=True))

    def _hand_on(self, listener: Listener) -> None:
        if listener.sock is not None:
            self.world.handed[str(listener.address)] = listener.sock.dup()

    def _release(self) -> None:
        for timer in (self._retry, self._reporting):
            if timer is not None:
                timer.cancel()
        source = self.world.source
        for watch in (self._roots, self._leaf, self._rules, *(watch for watch, _ in self._upstreams.values())):
            if watch is not None:
                source.release(watch, self)
        for sock in self._kept.values():
            sock.close()
        self._access.close()

    # -- what has changed --------------------------------------------------------------------------------------------

    def _judge(self) -> None:
        """The intentions have changed."""
        rules = self._rules.value if self._rules is not None else None
        if rules is None or not self.authorizer.update(rules.rules, rules.default_allow):
            return
        for listener in (self.inbound, *self.draining):
            if isinstance(listener, InboundListener):
                listener.judge_again()
        self._settle()

    def _settle(self) -> None:
        """Make what is what should be."""
        self._renew()
        self._revoke()
        if self.closed:
            return
        self._settle_inbound()
        self._settle_outbound()

    def _renew(self) -> None:
        leaf, roots = self._leaf.value, self._roots.value
        if leaf is None or roots is None or (self.identity is not None and self.identity.same_as(leaf, roots)):
            return
        identity = Identity(leaf, roots)
        try:
            _ = identity.server, identity.client
        except (ssl.SSLError, ValueError, OSError) as error:
            self.world.log.error("The agent's certificates cannot be used", service=self.settings.service, error=error)
            return
        renewed = self.identity is not None
        self.identity = identity
        if renewed:
            self.world.log.info("Took over new certificates", service=self.settings.service, serial=leaf.serial_number)
        for listener in self.listeners:
            if isinstance(listener, InboundListener | OutboundListener):
                listener.renew(identity)

    def _revoke(self) -> None:
        """Have what is revoked refused, and cut where it is in use, by the listeners that are closing too."""
        roots = self._roots.value
        if roots is None or roots.revoked == self._revoked_told:
            return
        self._revoked_told = roots.revoked
        self._revoked = frozenset(map(plain_serial, roots.revoked))
        for listener in (*self.listeners, *self.draining):
            if isinstance(listener, InboundListener | OutboundListener):
                listener.revoke(self._revoked)

    def _settle_inbound(self) -> None:
        wanted, current = self.settings.inbound, self.inbound
        if current is not None and (wanted is None or wanted.bind != current.settings.bind):
            self.inbound = None
            self._leave(current)
            current = None
        if current is not None and wanted is not None:
            current.settings = wanted
            if not wanted.reuses:
                current.close_idle()
            return
        # Nobody is let in before it is known who may, and nobody can be answered without a certificate.
        if wanted is None or self.identity is None or not self.authorizer.ready:
            return
        listener = InboundListener(
            self.world.loop,
            self.world.deadlines,
            self.world.idle,
            self.settings.service,
            wanted,
            self.identity,
            self.authorizer,
            self.world.log,
            self._access,
        )
        listener.changed = self._report_soon
        if self._open(listener, 0):
            self.inbound = listener

    def _settle_outbound(self) -> None:
        wanted = {str(one.bind): one for one in self.settings.outbound}
        for key in [key for key in self._upstreams if all(one.key != key for one in wanted.values())]:
            watch, _ = self._upstreams.pop(key)
            if watch is not None:
                self.world.source.release(watch, self)
        for address, listener in list(self.outbound.items()):
            settings = wanted.get(address)
            if settings is None:
                self._leave(self.outbound.pop(address))
            elif settings.key == listener.settings.key:
                listener.settings = settings
                if not settings.reuse:
                    listener.close_idle()
                listener.endpoints.ejection = settings.ejection
            else:
                # The same address leads to another service: its socket stays open all the while.
                if listener.sock is not None:
                    self._kept[address] = listener.sock.dup()
                self._leave(self.outbound.pop(address), keep_path=True)
        for address in [address for address in self._kept if address not in wanted]:
            self._kept.pop(address).close()
        for address, settings in wanted.items():
            if address not in self.outbound:
                self._open_outbound(address, settings)

    def _open_outbound(self, address: str, settings: OutboundSettings) -> None:
        endpoints = self._endpoints(settings)
        watch = self._upstreams[settings.key][0]
        # Until it is known where connections go, and as whom, they are better refused, or left to a former process.
        if self.identity is None or (watch is not None and watch.value is None and not watch.gone):
            return
        listener = OutboundListener(
            self.world.loop,
            self.world.deadlines,
            self.world.idle,
            self.settings.service,
            settings,
            self.identity,
            endpoints,
            self.world.log,
            self._access,
        )
        if self._open(listener, settings.mode):
            self.outbound[address] = listener

    def _endpoints(self, settings: OutboundSettings) -> Endpoints:
        """The endpoints of an upstream, followed from now on."""
        known = self._upstreams.get(settings.key)
        if known is not None:
            return known[1]
        endpoints = Endpoints(self.world.chance, settings.ejection)
        source = self.world.source
        watch: Watch[Any] | None = None
        if settings.kind == PREPARED_QUERY:
            watch = source.query(settings.name, settings.datacenter, self, self._take_all)
        elif settings.kind != STATIC:
            watch = source.instances(settings.name, settings.datacenter, self, self._take_all)
        self._upstreams[settings.key] = (watch, endpoints)
        endpoints.update(self._targets(settings, watch))
        return endpoints

    def _take_all(self) -> None:
        """The endpoints of some upstream have changed."""
        for settings in self.settings.outbound:
            known = self._upstreams.get(settings.key)
            if known is not None:
                known[1].update(self._targets(settings, known[0]))
        for listener in self.outbound.values():
            listener.forget_endpoints()
        self._settle()

    @staticmethod
    def _targets(settings: OutboundSettings, watch: Watch[Any] | None) -> tuple[Target, ...]:
        if watch is None:
            where = settings.addresses
            return tuple(Target(one.host, one.port, settings.name, settings.datacenter) for one in where)
        value = watch.value
        if value is None:
            return ()
        if settings.kind == PREPARED_QUERY:
            return targets_of(value.nodes or ())
        return targets_of(value, settings.name)

    # -- listeners ---------------------------------------------------------------------------------------------------

    def _open(self, listener: Listener, mode: int) -> bool:
        try:
            kept = self._kept.pop(str(listener.address), None)
            sock = kept if kept is not None else self.world.listen(listener.address, mode)
        except OSError as error:
            self._tell_deaf(str(listener.address), error.strerror or str(error))
            if self._retry is None:
                self._retry = self.world.loop.call_later(BIND_PAUSE, self._open_again)
            return False
        if self._deaf.pop(str(listener.address), None) is not None:
            self._report_soon()
        if isinstance(listener, InboundListener | OutboundListener):
            listener.revoke(self._revoked)
        self.world.log.info(
            "Starting listener", direction=listener.direction, service=self.settings.service, address=listener.address
        )
        listener.hold(sock)
        self.world.background(listener.serve())
        return True

    def _tell_deaf(self, address: str, why: str) -> None:
        """Say that an address cannot be listened on, once for each reason."""
        if self._deaf.get(address) != why:
            self._deaf[address] = why
            self._report_soon()
            self.world.log.error(
                "Cannot listen, and tries again", service=self.settings.service, address=address, error=why
            )

    def _open_again(self) -> None:
        self._retry = None
        self._settle()

    def _leave(self, listener: Listener, *, keep_path: bool = False) -> None:
        """Drain a listener beside the others."""
        self.world.log.info("Stopping listener", service=self.settings.service, address=listener.address)
        self.draining.add(listener)

        async def drain() -> None:
            await listener.drain(self.settings.drain_timeout, keep_path=keep_path)
            self.draining.discard(listener)

        self.world.background(drain())

    def _use_access_log(self) -> None:
        try:
            access = AccessLog(self.settings.access_log)
        except (OSError, ValueError) as error:
            self.world.log.error("The access log cannot be written", service=self.settings.service, error=error)
            return
        self._access.close()
        self._access = access
        for listener in self.listeners:
            listener.access = access

    # -- what the agent is told ------------------------------------------------------------------------------------

    def _report_soon(self) -> None:
        if self._report and self._reporting is not None:
            left = self._reporting.when() - self.world.loop.time()
            if left > REPORT_PAUSE:
                self._reporting.cancel()
                self._reporting = self.world.loop.call_later(REPORT_PAUSE, self._report_now)

    def _report_now(self) -> None:
        self._reporting = self.world.loop.call_later(REPORT_EVERY, self._report_now)
        live = dict(self.inbound.by_peer) if self.inbound is not None else {}
        if live or self._last_report:
            self._last_report = live
            inbound = [{"SourceURI": uri, "Connections": count} for uri, count in live.items()]
            self.world.background(self._tell("connections", {"Inbound": inbound}))
        wanted = {str(one.bind) for one in (self.settings.inbound, *self.settings.outbound) if one is not None}
        self._deaf = {address: why for address, why in self._deaf.items() if address in wanted}
        if self._deaf or self._last_deaf:
            self._last_deaf = dict(self._deaf)
            deaf = [{"Address": address, "Reason": why} for address, why in self._deaf.items()]
            self.world.background(self._tell("proxies", {"Deaf": deaf}))

    async def _tell(self, what: str, body: dict[str, Any]) -> None:
        path = f"/v1/agent/connect/{what}/{quote(self.settings.proxy_id, safe='')}"
        try:
            await self.world.source.send("PUT", path, msgspec.json.encode(body))
        except ClientError:
            pass  # it is told again
