"""Whom a program of the mesh believes, and whom it lets in: the decision on a connection, out of what the agent says.

Pure: a peer's certificate goes in as the `ssl` module shows it, once it was verified against the roots, and a verdict
comes out. That a certificate is signed by a trusted root says that its bearer is of this mesh; only its SPIFFE id says
who that is.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import msgspec

from lictor.client.errors import PeerRefused
from lictor.client.families.connect import Rules
from lictor.client.records import ConnectLeaf, ConnectRoots
from lictor.model.connect_ca import plain_serial
from lictor.model.intention import decide
from lictor.model.spiffe import NAMESPACE, BadSpiffeId, ServiceId, parse_spiffe_id

Certificate = Mapping[str, Any]
"""A certificate as `getpeercert()` of the `ssl` module shows it."""


class Trust(msgspec.Struct, frozen=True, eq=False):
    """All that one service's connections are decided by, at one time."""

    roots: ConnectRoots
    leaf: ConnectLeaf
    rules: Rules
    revoked: frozenset[str] = frozenset()
    """The plain serial numbers of certificates that are not to be believed."""

    @property
    def own(self) -> ServiceId:
        """Who this program is. Raises `PeerRefused` where its own certificate names no service."""
        try:
            found = parse_spiffe_id(self.leaf.service_uri)
        except BadSpiffeId as error:
            raise PeerRefused(f"the certificate that the agent gave cannot be used: {error}") from None
        if not isinstance(found, ServiceId):
            raise PeerRefused(f"the certificate that the agent gave is no service's: {self.leaf.service_uri}")
        return found

    def peer(self, certificate: Certificate, now: float) -> ServiceId:
        """Who the other end is: a service of this mesh. Raises `PeerRefused`. `now` is in seconds since 1970."""
        names = certificate.get("subjectAltName", ())
        if len(names) != 1 or names[0][0] != "URI":
            raise PeerRefused("the peer's certificate must have one URI, its SPIFFE id, and no other alternative name")
        try:
            found = parse_spiffe_id(names[0][1])
        except BadSpiffeId as error:
            raise PeerRefused(f"the peer's certificate names nobody of a mesh: {error}") from None
        if not isinstance(found, ServiceId):
            raise PeerRefused(f"the peer is no service: {found.uri}")
        if found.domain != self.own.domain:
            raise PeerRefused(f"the peer is of another trust domain: {found.uri}; this one is {self.own.domain}")
        if found.namespace != NAMESPACE or found.partition:
            raise PeerRefused(f"the peer is of a namespace or partition that is not here: {found.uri}")
        if not _seconds(certificate, "notBefore") <= now < _seconds(certificate, "notAfter"):
            raise PeerRefused(f"the certificate of {found.uri} is not valid at this time")
        self.believe(certificate)
        return found

    def believe(self, certificate: Certificate) -> None:
        """Raise `PeerRefused` where a certificate has been revoked."""
        if self.revoked and plain_serial(str(certificate.get("serialNumber", ""))) in self.revoked:
            raise PeerRefused("the peer's certificate has been revoked")

    def called(self, certificate: Certificate, service: str, datacenter: str, now: float) -> ServiceId:
        """See that the other end is the service that was called. Raises `PeerRefused`."""
        found = self.peer(certificate, now)
        if (found.service, found.datacenter) != (service, datacenter or self.own.datacenter):
            raise PeerRefused(f"{service} was called, and {found.uri} has answered")
        return found

    def caller(self, certificate: Certificate, now: float) -> ServiceId:
        """See that the other end may connect to this service. Raises `PeerRefused`."""
        found = self.peer(certificate, now)
        self.admit(found)
        return found

    def admit(self, caller: ServiceId) -> None:
        """Raise `PeerRefused` where a caller may not connect, with the intention that says so. Layer-7 permissions
        refuse every connection, as nobody looks into it.
        """
        if self.rules.default is None:
            raise PeerRefused("the agent does not say what holds where no intention matches")
        decision = decide(self.rules.intentions, caller, self.rules.default)
        if not decision.allowed:
            raise PeerRefused(f"{caller.service} may not connect to {self.own.service}: {decision.reason}")


def _seconds(certificate: Certificate, field: str) -> float:
    return _parsed(certificate[field])


@lru_cache(1024)  # reading a time takes longer than all else that is decided here
def _parsed(text: str) -> float:
    return ssl.cert_time_to_seconds(text)
