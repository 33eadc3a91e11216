"""From a service's or check's definition to what is registered: ids, check names, and the sidecar that a service asks
for.
"""

import ipaddress
from collections.abc import Collection

import msgspec

from lictor.model.check import CRITICAL, Check
from lictor.model.duration import format_duration
from lictor.model.errors import InvalidRequest
from lictor.model.service import (
    CONNECT_PROXY,
    ConnectProxyConfig,
    NodeService,
    ServiceAddress,
    ServiceConnect,
    Weights,
)
from lictor.model.service_definition import CheckDefinition, ServiceDefinition

SIDECAR_SUFFIX = "-sidecar-proxy"


class CheckRegistration(msgspec.Struct, frozen=True):
    """A check as the agent holds it, and how it is run."""

    check: Check
    definition: CheckDefinition
    token: str = ""


class ServiceRegistration(msgspec.Struct, frozen=True):
    """A service instance with its checks. `sidecar_of` names the instance whose definition asked for this sidecar."""

    service: NodeService
    checks: tuple[CheckRegistration, ...] = ()
    token: str = ""
    sidecar_of: str = ""


def check_registration(definition: CheckDefinition, node: str, service: NodeService | None) -> CheckRegistration:
    """A check of the node or, where given, of a service on it. Its id must be set already."""
    check = Check(
        node=node,
        check_id=definition.id,
        name=definition.name,
        status=definition.status or CRITICAL,
        notes=definition.notes,
        service_id=service.id if service is not None else "",
        service_name=service.service if service is not None else "",
        service_tags=service.tags if service is not None else (),
        type=definition.kind,
        interval=format_duration(definition.interval) if definition.interval else "",
        timeout=format_duration(definition.timeout) if definition.timeout else "",
    )
    return CheckRegistration(check, definition, definition.token)


def service_registrations(
    definition: ServiceDefinition, node: str, ports: range, taken: Collection[int]
) -> list[ServiceRegistration]:
    """The instance that a definition describes and, where it asks for one, its sidecar.

    `ports` are those a sidecar may be given, `taken` those in use. Raises `InvalidRequest`.
    """
    own = _registration(definition, node)
    sidecar = definition.connect.sidecar_service if definition.connect is not None else None
    if sidecar is None:
        return [own]
    return [own, _sidecar(sidecar, own, node, ports, taken)]


def _registration(definition: ServiceDefinition, node: str) -> ServiceRegistration:
    service = NodeService(
        kind=definition.kind,
        id=definition.id or definition.name,
        service=definition.name,
        tags=definition.tags,
        address=definition.address,
        tagged_addresses=_tagged_addresses(definition),
        meta=definition.meta or None,
        port=definition.port,
        socket_path=definition.socket_path,
        weights=definition.weights or Weights(),
        enable_tag_override=definition.enable_tag_override,
        proxy=_with_types(definition.proxy or ConnectProxyConfig()),
        connect=ServiceConnect(native=definition.connect is not None and definition.connect.native),
    )
    return ServiceRegistration(service, _checks(definition, service, node), definition.token)


def _with_types(proxy: ConnectProxyConfig) -> ConnectProxyConfig:
    """A proxy whose upstreams say what they are; who registers with the catalog is taken by the word."""
    if all(upstream.destination_type for upstream in proxy.upstreams):
        return proxy
    typed = (
        msgspec.structs.replace(upstream, destination_type=upstream.destination_type or "service")
        for upstream in proxy.upstreams
    )
    return msgspec.structs.replace(proxy, upstreams=tuple(typed))


def _tagged_addresses(definition: ServiceDefinition) -> dict[str, ServiceAddress] | None:
    """Those that are given and, where the service's address is an IP address, that one by its family."""
    found = dict(definition.tagged_addresses)
    try:
        family = f"ipv{ipaddress.ip_address(definition.address).version}"
    except ValueError:
        return found or None
    for name in (f"lan_{family}", f"wan_{family}"):
        found.setdefault(name, ServiceAddress(definition.address, definition.port))
    return found


def _checks(definition: ServiceDefinition, service: NodeService, node: str) -> tuple[CheckRegistration, ...]:
    wanted = definition.all_checks
    found = []
    for number, check in enumerate(wanted, 1):
        own_id = f"service:{service.id}" if len(wanted) == 1 else f"service:{service.id}:{number}"
        named = msgspec.structs.replace(
            check,
            id=check.id or own_id,
            name=check.name or f"Service '{service.service}' check",
            service_id=service.id,
            token=check.token or definition.token,
        )
        found.append(check_registration(named, node, service))
    return tuple(found)


def _sidecar(
    definition: ServiceDefinition, parent: ServiceRegistration, node: str, ports: range, taken: Collection[int]
) -> ServiceRegistration:
    service = parent.service
    name = definition.name or service.service + SIDECAR_SUFFIX
    proxy = definition.proxy or ConnectProxyConfig()
    if proxy.destination_service_name:
        raise InvalidRequest(
            "Invalid sidecar_service: proxy.destination_service_name is set from the service and must be left out"
        )
    port = definition.port
    if port == 0:
        port = next((p for p in ports if p not in taken), 0)
        if port == 0:
            if not ports:
                raise InvalidRequest(
                    "auto-assignment of sidecar ports is disabled by configuration: give the sidecar a port"
                )
            raise InvalidRequest(
                "none left in the configured sidecar_min_port/sidecar_max_port range "
                f"({ports.start}-{ports.stop - 1}): widen it, or give the sidecar a port"
            )
    full = msgspec.structs.replace(
        definition,
        kind=definition.kind or CONNECT_PROXY,
        id=service.id + SIDECAR_SUFFIX,
        name=name,
        port=port,
        tags=definition.tags or service.tags,
        meta=definition.meta or service.meta or {},
        token=definition.token or parent.token,
        connect=None,
        proxy=msgspec.structs.replace(
            proxy,
            destination_service_name=service.service,
            destination_service_id=service.id,
            local_service_address=proxy.local_service_address
            or ("" if proxy.local_service_socket_path else "127.0.0.1"),
            local_service_port=proxy.local_service_port or (0 if proxy.local_service_socket_path else service.port),
        ),
    )
    if full.check is None and not full.checks:
        full = msgspec.structs.replace(full, checks=_default_sidecar_checks(full, service))
    own = _registration(full, node)
    return msgspec.structs.replace(own, sidecar_of=service.id)


def _default_sidecar_checks(sidecar: ServiceDefinition, parent: NodeService) -> tuple[CheckDefinition, ...]:
    address = sidecar.address or "127.0.0.1"
    shown = f"[{address}]" if ":" in address else address
    return (
        CheckDefinition(name="Connect Sidecar Listening", tcp=f"{shown}:{sidecar.port}", interval=10.0),
        CheckDefinition(name=f"Connect Sidecar Aliasing {parent.id}", alias_service=parent.id),
    )
