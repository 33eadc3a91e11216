"""The TLS contexts of an identity, and what a peer's certificate says.

Both sides show a certificate and verify the other's against the roots of the mesh. Host names mean nothing here: whom a
connection is with is in the certificate's only URI, a SPIFFE id, which `Peers` reads.

A context is for one leaf and one set of roots: what changes in either makes a new one, and with it new keys for session
tickets. So no session outlives the trust under which it was made, and a session's peer, whose certificate is remembered
in it, is looked at as that of a full handshake is.
"""

import os
import ssl
import tempfile
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from lictor.connect_proxy.client_hello import ticket_of
from lictor.connect_proxy.framing import PROTOCOL
from lictor.connect_proxy.records import Leaf, Roots
from lictor.model.connect_ca import plain_serial
from lictor.model.spiffe import BadSpiffeId, ServiceId, parse_spiffe_id

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"  # of TLS 1.2; those of 1.3 are all good
REMEMBERED = 1024  # certificates that were read, tickets that were seen
SESSIONS = 4096  # TLS sessions of resumed connections that are remembered; one takes about 1 KB
FULL = 8  # how many of them one of a full handshake is worth: it has a certificate of its own
URI = "URI"


class BadPeer(Exception):
    """A peer's certificate is none of this mesh's services; the message says why."""


class Peer(msgspec.Struct, frozen=True):
    """A peer: what its certificate says, and until when (seconds since 1970); `serial` is in its plain form."""

    uri: str
    service: ServiceId
    expires: float
    serial: str = ""


class Identity:
    """A service's certificate and whom it trusts. Raises `ssl.SSLError` and `ValueError` for what is no certificate."""

    def __init__(self, leaf: Leaf, roots: Roots) -> None:
        self.leaf = leaf
        self.roots = roots
        self.trust_domain = roots.trust_domain.lower()
        self._server: ssl.SSLContext | None = None
        self._remembered = 0
        self._seen: set[bytes] = set()
        self._agrees = False
        self._client: ssl.SSLContext | None = None
        self._reusing: ssl.SSLContext | None = None

    @property
    def server(self) -> ssl.SSLContext:
        """The context of connections that are accepted."""
        if self._server is None:
            self._server = self._context(ssl.PROTOCOL_TLS_SERVER)
            self._server.num_tickets = 1
            # Sessions are remembered here and a ticket is but their name: to read a ticket with a session in it, with
            # the peer's certificate, costs more than the rest of a handshake.
            self._server.options |= ssl.OP_NO_TICKET
            if self._agrees:
                self._server.set_alpn_protocols([PROTOCOL])
            self._remembered = 0
            self._seen.clear()
        return self._server

    def server_for(self, data: bytes, reuse: bool = False) -> ssl.SSLContext:
        """The context of a connection that is accepted, whose first bytes these are. `reuse` says whether it may be
        used again, if the client knows how.

        Who comes with a ticket for the second time keeps tickets, and gets no other: to make one and to remember it is
        a good part of a resumed handshake. Who uses each but once gets another each time.
        """
        if reuse is not self._agrees:
            self._agrees = reuse
            self._server = None
        context = self.server
        ticket = ticket_of(data)
        context.num_tickets = 0 if ticket in self._seen else 1
        if ticket is not None:
            if len(self._seen) >= REMEMBERED:
                self._seen.clear()
            self._seen.add(ticket)
        return context

    def accepted(self, tls: ssl.SSLObject, gets_ticket: bool) -> None:
        """A handshake of a connection that was accepted is complete, and its session remembered if it gets a ticket.
        When there are too many, all are forgotten, and full handshakes begin again: nothing else bounds their memory.
        """
        if tls.context is self._server:
            if not tls.session_reused:
                self._seen.clear()  # a ticket may be too old to be good: who has it needs another
            self._remembered += gets_ticket * (1 if tls.session_reused else FULL)
            if self._remembered >= SESSIONS:
                self._server = None

    @property
    def client(self) -> ssl.SSLContext:
        """The context of connections that are made."""
        if self._client is None:
            self._client = self._context(ssl.PROTOCOL_TLS_CLIENT)
        return self._client

    @property
    def reusing(self) -> ssl.SSLContext:
        """The context of connections that are made, and used again if the server knows how."""
        if self._reusing is None:
            self._reusing = self._context(ssl.PROTOCOL_TLS_CLIENT)
            self._reusing.set_alpn_protocols([PROTOCOL])
        return self._reusing

    def same_as(self, leaf: Leaf, roots: Roots) -> bool:
        """Whether contexts of these would be the same."""
        return (
            self.leaf.cert_pem == leaf.cert_pem
            and self.leaf.private_key_pem == leaf.private_key_pem
            and self.trust_domain == roots.trust_domain.lower()
            and {root.root_cert for root in self.roots.roots} == {root.root_cert for root in roots.roots}
        )

    def _context(self, protocol: int) -> ssl.SSLContext:
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        context.set_ciphers(CIPHERS)
        context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
        context.load_verify_locations(cadata="\n".join(root.root_cert for root in self.roots.roots))
        with _readable(f"{self.leaf.cert_pem}\n{self.leaf.private_key_pem}") as path:
            context.load_cert_chain(path)
        return context


@contextmanager
def _readable(text: str) -> Iterator[str]:
    """A path under which `ssl` reads a text that no disk should have: a file in memory, where there are such."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("leaf", os.MFD_CLOEXEC)
        try:
            os.write(descriptor, text.encode())
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)
    else:
        with tempfile.NamedTemporaryFile() as file:
            file.write(text.encode())
            file.flush()
            yield file.name


class Peers:
    """Reads peers' certificates. The few that a proxy meets are read once. `revoked` are the plain serial numbers of
    those that are not to be believed.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, Peer] = OrderedDict()
        self.revoked: frozenset[str] = frozenset()

    def of(self, tls: ssl.SSLObject, now: float) -> Peer:
        """The peer of a connection whose handshake is complete; `now` in seconds since 1970. Raises `BadPeer`."""
        encoded = tls.getpeercert(True)
        if not encoded:
            raise BadPeer("the peer showed no certificate")
        peer = self._known.get(encoded)
        if peer is None:
            peer = _read(tls)
            self._known[encoded] = peer
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        self.check(peer, now)
        return peer

    def check(self, peer: Peer, now: float) -> None:
        """See that a peer that was read before is to be believed still. Raises `BadPeer`."""
        if peer.expires <= now:
            # Handshakes see to that themselves; a resumed session does not.
            raise BadPeer(f"the certificate of {peer.uri} has expired")
        if peer.serial in self.revoked:
            raise BadPeer(f"the certificate of {peer.uri} has been revoked")


def _read(tls: ssl.SSLObject) -> Peer:
    shown = tls.getpeercert()
    if not shown:
        raise BadPeer("the peer's certificate was not verified")
    uris = [name[1] for name in shown.get("subjectAltName", ()) if name[0] == URI]
    if len(uris) != 1:
        raise BadPeer(f"the peer's certificate has {len(uris)} URIs; that of a service has one, its SPIFFE id")
    uri = str(uris[0])
    try:
        found = parse_spiffe_id(uri)
    except BadSpiffeId as error:
        raise BadPeer(str(error)) from None
    if not isinstance(found, ServiceId):
        raise BadPeer(f"{uri} is the id of no service")
    return Peer(uri, found, ssl.cert_time_to_seconds(str(shown["notAfter"])), plain_serial(str(shown["serialNumber"])))


def server_name(service: ServiceId) -> bytes | None:
    """The name that is sent to the server of a service, as Consul's proxies spell it; None where it is no host name.

    As bytes, which `ssl` takes as they are: a text it would encode for every connection.
    """
    name = f"{service.service}.{service.namespace}.{service.datacenter}.internal.{service.domain}"
    labels = name.split(".")
    plain = name.isascii() and len(name) < 254
    return name.encode() if plain and all(0 < len(label) < 64 for label in labels) else None
