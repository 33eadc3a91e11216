"""Connections of the service to an upstream.

Whoever may use the local address may use the service's identity: that is why it is a loopback address or a unix socket.
An endpoint is chosen and connected to, and its certificate must be that of the service which is meant; what fails is
tried again with the next endpoint, until the passing ones have all been tried.
"""

import asyncio
import ssl
import time
from collections.abc import Callable

from lictor.agent.logs import Logger
from lictor.connect_proxy.access_log import AccessLog
from lictor.connect_proxy.certificates import BadPeer, Identity, Peers, server_name
from lictor.connect_proxy.endpoints import Endpoint, Endpoints
from lictor.connect_proxy.ends import End, PlainEnd, SecureEnd
from lictor.connect_proxy.listener import Listener
from lictor.connect_proxy.passage import Deadlines, Passage, State
from lictor.connect_proxy.settings import Address, OutboundSettings
from lictor.model.spiffe import ServiceId

MOST_TRIES = 8  # endpoints that are tried for one connection


class OutboundListener(Listener):
    """The listener of one upstream."""

    direction = "outbound"

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        deadlines: Deadlines,
        service: str,
        settings: OutboundSettings,
        identity: Identity,
        endpoints: Endpoints,
        log: Logger,
        access: AccessLog,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(loop, deadlines, service, log, access)
        self.settings = settings
        self.identity = identity
        self.endpoints = endpoints
        self.peers = Peers()
        self.clock = clock
        self.retries = 0
        self._names: dict[tuple[str, str, str], tuple[ServiceId, str | None]] = {}

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

    def wanted(self, endpoint: Endpoint, domain: str) -> tuple[ServiceId, str | None]:
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

    __slots__ = ("_shaking", "endpoint", "source")
    host: OutboundListener

    def __init__(self, host: OutboundListener) -> None:
        super().__init__(host)
        self.endpoint: Endpoint | None = None
        self.source = ""
        self._shaking: asyncio.Future[str] | None = None

    @property
    def target(self) -> str:
        """Where the upstream's endpoint is."""
        return str(self.endpoint.target) if self.endpoint is not None else ""

    def made(self, end: End) -> None:
        if self.state >= State.CLOSING:
            end.abort()
            return
        if end is not self.plain:
            return
        host = self.host
        limit = host.settings.max_connections
        if host.draining:
            self.stop("draining")
        elif limit and len(host.passages) > limit:
            host.log.warn("Refused a connection: there are too many", upstream=host.settings.name, limit=limit)
            self.stop("limit")
        else:
            self.task = host.loop.create_task(self._reach())

    def shaken(self, end: SecureEnd) -> None:
        if end is self.secure:
            self._tell("")

    def noted(self, end: SecureEnd) -> None:
        if not end.tls.session_reused:
            self._keep_session()

    def failed(self, end: End, reason: str) -> None:
        if self.state is State.OPENING and isinstance(end, SecureEnd):
            if end is self.secure:
                self._tell(reason)
            else:
                end.abort()
        else:
            super().failed(end, reason)

    def lost(self, end: End, error: Exception | None) -> None:
        if self.state is State.OPENING and isinstance(end, SecureEnd):
            end.transport = None
            if end is self.secure:
                self._tell(str(error or "the endpoint closed the connection in the handshake"))
        else:
            self._keep_session()
            super().lost(end, error)

    def _tell(self, result: str) -> None:
        if self._shaking is not None and not self._shaking.done():
            self._shaking.set_result(result)

    async def _reach(self) -> None:
        host = self.host
        identity = host.identity
        tried: list[Endpoint] = []
        why = "no endpoint is passing"
        endpoints = host.endpoints
        while len(tried) < MOST_TRIES:
            endpoint = endpoints.choose(host.loop.time(), tried)
            if endpoint is None:
                break
            if tried:
                host.retries += 1
            tried.append(endpoint)
            self.endpoint = endpoint
            trouble = await self._try(endpoint, identity)
            if not trouble:
                endpoints.succeeded(endpoint)
                self.join()
                return
            why = f"{endpoint.target}: {trouble}"
            host.log.warn(
                "An endpoint cannot be used", upstream=host.settings.name, endpoint=endpoint.target, reason=trouble
            )
            if endpoints.failed(endpoint, host.loop.time()):
                host.log.warn("An endpoint is left out for a while", endpoint=endpoint.target, reason=trouble)
        self._give_up("upstream", why)

    async def _try(self, endpoint: Endpoint, identity: Identity) -> str:
        """Connect to an endpoint; returns what stands in the way, or nothing."""
        host = self.host
        wanted, name = host.wanted(endpoint, identity.trust_domain)
        context = identity.client
        session = endpoint.session if endpoint.session_context is context else None
        try:
            self.secure = end = SecureEnd(self, context, server=False, name=name, session=session)
        except ValueError:
            self.secure = end = SecureEnd(self, context, server=False)
        self._shaking = host.loop.create_future()
        try:
            async with asyncio.timeout(host.settings.connect_timeout):
                await host.loop.create_connection(lambda: end, endpoint.target.host, endpoint.target.port)
                trouble = await self._shaking
        except TimeoutError:
            trouble = "it does not answer in time"
        except OSError as error:
            trouble = error.strerror or str(error)
        except asyncio.CancelledError:
            # Where the connection had just been made, the loop closes it without a word to its end.
            end.abort()
            end.transport = None
            self._look_closed()
            raise
        finally:
            self._shaking = None
        if not trouble:
            try:
                peer = host.peers.of(end.tls, host.clock())
                if peer.service != wanted:
                    trouble = f"it is {peer.uri}, not {wanted.uri}"
            except BadPeer as error:
                trouble = str(error)
        if trouble:
            if end.tls.session_reused:
                endpoint.session = None
            self.secure = None
            end.abort()
        elif end.tls.session_reused:
            host.resumed += 1
        return trouble

    def _give_up(self, reason: str, why: str) -> None:
        if self.state < State.CLOSING:
            host = self.host
            host.log.error("An upstream cannot be reached", upstream=host.settings.name, reason=why)
            # Cut, not closed: the program must not take it for a service that had nothing to say.
            self.stop(reason, why)

    def _keep_session(self) -> None:
        """Remember the session, for the next connection to the endpoint."""
        secure, endpoint, identity = self.secure, self.endpoint, self.host.identity
        if secure is None or endpoint is None or self.state is State.OPENING:
            return
        tls = secure.tls
        if tls.context is not identity.client or (tls.session_reused and endpoint.session is not None):
            return
        try:
            session = tls.session
        except ssl.SSLError:
            return
        if session is not None and session.has_ticket:
            endpoint.session, endpoint.session_context = session, tls.context
