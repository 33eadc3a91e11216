"""JWT: how tokens are found in requests and verified, from `jwt-provider` entries.

The filter verifies whatever token is there, of each provider that an intention names, and lets every request through;
what the token says is kept beside the request, and the intentions decide by it.
"""

from __future__ import annotations

import base64
from urllib.parse import urlsplit

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import base_pb2, http_uri_pb2
from envoy.config.endpoint.v3 import endpoint_components_pb2, endpoint_pb2
from envoy.config.route.v3 import route_components_pb2
from envoy.extensions.filters.http.jwt_authn.v3 import config_pb2
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import HttpFilter
from envoy.extensions.transport_sockets.tls.v3 import common_pb2, tls_pb2
from google.protobuf import empty_pb2

from lictor.connect_proxy.envoy.intentions import JWT_FILTER, payload_key
from lictor.connect_proxy.envoy.protobuf import address, duration, pack, uint32
from lictor.connect_proxy.envoy.snapshot import ProxySnapshot
from lictor.model.config_entry.jwt_provider import JWTProvider, LocalKeys, RemoteKeys
from lictor.model.duration import SECOND

_KEYS_TIMEOUT = 1.0
_KEYS_CACHED = 300.0
_SYSTEM_ROOTS = "/etc/ssl/certs/ca-certificates.crt"


def used(snapshot: ProxySnapshot) -> list[JWTProvider]:
    """The providers that an intention names, by name."""
    named = set()
    for rule in snapshot.rules:
        for need in (rule.jwt, *(permission.jwt for permission in rule.permissions)):
            if need is not None:
                named |= {provider.name for provider in need.providers}
    return sorted((one for one in snapshot.jwt_providers if one.name in named), key=lambda one: one.name)


def http_filter(snapshot: ProxySnapshot) -> HttpFilter | None:
    """The filter, none where no intention asks for tokens."""
    providers = used(snapshot)
    if not providers:
        return None
    each = []
    for provider in providers:
        either = [
            config_pb2.JwtRequirement(provider_name=provider.name),
            config_pb2.JwtRequirement(allow_missing_or_failed=empty_pb2.Empty()),
        ]
        each.append(config_pb2.JwtRequirement(requires_any=config_pb2.JwtRequirementOrList(requirements=either)))
    needs = each[0]
    if len(each) > 1:
        needs = config_pb2.JwtRequirement(requires_all=config_pb2.JwtRequirementAndList(requirements=each))
    rule = config_pb2.RequirementRule(match=route_components_pb2.RouteMatch(prefix="/"), requires=needs)
    config = config_pb2.JwtAuthentication(providers={one.name: _provider(one) for one in providers}, rules=[rule])
    return HttpFilter(name=JWT_FILTER, typed_config=pack(config))


def _provider(provider: JWTProvider) -> config_pb2.JwtProvider:
    made = config_pb2.JwtProvider(
        issuer=provider.issuer,
        audiences=provider.audiences,
        payload_in_metadata=payload_key(provider.name),
        clock_skew_seconds=provider.clock_skew_seconds,
    )
    for location in provider.locations:
        if location.header is not None:
            made.from_headers.append(
                config_pb2.JwtHeader(name=location.header.name, value_prefix=location.header.value_prefix)
            )
            made.forward = made.forward or location.header.forward
        if location.query_param is not None:
            made.from_params.append(location.query_param.name)
        if location.cookie is not None:
            made.from_cookies.append(location.cookie.name)
    if provider.forwarding is not None:
        made.forward_payload_header = provider.forwarding.header_name
        made.pad_forward_payload_header = provider.forwarding.pad_forward_payload_header
    if provider.cache_config is not None and provider.cache_config.size > 0:
        made.jwt_cache_config.jwt_cache_size = provider.cache_config.size
    keys = provider.json_web_key_set
    if keys is not None and keys.local is not None:
        made.local_jwks.CopyFrom(_local(keys.local))
    if keys is not None and keys.remote is not None:
        made.remote_jwks.CopyFrom(_remote(keys.remote, provider.name))
    return made


def _local(keys: LocalKeys) -> base_pb2.DataSource:
    if keys.filename:
        return base_pb2.DataSource(filename=keys.filename)
    return base_pb2.DataSource(inline_string=base64.b64decode(keys.jwks).decode("utf-8", "replace"))


def _remote(keys: RemoteKeys, provider: str) -> config_pb2.RemoteJwks:
    timeout = keys.request_timeout_ms / 1000 if keys.request_timeout_ms > 0 else _KEYS_TIMEOUT
    made = config_pb2.RemoteJwks(
        http_uri=http_uri_pb2.HttpUri(uri=keys.uri, cluster=keys_cluster(provider), timeout=duration(timeout)),
        cache_duration=duration(keys.cache_duration / SECOND if keys.cache_duration > 0 else _KEYS_CACHED),
    )
    if keys.fetch_asynchronously:
        made.async_fetch.SetInParent()
    if keys.retry_policy is not None:
        made.retry_policy.num_retries.CopyFrom(uint32(max(keys.retry_policy.num_retries, 0)))
        back_off = keys.retry_policy.retry_policy_back_off
        if back_off is not None and back_off.base_interval > 0:
            made.retry_policy.retry_back_off.base_interval.CopyFrom(duration(back_off.base_interval / SECOND))
            if back_off.max_interval > 0:
                made.retry_policy.retry_back_off.max_interval.CopyFrom(duration(back_off.max_interval / SECOND))
    return made


def keys_cluster(provider: str) -> str:
    """The cluster from which a provider's keys are fetched."""
    return f"jwks_cluster_{provider}"


def clusters(snapshot: ProxySnapshot, problems: list[str]) -> list[cluster_pb2.Cluster]:
    """Where keys are fetched from."""
    found = []
    for provider in used(snapshot):
        keys = provider.json_web_key_set
        if keys is not None and keys.remote is not None:
            try:
                found.append(_cluster(provider.name, keys.remote))
            except ValueError as error:
                problems.append(f"jwt-provider {provider.name}: the address of its keys cannot be used: {error}")
    return found


def _cluster(provider: str, keys: RemoteKeys) -> cluster_pb2.Cluster:
    parts = urlsplit(keys.uri)
    host, secure = parts.hostname or "", parts.scheme == "https"
    if not host:
        raise ValueError(f"{keys.uri} names no host")
    port = parts.port or (443 if secure else 80)
    endpoint = endpoint_components_pb2.LbEndpoint(
        endpoint=endpoint_components_pb2.Endpoint(address=address(host, port))
    )
    settings = keys.jwks_cluster
    kind = (settings.discovery_type if settings is not None else "") or "STRICT_DNS"
    wait = settings.connect_timeout / SECOND if settings is not None and settings.connect_timeout > 0 else 5.0
    name = keys_cluster(provider)
    made = cluster_pb2.Cluster(
        name=name,
        type=cluster_pb2.Cluster.DiscoveryType.Value(kind),
        connect_timeout=duration(wait),
        load_assignment=endpoint_pb2.ClusterLoadAssignment(
            cluster_name=name,
            endpoints=[endpoint_components_pb2.LocalityLbEndpoints(lb_endpoints=[endpoint])],
        ),
    )
    if secure:
        context = tls_pb2.UpstreamTlsContext(
            common_tls_context=tls_pb2.CommonTlsContext(validation_context=_trust(keys, host)), sni=host
        )
        made.transport_socket.name = "tls"
        made.transport_socket.typed_config.CopyFrom(pack(context))
    return made


def _trust(keys: RemoteKeys, host: str) -> common_pb2.CertificateValidationContext:
    """Whom the server of the keys must be vouched for by, and that it is the one which was asked."""
    made = common_pb2.CertificateValidationContext()
    settings = keys.jwks_cluster.tls_certificates if keys.jwks_cluster is not None else None
    trusted = settings.trusted_ca if settings is not None else None
    instance = settings.ca_certificate_provider_instance if settings is not None else None
    if instance is not None:
        made.ca_certificate_provider_instance.instance_name = instance.instance_name or "default"
        made.ca_certificate_provider_instance.certificate_name = instance.certificate_name
    elif trusted is None:
        made.trusted_ca.filename = _SYSTEM_ROOTS
    elif trusted.filename:
        made.trusted_ca.filename = trusted.filename
    elif trusted.environment_variable:
        made.trusted_ca.environment_variable = trusted.environment_variable
    elif trusted.inline_string:
        made.trusted_ca.inline_string = trusted.inline_string
    else:
        made.trusted_ca.inline_bytes = base64.b64decode(trusted.inline_bytes)
    matcher = made.match_typed_subject_alt_names.add()
    matcher.san_type = common_pb2.SubjectAltNameMatcher.DNS
    matcher.matcher.exact = host
    return made
