"""Clusters: the proxy's own service, its upstreams, exposed paths, and in transparent mode what is outside the mesh."""

from __future__ import annotations

from envoy.config.cluster.v3 import circuit_breaker_pb2, cluster_pb2, outlier_detection_pb2
from envoy.config.core.v3 import address_pb2
from envoy.config.endpoint.v3 import endpoint_components_pb2, endpoint_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2

from lictor.connect_proxy.envoy import chain, jwt, names, tls
from lictor.connect_proxy.envoy.overrides import parse_cluster
from lictor.connect_proxy.envoy.protobuf import address, duration, from_ads, pack, pipe, uint32
from lictor.connect_proxy.envoy.public_listener import exposed_cluster
from lictor.connect_proxy.envoy.settings import Limits, PassiveHealth, ProxySettings, UpstreamSettings, read_upstream
from lictor.connect_proxy.envoy.snapshot import ProxySnapshot, Target, UpstreamNeeds

_LOOPBACK = "127.0.0.1"
_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def clusters(snapshot: ProxySnapshot, settings: ProxySettings, problems: list[str]) -> list[cluster_pb2.Cluster]:
    """All of them, each name once."""
    found = {names.LOCAL_APP: _local_app(snapshot, settings, problems)}
    for path in snapshot.proxy.expose.paths:
        name = exposed_cluster(path)
        if name not in found:
            found[name] = _static(name, address(_local_host(snapshot), path.local_path_port), settings)
            _speak(found[name], path.protocol)
    for needs in snapshot.upstreams:
        own, unread = read_upstream(needs.upstream.config, needs.name)
        problems += unread
        for target in chain.way(needs, snapshot).targets:
            name = names.target_name(target, snapshot.trust_domain)
            if name not in found:
                found[name] = _upstream(name, needs, target, own, snapshot, problems)
            if needs.direct:
                direct = _original(f"{names.PASSTHROUGH}{name}", own.connect_timeout)
                direct.transport_socket.CopyFrom(tls.outbound(snapshot, needs.protocol, name, target.identities))
                found.setdefault(direct.name, direct)
    if snapshot.is_transparent and not snapshot.mesh.transparent_proxy.mesh_destinations_only:
        found[names.ORIGINAL_DESTINATION] = _original(names.ORIGINAL_DESTINATION, settings.local_connect_timeout)
    for keys in jwt.clusters(snapshot, problems):
        found[keys.name] = keys
    return list(found.values())


def _original(name: str, connect_timeout: float) -> cluster_pb2.Cluster:
    """What leads a connection to the address that it was meant for before it was redirected."""
    return cluster_pb2.Cluster(
        name=name,
        type=cluster_pb2.Cluster.ORIGINAL_DST,
        lb_policy=cluster_pb2.Cluster.CLUSTER_PROVIDED,
        connect_timeout=duration(connect_timeout),
    )


def _local_host(snapshot: ProxySnapshot) -> str:
    return snapshot.proxy.local_service_address or _LOOPBACK


def _local_app(snapshot: ProxySnapshot, settings: ProxySettings, problems: list[str]) -> cluster_pb2.Cluster:
    """The service itself, on this machine."""
    if settings.local_cluster_json:
        written = parse_cluster(settings.local_cluster_json, "envoy_local_cluster_json", problems)
        if written is not None:
            written.name = names.LOCAL_APP
            return written
    proxy = snapshot.proxy
    if proxy.local_service_socket_path:
        place = pipe(proxy.local_service_socket_path)
    else:
        place = address(_local_host(snapshot), proxy.local_service_port)
    made = _static(names.LOCAL_APP, place, settings)
    _speak(made, snapshot.protocol)
    if settings.max_inbound_connections:
        limit = uint32(settings.max_inbound_connections)
        made.circuit_breakers.thresholds.append(circuit_breaker_pb2.CircuitBreakers.Thresholds(max_connections=limit))
    return made


def _static(name: str, place: address_pb2.Address, settings: ProxySettings) -> cluster_pb2.Cluster:
    host = place.socket_address.address
    kind = cluster_pb2.Cluster.STATIC if not host or names.is_ip(host) else cluster_pb2.Cluster.STRICT_DNS
    endpoint = endpoint_components_pb2.LbEndpoint(endpoint=endpoint_components_pb2.Endpoint(address=place))
    return cluster_pb2.Cluster(
        name=name,
        type=kind,
        connect_timeout=duration(settings.local_connect_timeout),
        load_assignment=endpoint_pb2.ClusterLoadAssignment(
            cluster_name=name, endpoints=[endpoint_components_pb2.LocalityLbEndpoints(lb_endpoints=[endpoint])]
        ),
    )


def _speak(made: cluster_pb2.Cluster, protocol: str) -> None:
    """HTTP/2 where the protocol is made of it."""
    if protocol in ("http2", "grpc"):
        options = http_protocol_options_pb2.HttpProtocolOptions()
        options.explicit_http_config.http2_protocol_options.SetInParent()
        made.typed_extension_protocol_options[_HTTP_OPTIONS].CopyFrom(pack(options))


def _upstream(
    name: str,
    needs: UpstreamNeeds,
    target: Target,
    settings: UpstreamSettings,
    snapshot: ProxySnapshot,
    problems: list[str],
) -> cluster_pb2.Cluster:
    """The instances of a target. TLS to them is not for anybody to write away."""
    made = None
    if settings.cluster_json:
        made = parse_cluster(settings.cluster_json, f"upstream {needs.name}: envoy_cluster_json", problems)
        if made is not None:
            made.name = name
    if made is None:
        made = cluster_pb2.Cluster(
            name=name,
            alt_stat_name=name,
            type=cluster_pb2.Cluster.EDS,
            eds_cluster_config=cluster_pb2.Cluster.EdsClusterConfig(eds_config=from_ads()),
            connect_timeout=duration(settings.connect_timeout),
            circuit_breakers=_limits(settings.limits),
            outlier_detection=_passive(settings.passive_health),
        )
        # Instances that fail are never used for want of better ones.
        made.common_lb_config.healthy_panic_threshold.SetInParent()
        _speak(made, needs.protocol)
    made.transport_socket.CopyFrom(tls.outbound(snapshot, needs.protocol, name, target.identities))
    return made


def _limits(limits: Limits) -> circuit_breaker_pb2.CircuitBreakers:
    if limits == Limits():
        return circuit_breaker_pb2.CircuitBreakers()
    thresholds = circuit_breaker_pb2.CircuitBreakers.Thresholds(
        max_connections=uint32(limits.max_connections),
        max_pending_requests=uint32(limits.max_pending_requests),
        max_requests=uint32(limits.max_concurrent_requests),
    )
    return circuit_breaker_pb2.CircuitBreakers(thresholds=[thresholds])


def _passive(health: PassiveHealth) -> outlier_detection_pb2.OutlierDetection:
    """Without settings, Envoy's own measure of what an outlier is."""
    made = outlier_detection_pb2.OutlierDetection(
        consecutive_5xx=uint32(health.max_failures),
        enforcing_consecutive_5xx=uint32(health.enforcing_consecutive5xx),
        max_ejection_percent=uint32(health.max_ejection_percent),
    )
    if health.interval is not None:
        made.interval.CopyFrom(duration(health.interval))
    if health.base_ejection_time is not None:
        made.base_ejection_time.CopyFrom(duration(health.base_ejection_time))
    return made


def endpoints(snapshot: ProxySnapshot) -> list[endpoint_pb2.ClusterLoadAssignment]:
    """Where the instances of each target are, with their health and their weights."""
    found = {}
    for needs in snapshot.upstreams:
        for target in chain.way(needs, snapshot).targets:
            name = names.target_name(target, snapshot.trust_domain)
            if name not in found:
                found[name] = _assignment(name, target)
    return list(found.values())


def _assignment(name: str, target: Target) -> endpoint_pb2.ClusterLoadAssignment:
    places = [
        endpoint_components_pb2.LbEndpoint(
            endpoint=endpoint_components_pb2.Endpoint(address=address(one.address, one.port)),
            health_status="HEALTHY" if one.healthy else "UNHEALTHY",
            load_balancing_weight=uint32(one.weight),
        )
        for one in target.endpoints
        # A host name cannot be an endpoint of EDS, and one that is no address makes Envoy refuse all of them.
        if names.is_ip(one.address)
    ]
    return endpoint_pb2.ClusterLoadAssignment(
        cluster_name=name, endpoints=[endpoint_components_pb2.LocalityLbEndpoints(lb_endpoints=places)]
    )
