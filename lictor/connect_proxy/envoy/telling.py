"""What an Envoy tells its agent: who is connected to the service and who makes requests, by access logs over gRPC.

They go to the cluster from which the configuration comes. An agent that does not listen is nothing to Envoy: what it
cannot send it leaves out.

Connections are told of when they are made, when they end, and every half minute in between, so that an agent that has
restarted knows them. Requests are many, and have no end that matters: of each so many are told of, by chance, when they
begin, and each connection that they came on when it ends.
"""

from __future__ import annotations

from collections.abc import Iterable

from envoy.config.accesslog.v3 import accesslog_pb2
from envoy.config.core.v3 import base_pb2, config_source_pb2, grpc_service_pb2
from envoy.data.accesslog.v3 import accesslog_pb2 as data_pb2
from envoy.extensions.access_loggers.grpc.v3 import als_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as manager_pb2
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2
from envoy.type.v3 import percent_pb2

from lictor.connect_proxy.envoy.bootstrap import AGENT
from lictor.connect_proxy.envoy.protobuf import duration, pack, uint32
from lictor.connect_proxy.envoy.snapshot import ProxySnapshot

CONNECTIONS = "lictor-connections"
REQUESTS = "lictor-requests"
SAMPLED = "lictor.requests_told"  # the key of Envoy's runtime by which another share of requests is told of
SHARE = 5  # percent
AGAIN = 30.0  # seconds in which a live connection is told of again
EARLY = 64 * 1024  # bytes that wait for the service to be connected to
WAIT = 1.0  # seconds that entries wait for others to go with

_TYPES = data_pb2.AccessLogType


def tell_connections(proxy: tcp_proxy_pb2.TcpProxy, snapshot: ProxySnapshot) -> None:
    """Have the connections of a TCP proxy told of; its other logs go on saying when each has ended. The service is
    connected to after the handshake: whoever has proved nothing costs it nothing, and then it is known who connects.
    """
    _only(proxy.access_log, _TYPES.TcpConnectionEnd)
    proxy.access_log.append(_of_connections(snapshot))
    proxy.upstream_connect_mode = tcp_proxy_pb2.ON_DOWNSTREAM_TLS_HANDSHAKE
    proxy.max_early_data_bytes.CopyFrom(uint32(EARLY))
    proxy.access_log_options.flush_access_log_on_connected = True
    proxy.access_log_options.access_log_flush_interval.CopyFrom(duration(AGAIN))


def tell_requests(manager: manager_pb2.HttpConnectionManager, snapshot: ProxySnapshot) -> None:
    """Have some of the requests told of when they begin; the other logs go on saying when each has ended."""
    _only(manager.access_log, _TYPES.DownstreamEnd)
    config = als_pb2.HttpGrpcAccessLogConfig(common_config=_common(REQUESTS, snapshot))
    made = accesslog_pb2.AccessLog(name="envoy.access_loggers.http_grpc", typed_config=pack(config))
    began = accesslog_pb2.LogTypeFilter(types=[_TYPES.DownstreamStart])
    chosen = accesslog_pb2.RuntimeFilter(
        runtime_key=SAMPLED,
        percent_sampled=percent_pb2.FractionalPercent(numerator=SHARE),
        use_independent_randomness=True,
    )
    both = (accesslog_pb2.AccessLogFilter(log_type_filter=began), accesslog_pb2.AccessLogFilter(runtime_filter=chosen))
    made.filter.and_filter.filters.extend(both)
    manager.access_log.append(made)
    manager.access_log_options.flush_access_log_on_new_request = True


def listener_log(snapshot: ProxySnapshot) -> accesslog_pb2.AccessLog:
    """The log of connections that have ended, of a listener whose requests are told of."""
    return _of_connections(snapshot)


def _only(logs: Iterable[accesslog_pb2.AccessLog], kind: data_pb2.AccessLogType.ValueType) -> None:
    for log in logs:
        log.filter.log_type_filter.types.append(kind)


def _of_connections(snapshot: ProxySnapshot) -> accesslog_pb2.AccessLog:
    config = als_pb2.TcpGrpcAccessLogConfig(common_config=_common(CONNECTIONS, snapshot))
    return accesslog_pb2.AccessLog(name="envoy.access_loggers.tcp_grpc", typed_config=pack(config))


def _common(name: str, snapshot: ProxySnapshot) -> als_pb2.CommonGrpcAccessLogConfig:
    agent = grpc_service_pb2.GrpcService(envoy_grpc=grpc_service_pb2.GrpcService.EnvoyGrpc(cluster_name=AGENT))
    if snapshot.token:
        agent.initial_metadata.append(base_pb2.HeaderValue(key="x-consul-token", value=snapshot.token))
    return als_pb2.CommonGrpcAccessLogConfig(
        log_name=name,
        grpc_service=agent,
        transport_api_version=config_source_pb2.ApiVersion.V3,
        buffer_flush_interval=duration(WAIT),
    )
