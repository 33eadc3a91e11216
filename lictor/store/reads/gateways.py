"""Reads of gateways: which services an ingress or terminating gateway is bound to by its config entry."""

from collections.abc import Iterator
from typing import Any

import msgspec

from lictor.store.reads import health
from lictor.store.reads.health import CheckServiceNode
from lictor.store.store import ConfigRow, View, config_key

INGRESS = "ingress-gateway"
TERMINATING = "terminating-gateway"
WILDCARD = "*"
SERVERS = "consul"


class ServiceName(msgspec.Struct, frozen=True, rename="pascal"):
    """A service or gateway by its name."""

    name: str


class GatewayService(msgspec.Struct, frozen=True, rename="pascal", omit_defaults=True):
    """A service bound to a gateway, as `/v1/catalog/gateway-services/:gateway` shows it."""

    gateway: ServiceName
    service: ServiceName
    gateway_kind: str
    port: int = 0
    protocol: str = ""
    hosts: tuple[str, ...] = ()
    ca_file: str = msgspec.field(default="", name="CAFile")
    cert_file: str = ""
    key_file: str = ""
    sni: str = msgspec.field(default="", name="SNI")
    from_wildcard: bool = False
    create_index: int = 0
    modify_index: int = 0


def gateway_services(view: View, gateway: str) -> list[GatewayService]:
    """The services of one gateway, by name."""
    found: list[GatewayService] = []
    for kind in (INGRESS, TERMINATING):
        key = config_key(kind, gateway)
        view.saw("config", *key)
        row = view.store.config.get(key)
        if row is not None:
            found.extend(_bound(view, row))
    return sorted(found, key=lambda bound: (bound.service.name, bound.port))


def listing_gateways(view: View, service: str) -> list[CheckServiceNode]:
    """The instances of ingress gateways whose configuration lists a service (in lower case), or all services (`*`)."""
    view.saw("config", INGRESS)
    rows: list[CheckServiceNode] = []
    for entry in view.store.config.by("kind", INGRESS).values():
        listeners = entry.body.get("Listeners") or ()
        listed = {str(s.get("Name", "")).lower() for listener in listeners for s in listener.get("Services") or ()}
        if service in listed or WILDCARD in listed:
            rows += [row for row in health.service(view, entry.name, (), {}) if row.service.kind == INGRESS]
    return rows


def every_gateway_service(view: View) -> list[GatewayService]:
    """The services of every gateway."""
    found: list[GatewayService] = []
    for kind in (INGRESS, TERMINATING):
        view.saw("config", kind)
        for _, row in sorted(view.store.config.by("kind", kind).items()):
            found.extend(_bound(view, row))
    return found


def ingress_instances(view: View, service: str) -> list[CheckServiceNode]:
    """The instances of the ingress gateways that a service is reached through, with their checks."""
    view.saw("config", INGRESS)
    name = service.lower()
    rows: list[CheckServiceNode] = []
    for _, row in sorted(view.store.config.by("kind", INGRESS).items()):
        if any(bound.service.name.lower() == name for bound in _bound(view, row)):
            rows.extend(r for r in health.service(view, row.name, (), {}) if r.service.kind == INGRESS)
    return rows


def _bound(view: View, row: ConfigRow) -> Iterator[GatewayService]:
    listed = list(_listed(row))
    named = {(bound.service.name, bound.port) for bound in listed}
    for bound in listed:
        if bound.service.name != WILDCARD:
            yield bound
            continue
        for name in _plain_services(view):
            if (name, bound.port) not in named:
                yield msgspec.structs.replace(bound, service=ServiceName(name), from_wildcard=True)


def _listed(row: ConfigRow) -> Iterator[GatewayService]:
    """What the entry itself says."""
    gateway = ServiceName(row.name)
    indexes: dict[str, Any] = {"create_index": row.create_index, "modify_index": row.modify_index}
    if row.kind == TERMINATING:
        for service in row.body.get("Services") or ():
            yield GatewayService(
                gateway,
                ServiceName(service.get("Name", "")),
                TERMINATING,
                ca_file=service.get("CAFile", ""),
                cert_file=service.get("CertFile", ""),
                key_file=service.get("KeyFile", ""),
                sni=service.get("SNI", ""),
                **indexes,
            )
        return
    for listener in row.body.get("Listeners") or ():
        for service in listener.get("Services") or ():
            yield GatewayService(
                gateway,
                ServiceName(service.get("Name", "")),
                INGRESS,
                port=listener.get("Port", 0),
                protocol=listener.get("Protocol", ""),
                hosts=tuple(service.get("Hosts") or ()),
                **indexes,
            )


def _plain_services(view: View) -> list[str]:
    """The names of services that are neither proxies nor gateways nor the servers."""
    view.saw("services")
    names = {i.service.service for i in view.store.services if not i.service.kind}
    return sorted(names - {SERVERS})
