"""The file that Envoy starts with: who it is, where it gets its configuration, and where its statistics go. Pure.

It is JSON, and may hold a token: whoever passes it on keeps it from others' eyes. `Proxy.Config` adds to it by the keys
`envoy_*`, of which those ending in `_json` hold JSON as Envoy has it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec

from lictor.model.duration import parse_duration
from lictor.model.errors import LictorError

AGENT = "local_agent"
_HTTP2_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_TYPE = "type.googleapis.com/"
_MANAGER = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_ROUTER = "envoy.extensions.filters.http.router.v3.Router"
_TLS = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"


class BadSetting(LictorError):
    """A setting of the proxy that no bootstrap can be made with; the message names it."""


class AgentAddress(msgspec.Struct, frozen=True):
    """Where the agent serves configuration: a host and a port, or a unix socket's path."""

    host: str = ""
    port: int = 0
    path: str = ""


class AgentTls(msgspec.Struct, frozen=True):
    """How the agent is spoken to with TLS: what proves it, and what this side shows. PEM, except for the name."""

    authorities: str = ""
    server_name: str = ""
    certificate: str = ""
    key: str = ""


class Bootstrap(msgspec.Struct, frozen=True):
    """What a bootstrap is made of. `service` is what the proxy stands for; `admin` a host and a port."""

    proxy_id: str
    service: str
    node: str
    datacenter: str
    agent: AgentAddress
    tls: AgentTls | None = None
    token: str = ""
    admin: tuple[str, int] = ("127.0.0.1", 19000)
    admin_log: str = "/dev/null"
    envoy_version: str = ""
    config: Mapping[str, Any] = msgspec.field(default_factory=dict)
    environment: Mapping[str, str] = msgspec.field(default_factory=dict)
    deprecated_tags: bool = True


def bootstrap(wanted: Bootstrap) -> dict[str, Any]:
    """The file's content. Raises `BadSetting`."""
    config = wanted.config
    if config.get("envoy_bootstrap_json_tpl"):
        raise BadSetting("envoy_bootstrap_json_tpl is not supported: use the other envoy_* settings, or -bootstrap")
    made: dict[str, Any] = {
        "admin": {
            "access_log": [
                {
                    "name": "envoy.access_loggers.file",
                    "typed_config": {
                        "@type": f"{_TYPE}envoy.extensions.access_loggers.file.v3.FileAccessLog",
                        "path": wanted.admin_log,
                    },
                }
            ],
            "address": _address(*wanted.admin),
        },
        "node": {
            "id": wanted.proxy_id,
            "cluster": wanted.service,
            "metadata": {
                "namespace": "default",
                "partition": "default",
                "node_name": wanted.node,
                "envoy_version": wanted.envoy_version,
            },
        },
        "layered_runtime": {
            "layers": [{"name": "base", "static_layer": {"re2.max_program_size.error_level": 1048576}}]
        },
        "static_resources": {
            "clusters": [_agent(wanted), *_json_list(config, "envoy_extra_static_clusters_json")],
            "listeners": _json_list(config, "envoy_extra_static_listeners_json"),
        },
        "stats_config": _stats(wanted),
        "dynamic_resources": _dynamic(wanted),
    }
    sinks = [*_sinks(wanted), *_json_list(config, "envoy_extra_stats_sinks_json")]
    if sinks:
        made["stats_sinks"] = sinks
    tracing = _json(config, "envoy_tracing_json")
    if tracing is not None:
        made["tracing"] = tracing
    flush = config.get("envoy_stats_flush_interval")
    if flush:
        made["stats_flush_interval"] = f"{_seconds('envoy_stats_flush_interval', flush):.9g}s"
    _add_listeners(made["static_resources"], wanted)
    return made


def _address(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}


def _agent(wanted: Bootstrap) -> dict[str, Any]:
    place = wanted.agent
    address = {"pipe": {"path": place.path}} if place.path else _address(place.host, place.port)
    named = not place.path and not _is_ip(place.host)
    made = {
        "name": AGENT,
        "ignore_health_on_host_removal": False,
        "connect_timeout": "1s",
        "type": "STRICT_DNS" if named else "STATIC",
        "typed_extension_protocol_options": {_HTTP2_OPTIONS: _http2()},
        "load_assignment": {
            "cluster_name": AGENT,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    }
    if wanted.tls is not None:
        made["transport_socket"] = {"name": "tls", "typed_config": _tls(wanted.tls)}
    return made


def _http2() -> dict[str, Any]:
    # An agent that is gone without a word is noticed.
    keepalive = {"interval": "30s", "timeout": "10s"}
    return {
        "@type": _TYPE + _HTTP2_OPTIONS,
        "explicit_http_config": {"http2_protocol_options": {"connection_keepalive": keepalive}},
    }


def _tls(tls: AgentTls) -> dict[str, Any]:
    common: dict[str, Any] = {
        # By itself Envoy connects with TLS 1.2 at most, which the agent may find too old.
        "tls_params": {"tls_maximum_protocol_version": "TLSv1_3"},
        "validation_context": {"trusted_ca": {"inline_string": tls.authorities}},
    }
    if tls.server_name:
        common["validation_context"]["match_typed_subject_alt_names"] = [
            {"san_type": "DNS", "matcher": {"exact": tls.server_name}}
        ]
    if tls.certificate:
        pair = {"certificate_chain": {"inline_string": tls.certificate}, "private_key": {"inline_string": tls.key}}
        common["tls_certificates"] = [pair]
    made = {"@type": _TYPE + _TLS, "common_tls_context": common}
    if tls.server_name:
        made["sni"] = tls.server_name
    return made


def _dynamic(wanted: Bootstrap) -> dict[str, Any]:
    service: dict[str, Any] = {"envoy_grpc": {"cluster_name": AGENT}}
    if wanted.token:
        service["initial_metadata"] = [{"key": "x-consul-token", "value": wanted.token}]
    from_agent = {"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"}
    return {
        "lds_config": from_agent,
        "cds_config": from_agent,
        "ads_config": {"api_type": "DELTA_GRPC", "transport_api_version": "V3", "grpc_services": service},
    }


def _stats(wanted: Bootstrap) -> dict[str, Any]:
    given = _json(wanted.config, "envoy_stats_config_json")
    if given is not None:
        if not isinstance(given, dict):
            raise BadSetting("envoy_stats_config_json must be a JSON object")
        return given
    tags = [*_own_tags(wanted), *_target_tags("consul.destination.")]
    if wanted.deprecated_tags:
        tags += _target_tags("consul.")
    tags += [
        {"tag_name": "consul.upstream.service", "regex": r"^(?:tcp|http)\.upstream\.(([^.]+)\.)[^.]+\.[^.]+\."},
        {"tag_name": "consul.upstream.namespace", "regex": r"^(?:tcp|http)\.upstream\.[^.]+\.(([^.]+)\.)[^.]+\."},
        {"tag_name": "consul.upstream.datacenter", "regex": r"^(?:tcp|http)\.upstream\.[^.]+\.[^.]+\.(([^.]+)\.)"},
    ]
    fixed = {
        "local_cluster": wanted.service,
        "consul.source.service": wanted.service,
        "consul.source.namespace": "default",
        "consul.source.partition": "default",
        "consul.source.datacenter": wanted.datacenter,
    }
    tags += [{"tag_name": name, "fixed_value": value} for name, value in fixed.items()]
    return {"stats_tags": tags, "use_all_default_tags": True}


def _own_tags(wanted: Bootstrap) -> list[dict[str, Any]]:
    """Those of `envoy_stats_tags`: "name=value"."""
    given = wanted.config.get("envoy_stats_tags") or []
    found = []
    for tag in given if isinstance(given, list | tuple) else [given]:
        name, equals, value = str(tag).partition("=")
        if not equals or not name:
            raise BadSetting(f'envoy_stats_tags must be a list of "name=value", not {tag!r}')
        found.append({"tag_name": name, "fixed_value": value})
    return found


def _target_tags(prefix: str) -> list[dict[str, Any]]:
    """What a cluster's name says of the service that it leads to; each is taken out of the statistic's own name."""
    parts = ("service", "namespace", "datacenter", "routing_type", "trust_domain")
    every = [r"[^.]+\."] * 4 + [r"[^.]+\.consul\."]
    marked = [r"(([^.]+)\.)"] * 4 + [r"(([^.]+\.consul)\.)"]
    tags = []
    for at, part in enumerate(parts):
        pattern = "".join([*every[:at], marked[at], *every[at + 1 :]])
        tags.append({"tag_name": prefix + part, "regex": rf"^cluster\.{pattern}"})
    target = r"(([^.]+\.[^.]+\.[^.]+)\.[^.]+\.[^.]+\.consul\.)"
    full = r"(([^.]+\.[^.]+\.[^.]+\.[^.]+\.[^.]+\.consul)\.)"
    tags.append({"tag_name": f"{prefix}target", "regex": rf"^cluster\.{target}"})
    tags.append({"tag_name": f"{prefix}full_target", "regex": rf"^cluster\.{full}"})
    return tags


def _sinks(wanted: Bootstrap) -> list[dict[str, Any]]:
    """Where statistics are sent: `envoy_statsd_url` and `envoy_dogstatsd_url`, or `$NAME`s of the environment."""
    found = []
    for key, name, kind in (
        ("envoy_statsd_url", "envoy.stat_sinks.statsd", "StatsdSink"),
        ("envoy_dogstatsd_url", "envoy.stat_sinks.dog_statsd", "DogStatsdSink"),
    ):
        url = str(wanted.config.get(key) or "")
        if url.startswith("$"):
            url = wanted.environment.get(url[1:].strip("{}"), "")
        if url:
            config = {"@type": f"{_TYPE}envoy.config.metrics.v3.{kind}", "address": _sink_address(key, url)}
            found.append({"name": name, "typed_config": config})
    return found


def _sink_address(key: str, url: str) -> dict[str, Any]:
    scheme, _, rest = url.partition("://")
    if scheme == "unix":
        return {"pipe": {"path": rest}}
    host, port = _host_port(rest) if scheme == "udp" else ("", 0)
    if not host:
        raise BadSetting(f'{key} must be like "udp://127.0.0.1:9125" or "unix:///run/statsd.sock", not "{url}"')
    return {"socket_address": {"protocol": "UDP", "address": host, "port_value": port}}


def _add_listeners(static: dict[str, Any], wanted: Bootstrap) -> None:
    """Listeners for Prometheus, for statistics, and for whether Envoy is ready: pages of the admin interface, alone."""
    config = wanted.config
    pages = []
    prometheus = str(config.get("envoy_prometheus_bind_addr") or "")
    stats = str(config.get("envoy_stats_bind_addr") or "")
    ready = str(config.get("envoy_ready_bind_addr") or config.get("envoy_ready_bind_address") or "")
    ready_port = config.get("envoy_ready_bind_port")
    if ready and ready_port:
        ready = f"{ready}:{ready_port}"
    if prometheus:
        pages.append(("envoy_prometheus_metrics_listener", prometheus, "/metrics", "/stats/prometheus"))
    if stats:
        pages.append(("envoy_metrics_listener", stats, "/stats", "/stats"))
    if ready:
        pages.append(("envoy_ready_listener", ready, "/ready", "/ready"))
    if not pages:
        return
    endpoint = {"endpoint": {"address": _address(_reached(wanted.admin[0]), wanted.admin[1])}}
    static["clusters"].append(
        {
            "name": "self_admin",
            "connect_timeout": "5s",
            "type": "STATIC",
            "load_assignment": {"cluster_name": "self_admin", "endpoints": [{"lb_endpoints": [endpoint]}]},
        }
    )
    for name, place, path, page in pages:
        static["listeners"].append(_page(name, place, path, page))


def _reached(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


def _page(name: str, place: str, path: str, page: str) -> dict[str, Any]:
    host, port = _host_port(place)
    if not host:
        raise BadSetting(f'{name} needs an address and a port like "0.0.0.0:9102", not "{place}"')
    route = {"match": {"path": path}, "route": {"cluster": "self_admin", "prefix_rewrite": page}}
    refuse = {"match": {"prefix": "/"}, "direct_response": {"status": 404}}
    manager = {
        "@type": _TYPE + _MANAGER,
        "stat_prefix": name,
        "codec_type": "HTTP1",
        "route_config": {
            "name": "self_admin_route",
            "virtual_hosts": [{"name": "self_admin", "domains": ["*"], "routes": [route, refuse]}],
        },
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {"@type": _TYPE + _ROUTER}}],
    }
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    return {"name": name, "address": _address(host, port), "filter_chains": [{"filters": filters}]}


def _is_ip(host: str) -> bool:
    return ":" in host or host.replace(".", "").isdigit()


def _host_port(text: str) -> tuple[str, int]:
    """Host and port; an empty host where that is none."""
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isdigit() or not 0 <= int(port) <= 65535:
        return "", 0
    return host, int(port)


def _seconds(key: str, value: Any) -> float:
    try:
        return parse_duration(str(value))
    except ValueError:
        raise BadSetting(f'{key} must be a duration such as "10s", not {value!r}') from None


def _json(config: Mapping[str, Any], key: str) -> Any:
    text = config.get(key)
    if not text:
        return None
    try:
        return json.loads(str(text))
    except ValueError as error:
        raise BadSetting(f"{key} is no JSON: {error}") from None


def _json_list(config: Mapping[str, Any], key: str) -> list[Any]:
    """Objects one after another with commas between, with or without the brackets around them."""
    text = str(config.get(key) or "").strip()
    if not text:
        return []
    try:
        found = json.loads(text if text.startswith("[") else f"[{text}]")
    except ValueError as error:
        raise BadSetting(f"{key} is no JSON: {error}") from None
    return list(found)
