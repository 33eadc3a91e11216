"""What a proxy uses after `service-defaults` and `proxy-defaults` are merged into its registration.

For `merge-central-config` in the catalog's and health's answers, and for the proxies themselves. What comes first
wins: the registration, the service's defaults, the global ones
(https://developer.hashicorp.com/consul/docs/connect/config-entries, "Managing Configuration Entries").
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from lictor.model.config_entry.defaults import ProxyDefaults, ServiceDefaults, UpstreamConfig
from lictor.model.service import AccessLogs, ConnectProxyConfig, Expose, MeshGateway, TransparentProxy, Upstream

_TRANSPARENT = "transparent"
# Settings of service-defaults that proxies read from their free-form configuration.
_OPAQUE = (
    ("protocol", "protocol"),
    ("balance_inbound_connections", "balance_inbound_connections"),
    ("max_inbound_connections", "max_inbound_connections"),
    ("local_connect_timeout_ms", "local_connect_timeout_ms"),
    ("local_request_timeout_ms", "local_request_timeout_ms"),
)
_UPSTREAM_OPAQUE = (
    *("envoy_listener_json", "envoy_cluster_json", "protocol", "connect_timeout_ms"),
    *("limits", "passive_health_check", "balance_outbound_connections"),
)

_Upstream = tuple[str, str]
"""An upstream's name and peer."""


def merge_central_config(
    proxy: ConnectProxyConfig,
    service_defaults: ServiceDefaults | None,
    proxy_defaults: ProxyDefaults | None,
    upstream_defaults: Mapping[str, ServiceDefaults] | None = None,
) -> ConnectProxyConfig:
    """`proxy` with all that it leaves open taken from the entries.

    `service_defaults` are those of the service that the proxy stands for. `upstream_defaults` are those of its
    upstreams, by name: they say which protocol an upstream speaks. In transparent mode, upstreams that only
    `service_defaults` knows (and `*`, their defaults) are added, marked as centrally configured.
    """
    service = service_defaults or ServiceDefaults()
    general = proxy_defaults or ProxyDefaults()
    gateway = service.mesh_gateway.mode or general.mesh_gateway.mode
    config = dict(general.config or {})
    for field, key in _OPAQUE:
        if getattr(service, field):
            config[key] = getattr(service, field)
    # Extensions are the entries' alone; the global ones are applied first.
    extensions = (*general.envoy_extensions, *service.envoy_extensions)
    merged = msgspec.structs.replace(
        proxy,
        config=_filled(proxy.config or {}, config) or None,
        mode=proxy.mode or service.mode or general.mode,
        mesh_gateway=MeshGateway(proxy.mesh_gateway.mode or gateway),
        expose=_merged_expose(proxy.expose, service.expose, general.expose),
        transparent_proxy=_merged_transparent(proxy, service.transparent_proxy, general.transparent_proxy),
        access_logs=_merged_logs(proxy.access_logs, general.access_logs),
        envoy_extensions=tuple(msgspec.to_builtins(extension) for extension in extensions),
    )
    central = _central_upstreams(proxy, service, general, gateway, upstream_defaults or {}, merged.mode)
    return msgspec.structs.replace(merged, upstreams=_merged_upstreams(merged, central))


def _filled(own: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """`own` with what is missing or empty taken from `defaults`, also within maps."""
    filled = dict(own)
    for key, value in defaults.items():
        present = filled.get(key)
        if isinstance(present, Mapping) and isinstance(value, Mapping):
            filled[key] = _filled(present, value)
        elif not present and (value or key not in filled):
            filled[key] = value
    return filled


def _merged_expose(own: Expose, service: Expose, general: Expose) -> Expose:
    return Expose(own.checks or service.checks or general.checks, own.paths or service.paths or general.paths)


def _merged_transparent(
    proxy: ConnectProxyConfig, service: TransparentProxy, general: TransparentProxy
) -> TransparentProxy | None:
    own = proxy.transparent_proxy or TransparentProxy()
    merged = TransparentProxy(
        own.outbound_listener_port or service.outbound_listener_port or general.outbound_listener_port,
        own.dialed_directly or service.dialed_directly or general.dialed_directly,
    )
    return proxy.transparent_proxy if merged == TransparentProxy() else merged


def _merged_logs(own: AccessLogs | None, general: AccessLogs) -> AccessLogs | None:
    if general == AccessLogs():
        return own
    present = own or AccessLogs()
    return AccessLogs(*(getattr(present, f) or getattr(general, f) for f in AccessLogs.__struct_fields__))


def _central_upstreams(
    proxy: ConnectProxyConfig,
    service: ServiceDefaults,
    general: ProxyDefaults,
    gateway: str,
    upstream_defaults: Mapping[str, ServiceDefaults],
    mode: str,
) -> dict[_Upstream, dict[str, Any]]:
    """What the entries say of each upstream, registered or not, as the map that proxies read; `*` is for all others.

    A protocol is that of proxy-defaults, unless the upstream's own defaults, or better the downstream's, say another.
    A mesh gateway mode is the entries', then the proxy's own, then that of an override.
    """
    registered = [_key(upstream) for upstream in proxy.upstreams if upstream.destination_type in ("", "service")]
    if not registered and mode != _TRANSPARENT:
        return {}
    configuration = service.upstream_config
    overrides = {(one.name, one.peer): one for one in configuration.overrides} if configuration is not None else {}
    defaults = configuration.defaults if configuration is not None else None
    wildcard: dict[str, Any] = {}
    protocol = (general.config or {}).get("protocol")
    if protocol:
        wildcard["protocol"] = protocol
    own_gateway = proxy.mesh_gateway.mode
    default_gateway = (defaults.mesh_gateway.mode if defaults is not None else "") or gateway
    if own_gateway or default_gateway:
        wildcard["mesh_gateway"] = {"Mode": own_gateway or default_gateway}
    if defaults is not None:
        wildcard.update(_opaque(defaults))
    central: dict[_Upstream, dict[str, Any]] = {}
    if wildcard:
        central[("*", "")] = wildcard
    for key in (*registered, *overrides):
        config = dict(wildcard)
        name, peer = key
        upstream = upstream_defaults.get(name) if not peer else None
        if upstream is not None and upstream.protocol and not (defaults is not None and defaults.protocol):
            config["protocol"] = upstream.protocol
        override = overrides.get(key)
        if override is not None:
            config.update(_opaque(override))
            if override.mesh_gateway.mode:
                config["mesh_gateway"] = {"Mode": override.mesh_gateway.mode}
        if config:
            central[key] = config
    return central


def _opaque(config: UpstreamConfig) -> dict[str, Any]:
    given = {}
    for field in _UPSTREAM_OPAQUE:
        value = getattr(config, field)
        if value:
            given[field] = msgspec.to_builtins(value)
    return given


def _key(upstream: Upstream) -> _Upstream:
    return upstream.destination_name, upstream.destination_peer


def _merged_upstreams(proxy: ConnectProxyConfig, central: Mapping[_Upstream, dict[str, Any]]) -> tuple[Upstream, ...]:
    merged = []
    for upstream in proxy.upstreams:
        config = central.get(_key(upstream)) if upstream.destination_type in ("", "service") else None
        merged.append(upstream if config is None else _merged_upstream(upstream, config))
    if proxy.mode == _TRANSPARENT:
        registered = {_key(upstream) for upstream in proxy.upstreams}
        for (name, peer), config in central.items():
            if (name, peer) not in registered:
                mode = config.get("mesh_gateway", {}).get("Mode", "")
                merged.append(
                    Upstream(
                        destination_type="service",
                        destination_name=name,
                        destination_peer=peer,
                        config=config,
                        mesh_gateway=MeshGateway(mode),
                        centrally_configured=True,
                    )
                )
    return tuple(merged)


def _merged_upstream(upstream: Upstream, central: Mapping[str, Any]) -> Upstream:
    """A registered upstream with what the entries say. A peer's protocol is the peer's to say."""
    mode = upstream.mesh_gateway.mode or central.get("mesh_gateway", {}).get("Mode", "")
    dropped = {"mesh_gateway"} | ({"protocol"} if upstream.destination_peer else set())
    config = _filled(upstream.config or {}, {key: value for key, value in central.items() if key not in dropped})
    config.pop("mesh_gateway", None)
    return msgspec.structs.replace(upstream, mesh_gateway=MeshGateway(mode), config=config or None)
