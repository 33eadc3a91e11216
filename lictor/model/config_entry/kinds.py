"""Every kind of config entry, and the two directions between an entry and JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from lictor.model.config_entry.api_gateway import APIGateway, BoundAPIGateway, HTTPRoute, TCPRoute
from lictor.model.config_entry.certificates import FileSystemCertificate, InlineCertificate
from lictor.model.config_entry.decode import UndecodableConfigEntry, decode_record, go_kind
from lictor.model.config_entry.defaults import ProxyDefaults, ServiceDefaults
from lictor.model.config_entry.discovery_chain import ServiceResolver, ServiceRouter, ServiceSplitter
from lictor.model.config_entry.entry import ConfigEntry
from lictor.model.config_entry.gateways import IngressGateway, TerminatingGateway
from lictor.model.config_entry.intentions import ServiceIntentions
from lictor.model.config_entry.jwt_provider import JWTProvider
from lictor.model.config_entry.mesh import ControlPlaneRequestLimit, ExportedServices, Mesh, SamenessGroup

RECORDS: dict[str, type[ConfigEntry]] = {
    "service-defaults": ServiceDefaults,
    "proxy-defaults": ProxyDefaults,
    "service-router": ServiceRouter,
    "service-splitter": ServiceSplitter,
    "service-resolver": ServiceResolver,
    "ingress-gateway": IngressGateway,
    "terminating-gateway": TerminatingGateway,
    "service-intentions": ServiceIntentions,
    "mesh": Mesh,
    "exported-services": ExportedServices,
    "sameness-group": SamenessGroup,
    "api-gateway": APIGateway,
    "bound-api-gateway": BoundAPIGateway,
    "http-route": HTTPRoute,
    "tcp-route": TCPRoute,
    "file-system-certificate": FileSystemCertificate,
    "inline-certificate": InlineCertificate,
    "control-plane-request-limit": ControlPlaneRequestLimit,
    "jwt-provider": JWTProvider,
}

KINDS = tuple(RECORDS)
"""The kinds, in the order in which Consul lists them."""

# Read-only in Consul's answers, so that what was read may be written back.
_READ_ONLY = frozenset(("CreateIndex", "ModifyIndex", "Hash"))


def check_kind(kind: str) -> None:
    """Raise UndecodableConfigEntry (`invalid config entry kind: x`) for a kind that does not exist."""
    if kind not in RECORDS:
        raise UndecodableConfigEntry(f"invalid config entry kind: {kind}")


def read_entry(data: Mapping[str, Any]) -> ConfigEntry:
    """The entry that `data` describes, as it stands: neither filled in nor validated. For what is stored already.

    Raises UndecodableConfigEntry for an unknown kind or key and for a value of the wrong type.
    """
    if not isinstance(data, Mapping):
        raise UndecodableConfigEntry(f"'' expected a map, got '{go_kind(data)}'")
    kind = data["Kind"] if "Kind" in data else data.get("kind", _READ_ONLY)
    if kind is _READ_ONLY:
        raise UndecodableConfigEntry("Payload does not contain a kind/Kind key at the top level")
    if not isinstance(kind, str):
        raise UndecodableConfigEntry("Kind value in payload is not a string")
    check_kind(kind)
    return decode_record(RECORDS[kind], data, _READ_ONLY)


def decode_entry(data: Mapping[str, Any]) -> ConfigEntry:
    """The entry that `data` describes, filled in and validated: what may be stored.

    `data` is decoded JSON or HCL with CamelCase or snake_case keys. Raises UndecodableConfigEntry (status 400) when it
    cannot be understood, and InvalidConfigEntry (status 500) when it cannot be accepted.
    """
    entry = read_entry(data).normalised()
    entry.validate()
    return entry


def entry_json(entry: ConfigEntry) -> dict[str, Any]:
    """The entry as Consul shows it, without `CreateIndex` and `ModifyIndex`: what is stored, and read back again."""
    shown: dict[str, Any] = _plain(msgspec.to_builtins(entry))
    first = {field: shown.pop(field) for field in ("Kind", "Name") if field in shown}
    last = {field: shown.pop(field) for field in ("Meta",) if field in shown}
    return first | shown | last


def _plain(value: Any) -> Any:
    """With lists for tuples, and whole numbers without a fraction, as Go writes them."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    return value
