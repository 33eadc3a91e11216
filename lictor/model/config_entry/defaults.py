"""`service-defaults` and `proxy-defaults`: what a service's proxies use unless their registration says otherwise."""

from __future__ import annotations

from typing import Any, Self

import msgspec

from lictor.model.config_entry.decode import InvalidConfigEntry, several
from lictor.model.config_entry.entry import (
    WILDCARD,
    ConfigEntry,
    PassiveHealthCheck,
    Record,
    is_domain_name,
    is_ip_address,
    meta_problems,
    require,
)
from lictor.model.service import AccessLogs, Expose, MeshGateway, TransparentProxy

GLOBAL = "global"
EXACT_BALANCE = "exact_balance"
PERMISSIVE = "permissive"
_MUTUAL_TLS_MODES = ("", "strict", PERMISSIVE)
_PROXY_MODES = ("", "direct", "transparent")


class UpstreamLimits(Record, frozen=True):
    """Connections and requests that a proxy allows to an upstream."""

    max_connections: int | None = None
    max_pending_requests: int | None = None
    max_concurrent_requests: int | None = None


class UpstreamConfig(Record, frozen=True):
    """Settings of one upstream, or of all (then without a name)."""

    name: str = ""
    peer: str = ""
    envoy_listener_json: str = msgspec.field(default="", name="EnvoyListenerJSON")
    envoy_cluster_json: str = msgspec.field(default="", name="EnvoyClusterJSON")
    protocol: str = ""
    connect_timeout_ms: int = 0
    limits: UpstreamLimits | None = None
    passive_health_check: PassiveHealthCheck | None = None
    mesh_gateway: MeshGateway = msgspec.field(default_factory=MeshGateway)
    balance_outbound_connections: str = ""

    def problems(self, named: bool) -> list[str]:
        """What is wrong, in Consul's words; `named` when this overrides the settings of one upstream."""
        if named and not self.name:
            return ["Name is required"]
        if named and self.name == WILDCARD:
            return ["Wildcard name is not supported"]
        if not named and self.name:
            return ["Name must be empty"]
        if not named and self.peer:
            return ["Peer must be empty"]
        problems = []
        if self.passive_health_check is not None and self.passive_health_check.interval < 0:
            problems.append("passive health check interval cannot be negative")
        if self.limits is not None:
            for field in ("max_connections", "max_pending_requests", "max_concurrent_requests"):
                if (getattr(self.limits, field) or 0) < 0:
                    problems.append(f"{field.replace('_', ' ')} cannot be negative")
        if self.balance_outbound_connections not in ("", EXACT_BALANCE):
            problems.append(f"invalid value for balance_outbound_connections: {self.balance_outbound_connections}")
        return problems

    def normalised(self) -> UpstreamConfig:
        """With the protocol in lower case and no negative timeout."""
        return msgspec.structs.replace(
            self, protocol=self.protocol.lower(), connect_timeout_ms=max(self.connect_timeout_ms, 0)
        )


class UpstreamConfiguration(Record, frozen=True):
    """Settings of a service's upstreams."""

    overrides: tuple[UpstreamConfig, ...] = ()
    defaults: UpstreamConfig | None = None


class Destination(Record, frozen=True):
    """Where a service that is outside of the mesh is reached."""

    addresses: tuple[str, ...] = ()
    port: int = 0


class RouteRateLimits(Record, frozen=True):
    """A limit for one route. One of the paths is given."""

    path_exact: str = msgspec.field(default_factory=str)
    path_prefix: str = msgspec.field(default_factory=str)
    path_regex: str = msgspec.field(default_factory=str)
    requests_per_second: int = msgspec.field(default_factory=int)
    requests_max_burst: int = msgspec.field(default_factory=int)


class InstanceLevelRateLimits(Record, frozen=True):
    """Limits of requests to each instance."""

    requests_per_second: int = msgspec.field(default_factory=int)
    requests_max_burst: int = msgspec.field(default_factory=int)
    routes: tuple[RouteRateLimits, ...] | None = msgspec.field(default_factory=lambda: None)


class RateLimits(Record, frozen=True):
    """Limits of requests to a service."""

    instance_level: InstanceLevelRateLimits = msgspec.field(default_factory=InstanceLevelRateLimits)


class EnvoyExtension(Record, frozen=True):
    """An extension that modifies what a proxy is configured with."""

    name: str = msgspec.field(default_factory=str)
    required: bool = msgspec.field(default_factory=bool)
    arguments: dict[str, Any] | None = msgspec.field(default_factory=lambda: None)
    consul_version: str = msgspec.field(default_factory=str)
    envoy_version: str = msgspec.field(default_factory=str)


class FailoverPolicy(Record, frozen=True):
    """How failover targets are ordered: `sequential` (or empty) or `order-by-locality`."""

    mode: str = ""
    regions: tuple[str, ...] = ()


class PrioritizeByLocality(Record, frozen=True):
    """Whether near instances are preferred: `failover`, `none` or empty."""

    mode: str = ""


class ServiceDefaults(ConfigEntry, frozen=True):
    """`service-defaults`: a service's protocol and what its proxies use."""

    kind: str = msgspec.field(default_factory=lambda: "service-defaults")
    protocol: str = msgspec.field(default_factory=str)
    mode: str = ""
    transparent_proxy: TransparentProxy = msgspec.field(default_factory=TransparentProxy)
    mutual_tls_mode: str = msgspec.field(default="", name="MutualTLSMode")
    mesh_gateway: MeshGateway = msgspec.field(default_factory=MeshGateway)
    expose: Expose = msgspec.field(default_factory=Expose)
    external_sni: str = msgspec.field(default="", name="ExternalSNI")
    upstream_config: UpstreamConfiguration | None = None
    destination: Destination | None = None
    max_inbound_connections: int = 0
    local_connect_timeout_ms: int = 0
    local_request_timeout_ms: int = 0
    balance_inbound_connections: str = ""
    rate_limits: RateLimits | None = None
    envoy_extensions: tuple[EnvoyExtension, ...] = ()

    def normalised(self) -> Self:
        """With protocols in lower case."""
        upstreams = self.upstream_config
        if upstreams is not None:
            upstreams = UpstreamConfiguration(
                tuple(override.normalised() for override in upstreams.overrides),
                upstreams.defaults.normalised() if upstreams.defaults is not None else None,
            )
        return msgspec.structs.replace(self, protocol=self.protocol.lower(), upstream_config=upstreams)

    def validate(self) -> None:
        """Raise InvalidConfigEntry listing everything that is wrong."""
        self.require_name()
        text = "service-defaults name must be the name of a service, and not a wildcard"
        require(self.name != WILDCARD, text)
        problems = meta_problems(self.meta)
        if self.balance_inbound_connections not in ("", EXACT_BALANCE):
            problems.append(f"invalid value for balance_inbound_connections: {self.balance_inbound_connections}")
        if self.upstream_config is not None and self.destination is not None:
            problems.append("UpstreamConfig and Destination are mutually exclusive for service defaults")
            raise InvalidConfigEntry(several(problems))
        problems += self._upstream_problems()
        if self.destination is not None:
            problems += _destination_problems(self.destination)
        problems += _rate_limit_problems(self.rate_limits)
        problems += _extension_problems(self.envoy_extensions)
        _check_modes(self.mode, self.mutual_tls_mode)
        if problems:
            raise InvalidConfigEntry(several(problems))

    def _upstream_problems(self) -> list[str]:
        if self.upstream_config is None:
            return []
        problems = []
        for override in self.upstream_config.overrides:
            found = override.problems(named=True)
            if found:
                text = found[0] if len(found) == 1 and not override.name else several(found)
                problems.append(f"error in upstream override for {override.name}: {text}")
        if self.upstream_config.defaults is not None:
            found = self.upstream_config.defaults.problems(named=False)
            if found:
                problems.append(f"error in upstream defaults: {several(found)}")
        return problems


def _destination_problems(destination: Destination) -> list[str]:
    problems = []
    if not destination.addresses:
        problems.append("Destination must contain at least one valid address")
    seen = set()
    for address in destination.addresses:
        if address in seen:
            problems.append(f"Duplicate address '{address}' is not allowed")
            continue
        seen.add(address)
        if not is_ip_address(address) and (WILDCARD in address or not is_domain_name(address)):
            reason = f"Could not validate address {address} as an IP or Hostname"
            problems.append(f"Destination address '{address}' is invalid {reason}")
    if not 1 <= destination.port <= 65535:
        problems.append(f"Invalid Port number {destination.port}")
    return problems


def _rate_limit_problems(limits: RateLimits | None) -> list[str]:
    """Consul keeps rate limits for its Enterprise edition; here they are checked for sense alone."""
    if limits is None:
        return []
    problems = []
    whole = limits.instance_level
    numbers = [whole.requests_per_second, whole.requests_max_burst]
    for limit in whole.routes or ():
        numbers += [limit.requests_per_second, limit.requests_max_burst]
        paths = [path for path in (limit.path_exact, limit.path_prefix, limit.path_regex) if path]
        if len(paths) != 1:
            problems.append("Route must define exactly one of PathExact, PathPrefix, or PathRegex")
    if min(numbers) < 0:
        problems.append("RequestsPerSecond and RequestsMaxBurst must not be negative")
    return problems


def _extension_problems(extensions: tuple[EnvoyExtension, ...]) -> list[str]:
    return [f"invalid EnvoyExtensions[{at}]: Name is required" for at, one in enumerate(extensions) if not one.name]


def _check_modes(mode: str, mutual_tls_mode: str) -> None:
    require(mode in _PROXY_MODES, f'invalid proxy mode: "{mode}", must be one of "direct" or "transparent"')
    text = f'Invalid MutualTLSMode "{mutual_tls_mode}". Must be one of "", "strict", or "permissive".'
    require(mutual_tls_mode in _MUTUAL_TLS_MODES, text)


class ProxyDefaults(ConfigEntry, frozen=True):
    """`proxy-defaults`, of which there is one, named `global`: what all proxies use."""

    kind: str = msgspec.field(default_factory=lambda: "proxy-defaults")
    config: dict[str, Any] | None = msgspec.field(default_factory=lambda: None)
    mode: str = ""
    transparent_proxy: TransparentProxy = msgspec.field(default_factory=TransparentProxy)
    mutual_tls_mode: str = msgspec.field(default="", name="MutualTLSMode")
    mesh_gateway: MeshGateway = msgspec.field(default_factory=MeshGateway)
    expose: Expose = msgspec.field(default_factory=Expose)
    access_logs: AccessLogs = msgspec.field(default_factory=AccessLogs)
    envoy_extensions: tuple[EnvoyExtension, ...] = ()
    failover_policy: FailoverPolicy | None = None
    prioritize_by_locality: PrioritizeByLocality | None = None

    def normalised(self) -> Self:
        """With the only name there is, where none was given."""
        return msgspec.structs.replace(self, name=self.name or GLOBAL)

    def validate(self) -> None:
        """Raise InvalidConfigEntry for another name, bad access logs, modes or metadata."""
        require(self.name == GLOBAL, f'invalid name ("{self.name}"), only "{GLOBAL}" is supported')
        super().validate()
        _check_access_logs(self.access_logs)
        problems = _extension_problems(self.envoy_extensions)
        if problems:
            raise InvalidConfigEntry(several(problems))
        _check_modes(self.mode, self.mutual_tls_mode)
        check_failover_policy(self.failover_policy)
        check_prioritize_by_locality(self.prioritize_by_locality)


def check_failover_policy(policy: FailoverPolicy | None) -> None:
    """Raise InvalidConfigEntry unless a failover policy has a mode that is known."""
    if policy is not None:
        known = ("", "sequential", "order-by-locality")
        require(policy.mode in known, 'Failover-policy mode must be one of "", "sequential", or "order-by-locality"')


def check_prioritize_by_locality(rule: PrioritizeByLocality | None) -> None:
    """Raise InvalidConfigEntry unless a locality rule has a mode that is known."""
    if rule is not None:
        text = f'prioritize_by_locality mode must be one of "", "none", or "failover", got "{rule.mode}"'
        require(rule.mode in ("", "none", "failover"), text)


def _check_access_logs(logs: AccessLogs) -> None:
    require(logs.type in ("", "stdout", "stderr", "file"), f"invalid access log type: {logs.type}")
    require(not (logs.json_format and logs.text_format), "cannot specify both access log JSONFormat and TextFormat")
    require(logs.type != "file" or logs.path != "", "path must be specified when using file type access logs")
    require(logs.type == "file" or logs.path == "", "path is only valid for file type access logs")
