"""The mesh's authority as the servers keep it: its roots, its configuration with the provider's state, and which of the
leaves that were signed are not to be believed any more.
"""

import hashlib
import ssl
from typing import Any

import msgspec

NAME = "Consul CA Root Cert"  # as Consul calls every root


class CARoot(msgspec.Struct, frozen=True):
    """A root that is trusted. `id` is its fingerprint, `cluster` the id of the cluster whose it is; times are in
    seconds since 1970. `intermediates` stand between it and a leaf, the issuer of leaves first, which ends at
    `issuer_not_after`; `crosses` have it trusted by those who know only former roots. `leaf_life` is the longest that
    leaves were given, in seconds, while it was the active one; `retired` is when it ceased to be, 0 before that.
    """

    id: str
    serial_number: int
    signing_key_id: str
    cluster: str
    not_before: float
    not_after: float
    root: str
    active: bool
    key_type: str
    key_bits: int
    issuer_not_after: float
    intermediates: tuple[str, ...] = ()
    crosses: tuple[str, ...] = ()
    name: str = NAME
    leaf_life: float = 0.0
    retired: float = 0.0
    create_index: int = 0
    modify_index: int = 0


class CAConfiguration(msgspec.Struct, frozen=True):
    """The provider and what it goes by; `state` is what it keeps. Neither ever leaves the servers: both hold secrets.

    There is one. `revision` is the index of the last command that changed anything of the authority.
    """

    cluster: str
    provider: str
    config: dict[str, Any]
    state: dict[str, Any]
    force_without_cross_signing: bool = False
    create_index: int = 0
    modify_index: int = 0
    revision: int = 0


class RevokedLeaf(msgspec.Struct, frozen=True):
    """A leaf that nobody is to believe, though it has not ended. `serial` is written as for whoever holds the leaf,
    `fingerprint` is the SHA-256 of the certificate in hex (empty where only the serial number is known), `until` when
    the leaf ends by itself, in seconds since 1970. `service` and `node` say whose it was.
    """

    serial: str
    fingerprint: str = ""
    service: str = ""
    node: str = ""
    until: float = 0.0
    create_index: int = 0


def plain_serial(text: str) -> str:
    """A serial number in the form in which it can be compared: programs write it with colons or without, in either
    case, and with zeros before it.
    """
    return text.replace(":", "").strip().lower().lstrip("0")


BEGIN, END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"


def fingerprint(certificate: str) -> str:
    """The SHA-256 of a certificate in PEM, or of the first of several, in hex. Raises `ValueError`."""
    _, begin, rest = certificate.partition(BEGIN)
    first, end, _ = rest.partition(END)
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(begin + first + end)).hexdigest()
