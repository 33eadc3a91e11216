"""The listeners on which the proxy's own service reaches its upstreams: one an upstream with an address of its own, and
in transparent mode one for all connections that were redirected to the proxy.
"""

from __future__ import annotations

from collections.abc import Sequence

from envoy.config.core.v3 import address_pb2
from envoy.config.listener.v3 import listener_components_pb2, listener_pb2
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2

from lictor.connect_proxy.envoy import chain, http_manager, names
from lictor.connect_proxy.envoy.access_logs import access_logs, listener_access_logs
from lictor.connect_proxy.envoy.overrides import parse_listener, parse_tracing
from lictor.connect_proxy.envoy.protobuf import address, pack, pipe, uint32
from lictor.connect_proxy.envoy.public_listener import TCP_PROXY, original_destination
from lictor.connect_proxy.envoy.settings import ProxySettings, read_upstream
from lictor.connect_proxy.envoy.snapshot import ProxySnapshot, UpstreamNeeds

_LOOPBACK = "127.0.0.1"
DEFAULT_OUTBOUND_PORT = 15001


def listeners(snapshot: ProxySnapshot, settings: ProxySettings, problems: list[str]) -> list[listener_pb2.Listener]:
    """All of them."""
    found = [_own(one, snapshot, settings, problems) for one in snapshot.upstreams if one.has_listener]
    if snapshot.is_transparent:
        found.append(_outbound(snapshot, settings, problems))
    return found


def _own(
    needs: UpstreamNeeds, snapshot: ProxySnapshot, settings: ProxySettings, problems: list[str]
) -> listener_pb2.Listener:
    """An upstream's own listener, on its address or its unix socket."""
    upstream = needs.upstream
    own, _ = read_upstream(upstream.config, needs.name)
    if upstream.local_bind_socket_path:
        name = f"{needs.name}:{upstream.local_bind_socket_path}"
        place = pipe(upstream.local_bind_socket_path, _mode(upstream.local_bind_socket_mode, needs.name, problems))
    else:
        host = upstream.local_bind_address or _LOOPBACK
        name = names.listener_name(needs.name, host, upstream.local_bind_port)
        place = address(host, upstream.local_bind_port)
    if own.listener_json:
        written = parse_listener(own.listener_json, f"upstream {needs.name}: envoy_listener_json", problems)
        if written is not None:
            written.name = name
            return written
    made = listener_pb2.Listener(
        name=name,
        stat_prefix=_statistics(needs),
        address=place,
        traffic_direction="OUTBOUND",
        filter_chains=[_chain(needs, snapshot, settings, problems)],
        access_log=listener_access_logs(snapshot),
    )
    if own.balance_outbound_connections == "exact_balance":
        made.connection_balance_config.exact_balance.SetInParent()
    return made


def _statistics(needs: UpstreamNeeds) -> str:
    """What an upstream's statistics begin with; the bootstrap makes tags of its parts."""
    return f"upstream.{needs.target.service}.default.{needs.target.datacenter}"


def _mode(written: str, upstream: str, problems: list[str]) -> int:
    try:
        return int(written, 8) if written else 0
    except ValueError:
        problems.append(f'upstream {upstream}: local_bind_socket_mode must be octal such as "0600", not {written!r}')
        return 0


def _chain(
    needs: UpstreamNeeds, snapshot: ProxySnapshot, settings: ProxySettings, problems: list[str]
) -> listener_components_pb2.FilterChain:
    """What is done with the connections to an upstream."""
    name = _statistics(needs)
    logs = access_logs(snapshot, problems)
    way = chain.way(needs, snapshot)
    if way.has_routes:
        made = http_manager.manager(name, needs.protocol, [], logs, way.name)
        if settings.listener_tracing_json:
            tracing = parse_tracing(settings.listener_tracing_json, problems)
            if tracing is not None:
                made.tracing.CopyFrom(tracing)
        return listener_components_pb2.FilterChain(filters=[http_manager.as_filter(made)])
    proxy = tcp_proxy_pb2.TcpProxy(stat_prefix=name, cluster=way.cluster, access_log=logs)
    filters = [listener_components_pb2.Filter(name=TCP_PROXY, typed_config=pack(proxy))]
    return listener_components_pb2.FilterChain(filters=filters)


def _outbound(snapshot: ProxySnapshot, settings: ProxySettings, problems: list[str]) -> listener_pb2.Listener:
    """Takes what was redirected: by the address that the service meant, to the upstream or the instance that has it;
    what is nobody's goes on to where it was meant for, unless the mesh keeps to itself.
    """
    transparent = snapshot.proxy.transparent_proxy
    port = (transparent.outbound_listener_port if transparent is not None else 0) or DEFAULT_OUTBOUND_PORT
    made = listener_pb2.Listener(
        name=names.listener_name(names.OUTBOUND, _LOOPBACK, port),
        stat_prefix=names.OUTBOUND,
        address=address(_LOOPBACK, port),
        traffic_direction="OUTBOUND",
        listener_filters=[original_destination()],
        access_log=listener_access_logs(snapshot),
    )
    taken: set[str] = set()
    for needs in snapshot.upstreams:
        if own := _untaken(needs.addresses, taken):
            found = _chain(needs, snapshot, settings, problems)
            found.name = needs.name
            made.filter_chains.append(_for_addresses(found, own))
    for needs in snapshot.upstreams:
        if own := _untaken(needs.direct, taken):
            found = _straight(f"{names.PASSTHROUGH}{names.cluster_of(needs, snapshot)}", snapshot, problems)
            made.filter_chains.append(_for_addresses(found, own))
    if not snapshot.mesh.transparent_proxy.mesh_destinations_only:
        made.default_filter_chain.CopyFrom(_straight(names.ORIGINAL_DESTINATION, snapshot, problems))
    return made


def _untaken(addresses: Sequence[str], taken: set[str]) -> list[str]:
    """The addresses that nobody else has: Envoy takes no listener with one twice."""
    own = [one for one in addresses if one not in taken]
    taken.update(own)
    return own


def _for_addresses(
    found: listener_components_pb2.FilterChain, addresses: Sequence[str]
) -> listener_components_pb2.FilterChain:
    found.filter_chain_match.prefix_ranges.extend(
        address_pb2.CidrRange(address_prefix=one, prefix_len=uint32(128 if ":" in one else 32)) for one in addresses
    )
    return found


def _straight(cluster: str, snapshot: ProxySnapshot, problems: list[str]) -> listener_components_pb2.FilterChain:
    """What passes connections on to the very address that they were meant for, by a cluster that does so."""
    proxy = tcp_proxy_pb2.TcpProxy(
        stat_prefix=f"upstream.{cluster}", cluster=cluster, access_log=access_logs(snapshot, problems)
    )
    filters = [listener_components_pb2.Filter(name=TCP_PROXY, typed_config=pack(proxy))]
    return listener_components_pb2.FilterChain(name=cluster, filters=filters)
