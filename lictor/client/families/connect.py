"""`client.connect`, its calls: whom the mesh trusts, a service's own certificate, and who may connect to it.

What makes connections of them is in `native_threads` and `native_loop`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from lictor.client.calls import Call, F, Family, Reply, call, get, nothing, path, put, read, reads
from lictor.client.records import Authorization, ConnectLeaf, ConnectRoots
from lictor.model.intention import DefaultPolicy, Intention

DEFAULT_POLICY = "x-lictor-default-intention-policy"

_roots = reads(ConnectRoots)
_leaf = reads(ConnectLeaf)
_authorization = reads(Authorization)
_matches = reads(dict[str, list[Intention] | None])


class Rules(msgspec.Struct, frozen=True):
    """Who may connect to a service: its intentions, in the order in which they are considered, and what holds where
    none matches; None where the agent does not say.
    """

    intentions: tuple[Intention, ...]
    default: DefaultPolicy | None


def _rules(reply: Reply) -> Rules:
    found: dict[str, list[Intention] | None] = _matches(reply)
    policy = reply.headers.get(DEFAULT_POLICY, "")
    intentions = tuple(one for group in found.values() for one in group or ())
    return Rules(intentions, DefaultPolicy(policy == "allow") if policy else None)


class ConnectCalls(Family[F]):
    """The mesh, as the agent has it."""

    @read
    def roots(self) -> Call[ConnectRoots]:
        """The authorities that are trusted."""
        return get(path("agent", "connect", "ca", "roots"), _roots)

    @read
    def leaf(self, service: str) -> Call[ConnectLeaf]:
        """A service's certificate with its key; it is made where there is none."""
        return get(path("agent", "connect", "ca", "leaf", service), _leaf)

    @read
    def rules(self, service: str) -> Call[Rules]:
        """Who may connect to a service."""
        return get(path("connect", "intentions", "match"), _rules, by="destination", name=service)

    @call
    def authorize(self, target: str, uri: str, *, serial: str = "") -> Call[Authorization]:
        """Whether whoever has a certificate for `uri` may connect to `target`."""
        body: dict[str, Any] = {"Target": target, "ClientCertURI": uri, "ClientCertSerial": serial}
        found = path("agent", "connect", "authorize")
        return put(found, _authorization, body, method="POST", safe=True)

    @call
    def report(self, proxy: str, inbound: Mapping[str, int], *, reporter: str = "") -> Call[None]:
        """Say who is connected to a proxy, or to a service that speaks the mesh's TLS itself, by its id or name: how
        many connections there are by SPIFFE id. Counts for 90 seconds, and takes the place of what the same reporter
        said before. Agents that are not Lictor's have no such call.
        """
        callers = [{"SourceURI": uri, "Connections": count} for uri, count in inbound.items()]
        found = path("agent", "connect", "connections", proxy)
        return put(found, nothing, {"Inbound": callers, "Reporter": reporter}, safe=True)
