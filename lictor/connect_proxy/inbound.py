"""Connections from the mesh to the service.

The peer's TLS handshake needs a certificate of the mesh; then its SPIFFE id is read and the intentions are asked; then
the service is connected to; then bytes pass. So a peer that may not connect costs the service nothing, and no byte of
it is ever passed on.
"""

import asyncio
import ssl
import time
from collections.abc import Callable, Sequence

from lictor.agent.logs import Logger
from lictor.connect_proxy import framing, proxy_header
from lictor.connect_proxy.access_log import AccessLog
from lictor.connect_proxy.authorizing import Authorizer
from lictor.connect_proxy.certificates import BadPeer, Identity
from lictor.connect_proxy.ends import End, PlainEnd
from lictor.connect_proxy.idle import Idle, Shelf
from lictor.connect_proxy.listener import Listener
from lictor.connect_proxy.passage import Deadlines, Passage, State
from lictor.connect_proxy.secure_end import Facts, SecureEnd
from lictor.connect_proxy.settings import Address, InboundSettings
from lictor.model.host_port import join_host_port
from lictor.model.intention import Intention

IDLE = 256  # TLS connections that are kept for another use
IDLE_SECONDS = 60.0  # for so long: longer than the other side keeps them, which so seldom finds one closed


class InboundListener(Listener):
    """The listener of a service's proxy."""

    direction = "inbound"

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        deadlines: Deadlines,
        idle: Idle,
        service: str,
        settings: InboundSettings,
        identity: Identity,
        authorizer: Authorizer,
        log: Logger,
        access: AccessLog,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(loop, deadlines, idle, service, log, access)
        self.settings = settings
        self.identity = identity
        self.authorizer = authorizer
        self.clock = clock
        self.opening = 0
        self.by_peer: dict[str, int] = {}
        self.shelf = Shelf(idle, IDLE, IDLE_SECONDS, self._again)
        self.changed: Callable[[], None] | None = None  # called when the live connections have changed
        authorizer.trust(identity.trust_domain)

    @property
    def address(self) -> Address:
        return self.settings.bind

    @property
    def idle_timeout(self) -> float:
        return self.settings.idle_timeout

    def accept(self) -> asyncio.Protocol:
        self.accepted += 1
        passage = Inbound(self)
        secure = SecureEnd(
            passage,
            choose=passage.choose,
            begin=passage.read_header if self.settings.accept_proxy_protocol else None,
        )
        passage.secure = secure
        return secure

    @property
    def shelves(self) -> Sequence[Shelf]:
        return (self.shelf,)

    def keep(self, passage: "Inbound", end: SecureEnd) -> bool:
        """Have a TLS connection be used again. Returns False where it may not be."""
        if not self.settings.reuses or not self.may_keep(end, self.identity):
            return False
        limit = self.settings.max_connections
        self.shelf.most = min(IDLE, limit) if limit else IDLE
        self.shelf.keep(end)
        return True

    def _again(self, end: SecureEnd) -> None:
        """A peer has asked for another use of a TLS connection."""
        self.accepted += 1
        passage = Inbound(self)
        passage.secure = end
        end.owner = passage
        passage.begin_again(end)

    def renew(self, identity: Identity) -> None:
        """Show another certificate, or trust others, from the next connection on. Those that are live go on."""
        self.identity = identity
        self.close_idle()
        self.authorizer.trust(identity.trust_domain)

    def authorize(self, intentions: Sequence[Intention], default_allow: bool) -> int:
        """Take over changed intentions, and cut whom they forbid now. Returns how many connections that were."""
        return self.judge_again() if self.authorizer.update(intentions, default_allow) else 0

    def judge_again(self) -> int:
        """Cut the connections of those that may not connect any more. Returns how many these were."""
        cut = 0
        for passage in list(self.passages):
            if isinstance(passage, Inbound) and passage.peer is not None and passage.state < State.CLOSING:
                ruling = self.authorizer.rule(passage.peer)
                if not ruling.allowed:
                    cut += 1
                    self.log.info(
                        "Cut a connection that is not allowed any more",
                        service=self.service,
                        source=passage.peer.uri,
                        remote=passage.remote,
                        reason=ruling.reason,
                    )
                    passage.stop("forbidden", ruling.reason)
        return cut

    def joined(self, passage: "Inbound") -> None:
        super().joined(passage)
        if passage.peer is not None:
            self.by_peer[passage.peer.uri] = self.by_peer.get(passage.peer.uri, 0) + 1
            if self.changed is not None:
                self.changed()

    def closed(self, passage: "Inbound") -> None:
        if not passage.is_shaken:
            self.opening -= passage.is_counted
        if passage.was_joined and passage.peer is not None:
            left = self.by_peer.get(passage.peer.uri, 1) - 1
            if left:
                self.by_peer[passage.peer.uri] = left
            else:
                self.by_peer.pop(passage.peer.uri, None)
            if self.changed is not None:
                self.changed()
        super().closed(passage)


class Inbound(Passage):
    """A connection from the mesh. `ends_told` are those that a PROXY header told."""

    __slots__ = ("ends_told", "gets_ticket", "identity", "is_counted", "is_shaken")
    host: InboundListener

    def __init__(self, host: InboundListener) -> None:
        super().__init__(host)
        self.identity = host.identity
        self.gets_ticket = True
        self.is_shaken = False
        self.is_counted = False
        self.ends_told: proxy_header.Ends | None = None

    @property
    def source(self) -> str:
        """The peer's SPIFFE id, where it is known."""
        return self.peer.uri if self.peer is not None else ""

    @property
    def target(self) -> str:
        """Where the service is."""
        return str(self.host.settings.target)

    def made(self, end: End) -> None:
        assert end.transport is not None
        if self.state >= State.CLOSING:
            end.abort()
            return
        if end is not self.secure:
            # A task that is cancelled now would have the loop close the connection without a word to its end.
            self.task = None
            self._reached()
            return
        host = self.host
        settings = host.settings
        name = end.transport.get_extra_info("peername")
        if name:
            self.remote = join_host_port(name[0], name[1])
        host.opening += 1
        self.is_counted = True
        if host.draining:
            self.stop("draining")
        elif settings.max_connections and len(host.passages) > settings.max_connections:
            host.log.warn("Refused a connection: there are too many", service=host.service, remote=self.remote)
            self.stop("limit")
        elif host.opening > settings.max_handshakes:
            self.stop("limit")
        else:
            host.deadlines.set(self, settings.handshake_timeout, self._late)

    def read_header(self, data: bytes) -> bytes | None:
        """Read the PROXY header that comes before TLS."""
        found = proxy_header.read(data)
        if found is None:
            return None
        self.ends_told, length = found
        if self.ends_told is not None:
            self.remote = join_host_port(self.ends_told.source, self.ends_told.source_port)
        return data[length:]

    def choose(self, data: bytes) -> ssl.SSLContext:
        """The context that it goes on with, by its first bytes."""
        self.identity = self.host.identity
        context = self.identity.server_for(data, self.host.settings.reuses)
        self.gets_ticket = context.num_tickets > 0
        return context

    def shaken(self, end: SecureEnd) -> None:
        host = self.host
        host.opening -= 1
        self.is_shaken = True
        self.identity.accepted(end.tls, self.gets_ticket)
        try:
            peer = host.peers.of(end.tls, host.clock())
        except BadPeer as error:
            self._refuse("identity", "", str(error))
            return
        ruling = host.authorizer.rule(peer)
        if not ruling.allowed:
            self._refuse("intention", peer.uri, ruling.reason)
            return
        self.peer = peer
        if end.tls.session_reused:
            host.resumed += 1
        if end.line is not None:
            end.facts = Facts(peer, self.identity, host.loop.time(), self.remote)
        self._begin()

    def begin_again(self, end: SecureEnd) -> None:
        """Judge another use of a TLS connection as if it were a new one."""
        host, facts = self.host, end.facts
        assert facts is not None
        self.is_shaken = True
        self.identity, self.remote = facts.identity, facts.remote
        limit = host.settings.max_connections
        if host.draining or not host.settings.reuses or facts.identity is not host.identity:
            self._deny(end, "draining", "make another connection")
            return
        if limit and len(host.passages) > limit:
            self._deny(end, "limit", "there are too many connections")
            return
        try:
            host.peers.check(facts.peer, host.clock())
        except BadPeer as error:
            self._deny(end, "identity", str(error))
            return
        ruling = host.authorizer.rule(facts.peer)
        if not ruling.allowed:
            self._deny(end, "intention", ruling.reason, facts.peer.uri)
            return
        self.peer = facts.peer
        host.reused += 1
        self._begin()

    def _begin(self) -> None:
        """Connect to the service."""
        host = self.host
        host.deadlines.set(self, host.settings.connect_timeout, self._service_late)
        self.task = host.loop.create_task(self._connect())

    def _deny(self, end: SecureEnd, reason: str, why: str, source: str = "") -> None:
        end.deny(reason)  # the intentions themselves are no business of the peer
        if reason == "draining":
            self.refuse(reason, why)  # which is nobody's fault, and the peer makes another connection
        else:
            self._refuse(reason, source, why)

    def failed(self, end: End, reason: str) -> None:
        if isinstance(end, SecureEnd) and not self.is_shaken and self.state < State.CLOSING:
            if end.is_untouched:
                # A health check that looks whether anybody listens.
                self.refuse("probe")
                return
            self.host.log.warn(
                "Refused a connection in its handshake", service=self.host.service, remote=self.remote, reason=reason
            )
        super().failed(end, reason)

    def _refuse(self, reason: str, source: str, why: str) -> None:
        self.host.log.warn(
            "Refused a connection", service=self.host.service, source=source, remote=self.remote, reason=why
        )
        self.refuse(reason, why)

    async def _connect(self) -> None:
        loop, target = self.host.loop, self.host.settings.target
        self.plain = plain = PlainEnd(self)
        try:
            if target.path:
                await loop.create_unix_connection(lambda: plain, target.path)
            else:
                await loop.create_connection(lambda: plain, target.host, target.port)
        except OSError as error:
            self._unreachable(error.strerror or str(error))

    def _reached(self) -> None:
        settings = self.host.settings
        plain = self.plain
        if settings.proxy_protocol and plain is not None:
            encode = proxy_header.encode_v1 if settings.proxy_protocol == "v1" else proxy_header.encode_v2
            plain.send(encode(self._ends()))
        secure = self.secure
        if secure is not None and secure.line is not None and secure.line.state is framing.State.OPENING:
            secure.grant()
        self.join()

    def _ends(self) -> proxy_header.Ends | None:
        if self.ends_told is not None:
            return self.ends_told
        transport = self.secure.transport if self.secure is not None else None
        names = [transport.get_extra_info(what) for what in ("peername", "sockname")] if transport is not None else []
        if len(names) != 2 or not all(names):
            return None
        (source, source_port, *_), (destination, destination_port, *_) = names
        return proxy_header.Ends(source, source_port, destination, destination_port)

    def _late(self) -> None:
        self.host.log.info("A handshake took too long", service=self.host.service, remote=self.remote)
        self.stop("slow", "the handshake took too long")

    def _service_late(self) -> None:
        self._unreachable("it does not answer in time")

    def _unreachable(self, why: str) -> None:
        if self.state < State.CLOSING:
            self.host.log.error(
                "The local service cannot be reached", service=self.host.service, address=self.target, error=why
            )
            secure = self.secure
            if secure is not None and secure.line is not None and secure.line.state is framing.State.OPENING:
                secure.deny("service")
            self.refuse("service", f"the service at {self.target} cannot be reached: {why}")
