"""What proxies need, one for each feature: the golden files show what each makes of Envoy's configuration."""

from __future__ import annotations

import base64
import json

import msgspec

from lictor.connect_proxy.envoy.names import service_uri
from lictor.connect_proxy.envoy.snapshot import Endpoint, Leaf, ProxySnapshot, Rule, Target, UpstreamNeeds
from lictor.model.config_entry.defaults import InstanceLevelRateLimits, RouteRateLimits
from lictor.model.config_entry.intentions import (
    HTTPPermission,
    JWTClaim,
    JWTRequirement,
    JWTRequirementProvider,
    Permission,
    PermissionHeader,
)
from lictor.model.config_entry.jwt_provider import (
    Forwarding,
    JWTProvider,
    KeySet,
    LocalKeys,
    Location,
    LocationHeader,
    RemoteKeys,
)
from lictor.model.config_entry.mesh import (
    Mesh,
    MeshDirectionalHTTP,
    MeshDirectionalTLS,
    MeshHTTP,
    MeshTLS,
    MeshTransparentProxy,
    RequestNormalization,
)
from lictor.model.service import AccessLogs, ConnectProxyConfig, Expose, ExposePath, TransparentProxy, Upstream

DOMAIN = "11111111-2222-3333-4444-555555555555.consul"

PLAIN = ProxySnapshot(
    proxy_id="web-sidecar-proxy",
    service="web",
    address="",
    port=21000,
    proxy=ConnectProxyConfig(
        destination_service_name="web",
        destination_service_id="web",
        local_service_address="127.0.0.1",
        local_service_port=8080,
    ),
    datacenter="dc1",
    trust_domain=DOMAIN,
    roots=("-----BEGIN CERTIFICATE-----\na root\n-----END CERTIFICATE-----\n",),
    leaf=Leaf("-----BEGIN CERTIFICATE-----\na leaf\n-----END CERTIFICATE-----\n", "a key"),
)


def changed(snapshot: ProxySnapshot = PLAIN, **fields: object) -> ProxySnapshot:
    """A snapshot with other values."""
    return msgspec.structs.replace(snapshot, **fields)


def proxied(snapshot: ProxySnapshot = PLAIN, **fields: object) -> ProxySnapshot:
    """A snapshot with other values in the proxy's registration."""
    return changed(snapshot, proxy=msgspec.structs.replace(snapshot.proxy, **fields))


def upstream(name: str, protocol: str = "tcp", port: int = 9191, **fields: object) -> UpstreamNeeds:
    """An upstream with two instances, of which one is critical."""
    endpoints = (Endpoint("10.0.0.1", 21001, weight=3), Endpoint("10.0.0.2", 21002, healthy=False))
    return UpstreamNeeds(
        msgspec.structs.replace(Upstream(destination_name=name, local_bind_port=port), **fields),
        protocol,
        Target(name, "dc1", (service_uri(DOMAIN, "dc1", name),), endpoints),
    )


KEYS = (
    b'{"keys": [{"kty": "EC", "crv": "P-256", "kid": "one", "alg": "ES256", '
    b'"x": "DB5DsYBOqNJZ0zHQpojgaigTGY6Poz968UoY_0oS9cY", "y": "5rLKZU_yFP74oaxnUOF1WQSsmxx5ofz64Zu3Q2Nlcvc"}]}'
)
"""A key set with one public key."""

ISSUER = JWTProvider(
    name="okta",
    issuer="https://issuer.example",
    audiences=("web",),
    json_web_key_set=KeySet(local=LocalKeys(jwks=base64.b64encode(KEYS).decode())),
    locations=(Location(header=LocationHeader("Authorization", "Bearer ", True)),),
    forwarding=Forwarding("x-token", True),
    clock_skew_seconds=30,
)
REMOTE = JWTProvider(
    name="remote",
    issuer="https://remote.example",
    json_web_key_set=KeySet(remote=RemoteKeys(uri="https://keys.example/jwks", request_timeout_ms=500)),
    clock_skew_seconds=30,
)
PERMISSIONS = (
    Permission("deny", HTTPPermission(path_prefix="/admin")),
    Permission("allow", HTTPPermission(path_exact="/healthz", methods=("GET", "HEAD"))),
    Permission("allow", HTTPPermission(path_regex="/v[0-9]+/.*", header=(PermissionHeader("x-team", exact="a"),))),
    Permission("deny", HTTPPermission(header=(PermissionHeader("x-debug", present=True, invert=True),))),
)
TOKENS = JWTRequirement((JWTRequirementProvider("okta", (JWTClaim(("perms", "role"), "admin"),)),))

_LISTENER = {
    "name": "mine",
    "address": {"socket_address": {"address": "127.0.0.1", "port_value": 23000}},
    "filter_chains": [
        {
            "filters": [
                {
                    "name": "envoy.filters.network.tcp_proxy",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
                        "stat_prefix": "mine",
                        "cluster": "local_app",
                    },
                }
            ]
        }
    ],
}
_CLUSTER = {
    "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster",
    "name": "mine",
    "type": "STATIC",
    "connect_timeout": "9s",
    "load_assignment": {"cluster_name": "mine", "endpoints": []},
}

_INSTANCES = {
    "name": "mine",
    "type": "EDS",
    "eds_cluster_config": {"eds_config": {"ads": {}, "resource_api_version": "V3"}},
    "connect_timeout": "9s",
    "lb_policy": "RANDOM",
}
_ELSEWHERE = _LISTENER | {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 23001}}}

_HTTP = changed(protocol="http")

SNAPSHOTS: dict[str, ProxySnapshot] = {
    "tcp": PLAIN,
    "http": _HTTP,
    "http2": changed(protocol="http2"),
    "grpc": changed(protocol="grpc", upstreams=(upstream("db", "grpc"),)),
    "upstreams": changed(
        upstreams=(
            upstream("db"),
            upstream("api", "http", 9192, local_bind_address="127.0.0.2"),
            upstream("cache", "http2", 0, local_bind_socket_path="/run/cache.sock", local_bind_socket_mode="0600"),
            upstream("far", "tcp", 9193, datacenter="dc2"),
        )
    ),
    "upstream-settings": changed(
        upstreams=(
            upstream(
                "db",
                config={
                    "connect_timeout_ms": 1500,
                    "limits": {"max_connections": 10, "MaxPendingRequests": 20, "max_concurrent_requests": 30},
                    "passive_health_check": {
                        "interval": "30s",
                        "MaxFailures": 3,
                        "EnforcingConsecutive5xx": 50,
                        "max_ejection_percent": 40,
                        "BaseEjectionTime": 20_000_000_000,
                    },
                    "balance_outbound_connections": "exact_balance",
                },
            ),
        )
    ),
    "local-settings": proxied(
        _HTTP,
        config={
            "bind_address": "10.1.1.1",
            "bind_port": 23456,
            "local_connect_timeout_ms": 1000,
            "local_request_timeout_ms": 3000,
            "local_idle_timeout_ms": 60000,
            "max_inbound_connections": 100,
            "balance_inbound_connections": "exact_balance",
            "max_request_headers_kb": 96,
        },
    ),
    "local-socket": proxied(local_service_address="", local_service_port=0, local_service_socket_path="/run/web.sock"),
    "intentions-default-deny": changed(
        default_allow=False, rules=(Rule("api", "allow"), Rule("bad", "deny"), Rule("*", "allow"))
    ),
    "intentions-default-allow": changed(rules=(Rule("api", "allow"), Rule("bad", "deny"), Rule("*", "deny"))),
    "intentions-http": changed(_HTTP, default_allow=False, rules=(Rule("api", "allow"), Rule("bad", "deny"))),
    "permissions-default-deny": changed(
        _HTTP, default_allow=False, rules=(Rule("api", permissions=PERMISSIONS), Rule("*", "deny"))
    ),
    "permissions-default-allow": changed(_HTTP, rules=(Rule("api", permissions=PERMISSIONS),)),
    "permissions-tcp": changed(default_allow=True, rules=(Rule("api", permissions=PERMISSIONS),)),
    "jwt": changed(
        _HTTP,
        default_allow=False,
        rules=(
            Rule("api", permissions=(Permission("allow", HTTPPermission(path_prefix="/admin"), TOKENS),)),
            Rule("*", "allow", jwt=JWTRequirement((JWTRequirementProvider("remote"),))),
        ),
        jwt_providers=(ISSUER, REMOTE),
    ),
    "access-logs": proxied(_HTTP, access_logs=AccessLogs(enabled=True)),
    "access-logs-file": proxied(
        access_logs=AccessLogs(
            enabled=True, disable_listener_logs=True, type="file", path="/dev/null", text_format="%START_TIME%"
        )
    ),
    "expose": proxied(
        expose=Expose(paths=(ExposePath(21500, "/healthz", 8081, "http"), ExposePath(21501, "/metrics", 8080, "http2")))
    ),
    "expose-checks": changed(
        proxied(
            expose=Expose(
                paths=(
                    ExposePath(21500, "/healthz", 8080, "http", parsed_from_check=True),
                    ExposePath(21501, "/grpc.health.v1.Health/Check", 8081, "http2", parsed_from_check=True),
                )
            )
        ),
        checked_from="10.0.0.9",
    ),
    "transparent": changed(
        proxied(mode="transparent", transparent_proxy=TransparentProxy(outbound_listener_port=15002)),
        upstreams=(
            msgspec.structs.replace(upstream("db", "tcp", 0), addresses=("240.0.0.1",)),
            msgspec.structs.replace(upstream("api", "http", 0), addresses=("240.0.0.2", "10.96.0.7")),
        ),
    ),
    "dialed-directly": changed(
        proxied(mode="transparent"),
        upstreams=(
            msgspec.structs.replace(
                upstream("db", "http", 0), addresses=("240.0.0.1",), direct=("10.0.0.1", "10.0.0.2", "2001:db8::1")
            ),
            msgspec.structs.replace(upstream("api", "tcp", 0), addresses=("240.0.0.2",), direct=("10.0.0.2",)),
        ),
    ),
    "permissive": changed(_HTTP, permissive=True),
    "rate-limits": changed(
        _HTTP,
        limits=InstanceLevelRateLimits(
            1000,
            1500,
            (
                RouteRateLimits(path_exact="/login", requests_per_second=5),
                RouteRateLimits(path_prefix="/api/", requests_per_second=100, requests_max_burst=500),
                RouteRateLimits(path_regex="/v[0-9]+/search", requests_per_second=50),
            ),
        ),
    ),
    "transparent-mesh-only": changed(
        proxied(mode="transparent"),
        mesh=Mesh(transparent_proxy=MeshTransparentProxy(mesh_destinations_only=True)),
        upstreams=(msgspec.structs.replace(upstream("db", "tcp", 0), addresses=("240.0.0.1",)),),
    ),
    "mesh": changed(
        _HTTP,
        mesh=Mesh(
            tls=MeshTLS(
                incoming=MeshDirectionalTLS("TLSv1_3"),
                outgoing=MeshDirectionalTLS("TLSv1_2", cipher_suites=("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",)),
            ),
            http=MeshHTTP(
                sanitize_x_forwarded_client_cert=True,
                incoming=MeshDirectionalHTTP(
                    RequestNormalization(
                        merge_slashes=True,
                        path_with_escaped_slashes_action="UNESCAPE_AND_FORWARD",
                        headers_with_underscores_action="REJECT_REQUEST",
                    )
                ),
            ),
        ),
        upstreams=(upstream("db"),),
    ),
    "escape-hatches": changed(
        proxied(
            config={
                "envoy_public_listener_json": json.dumps(_LISTENER),
                "envoy_local_cluster_json": json.dumps(_CLUSTER),
            }
        ),
        upstreams=(
            upstream("db", config={"envoy_listener_json": json.dumps(_ELSEWHERE)}),
            upstream("api", "http", 9192, config={"envoy_cluster_json": json.dumps(_INSTANCES)}),
        ),
    ),
    "extensions": changed(
        proxied(
            _HTTP,
            envoy_extensions=(
                {
                    "Name": "builtin/property-override",
                    "Arguments": {
                        "ProxyType": "connect-proxy",
                        "Patches": [
                            {
                                "ResourceFilter": {"ResourceType": "cluster", "TrafficDirection": "outbound"},
                                "Op": "add",
                                "Path": "/outlier_detection/success_rate_minimum_hosts",
                                "Value": 7,
                            },
                            {
                                "ResourceFilter": {"ResourceType": "listener", "TrafficDirection": "inbound"},
                                "Op": "add",
                                "Path": "/per_connection_buffer_limit_bytes",
                                "Value": 65536,
                            },
                        ],
                    },
                },
                {
                    "Name": "builtin/lua",
                    "Arguments": {"Listener": "inbound", "Script": "function envoy_on_request(handle) end"},
                },
            ),
        ),
        upstreams=(upstream("db"),),
    ),
    "tracing": proxied(
        _HTTP,
        config={"envoy_listener_tracing_json": json.dumps({"random_sampling": {"value": 10}})},
    ),
}
