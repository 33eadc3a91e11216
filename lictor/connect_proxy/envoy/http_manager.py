"""How Envoy takes HTTP, on either side: the connection manager with its filters, and what all of them have alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from envoy.config.accesslog.v3 import accesslog_pb2
from envoy.config.core.v3 import protocol_pb2
from envoy.config.listener.v3.listener_components_pb2 import Filter
from envoy.config.route.v3 import route_components_pb2, route_pb2
from envoy.extensions.filters.http.grpc_http1_bridge.v3 import config_pb2 as bridge_pb2
from envoy.extensions.filters.http.grpc_stats.v3 import config_pb2 as grpc_stats_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as manager_pb2

from lictor.connect_proxy.envoy.protobuf import duration, from_ads, pack, true, uint32
from lictor.connect_proxy.envoy.snapshot import ProxySnapshot

NAME = "envoy.filters.network.http_connection_manager"
ROUTER = "envoy.filters.http.router"


def manager(
    name: str,
    protocol: str,
    filters: Sequence[manager_pb2.HttpFilter],
    logs: Sequence[accesslog_pb2.AccessLog],
    routes: str | route_pb2.RouteConfiguration,
) -> manager_pb2.HttpConnectionManager:
    """A connection manager. `routes` are those themselves, or the name under which they are served."""
    kinds = manager_pb2.HttpConnectionManager
    made = kinds(
        stat_prefix=name,
        codec_type=kinds.CodecType.AUTO,
        http_filters=[*filters, *_for_grpc(protocol), _router()],
        access_log=logs,
        normalize_path=true(),
        # What the service at the other end decides is passed on as it is.
        server_header_transformation=kinds.ServerHeaderTransformation.PASS_THROUGH,
        # Spans go on through this proxy; none is begun where nobody asked for tracing.
        tracing=kinds.Tracing(random_sampling={"value": 0.0}),
    )
    if isinstance(routes, str):
        made.rds.CopyFrom(manager_pb2.Rds(config_source=from_ads(), route_config_name=routes))
    else:
        made.route_config.CopyFrom(routes)
    if protocol in ("http2", "grpc"):
        made.http2_protocol_options.SetInParent()
    if protocol == "http":
        made.upgrade_configs.append(kinds.UpgradeConfig(upgrade_type="websocket"))
    return made


def as_filter(made: manager_pb2.HttpConnectionManager) -> Filter:
    """A connection manager as a listener's filter."""
    return Filter(name=NAME, typed_config=pack(made))


def receive_from_mesh(made: manager_pb2.HttpConnectionManager, snapshot: ProxySnapshot) -> None:
    """Tell the service who called (x-forwarded-client-cert), and make requests regular before they are judged."""
    http = snapshot.mesh.http
    kinds = manager_pb2.HttpConnectionManager
    if http is not None and http.sanitize_x_forwarded_client_cert:
        made.forward_client_cert_details = kinds.ForwardClientCertDetails.SANITIZE_SET
    else:
        made.forward_client_cert_details = kinds.ForwardClientCertDetails.APPEND_FORWARD
    details: Any = kinds.SetCurrentClientCertDetails(subject=true(), cert=True, chain=True, dns=True, uri=True)
    made.set_current_client_cert_details.CopyFrom(details)
    rules = http.incoming.request_normalization if http is not None and http.incoming is not None else None
    if rules is None:
        return
    made.normalize_path.value = not rules.insecure_disable_path_normalization
    made.merge_slashes = rules.merge_slashes
    if rules.path_with_escaped_slashes_action:
        made.path_with_escaped_slashes_action = kinds.PathWithEscapedSlashesAction.Value(
            rules.path_with_escaped_slashes_action
        )
    if rules.headers_with_underscores_action:
        action = protocol_pb2.HttpProtocolOptions.HeadersWithUnderscoresAction.Value(
            rules.headers_with_underscores_action
        )
        made.common_http_protocol_options.headers_with_underscores_action = action


def set_limits(made: manager_pb2.HttpConnectionManager, max_headers_kb: int, idle: float | None) -> None:
    """The longest headers, and how long a stream may be silent."""
    if max_headers_kb:
        made.max_request_headers_kb.CopyFrom(uint32(max_headers_kb))
    if idle is not None:
        made.stream_idle_timeout.CopyFrom(duration(idle))


def single_route(
    name: str, cluster: str, *, timeout: float | None = None, idle: float | None = None, path: str = ""
) -> route_pb2.RouteConfiguration:
    """Routes of which every request, or those of one path, take the only one there is. Timeouts are seconds, 0 none."""
    match = route_components_pb2.RouteMatch(path=path) if path else route_components_pb2.RouteMatch(prefix="/")
    action = route_components_pb2.RouteAction(cluster=cluster)
    if timeout is not None:
        action.timeout.CopyFrom(duration(timeout))
    if idle is not None:
        action.idle_timeout.CopyFrom(duration(idle))
    host = route_components_pb2.VirtualHost(
        name=name, domains=["*"], routes=[route_components_pb2.Route(match=match, route=action)]
    )
    # A cluster that is not there yet must not keep the routes from being taken.
    made = route_pb2.RouteConfiguration(name=name, virtual_hosts=[host])
    made.validate_clusters.value = False
    return made


def _router() -> manager_pb2.HttpFilter:
    return manager_pb2.HttpFilter(name=ROUTER, typed_config=pack(router_pb2.Router()))


def _for_grpc(protocol: str) -> list[manager_pb2.HttpFilter]:
    if protocol != "grpc":
        return []
    stats = grpc_stats_pb2.FilterConfig(stats_for_all_methods=true())
    return [
        manager_pb2.HttpFilter(name="envoy.filters.http.grpc_http1_bridge", typed_config=pack(bridge_pb2.Config())),
        manager_pb2.HttpFilter(name="envoy.filters.http.grpc_stats", typed_config=pack(stats)),
    ]
