"""The API gateway's entries: `api-gateway`, `bound-api-gateway`, `http-route`, `tcp-route` and the certificates.

A gateway has listeners, a route names the gateways that are its parents, and a controller binds the two: what it bound
is `bound-api-gateway`, and what it found wrong is the `Status` of each.
"""

from __future__ import annotations

import re
from typing import Self

import msgspec

from lictor.model.config_entry.decode import Nanoseconds, Unsigned
from lictor.model.config_entry.entry import (
    HTTP_METHODS,
    WILDCARD,
    ConfigEntry,
    PassiveHealthCheck,
    Record,
    ResourceReference,
    Status,
    check_tls,
    is_domain_name,
    quoted,
    require,
)
from lictor.model.config_entry.intentions import JWTRequirement

_CERTIFICATE_KINDS = ("inline-certificate", "file-system-certificate")
_ROUTE_KINDS = ("http-route", "tcp-route")
_LISTENER_NAME = re.compile(r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*")
_HEADER_MATCHES = ("present", "exact", "prefix", "suffix", "regex")
_PATH_MATCHES = ("exact", "prefix", "regex")
_QUERY_MATCHES = ("present", "exact", "regex")


class APIGatewayTLS(Record, frozen=True):
    """Certificates and versions of a listener."""

    certificates: tuple[ResourceReference, ...] | None = msgspec.field(default_factory=lambda: None)
    max_version: str = msgspec.field(default_factory=str)
    min_version: str = msgspec.field(default_factory=str)
    cipher_suites: tuple[str, ...] | None = msgspec.field(default_factory=lambda: None)


class APIGatewayPolicy(Record, frozen=True):
    """Tokens that requests to a listener must carry."""

    jwt: JWTRequirement | None = msgspec.field(default=None, name="JWT")


class APIGatewayListener(Record, frozen=True):
    """A port that a gateway listens on, for a host name or for all."""

    name: str = msgspec.field(default_factory=str)
    hostname: str = msgspec.field(default_factory=str)
    port: int = msgspec.field(default_factory=int)
    protocol: str = msgspec.field(default_factory=str)
    tls: APIGatewayTLS = msgspec.field(default_factory=APIGatewayTLS, name="TLS")
    override: APIGatewayPolicy | None = None
    default: APIGatewayPolicy | None = None
    max_request_headers_kb: Unsigned | None = msgspec.field(default=None, name="MaxRequestHeadersKB")

    def normalised(self) -> APIGatewayListener:
        """With the protocol in lower case and certificates' kind filled in."""
        tls = msgspec.structs.replace(self.tls, certificates=_with_kind(self.tls.certificates, "inline-certificate"))
        return msgspec.structs.replace(self, protocol=self.protocol.lower(), tls=tls)

    def check(self) -> None:
        """Raise InvalidConfigEntry for a protocol, port, host name or certificate that cannot be."""
        text = f"unsupported listener protocol {quoted(self.protocol)}, must be one of 'tcp', or 'http'"
        require(self.protocol in ("tcp", "http"), text)
        text = "hostname specification is not supported when using TCP"
        require(self.protocol != "tcp" or not self.hostname, text)
        require(1 <= self.port <= 65535, f"listener port {self.port} not in the range 1-65535")
        text = f"host {quoted(self.hostname)} is not valid, a wildcard specifier is only allowed as the left-most label"
        require(WILDCARD not in self.hostname.removeprefix("*."), text)
        _check_certificates(self.tls.certificates or ())
        check_tls(self.tls.min_version, self.tls.max_version, self.tls.cipher_suites or ())


def _with_kind(references: tuple[ResourceReference, ...] | None, kind: str) -> tuple[ResourceReference, ...] | None:
    if references is None:
        return None
    return tuple(msgspec.structs.replace(reference, kind=reference.kind or kind) for reference in references)


def _check_certificates(references: tuple[ResourceReference, ...]) -> None:
    for reference in references:
        text = f"unsupported certificate kind: {quoted(reference.kind)}, must be one of "
        require(reference.kind in _CERTIFICATE_KINDS, text + "'file-system-certificate', or 'inline-certificate'")
        require(reference.name != "", "certificate reference must have a name")


class APIGateway(ConfigEntry, frozen=True):
    """`api-gateway`: listeners that routes may be bound to."""

    kind: str = msgspec.field(default_factory=lambda: "api-gateway")
    listeners: tuple[APIGatewayListener, ...] | None = msgspec.field(default_factory=lambda: None)
    status: Status = msgspec.field(default_factory=Status)

    def normalised(self) -> Self:
        """With each listener filled in."""
        if self.listeners is None:
            return self
        return msgspec.structs.replace(self, listeners=tuple(listener.normalised() for listener in self.listeners))

    def validate(self) -> None:
        """Raise InvalidConfigEntry naming the listener that cannot be."""
        self.require_name()
        super().validate()
        require(bool(self.listeners), "api gateway must have at least one listener")
        listeners = self.listeners or ()
        names = set()
        by_port: dict[int, APIGatewayListener] = {}
        for listener in listeners:
            text = "must be at least 1 character and contain only letters, numbers, or dashes"
            well_formed = _LISTENER_NAME.fullmatch(listener.name) is not None
            require(well_formed, f"listener name {quoted(listener.name)} is invalid, {text}")
            require(listener.name not in names, f"found multiple listeners with the name {quoted(listener.name)}")
            names.add(listener.name)
        for listener in listeners:
            other = by_port.setdefault(listener.port, listener)
            same = (other.hostname, other.protocol) == (listener.hostname, listener.protocol)
            require(same, f"listeners {quoted(other.name)} and {quoted(listener.name)} cannot be merged")
            by_port[listener.port] = listener
        for listener in listeners:
            listener.check()


class BoundListener(Record, frozen=True):
    """A listener with the routes and certificates that are bound to it."""

    name: str = msgspec.field(default_factory=str)
    routes: tuple[ResourceReference, ...] | None = msgspec.field(default_factory=lambda: None)
    certificates: tuple[ResourceReference, ...] | None = msgspec.field(default_factory=lambda: None)


class BoundAPIGateway(ConfigEntry, frozen=True):
    """`bound-api-gateway`: what a controller bound to a gateway. It is written by the controller alone."""

    kind: str = msgspec.field(default_factory=lambda: "bound-api-gateway")
    listeners: tuple[BoundListener, ...] | None = msgspec.field(default_factory=lambda: None)
    services: dict[str, tuple[ResourceReference, ...]] | None = None

    def validate(self) -> None:
        """Raise InvalidConfigEntry for references to what cannot be bound."""
        self.require_name()
        super().validate()
        for listener in self.listeners or ():
            _check_certificates(listener.certificates or ())
            for route in listener.routes or ():
                text = f"unsupported route kind: {quoted(route.kind)}, must be one of 'http-route', or 'tcp-route'"
                require(route.kind in _ROUTE_KINDS, text)
                require(route.name != "", "route reference must have a name")


class HTTPHeaderMatch(Record, frozen=True):
    """A condition on a header."""

    match: str = msgspec.field(default_factory=str)
    name: str = msgspec.field(default_factory=str)
    value: str = msgspec.field(default_factory=str)


class HTTPPathMatch(Record, frozen=True):
    """A condition on the path."""

    match: str = msgspec.field(default_factory=str)
    value: str = msgspec.field(default_factory=str)


class HTTPQueryMatch(Record, frozen=True):
    """A condition on a query parameter."""

    match: str = msgspec.field(default_factory=str)
    name: str = msgspec.field(default_factory=str)
    value: str = msgspec.field(default_factory=str)


class RouteMatch(Record, frozen=True):
    """The requests that a rule takes: those that meet all conditions that are given."""

    headers: tuple[HTTPHeaderMatch, ...] | None = msgspec.field(default_factory=lambda: None)
    method: str = msgspec.field(default_factory=str)
    path: HTTPPathMatch = msgspec.field(default_factory=HTTPPathMatch)
    query: tuple[HTTPQueryMatch, ...] | None = msgspec.field(default_factory=lambda: None)

    def normalised(self) -> RouteMatch:
        """With the method in upper case, and every path where none is given."""
        path = self.path if self.path.match else HTTPPathMatch("prefix", "/")
        return msgspec.structs.replace(self, method=self.method.upper(), path=path)

    def check(self, where: str) -> None:
        """Raise InvalidConfigEntry, starting with `where`, for a condition that cannot be."""
        text = f"{where}Method contains an invalid method {quoted(self.method)}"
        require(self.method in ("", *HTTP_METHODS), text)
        for at, query in enumerate(self.query or ()):
            _check_condition(query, _QUERY_MATCHES, f"{where}Query[{at}], ")
        for at, header in enumerate(self.headers or ()):
            _check_condition(header, _HEADER_MATCHES, f"{where}Headers[{at}], ")
        require(self.path.match in _PATH_MATCHES, f"{where}Path, match type should be one of exact, prefix, or regex")
        text = f"{where}Path, {self.path.match} type match doesn't start with '/': {quoted(self.path.value)}"
        require(self.path.match == "regex" or self.path.value.startswith("/"), text)


def _check_condition(condition: HTTPQueryMatch | HTTPHeaderMatch, known: tuple[str, ...], where: str) -> None:
    require(condition.name != "", f"{where}missing required Name field")
    choices = f"{', '.join(known[:-1])}, or {known[-1]}"
    require(condition.match in known, f"{where}match type should be one of {choices}")


class HTTPHeaderFilter(Record, frozen=True):
    """Headers to add, to remove and to set."""

    add: dict[str, str] | None = msgspec.field(default_factory=lambda: None)
    remove: tuple[str, ...] | None = msgspec.field(default_factory=lambda: None)
    set: dict[str, str] | None = msgspec.field(default_factory=lambda: None)


class URLRewrite(Record, frozen=True):
    """The path that replaces the one that was matched."""

    path: str = msgspec.field(default_factory=str)


class RetryFilter(Record, frozen=True):
    """When a request is tried again."""

    num_retries: Unsigned = msgspec.field(default_factory=int)
    retry_on: tuple[str, ...] | None = msgspec.field(default_factory=lambda: None)
    retry_on_status_codes: tuple[Unsigned, ...] | None = msgspec.field(default_factory=lambda: None)
    retry_on_connect_failure: bool = msgspec.field(default_factory=bool)


class TimeoutFilter(Record, frozen=True):
    """How long a request may take."""

    request_timeout: Nanoseconds = msgspec.field(default_factory=int)
    idle_timeout: Nanoseconds = msgspec.field(default_factory=int)


class HTTPFilters(Record, frozen=True):
    """What is done with requests before they are sent on."""

    headers: tuple[HTTPHeaderFilter, ...] | None = msgspec.field(default_factory=lambda: None)
    url_rewrite: URLRewrite | None = msgspec.field(default_factory=lambda: None, name="URLRewrite")
    retry_filter: RetryFilter | None = msgspec.field(default_factory=lambda: None)
    timeout_filter: TimeoutFilter | None = msgspec.field(default_factory=lambda: None)
    jwt: JWTRequirement | None = msgspec.field(default_factory=lambda: None, name="JWT")


class HTTPResponseFilters(Record, frozen=True):
    """What is done with responses."""

    headers: tuple[HTTPHeaderFilter, ...] | None = msgspec.field(default_factory=lambda: None)


class HTTPService(Record, frozen=True):
    """A service that requests are sent to, and its share among a rule's services."""

    name: str = msgspec.field(default_factory=str)
    weight: int = msgspec.field(default_factory=int)
    filters: HTTPFilters = msgspec.field(default_factory=HTTPFilters)
    response_filters: HTTPResponseFilters = msgspec.field(default_factory=HTTPResponseFilters)
    max_connections: Unsigned | None = None
    max_pending_requests: Unsigned | None = None
    max_concurrent_requests: Unsigned | None = None
    passive_health_check: PassiveHealthCheck | None = None


class HTTPRule(Record, frozen=True):
    """Requests that meet one of the matches are filtered and sent to one of the services."""

    filters: HTTPFilters = msgspec.field(default_factory=HTTPFilters)
    response_filters: HTTPResponseFilters = msgspec.field(default_factory=HTTPResponseFilters)
    matches: tuple[RouteMatch, ...] | None = msgspec.field(default_factory=lambda: None)
    services: tuple[HTTPService, ...] | None = msgspec.field(default_factory=lambda: None)

    def normalised(self) -> HTTPRule:
        """With matches filled in and a weight of 1 where none is given."""
        matches, services = self.matches, self.services
        if matches is not None:
            matches = tuple(match.normalised() for match in matches)
        if services is not None:
            services = tuple(
                msgspec.structs.replace(one, weight=one.weight if one.weight > 0 else 1) for one in services
            )
        return msgspec.structs.replace(self, matches=matches, services=services)


class HTTPRoute(ConfigEntry, frozen=True):
    """`http-route`: rules by which a gateway's requests reach services."""

    kind: str = msgspec.field(default_factory=lambda: "http-route")
    parents: tuple[ResourceReference, ...] | None = msgspec.field(default_factory=lambda: None)
    rules: tuple[HTTPRule, ...] | None = msgspec.field(default_factory=lambda: None)
    hostnames: tuple[str, ...] | None = msgspec.field(default_factory=lambda: None)
    status: Status = msgspec.field(default_factory=Status)

    def normalised(self) -> Self:
        """With parents' kind and rules filled in."""
        rules = self.rules
        if rules is not None:
            rules = tuple(rule.normalised() for rule in rules)
        return msgspec.structs.replace(self, parents=_with_kind(self.parents, "api-gateway"), rules=rules)

    def validate(self) -> None:
        """Raise InvalidConfigEntry naming the host, parent or rule that cannot be."""
        self.require_name()
        for host in self.hostnames or ():
            require(is_domain_name(host), f"host {quoted(host)} must be a valid DNS hostname")
            require(WILDCARD not in host, f"host {quoted(host)} must not be a wildcard")
        _check_parents(self.parents or ())
        super().validate()
        for at, rule in enumerate(self.rules or ()):
            for number, match in enumerate(rule.matches or ()):
                match.check(f"Rule[{at}], Match[{number}], ")


def _check_parents(parents: tuple[ResourceReference, ...]) -> None:
    for at, parent in enumerate(parents):
        text = f"unsupported parent kind: {quoted(parent.kind)}, must be 'api-gateway'"
        require(parent.kind == "api-gateway", text)
        require(parent not in parents[:at], "route parents must be unique")


class TCPService(Record, frozen=True):
    """The service that a route leads to."""

    name: str = msgspec.field(default_factory=str)


class TCPRoute(ConfigEntry, frozen=True):
    """`tcp-route`: the one service that a gateway's connections reach."""

    kind: str = msgspec.field(default_factory=lambda: "tcp-route")
    parents: tuple[ResourceReference, ...] | None = msgspec.field(default_factory=lambda: None)
    services: tuple[TCPService, ...] | None = msgspec.field(default_factory=lambda: None)
    status: Status = msgspec.field(default_factory=Status)

    def normalised(self) -> Self:
        """With parents' kind filled in."""
        return msgspec.structs.replace(self, parents=_with_kind(self.parents, "api-gateway"))

    def validate(self) -> None:
        """Raise InvalidConfigEntry for several services, or parents that cannot be."""
        self.require_name()
        super().validate()
        require(len(self.services or ()) <= 1, "tcp-route currently only supports one service")
        _check_parents(self.parents or ())
