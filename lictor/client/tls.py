"""TLS of the mesh by Python's `ssl`: contexts that follow the certificates, sockets that check who the other end is.

    context = identity.server_context()          # for servers: asyncio.start_server(..., ssl=context)
    context = identity.client_context("db")      # for clients: http.client.HTTPSConnection(..., context=context)

The `ssl` module cannot look at a SPIFFE id within the handshake. So it is looked at right after, on both sides, before
`do_handshake` returns: a peer that is refused ends the handshake with `PeerRefused`, and no byte passes, in either
direction. With TLS 1.3 a client's handshake is over before the server has looked at its certificate: what a refused
client sees is a connection that ends with its first read.

Sessions are not resumed: each connection proves its identity anew.
"""

from __future__ import annotations

import logging
import os
import socket
import ssl
import tempfile
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from lictor.client.errors import PeerRefused
from lictor.client.trust import Certificate, Trust
from lictor.model.spiffe import ServiceId

if TYPE_CHECKING:
    from collections.abc import Iterable

log = logging.getLogger("lictor.client.connect")

HANDSHAKE = 10.0  # seconds that a peer has for it

Checked: TypeAlias = "CheckedSocket | CheckedObject"


class Holder(Protocol):
    """Whose contexts these are: an `Identity`."""

    @property
    def trust(self) -> Trust:
        """What holds now. Raises `NotReady`."""
        ...

    def admitted(self, connection: Checked) -> None:
        """A peer was found to be who it should be: the connection is to be cut where that holds no more."""
        ...

    def ended(self, connection: Checked) -> None:
        """A connection that was admitted may have ended. It may be said again, or never."""
        ...


class _Context(ssl.SSLContext):
    """A context for what held at one time; `source` gives the next."""

    source: FollowingContext

    @staticmethod
    def certificate(connection: Checked) -> Certificate:
        """What the other end has shown. Raises `PeerRefused`."""
        found = connection.getpeercert()
        if not found:
            raise PeerRefused("the peer has shown no certificate")
        return found

    def check(self, certificate: Certificate) -> ServiceId:
        """Who the other end is. Raises `PeerRefused`; on a server the log says why, since not every library does."""
        source, now = self.source, time.time()
        if source.called:
            return source.holder.trust.called(certificate, source.called, source.datacenter, now)
        try:
            return source.holder.trust.caller(certificate, now)
        except PeerRefused as error:
            log.warning("a connection is refused: %s", error)
            raise


class CheckedSocket(ssl.SSLSocket):
    """A connection with a service of the mesh, `peer`. On a server the handshake is made with the first read or write:
    whoever accepts is not held up by who connects.
    """

    peer: ServiceId | None = None
    shown: Certificate = {}
    _cut = ""

    def do_handshake(self, block: bool = False) -> None:
        """Complete the handshake, and see who the other end is. Raises `PeerRefused`, `ssl.SSLError`, `OSError`."""
        super().do_handshake(block)
        if self.peer is None:
            context = self.context
            assert isinstance(context, _Context)
            try:
                self.shown = context.certificate(self)
                self.peer = context.check(self.shown)
            except PeerRefused as error:
                self.cut(str(error))
                raise
            context.source.holder.admitted(self)

    @property
    def is_live(self) -> bool:
        """Whether it is open, and not cut."""
        return not self._cut and self.fileno() >= 0

    def close(self) -> None:
        """See `socket.socket`."""
        super().close()
        if self.peer is not None:
            context = self.context
            assert isinstance(context, _Context)
            context.source.holder.ended(self)

    def cut(self, reason: str) -> None:
        """End the connection, whatever is going on; whoever uses it is told why."""
        self._cut = reason
        try:
            socket.socket.shutdown(self, socket.SHUT_RDWR)  # the class's own would go on in plain text
        except OSError:
            pass

    def _settle(self) -> None:
        if self._cut:
            raise PeerRefused(self._cut)
        if self.peer is not None:
            return
        timeout = self.gettimeout()
        if timeout == 0.0:
            self.do_handshake()
            return
        self.settimeout(min(timeout or HANDSHAKE, HANDSHAKE))
        try:
            self.do_handshake()
        finally:
            self.settimeout(timeout)

    def read(self, len: int = 1024, buffer: Any = None) -> Any:
        """Read, after the handshake."""
        self._settle()
        try:
            found = super().read(len, buffer)
        except OSError:
            if self._cut:
                raise PeerRefused(self._cut) from None
            raise
        if not found and self._cut:
            raise PeerRefused(self._cut)
        return found

    def write(self, data: Any) -> int:
        """Write, after the handshake."""
        self._settle()
        return super().write(data)

    def send(self, data: Any, flags: int = 0) -> int:
        """Send, after the handshake."""
        self._settle()
        return super().send(data, flags)

    def accept(self) -> tuple[ssl.SSLSocket, Any]:
        """Take a connection; its handshake is still to be made. What holds now is what it goes by."""
        accepted, address = socket.socket.accept(self)
        context = self.context
        assert isinstance(context, _Context)
        try:
            now = context.source.now()
            return now.wrap_socket(accepted, server_side=True, do_handshake_on_connect=False), address
        except BaseException:
            accepted.close()
            raise


class CheckedObject(ssl.SSLObject):
    """The same for event loops, which pass the bytes themselves."""

    peer: ServiceId | None = None
    shown: Certificate = {}
    _cut = ""
    _over = False
    _told: Callable[[], object] | None = None
    _closing: Callable[[], bool] | None = None

    def do_handshake(self) -> None:
        """Complete the handshake, and see who the other end is. Raises `PeerRefused`, `ssl.SSLError`."""
        super().do_handshake()
        if self.peer is None:
            context = self.context
            assert isinstance(context, _Context)
            self.shown = context.certificate(self)
            self.peer = context.check(self.shown)
            context.source.holder.admitted(self)

    @property
    def is_live(self) -> bool:
        """Whether it is open, as far as it was told, and not cut."""
        return not (self._cut or self._over or (self._closing is not None and self._closing()))

    def carried(self, closing: Callable[[], bool]) -> None:
        """Say how to find out whether what passes its bytes is at its end."""
        self._closing = closing

    def unwrap(self) -> None:
        """End the connection, and tell the other side."""
        self.over()
        super().unwrap()

    def over(self) -> None:
        """Say that the connection has ended."""
        if self.peer is not None and not self._over:
            self._over = True
            context = self.context
            assert isinstance(context, _Context)
            context.source.holder.ended(self)

    def cut(self, reason: str) -> None:
        """End the connection: no byte passes from now on."""
        self._cut = reason
        if self._told is not None:
            self._told()

    def when_cut(self, told: Callable[[], object]) -> None:
        """Have `told` called when the connection is cut, from any thread; at once where it was."""
        self._told = told
        if self._cut:
            told()

    def read(self, len: int = 1024, buffer: Any = None) -> Any:
        """Read, unless it was cut."""
        if self._cut:
            raise PeerRefused(self._cut)
        return super().read(len, buffer)

    def write(self, data: Any) -> int:
        """Write, unless it was cut."""
        if self._cut:
            raise PeerRefused(self._cut)
        return super().write(data)


class FollowingContext(ssl.SSLContext):
    """A context to keep: each connection goes by what holds when it begins. `called` is the service that must answer,
    and its datacenter, empty for the own one; on a server it is empty.
    """

    holder: Holder
    called: str
    datacenter: str
    _protocols: tuple[str, ...]
    _made: tuple[Trust, _Context] | None

    def wrap_socket(
        self,
        sock: socket.socket,
        server_side: bool = False,
        do_handshake_on_connect: bool = True,
        suppress_ragged_eofs: bool = True,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLSocket:
        """See `ssl.SSLContext`. Raises `NotReady`, `PeerRefused`."""
        return self.now().wrap_socket(sock, server_side, do_handshake_on_connect, suppress_ragged_eofs, server_hostname)

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        """See `ssl.SSLContext`. Raises `NotReady`."""
        return self.now().wrap_bio(incoming, outgoing, server_side, server_hostname)

    def set_alpn_protocols(self, alpn_protocols: Iterable[str]) -> None:
        """See `ssl.SSLContext`."""
        self._protocols = tuple(alpn_protocols)
        self._made = None
        super().set_alpn_protocols(self._protocols)

    def now(self) -> _Context:
        """The context for what holds now. Raises `NotReady`."""
        trust, made = self.holder.trust, self._made
        if made is None or made[0] is not trust:
            made = self._made = trust, self._context(trust)
        return made[1]

    def _context(self, trust: Trust) -> _Context:
        context = _Context(ssl.PROTOCOL_TLS_CLIENT if self.called else ssl.PROTOCOL_TLS_SERVER)
        context.source = self
        context.sslsocket_class, context.sslobject_class = CheckedSocket, CheckedObject
        _verify(context)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
        if not self.called:
            context.num_tickets = 0
        if self._protocols:
            context.set_alpn_protocols(self._protocols)
        context.load_verify_locations(cadata="".join(root.root_cert for root in trust.roots.roots))
        _load_chain(context, trust.leaf.cert_pem, trust.leaf.private_key_pem)
        return context


def following(holder: Holder, called: str = "", datacenter: str = "") -> FollowingContext:
    """A context for a server or, where `called` names who must answer, for a client."""
    context = FollowingContext(ssl.PROTOCOL_TLS_CLIENT if called else ssl.PROTOCOL_TLS_SERVER)
    context.holder, context.called, context.datacenter = holder, called, datacenter
    context._protocols, context._made = (), None
    _verify(context)
    return context


def _verify(context: ssl.SSLContext) -> None:
    """Names in certificates of the mesh are SPIFFE ids, not those of hosts."""
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED


def _load_chain(context: ssl.SSLContext, certificate: str, key: str) -> None:
    """Give a context its certificate and key. The `ssl` module reads them from a file: from one in memory, where the
    system has such, and else from one that nobody else may read and that is gone at once.
    """
    content = f"{certificate}\n{key}".encode()
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("certificate", os.MFD_CLOEXEC)
        with open(fd, "wb") as memory:
            memory.write(content)
            memory.flush()
            if os.path.exists(f"/proc/self/fd/{fd}"):
                context.load_cert_chain(f"/proc/self/fd/{fd}")
                return
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        context.load_cert_chain(file.name)
