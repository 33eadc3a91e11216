"""`ingress-gateway` and `terminating-gateway`: the ways into the mesh and out of it."""

from __future__ import annotations

from typing import Self

import msgspec

from lictor.model.config_entry.decode import Unsigned
from lictor.model.config_entry.entry import (
    WILDCARD,
    ConfigEntry,
    HTTPHeaderModifiers,
    PassiveHealthCheck,
    Record,
    check_tls,
    is_domain_name,
    is_http_like,
    quoted,
    require,
)

_PROTOCOLS = ("tcp", "http", "http2", "grpc")


class TLSSDS(Record, frozen=True):
    """Where certificates come from: a cluster that serves Envoy's secret discovery, and a name there."""

    cluster_name: str = ""
    cert_resource: str = ""


class GatewayTLS(Record, frozen=True):
    """TLS towards clients, for a gateway or one listener."""

    enabled: bool = msgspec.field(default_factory=bool)
    sds: TLSSDS | None = msgspec.field(default=None, name="SDS")
    tls_min_version: str = msgspec.field(default="", name="TLSMinVersion")
    tls_max_version: str = msgspec.field(default="", name="TLSMaxVersion")
    cipher_suites: tuple[str, ...] = ()


class ServiceTLS(Record, frozen=True):
    """TLS towards clients, for one service."""

    sds: TLSSDS | None = msgspec.field(default=None, name="SDS")


class IngressService(Record, frozen=True):
    """A service behind a listener, and the hosts it is found by."""

    name: str = msgspec.field(default_factory=str)
    hosts: tuple[str, ...] | None = msgspec.field(default_factory=lambda: None)
    tls: ServiceTLS | None = msgspec.field(default=None, name="TLS")
    request_headers: HTTPHeaderModifiers | None = None
    response_headers: HTTPHeaderModifiers | None = None
    max_connections: Unsigned = 0
    max_pending_requests: Unsigned = 0
    max_concurrent_requests: Unsigned = 0
    passive_health_check: PassiveHealthCheck | None = None
    meta: dict[str, str] | None = None


class IngressListener(Record, frozen=True):
    """A port, its protocol and the services behind it."""

    port: int = msgspec.field(default_factory=int)
    protocol: str = msgspec.field(default_factory=str)
    tls: GatewayTLS | None = msgspec.field(default=None, name="TLS")
    services: tuple[IngressService, ...] | None = msgspec.field(default_factory=lambda: None)


class IngressDefaults(Record, frozen=True):
    """Limits and health checks for all services of a gateway."""

    max_connections: Unsigned = msgspec.field(default_factory=int)
    max_pending_requests: Unsigned = msgspec.field(default_factory=int)
    max_concurrent_requests: Unsigned = msgspec.field(default_factory=int)
    passive_health_check: PassiveHealthCheck | None = None


class IngressGateway(ConfigEntry, frozen=True):
    """`ingress-gateway`: listeners through which clients outside reach services of the mesh."""

    kind: str = msgspec.field(default_factory=lambda: "ingress-gateway")
    tls: GatewayTLS = msgspec.field(default_factory=GatewayTLS, name="TLS")
    listeners: tuple[IngressListener, ...] | None = msgspec.field(default_factory=lambda: None)
    defaults: IngressDefaults | None = None

    def normalised(self) -> Self:
        """With listeners' protocols in lower case, `tcp` where none is given."""
        if self.listeners is None:
            return self
        listeners = tuple(
            msgspec.structs.replace(listener, protocol=listener.protocol.lower() or "tcp")
            for listener in self.listeners
        )
        return msgspec.structs.replace(self, listeners=listeners)

    def validate(self) -> None:
        """Raise InvalidConfigEntry naming the listener that cannot be."""
        self.require_name()
        super().validate()
        check_tls(self.tls.tls_min_version, self.tls.tls_max_version, self.tls.cipher_suites)
        ports = set()
        for listener in self.listeners or ():
            require(listener.port not in ports, f"port {listener.port} declared on two listeners")
            ports.add(listener.port)
            self._check_listener(listener)

    def _check_listener(self, listener: IngressListener) -> None:
        services = listener.services or ()
        text = f"protocol must be 'tcp', 'http', 'http2', or 'grpc'. '{listener.protocol}' is an unsupported protocol"
        require(listener.protocol in _PROTOCOLS, text)
        require(len(services) > 0, f"No service declared for listener with port {listener.port}")
        where = f"(listener on port {listener.port})"
        text = "Multiple services per listener are only supported for L7 protocols, 'http', 'grpc' and 'http2'"
        require(len(services) == 1 or is_http_like(listener.protocol), f"{text} {where}")
        if listener.tls is not None:
            check_tls(listener.tls.tls_min_version, listener.tls.tls_max_version, listener.tls.cipher_suites)
        names: set[str] = set()
        hosts: set[str] = set()
        for service in services:
            _check_ingress_service(service, listener, where)
            require(service.name not in names, f"Service {service.name} cannot be added multiple times {where}")
            names.add(service.name)
            self._check_sds(listener, service)
            for host in service.hosts or ():
                require(host not in hosts, f"Hosts must be unique within a specific listener {where}")
                hosts.add(host)
                _check_host(host, self.tls.enabled)

    def _check_sds(self, listener: IngressListener, service: IngressService) -> None:
        """Certificates by secret discovery: what a service, its listener and the gateway say must add up."""
        gateway = self.tls.sds or TLSSDS()
        outer = (listener.tls.sds if listener.tls is not None else None) or TLSSDS()
        own = (service.tls.sds if service.tls is not None else None) or TLSSDS()
        where = f"(listener on port {listener.port})"
        whose = f"(service {quoted(service.name)} on listener on port {listener.port})"
        needs_cluster = "TLS.SDS.ClusterName is required if CertResource is set"
        needs_resource = "TLS.SDS.CertResource is required if ClusterName is set for"
        require(not gateway.cert_resource or gateway.cluster_name != "", needs_cluster)
        resource = gateway.cert_resource or outer.cert_resource
        require(not gateway.cluster_name or resource != "", f"{needs_resource} gateway {where}")
        require(not outer.cluster_name or outer.cert_resource != "", f"{needs_resource} listener {where}")
        cluster = outer.cluster_name or gateway.cluster_name
        require(not outer.cert_resource or cluster != "", f"{needs_cluster} {where}")
        if own.cert_resource:
            text = f"A service specifying TLS.SDS.CertResource must have at least one item in Hosts {whose}"
            require(bool(service.hosts), text)
            require((own.cluster_name or cluster) != "", f"{needs_cluster} {whose}")


def _check_ingress_service(service: IngressService, listener: IngressListener, where: str) -> None:
    for direction, headers in (("request", service.request_headers), ("response", service.response_headers)):
        allowed = headers is None or headers.is_empty() or is_http_like(listener.protocol)
        whose = f"(service {quoted(service.name)} on listener on port {listener.port})"
        require(allowed, f"{direction} headers only valid for http, http2 and grpc protocols {whose}")
    if listener.protocol == "tcp":
        require(service.name != WILDCARD, f"Wildcard service name is only valid for protocol = 'http' {where}")
        text = f"Associating hosts to a service is not supported for the {listener.protocol} protocol {where}"
        require(not service.hosts, text)
    require(service.name != "", f"Service name cannot be blank {where}")
    text = f"Associating hosts to a wildcard service is not supported {where}"
    require(service.name != WILDCARD or not service.hosts, text)


def _check_host(host: str, tls_enabled: bool) -> None:
    if host == WILDCARD:
        text = "Host '*' is not allowed when TLS is enabled, all hosts must be valid DNS records to add as a DNSSAN"
        require(not tls_enabled, text)
        return
    require(is_domain_name(host), f"Host {quoted(host)} must be a valid DNS hostname")
    text = f"Host {quoted(host)} is not valid, a wildcard specifier is only allowed as the leftmost label"
    require(WILDCARD not in host.removeprefix("*."), text)


class LinkedService(Record, frozen=True):
    """A service outside of the mesh, and the TLS files (on the gateway's disk) for reaching it."""

    name: str = ""
    ca_file: str = msgspec.field(default="", name="CAFile")
    cert_file: str = ""
    key_file: str = ""
    sni: str = msgspec.field(default="", name="SNI")
    disable_auto_host_rewrite: bool = False


class TerminatingGateway(ConfigEntry, frozen=True):
    """`terminating-gateway`: services outside of the mesh that the gateway lets the mesh reach."""

    kind: str = msgspec.field(default_factory=lambda: "terminating-gateway")
    services: tuple[LinkedService, ...] | None = msgspec.field(default_factory=lambda: None)

    def validate(self) -> None:
        """Raise InvalidConfigEntry for a service without name, given twice, or with half of a TLS client's files."""
        self.require_name()
        super().validate()
        seen = set()
        for service in self.services or ():
            require(service.name != "", "Service name cannot be blank.")
            text = f"Service {quoted(service.name)} was specified more than once within a namespace"
            require(service.name not in seen, text)
            seen.add(service.name)
            if service.cert_file or service.key_file:
                text = "must have a CertFile, CAFile, and KeyFile specified for TLS origination"
                complete = all((service.ca_file, service.cert_file, service.key_file))
                require(complete, f"Service {quoted(service.name)} {text}")
