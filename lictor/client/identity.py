"""A service's identity in a program: what the agent says of it, followed, and the contexts that go by it.

An `Identity` may be used by any thread. What feeds it is a `Follower`, on an event loop: the program's own, or one in a
thread of its own (see `native_threads`). While the agent, or the servers, cannot be reached, what was last said holds.
"""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
import threading
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any, TypeVar

import msgspec

from lictor.client.calls import Call, answer_of
from lictor.client.errors import ClientError, NoInstance, NotReady, PeerRefused
from lictor.client.families.connect import ConnectCalls, Rules
from lictor.client.families.discovery import Health
from lictor.client.records import ConnectLeaf, ConnectRoots, ServiceEntry
from lictor.client.reporting import Reports
from lictor.client.requests import WATCH_LONGEST, Cursor, check, target
from lictor.client.settings import Options, Settings
from lictor.client.tls import Checked, FollowingContext, following
from lictor.client.trust import Trust
from lictor.model.connect_ca import plain_serial
from lictor.model.ids import new_id
from lictor.model.spiffe import ServiceId

WAIT = 300.0  # seconds that a blocking query waits
UPSTREAMS = 256  # services that are followed for those who call them

T = TypeVar("T")
log = logging.getLogger("lictor.client.connect")


class Place(msgspec.Struct, frozen=True):
    """Where a service is reached: an instance of it that speaks the mesh's TLS, or such a one's proxy."""

    host: str
    port: int
    weight: int
    id: str

    @property
    def authority(self) -> str:
        """`10.0.0.1:80`, as error texts show it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Identity:
    """Who this program is in the mesh, one of its services. `wanted` has another service's places followed."""

    def __init__(self, service: str, wanted: Callable[[str, str], None]) -> None:
        self.service = service
        self._wanted = wanted
        self._lock = threading.Lock()
        self._roots: ConnectRoots | None = None
        self._leaf: ConnectLeaf | None = None
        self._rules: Rules | None = None
        self._trust: Trust | None = None
        self._why: ClientError | None = None
        self._connections: weakref.WeakSet[Checked] = weakref.WeakSet()
        self._clients: dict[tuple[str, str], FollowingContext] = {}
        self._server = following(self)
        self._places: dict[tuple[str, str], list[Place]] = {}
        self._listeners: set[Callable[[], None]] = set()
        self._moved: Callable[[], None] | None = None

    # -- what it is good for ------------------------------------------------------------------------------------------

    @property
    def trust(self) -> Trust:
        """What holds now. Raises `NotReady`."""
        if self._trust is None:
            raise NotReady(f"the agent has not given what {self.service} needs{self._reason()}")
        return self._trust

    @property
    def ready(self) -> bool:
        """Whether there is all that connections need."""
        return self._trust is not None

    @property
    def id(self) -> ServiceId:
        """Who this program is. Raises `NotReady`."""
        return self.trust.own

    def server_context(self) -> ssl.SSLContext:
        """A context for a server: whoever connects must be a service that may, by the intentions. It may be kept, and
        goes by the newest certificates.
        """
        return self._server

    def client_context(self, service: str, datacenter: str = "") -> ssl.SSLContext:
        """A context for connections to a service: whoever answers must be that service. It may be kept."""
        with self._lock:
            return self._clients.setdefault((service, datacenter), following(self, service, datacenter))

    def server_name(self, service: str, datacenter: str = "") -> str:
        """The name that a client's handshake begins with: by it gateways know whom it is for."""
        own = self.id
        return f"{service}.{own.namespace}.{datacenter or own.datacenter}.internal.{own.domain}"

    def places(self, service: str, datacenter: str = "") -> list[Place] | None:
        """Where a service is reached, in the order in which to try: at random, by weight. None while it is not known
        yet; it is followed from now on.
        """
        found = self._places.get((service, datacenter))
        if found is None:
            self._wanted(service, datacenter)
            return None
        return sorted(found, key=lambda place: -(random.random() ** (1.0 / max(1, place.weight))))

    def none(self, service: str, problems: list[str]) -> NoInstance:
        """The error for a service of which no instance could be used."""
        if not problems:
            return NoInstance(f"{service} has no passing instance in the mesh")
        return NoInstance(f"no instance of {service} could be used: {'; '.join(problems)}")

    def not_ready(self, service: str = "") -> NotReady:
        """The error for what the agent has not given in time."""
        what = f"where {service} is" if service else f"what {self.service} needs"
        return NotReady(f"the agent has not said {what}{self._reason()}")

    def _reason(self) -> str:
        return f": {self._why}" if self._why is not None else ""

    # -- connections --------------------------------------------------------------------------------------------------

    def admitted(self, connection: Checked) -> None:
        """The other end was found to be who it should be."""
        with self._lock:
            self._connections.add(connection)
        # What holds may have become another while the handshake was made.
        self._judge(connection)
        self.ended(connection)

    def ended(self, connection: Checked) -> None:
        """The connections of those who have connected to this program may be others now."""
        if connection.server_side and self._moved is not None:
            self._moved()

    def when_moved(self, moved: Callable[[], None]) -> None:
        """Have `moved` called, from any thread, when `inbound` may have changed."""
        self._moved = moved

    def inbound(self) -> dict[str, int]:
        """How many live connections there are from each service that has connected, by its SPIFFE id."""
        with self._lock:
            connections = list(self._connections)
        found: dict[str, int] = {}
        for one in connections:
            if one.server_side and one.is_live and one.peer is not None:
                found[one.peer.uri] = found.get(one.peer.uri, 0) + 1
        return found

    def _judge(self, connection: Checked) -> None:
        if self._trust is None or connection.peer is None:
            return
        try:
            self._trust.believe(connection.shown)
            if connection.server_side:
                self._trust.admit(connection.peer)
        except PeerRefused as error:
            log.warning("a connection is cut: %s", error)
            connection.cut(str(error))

    # -- what the agent says ------------------------------------------------------------------------------------------

    def on_change(self, told: Callable[[], None]) -> Callable[[], None]:
        """Have `told` called, by the follower, after each change. Returns what ends that."""
        with self._lock:
            self._listeners.add(told)
        return lambda: self._listeners.discard(told)

    def take(self, news: ConnectRoots | ConnectLeaf | Rules) -> None:
        """The agent has said something new. Connections that may not be any more are cut."""
        match news:
            case ConnectRoots():
                self._roots = news
            case ConnectLeaf():
                self._leaf = news
            case Rules():
                self._rules = news
        if self._roots is None or self._leaf is None or self._rules is None:
            return
        revoked = frozenset(map(plain_serial, self._roots.revoked))
        self._trust, self._why = Trust(self._roots, self._leaf, self._rules, revoked), None
        if not isinstance(news, ConnectLeaf):
            with self._lock:
                connections = list(self._connections)
            for connection in connections:
                self._judge(connection)
        self._tell()

    def take_places(self, service: str, datacenter: str, entries: list[ServiceEntry]) -> None:
        """The agent has said where a service is."""
        self._places[service, datacenter] = [_place(entry) for entry in entries]
        self._tell()

    def forget_places(self, service: str, datacenter: str) -> None:
        """A service is followed no more."""
        self._places.pop((service, datacenter), None)

    def failed(self, error: ClientError) -> None:
        """The agent could not be asked, or refused."""
        self._why = error

    def _tell(self) -> None:
        with self._lock:
            listeners = list(self._listeners)
        for told in listeners:
            told()


def _place(entry: ServiceEntry) -> Place:
    service = entry.service
    return Place(service.address or entry.node.address, service.port, service.weights.passing, service.id)


class Follower:
    """Asks the agent, on one event loop, for all identities of a client."""

    def __init__(self, settings: Settings, options: Options) -> None:
        from lictor.client.loop_connections import LoopConnections

        self._settings = settings
        self._options = options
        self._connections = LoopConnections(settings)
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._reports: list[Reports] = []
        self._reporter = new_id()
        self._upstreams: dict[tuple[str, str, str], tuple[asyncio.Task[None], Identity]] = {}

    def identity(self, service: str) -> Identity:
        """A service's identity, followed from now on."""

        def wanted(other: str, datacenter: str) -> None:
            self._loop.call_soon_threadsafe(self._follow_places, made, other, datacenter)

        made = Identity(service, wanted)
        calls: tuple[Call[Any], ...] = (
            ConnectCalls.roots.describe(None),
            ConnectCalls.leaf.describe(None, service),
            ConnectCalls.rules.describe(None, service),
        )
        for call in calls:
            self._start(self._follow(call, made.take, made))
        reports = Reports(made, lambda live: self._report(service, live))
        self._reports.append(reports)
        self._start(reports.run())
        return made

    async def _report(self, service: str, live: dict[str, int]) -> None:
        call = ConnectCalls.report.describe(None, service, live, reporter=self._reporter)
        reply = await self._connections.ask(target(call, self._settings, self._options), self._options.connect_timeout)
        check(call, reply)

    async def close(self) -> None:
        """End."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(reports.close() for reports in self._reports))
        await self._connections.close()

    def _start(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _follow_places(self, identity: Identity, service: str, datacenter: str) -> None:
        key = (identity.service, service, datacenter)
        if key in self._upstreams:
            return
        while len(self._upstreams) >= UPSTREAMS:
            oldest = next(iter(self._upstreams))
            task, other = self._upstreams.pop(oldest)
            task.cancel()
            other.forget_places(*oldest[1:])
        call: Call[list[ServiceEntry]] = Health.connect.describe(None, service, passing=True, dc=datacenter)

        def take(entries: list[ServiceEntry]) -> None:
            identity.take_places(service, datacenter, entries)

        self._upstreams[key] = self._start(self._follow(call, take, identity)), identity

    async def _follow(self, call: Call[Any], take: Callable[[Any], None], identity: Identity) -> None:
        async for value in self._watch(call, identity):
            take(value)

    async def _watch(self, call: Call[T], identity: Identity) -> AsyncIterator[T]:
        cursor = Cursor(call, WAIT, self._options, random.random)
        while True:
            wanted = cursor.next()
            try:
                reply = await self._connections.ask(
                    target(wanted, self._settings, self._options), self._options.connect_timeout
                )
                answer = answer_of(wanted, check(wanted, reply))
                news = cursor.take(answer)
            except ClientError as error:
                identity.failed(error)
                pause = WATCH_LONGEST
                with suppress(ClientError):  # who refuses today may not tomorrow
                    pause = cursor.pause(error)
                await asyncio.sleep(pause)
                continue
            if news:
                yield answer.value
