"""The DNS door: its sockets, and what must be asked of others before there is an answer.

server = DnsServer(store, settings)
await server.start([("127.0.0.1", 8600)])
...
await server.close()
"""

import asyncio
import logging
import math
import random
import socket
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Protocol

from lictor.agent.confirmations import Confirmations
from lictor.agent.elsewhere import FAILED, Found, Lookup
from lictor.dns.freshness import STALE_FROM, Alone, Origin, fresh_enough, surely_fresh
from lictor.dns.message import HEADER, QR, SERVFAIL, Record, refusal
from lictor.dns.newcomers import Newcomers
from lictor.dns.recursors import Recursors
from lictor.dns.responder import Forward, Reply, Responder, Turns, Unconfirmed, Uncovered, Wanted
from lictor.dns.settings import DnsSettings
from lictor.dns.tcp import TcpConnection
from lictor.dns.udp import Handle, UdpListener
from lictor.model.errors import LictorError
from lictor.store.store import Store
from lictor.store.watch import Topic

log = logging.getLogger("lictor.dns")

MAX_RECURSIONS = 1024
MAX_UNCONFIRMED = 4096  # requests that wait for the store to be confirmed
MAX_UNHELD = 4096  # requests that wait for the store to hold what they look at
PATIENCE = 3.0  # seconds for servers to answer: whoever asks gives up after 5
LOOKS = 4  # times that an answer may look at something more
ROUNDS = 4  # times that an answer may need others to be asked
LOOK_PERIOD = 1.0  # seconds between two looks at the store's age
_PORT_TRIES = 20
_NONE: Mapping[bytes, Turns] = {}


class _Held:
    """A request that waits until the store is confirmed."""

    __slots__ = ("data", "failure", "send", "sender", "server", "tcp")

    def __init__(
        self, server: "DnsServer", data: bytes, sender: str, send: Callable[[bytes], None], tcp: bool, failure: bytes
    ) -> None:
        self.server = server
        self.data = data
        self.sender = sender
        self.send = send
        self.tcp = tcp
        self.failure = failure

    def confirmed(self, error: Exception | None) -> None:
        """The store may be asked now, or nobody leads."""
        self.server.held -= 1
        if error is None:
            self.server.answer(self.data, self.sender, self.send, self.tcp)
        else:
            self.server.responder.rcodes[SERVFAIL] += 1
            self.send(self.failure)


class _Unheld:
    """A request that waits until the store holds what its answer looks at; `looks` is how often that was more."""

    __slots__ = ("begun", "data", "failure", "looks", "send", "sender", "tcp")

    def __init__(
        self, data: bytes, sender: str, send: Callable[[bytes], None], tcp: bool, failure: bytes, begun: float
    ) -> None:
        self.data = data
        self.sender = sender
        self.send = send
        self.tcp = tcp
        self.failure = failure
        self.begun = begun
        self.looks = 0


class Partial(Protocol):
    """What fills a store that does not hold everything."""

    def covers(self, seen: tuple[Topic, ...]) -> bool:
        """Whether the store holds all that a read looked at."""
        ...

    async def cover(self, seen: tuple[Topic, ...]) -> bool:
        """Have it hold that from now on. Returns whether it can. Raises `LictorError` where nobody answers."""
        ...

    async def resolve(self, data: bytes, sender: str, tcp: bool) -> bytes:
        """Have a server answer a request. Raises `LictorError`."""
        ...


class DnsServer:
    """Answers on any number of addresses, over UDP and TCP.

    `clock` gives seconds since 1970, for SOA serials. `origin` tells how fresh the store is: what is under the domain
    waits for a confirmation where it must, and fails without one. `on_stale` is told, now and then, how many answers
    came from a store that is older than `STALE_FROM`. `partial` is there for a store that does not hold everything,
    `elsewhere` where other datacenters can be asked.

    Counters: `queries_udp`, `queries_tcp`, `hits` (answered from finished bytes), `rcodes` by code, `unsent`,
    `refused_connections`, `recursions`, `unexpected`, `names_refused`.
    """

    def __init__(
        self,
        store: Store,
        settings: DnsSettings,
        clock: Callable[[], float] = time.time,
        rng: random.Random | None = None,
        origin: Origin | None = None,
        on_stale: Callable[[int], None] = lambda count: None,
        partial: Partial | None = None,
        elsewhere: Callable[[Lookup], Awaitable[Found]] | None = None,
    ) -> None:
        self._partial = partial
        self._elsewhere = elsewhere
        self._rng = rng if rng is not None else random.Random()
        self._origin: Origin = origin if origin is not None else Alone()
        self._confirmations = Confirmations(self._origin.confirm)
        self._on_stale = on_stale
        self._careful = True  # each question is looked at on its own
        self._noticed = 0
        covers = partial.covers if partial is not None else None
        self.responder = Responder(store, settings, clock, self._rng, covers, elsewhere is not None)
        self._recursors = self._make_recursors(settings)
        self._udp: list[UdpListener] = []
        self._tcp_servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._look: asyncio.TimerHandle | None = None
        self.held = 0
        self.unheld = 0
        self._holding: dict[tuple[Topic, ...], list[_Unheld]] = {}
        self._newcomers = Newcomers(0.0)
        self.bound: list[tuple[str, int]] = []
        self.recursions = 0
        self.unexpected = 0
        # What TCP connections share, see `tcp.TcpDoor`.
        self.finished: Mapping[bytes, Turns] = _NONE
        self.handle: Handle = self._handle_tcp
        self.idle_timeout = settings.tcp_idle_timeout
        self.max_connections = settings.tcp_max_connections
        self.connections: set[TcpConnection] = set()
        self.closed = False
        self.queries = 0
        self.hits = 0
        self.refused = 0

    @property
    def settings(self) -> DnsSettings:
        """The settings in force."""
        return self.responder.settings

    @property
    def counters(self) -> dict[str, int]:
        """What was counted since the start."""
        responder = self.responder
        hits = self._hits
        return {
            "queries_udp": sum(listener.queries for listener in self._udp),
            "queries_tcp": self.queries,
            "hits": hits,
            "noerror": responder.rcodes[0] + hits,
            **{name: responder.rcodes[code] for name, code in _COUNTED},
            "unsent": sum(listener.unsent for listener in self._udp),
            "refused_connections": self.refused,
            "recursions": self.recursions,
            "unexpected": self.unexpected,
            "names_refused": self._newcomers.refused,
            "cache_bytes": sum(c.size for c in responder.caches),
            "cache_evicted": sum(c.evicted for c in responder.caches),
        }

    @property
    def _hits(self) -> int:
        return self.hits + sum(listener.hits for listener in self._udp)

    async def start(self, addresses: Sequence[tuple[str, int]]) -> None:
        """Bind every address and begin to answer; a port 0 is replaced by a free one, the same for UDP and TCP. Raises
        OSError naming the address that cannot be had; nothing is bound then.
        """
        self.closed = False
        loop = asyncio.get_running_loop()
        try:
            for host, port in addresses:
                tcp, udp = _bind(host, port, alone=not any(":" not in other for other, _ in addresses))
                listener = UdpListener(udp, _NONE, self._handle_udp)
                self._udp.append(listener)
                self._tcp_servers.append(await loop.create_server(lambda: TcpConnection(self), sock=tcp, backlog=512))
                self.bound.append(tcp.getsockname()[:2])
        except OSError:
            await self.close()
            raise
        for listener in self._udp:
            listener.start(loop)
        self._look_at_age()

    def reload(self, settings: DnsSettings) -> None:
        """Answer by other settings from now on; addresses stay."""
        self.responder.reload(settings)
        self._recursors = self._make_recursors(settings)
        self.idle_timeout = settings.tcp_idle_timeout
        self.max_connections = settings.tcp_max_connections
        self._set_careful()

    async def close(self) -> None:
        """Stop answering; returns when every socket is closed. May be called more than once."""
        self.closed = True
        loop = asyncio.get_running_loop()
        if self._look is not None:
            self._look.cancel()
        self._confirmations.close()
        for listener in self._udp:
            listener.close(loop)
        for server in self._tcp_servers:
            server.close()
        for connection in list(self.connections):
            connection.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tcp_servers.clear()
        self.bound.clear()
        self.responder.forget()

    # -- requests that the finished answers do not hold ---------------------------------------------------------------

    def _handle_udp(self, data: bytes, sender: str, send: Callable[[bytes], None]) -> bool:
        return self._handle(data, sender, send, tcp=False)

    def _handle_tcp(self, data: bytes, sender: str, send: Callable[[bytes], None]) -> bool:
        return self._handle(data, sender, send, tcp=True)

    def _handle(self, data: bytes, sender: str, send: Callable[[bytes], None], tcp: bool) -> bool:
        if self._careful and not fresh_enough(self._origin, self.settings):
            return self._respond(data, sender, send, tcp, confirmed=False)
        return self.answer(data, sender, send, tcp)

    def answer(self, data: bytes, sender: str, send: Callable[[bytes], None], tcp: bool) -> bool:
        """Answer a request from a store that is fresh enough. Returns whether there is an answer, now or later."""
        finished = self.responder.finished[tcp].answers.get(data[2:]) if self._careful else None
        if finished is not None:
            self.hits += 1
            send(data[:2] + finished.take())
            return True
        return self._respond(data, sender, send, tcp, confirmed=True)

    def _respond(self, data: bytes, sender: str, send: Callable[[bytes], None], tcp: bool, *, confirmed: bool) -> bool:
        try:
            reply = self.responder.respond(data, sender, tcp, confirmed=confirmed)
        except Exception:
            return self._failed(data, sender, send)
        return self._pass_on(reply, data, sender, send, tcp)

    def _pass_on(self, reply: Reply, data: bytes, sender: str, send: Callable[[bytes], None], tcp: bool) -> bool:
        if isinstance(reply, bytes):
            send(reply)
        elif isinstance(reply, Unconfirmed):
            if self.held >= MAX_UNCONFIRMED:
                self.responder.rcodes[SERVFAIL] += 1
                send(reply.failure)
                return True
            self.held += 1
            self._confirmations.ask(_Held(self, data, sender, send, tcp, reply.failure), consistent=False)
        elif isinstance(reply, Uncovered):
            begun = asyncio.get_running_loop().time()
            self._hold(reply, _Unheld(data, sender, send, tcp, reply.failure, begun))
        elif reply is not None:
            if len(self._tasks) >= MAX_RECURSIONS:
                send(reply.give_up({}, {}) if isinstance(reply, Wanted) else reply.failure)
                return True
            self.recursions += 1
            self._spawn(self._ask_others(data, sender, reply, send, tcp))
        return reply is not None

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def ask(self, data: bytes, sender: str, tcp: bool) -> bytes:
        """The answer to a request that came by another way; empty where it deserves none."""
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        def send(found: bytes) -> None:
            if not answer.done():
                answer.set_result(found)

        return await answer if self._handle(data, sender, send, tcp) else b""

    # -- names that the store does not hold ---------------------------------------------------------------------------

    def _hold(self, reply: Uncovered, request: _Unheld) -> None:
        """Have the store hold what a request's answer looks at: once for all that look at the same."""
        waiting = self._holding.get(reply.seen)
        if waiting is not None:
            if self.unheld < MAX_UNHELD:
                self.unheld += 1
                waiting.append(request)
            else:
                self._give_up(request)
        elif self.unheld >= MAX_UNHELD or (not request.looks and not self._newcomers.admit(reply.seen, request.begun)):
            self._give_up(request)
        else:
            self.unheld += 1
            self._holding[reply.seen] = [request]
            self._spawn(self._hold_topics(reply.seen, request.begun + PATIENCE))

    def _give_up(self, request: _Unheld) -> None:
        self.responder.rcodes[SERVFAIL] += 1
        request.send(request.failure)

    async def _hold_topics(self, seen: tuple[Topic, ...], deadline: float) -> None:
        assert self._partial is not None
        answer: Callable[[_Unheld], None] = self._give_up
        try:
            async with asyncio.timeout_at(deadline):
                answer = self._look_again if await self._partial.cover(seen) else self._have_answered
        except (LictorError, TimeoutError) as error:
            log.debug("no server answers for a DNS request: %s", error)
        except Exception as fault:
            answer = self._explain(fault)
        finally:
            waiting = self._holding.pop(seen)
            self.unheld -= len(waiting)
        for request in waiting:
            answer(request)

    def _explain(self, fault: Exception) -> Callable[[_Unheld], None]:
        def answer(request: _Unheld) -> None:
            self.unexpected += 1
            log.error("no answer to a DNS request from %s", request.sender, exc_info=fault)
            self._give_up(request)

        return answer

    def _look_again(self, request: _Unheld) -> None:
        """The store holds what a request looked at: answer it, or hold what it looks at beside that."""
        data, sender, send, tcp = request.data, request.sender, request.send, request.tcp
        try:
            reply = self.responder.respond(data, sender, tcp)
        except Exception:
            self._failed(data, sender, send)
            return
        request.looks += 1
        if not isinstance(reply, Uncovered):
            self._pass_on(reply, data, sender, send, tcp)
        elif request.looks < LOOKS:
            self._hold(reply, request)
        else:
            self._have_answered(request)

    def _have_answered(self, request: _Unheld) -> None:
        """What a request looks at cannot be held: a server is to answer it."""
        if len(self._tasks) >= MAX_RECURSIONS:
            self._give_up(request)
        else:
            self._spawn(self._ask_servers(request))

    async def _ask_servers(self, request: _Unheld) -> None:
        assert self._partial is not None
        try:
            async with asyncio.timeout_at(request.begun + PATIENCE):
                request.send(await self._partial.resolve(request.data, request.sender, request.tcp))
        except (LictorError, TimeoutError) as error:
            log.debug("no server answers a DNS request: %s", error)
            self._give_up(request)
        except Exception:
            self._failed(request.data, request.sender, request.send)

    # -- others that are asked ----------------------------------------------------------------------------------------

    def _failed(self, data: bytes, sender: str, send: Callable[[bytes], None]) -> bool:
        """One request that finds a fault of ours must not take the others with it."""
        self.unexpected += 1
        log.exception("no answer to a DNS request from %s", sender)
        if len(data) < HEADER or data[2] << 8 & QR:
            return False
        send(refusal(data, SERVFAIL))
        return True

    async def _ask_others(
        self, data: bytes, sender: str, reply: Forward | Wanted, send: Callable[[bytes], None], tcp: bool
    ) -> None:
        recursors = self._recursors
        try:
            if isinstance(reply, Forward):
                found = await recursors.ask(data, tcp)
                if found is None:
                    self.responder.rcodes[SERVFAIL] += 1
                answer = found if found is not None else reply.failure
            else:
                answer = await self._finished(reply)
        except Exception:
            self._failed(data, sender, send)
        else:
            send(answer)

    async def _finished(self, wanted: Wanted) -> bytes:
        """The answer to what others must be asked for: recursors for host names, other datacenters for their own."""
        external: dict[str, tuple[Record, ...]] = {}
        beyond: dict[Lookup, Found] = {}
        for _ in range(ROUNDS):
            hosts = [host for host in wanted.hosts if host not in external]
            records, found = await asyncio.gather(
                asyncio.gather(*(self._recursors.records(host) for host in hosts)),
                asyncio.gather(*(self._looked_up(lookup) for lookup in wanted.lookups)),
            )
            external |= zip(hosts, records, strict=True)
            beyond |= zip(wanted.lookups, found, strict=True)
            reply = wanted.finish(external, beyond)
            if isinstance(reply, bytes):
                return reply
            wanted = reply
        return wanted.give_up(external, beyond)

    async def _looked_up(self, lookup: Lookup) -> Found:
        assert self._elsewhere is not None
        try:
            async with asyncio.timeout(PATIENCE):
                return await self._elsewhere(lookup)
        except TimeoutError:
            return Found(problem=FAILED)

    def _make_recursors(self, settings: DnsSettings) -> Recursors:
        return Recursors(settings.recursors, settings.recursor_strategy, settings.recursor_timeout, self._rng)

    # -- the store's age ----------------------------------------------------------------------------------------------

    def _look_at_age(self) -> None:
        answered = self._hits + self.responder.answered
        if STALE_FROM < self._origin.last_contact < math.inf and answered > self._noticed:
            self._on_stale(answered - self._noticed)
        self._noticed = answered
        self._set_careful()
        self._look = asyncio.get_running_loop().call_later(LOOK_PERIOD, self._look_at_age)

    def _set_careful(self) -> None:
        """Hide the finished answers from the sockets where they may not be given out until the next look."""
        self._careful = careful = not surely_fresh(self._origin, self.settings, 2 * LOOK_PERIOD)
        finished = self.responder.finished
        self.finished = _NONE if careful else finished[True].answers
        for listener in self._udp:
            listener.finished = _NONE if careful else finished[False].answers


_COUNTED = (("formerr", 1), ("servfail", 2), ("nxdomain", 3), ("notimp", 4), ("refused", 5))


def _bind(host: str, port: int, alone: bool) -> tuple[socket.socket, socket.socket]:
    """A TCP and a UDP socket on one address and the same port. `alone`: `::` stands for IPv4 as well."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    failure: OSError | None = None
    for _ in range(_PORT_TRIES if port == 0 else 1):
        sockets = [socket.socket(family, kind) for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM)]
        tcp, udp = sockets
        try:
            if family == socket.AF_INET6:
                for each in sockets:
                    each.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not alone)
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tcp.bind((host, port))
            udp.bind((host, tcp.getsockname()[1]))
            return tcp, udp
        except OSError as e:
            failure = e
            for each in sockets:
                each.close()
    assert failure is not None
    raise OSError(f"DNS cannot listen on {host} port {port}: {failure.strerror}")
