"""What a name under the domain asks for.

    <node>.node[.<locality>]                       [<tag>.]<service>.service[.<locality>]
    _<service>._<tag or tcp>[.service][.<locality>]            <service>.connect, .ingress, .virtual
    <query>.query[.<locality>]                     <address in hexadecimal>.addr[.<anything>]

A locality is `<datacenter>`, `<datacenter>.dc`, `<datacenter>.cluster` or `<peer>.peer`. The labels `ns`, `ap` and `sg`
(namespace, partition, sameness group) belong to the enterprise edition: a name with one of them does not exist here,
as it does not in the community edition.
"""

import socket

import msgspec

from lictor.dns.message import SRV
from lictor.model.address import canonical_address

SERVICE, CONNECT, INGRESS, VIRTUAL, NODE, PREPARED, ADDRESS = (
    "service",
    "connect",
    "ingress",
    "virtual",
    "node",
    "query",
    "addr",
)
_KINDS = frozenset((SERVICE, CONNECT, INGRESS, VIRTUAL, NODE, PREPARED, ADDRESS))

Name = tuple[str, ...]


class Asked(msgspec.Struct, frozen=True):
    """What is asked for: one of the kinds above, its name, the tag wanted, and where (empty: here)."""

    kind: str
    name: str
    tag: str = ""
    datacenter: str = ""
    peer: str = ""


def under(name: Name, domains: tuple[Name, ...]) -> Name | None:
    """Which of `domains` the name is in: the most specific one, or None."""
    found: Name | None = None
    for domain in domains:
        if name[-len(domain) :] == domain and (found is None or len(domain) > len(found)):
            found = domain
    return found


def asked(labels: Name, qtype: int) -> Asked | None:
    """What a name without its domain asks for; None where no name has this form."""
    for i in range(len(labels) - 1, -1, -1):
        label = labels[i]
        if label in _KINDS:
            return _asked(label, labels[:i], labels[i + 1 :])
        # RFC 2782 names do without the word `service`.
        if qtype == SRV and label.startswith("_"):
            return _asked(SERVICE, labels[: i + 1], labels[i + 1 :])
    return None


def _asked(kind: str, parts: Name, suffixes: Name) -> Asked | None:
    if not parts:
        return None
    if kind == ADDRESS:
        return Asked(ADDRESS, parts[0]) if len(parts) == 1 else None
    place = _locality(suffixes)
    if place is None:
        return None
    datacenter, peer = place
    if kind in (NODE, PREPARED):
        # A name may have dots of its own.
        return Asked(kind, ".".join(parts), "", datacenter, peer)
    if kind != SERVICE:
        return Asked(kind, parts[-1], "", datacenter, peer)
    if len(parts) == 2 and parts[0].startswith("_") and parts[1].startswith("_"):
        tag = parts[1][1:]
        return Asked(SERVICE, parts[0][1:], "" if tag == "tcp" else tag, datacenter, peer)
    return Asked(SERVICE, parts[-1], ".".join(parts[:-1]), datacenter, peer)


def _locality(labels: Name) -> tuple[str, str] | None:
    """Datacenter and peer, each empty where it is not named."""
    if len(labels) < 2:
        return (labels[0] if labels else "", "")
    if len(labels) != 2:
        return None
    value, kind = labels
    if kind in ("dc", "cluster"):
        return value, ""
    return ("", value) if kind == "peer" else None


def reverse_address(name: Name) -> str | None:
    """The address that a name under in-addr.arpa or ip6.arpa stands for, in its usual notation."""
    if len(name) == 6 and name[-2:] == ("in-addr", "arpa"):
        text = ".".join(reversed(name[:4]))
        return canonical_address(text)
    if len(name) == 34 and name[-2:] == ("ip6", "arpa") and all(len(digit) == 1 for digit in name[:32]):
        digits = "".join(reversed(name[:32]))
        return canonical_address(":".join(digits[i : i + 4] for i in range(0, 32, 4)))
    return None


def address_text(packed: bytes) -> str:
    """Packed bytes of an address in their usual notation."""
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)
