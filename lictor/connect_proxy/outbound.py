"""Connections of the service to an upstream.

Whoever may use the local address may use the service's identity: that is why it is a loopback address or a unix socket.
An endpoint is chosen and connected to, and its certificate must be that of the service which is meant; what fails is
tried again with the next endpoint, until the passing ones have all been tried.
"""

import asyncio
import ssl
import time
from collections.abc import Callable, Sequence

from lictor.agent.logs import Logger
from lictor.connect_proxy.access_log import AccessLog
from lictor.connect_proxy.certificates import BadPeer, Identity, server_name
from lictor.connect_proxy.endpoints import Endpoint, Endpoints, Target
from lictor.connect_proxy.ends import End, PlainEnd
from lictor.connect_proxy.idle import Idle, Shelf
from lictor.connect_proxy.listener import Listener
from lictor.connect_proxy.passage import Deadlines, Passage, State
from lictor.connect_proxy.secure_end import Facts, SecureEnd
from lictor.connect_proxy.settings import Address, OutboundSettings
from lictor.model.spiffe import ServiceId

MOST_TRIES = 8  # endpoints that are tried for one connection
IDLE = 64  # TLS connections to one endpoint that are kept for another use
IDLE_SECONDS = 30.0  # for so long
ANSWER = 2.0  # seconds within which another use is to be agreed to, before a connection is made instead
PLAIN = 600.0  # seconds for which an endpoint that does not bear to be offered another use is not
NO_PROTOCOL = "no application protocol"  # how a peer says that


class OutboundListener(Listener):
    """The listener of one upstream."""

    direction = "outbound"

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        deadlines: Deadlines,
        idle: Idle,
        service: str,
        settings: OutboundSettings,
        identity: Identity,
        endpoints: Endpoints,
        log: Logger,
        access: AccessLog,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(loop, deadlines, idle, service, log, access)
        self.settings = settings
        self.identity = identity
        self.endpoints = endpoints
        self.clock = clock
        self.retries = 0
        self.stale = 0
        self._shelves: dict[Endpoint, Shelf] = {}
        self._names: dict[tuple[str, str, str], tuple[ServiceId, bytes | None]] = {}

    @property
    def address(self) -> Address:
        return self.settings.bind

    @property
    def idle_timeout(self) -> float:
        return self.settings.idle_timeout

    def accept(self) -> asyncio.Protocol:
        self.accepted += 1
        passage = Outbound(self)
        passage.plain = plain = PlainEnd(passage)
        return plain

    def renew(self, identity: Identity) -> None:
        """Show another certificate, or trust others, from the next connection on."""
        self.identity = identity
        self.close_idle()

    @property
    def shelves(self) -> Sequence[Shelf]:
        return tuple(self._shelves.values())

    def forget_endpoints(self) -> None:
        """Close the idle TLS connections to endpoints that are there no more."""
        there = set(self.endpoints.all)
        for endpoint in [endpoint for endpoint in self._shelves if endpoint not in there]:
            self.forget(endpoint)

    def forget(self, endpoint: Endpoint) -> None:
        """Close the idle TLS connections to an endpoint."""
        shelf = self._shelves.pop(endpoint, None)
        if shelf is not None:
            shelf.clear()

    def keep(self, passage: "Outbound", end: SecureEnd) -> bool:
        """Have a TLS connection be used again. Returns False where it may not be."""
        endpoint = passage.endpoint
        if endpoint is None or not self.settings.reuse or not self.may_keep(end, self.identity):
            return False
        shelf = self._shelves.get(endpoint)
        if shelf is None:
            if endpoint not in self.endpoints.all:
                return False
            shelf = self._shelves[endpoint] = Shelf(self.idle, IDLE, IDLE_SECONDS)
        shelf.keep(end)
        return True

    def take(self, endpoint: Endpoint) -> SecureEnd | None:
        """An idle TLS connection to an endpoint that is to be believed still, if there is one."""
        shelf = self._shelves.get(endpoint)
        while shelf is not None and (end := shelf.take()) is not None:
            facts = end.facts
            assert facts is not None
            wanted, _ = self.wanted(endpoint, self.identity.trust_domain)
            try:
                self.peers.check(facts.peer, self.clock())
                if self.settings.reuse and facts.identity is self.identity and facts.peer.service == wanted:
                    return end
            except BadPeer:
                pass  # what a handshake says of it is told
            shelf.close(end)
        return None

    def wanted(self, endpoint: Endpoint, domain: str) -> tuple[ServiceId, bytes | None]:
        """The id that an endpoint must have, and the name that is sent to it."""
        target = endpoint.target
        key = (domain, target.datacenter, target.service)
        found = self._names.get(key)
        if found is None:
            wanted = target.identity(domain)
            found = self._names[key] = (wanted, server_name(wanted))
        return found


class Outbound(Passage):
    """A connection to an upstream."""

    __slots__ = ("_again", "_identity", "_tried", "_why", "endpoint", "source")
    host: OutboundListener

    def __init__(self, host: OutboundListener) -> None:
        super().__init__(host)
        self.endpoint: Endpoint | None = None
        self.source = ""
        self._identity = host.identity  # as whom it connects
        self._again = False  # whether it tries to use a TLS connection that was there
        self._tried: list[Endpoint] = []
        self._why = "no endpoint is passing"

    @property
    def target(self) -> str:
        """Where the upstream's endpoint is."""
        return str(self.endpoint.target) if self.endpoint is not None else ""

    def made(self, end: End) -> None:
        if self.state >= State.CLOSING:
            end.abort()
            return
        if end is self.secure:
            # A task that is cancelled now would have the loop close the connection without a word to its end.
            self.task = None
            return
        if end is not self.plain:
            end.abort()  # one that came too late
            return
        host = self.host
        limit = host.settings.max_connections
        if host.draining:
            self.stop("draining")
        elif limit and len(host.passages) > limit:
            host.log.warn("Refused a connection: there are too many", upstream=host.settings.name, limit=limit)
            self.stop("limit")
        else:
            self._next()

    def shaken(self, end: SecureEnd) -> None:
        if end is not self.secure or self.state is not State.OPENING:
            return
        trouble = self._strange(end)
        if trouble:
            self._troubled(end, trouble)
            return
        assert self.endpoint is not None
        if end.tls.session_reused:
            self.host.resumed += 1
        if end.line is not None and self.peer is not None:
            end.facts = Facts(self.peer, self._identity, self.host.loop.time())
        self.host.endpoints.succeeded(self.endpoint)
        self.join()

    def opened(self, end: SecureEnd) -> None:
        if end is self.secure and self.state is State.OPENING:
            assert self.endpoint is not None
            self._again = False
            self.host.reused += 1
            self.host.endpoints.succeeded(self.endpoint)
            self.join()

    def noted(self, end: SecureEnd) -> None:
        if not end.tls.session_reused:
            self._keep_session()

    def failed(self, end: End, reason: str) -> None:
        if self.state is State.OPENING and isinstance(end, SecureEnd):
            self._troubled(end, reason)
        else:
            super().failed(end, reason)

    def lost(self, end: End, error: Exception | None) -> None:
        if isinstance(end, SecureEnd) and end is not self.secure:
            end.transport = None
        elif self.state is State.OPENING and isinstance(end, SecureEnd):
            end.transport = None
            self._troubled(end, str(error or "the endpoint closed the connection in the handshake"))
        else:
            self._keep_session()
            super().lost(end, error)

    def _next(self) -> None:
        """Connect to the next endpoint, if there is one."""
        host = self.host
        tried = self._tried
        endpoint = host.endpoints.choose(host.loop.time(), tried) if len(tried) < MOST_TRIES else None
        if endpoint is None:
            self._give_up("upstream", self._why)
            return
        if tried:
            host.retries += 1
        tried.append(endpoint)
        self.endpoint = endpoint
        end = host.take(endpoint)
        if end is None:
            self._connect(endpoint)
            return
        assert end.facts is not None
        self._again = True
        self.peer = end.facts.peer
        self.secure = end
        end.owner = self
        host.deadlines.set(self, min(ANSWER, host.settings.connect_timeout), self._late)
        end.ask()

    def _connect(self, endpoint: Endpoint) -> None:
        """Make a TLS connection to an endpoint."""
        host = self.host
        self._identity = identity = host.identity
        reuse = host.settings.reuse and endpoint.plain_until <= host.loop.time()
        context = identity.reusing if reuse else identity.client
        _, name = host.wanted(endpoint, identity.trust_domain)
        session = endpoint.session if endpoint.session_context is context else None
        try:
            end = SecureEnd(self, context, name=name, session=session)
        except ValueError:
            end = SecureEnd(self, context)
        self.secure = end
        host.deadlines.set(self, host.settings.connect_timeout, self._late)
        self.task = host.loop.create_task(self._dial(end, endpoint.target))

    async def _dial(self, end: SecureEnd, target: Target) -> None:
        try:
            await self.host.loop.create_connection(lambda: end, target.host, target.port)
        except OSError as error:
            self._troubled(end, error.strerror or str(error))
        except asyncio.CancelledError:
            # Where the connection had just been made, the loop closes it without a word to its end.
            end.abort()
            end.transport = None
            self._look_closed()
            raise

    def _late(self) -> None:
        if self.secure is not None:
            if self._again and self.endpoint is not None:
                self.host.forget(self.endpoint)  # the others are hardly better
            self._troubled(self.secure, "it does not answer in time")

    def _strange(self, end: SecureEnd) -> str:
        """What is wrong with who answers, or nothing."""
        host = self.host
        assert self.endpoint is not None
        wanted, _ = host.wanted(self.endpoint, self._identity.trust_domain)
        try:
            self.peer = peer = host.peers.of(end.tls, host.clock())
        except BadPeer as error:
            return str(error)
        return "" if peer.service == wanted else f"it is {peer.uri}, not {wanted.uri}"

    def _troubled(self, end: SecureEnd, trouble: str) -> None:
        """The endpoint that is tried cannot be used: try the next one."""
        if end is not self.secure or self.state is not State.OPENING:
            end.abort()
            return
        host, endpoint = self.host, self.endpoint
        assert endpoint is not None
        task, self.task = self.task, None
        if task is not None and task is not asyncio.current_task(host.loop):
            task.cancel()
        if self._again:
            # It is closed, or the other side does not want to go on with it, and nothing has been sent.
            self._again = False
            self.secure = None
            end.abort()
            host.stale += 1
            host.log.debug("A TLS connection is not used again", endpoint=endpoint.target, reason=trouble)
            self._connect(endpoint)
            return
        if end.tls.session_reused:
            endpoint.session = None
        self.secure = None
        end.abort()
        if NO_PROTOCOL in trouble and endpoint.plain_until <= host.loop.time():
            endpoint.plain_until = host.loop.time() + PLAIN
            self._connect(endpoint)
            return
        self._why = f"{endpoint.target}: {trouble}"
        host.log.warn(
            "An endpoint cannot be used", upstream=host.settings.name, endpoint=endpoint.target, reason=trouble
        )
        if host.endpoints.failed(endpoint, host.loop.time()):
            host.log.warn("An endpoint is left out for a while", endpoint=endpoint.target, reason=trouble)
            host.forget(endpoint)
        self._next()

    def _give_up(self, reason: str, why: str) -> None:
        if self.state < State.CLOSING:
            host = self.host
            host.log.error("An upstream cannot be reached", upstream=host.settings.name, reason=why)
            # Cut, not closed: the program must not take it for a service that had nothing to say.
            self.stop(reason, why)

    def _keep_session(self) -> None:
        """Remember the session, for the next connection to the endpoint."""
        secure, endpoint, identity = self.secure, self.endpoint, self.host.identity
        if secure is None or endpoint is None or not self.was_joined:
            return
        tls = secure.tls
        if tls.context not in (identity.reusing, identity.client):
            return
        if tls.session_reused and endpoint.session is not None:
            return
        try:
            session = tls.session
        except ssl.SSLError:
            return
        if session is not None and session.has_ticket:
            endpoint.session, endpoint.session_context = session, tls.context
