"""The listener that takes connections of the mesh for the proxy's own service, and the paths exposed outside of it.

Intentions about requests are part of the routes, not of the listener: when they change, the connections stay, and their
next request meets the new ones.
"""

from __future__ import annotations

from envoy.config.core.v3 import address_pb2
from envoy.config.listener.v3 import listener_components_pb2, listener_pb2
from envoy.config.rbac.v3 import rbac_pb2
from envoy.config.route.v3 import route_pb2
from envoy.extensions.filters.http.rbac.v3 import rbac_pb2 as http_rbac_pb2
from envoy.extensions.filters.listener.original_dst.v3 import original_dst_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as manager_pb2
from envoy.extensions.filters.network.rbac.v3 import rbac_pb2 as network_rbac_pb2
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2

from lictor.connect_proxy.envoy import http_manager, intentions, jwt, names, rate_limits, telling, tls
from lictor.connect_proxy.envoy.access_logs import access_logs, listener_access_logs
from lictor.connect_proxy.envoy.overrides import Override, parse_listener, parse_tracing
from lictor.connect_proxy.envoy.protobuf import address, duration, pack, uint32
from lictor.connect_proxy.envoy.settings import ProxySettings, speaks_requests
from lictor.connect_proxy.envoy.snapshot import ProxySnapshot
from lictor.model.service import ExposePath

HTTP_RBAC = "envoy.filters.http.rbac"
NETWORK_RBAC = "envoy.filters.network.rbac"
TCP_PROXY = "envoy.filters.network.tcp_proxy"
ORIGINAL_DST = "envoy.filters.listener.original_dst"
_EVERYWHERE = "0.0.0.0"
_ANY = (_EVERYWHERE, "::")
_MANAGER = manager_pb2.HttpConnectionManager.DESCRIPTOR


def listener(snapshot: ProxySnapshot, settings: ProxySettings, problems: list[str]) -> listener_pb2.Listener:
    """Where others' proxies connect to."""
    protocol = snapshot.protocol
    if settings.public_listener_json:
        own = parse_listener(settings.public_listener_json, "envoy_public_listener_json", problems)
        if own is not None:
            if snapshot.limits is not None:
                problems.append("RateLimits are left out: envoy_public_listener_json has routes of its own")
            return _with_plain(_guarded(own, snapshot), snapshot, problems)
    host = settings.bind_address or snapshot.address or _EVERYWHERE
    port = settings.bind_port or snapshot.port
    logs = access_logs(snapshot, problems)
    if speaks_requests(protocol):
        filters = [_requests(snapshot, settings, problems)]
    else:
        proxy = tcp_proxy_pb2.TcpProxy(stat_prefix=names.PUBLIC, cluster=names.LOCAL_APP, access_log=logs)
        if settings.local_idle_timeout is not None:
            proxy.idle_timeout.CopyFrom(duration(settings.local_idle_timeout))
        telling.tell_connections(proxy, snapshot)
        filters = [
            _connections(snapshot),
            listener_components_pb2.Filter(name=TCP_PROXY, typed_config=pack(proxy)),
        ]
    chain = listener_components_pb2.FilterChain(
        name=names.PUBLIC, filters=filters, transport_socket=tls.inbound(snapshot, protocol)
    )
    made = listener_pb2.Listener(
        name=names.listener_name(names.PUBLIC, host, port),
        stat_prefix=names.PUBLIC,
        address=address(host, port),
        traffic_direction="INBOUND",
        filter_chains=[chain],
        access_log=listener_access_logs(snapshot),
    )
    if speaks_requests(protocol):
        made.access_log.append(telling.listener_log(snapshot))
    if settings.balance_inbound_connections == "exact_balance":
        made.connection_balance_config.exact_balance.SetInParent()
    return _with_plain(made, snapshot, problems)


def original_destination() -> listener_components_pb2.ListenerFilter:
    """What finds out where a connection was meant for before it was redirected to a listener."""
    return listener_components_pb2.ListenerFilter(name=ORIGINAL_DST, typed_config=pack(original_dst_pb2.OriginalDst()))


def _with_plain(made: Override, snapshot: ProxySnapshot, problems: list[str]) -> listener_pb2.Listener:
    """A listener that, where the service is permissive, passes on what was redirected from the service's own port: it
    comes from outside of the mesh, without TLS, and no intention is about it.
    """
    if not snapshot.permissive:
        return made
    if not snapshot.proxy.local_service_port:
        problems.append("MutualTLSMode permissive is of no use: the service has no port")
        return made
    name = f"permissive_{names.PUBLIC}"
    proxy = tcp_proxy_pb2.TcpProxy(
        stat_prefix=name, cluster=names.LOCAL_APP, access_log=access_logs(snapshot, problems)
    )
    chain = listener_components_pb2.FilterChain(
        name=name, filters=[listener_components_pb2.Filter(name=TCP_PROXY, typed_config=pack(proxy))]
    )
    chain.filter_chain_match.destination_port.value = snapshot.proxy.local_service_port
    made.filter_chains.append(chain)
    if not any(one.name == ORIGINAL_DST for one in made.listener_filters):
        made.listener_filters.append(original_destination())
    return made


def _connections(snapshot: ProxySnapshot) -> listener_components_pb2.Filter:
    rules = network_rbac_pb2.RBAC(rules=intentions.connection_rules(snapshot), stat_prefix="connect_authz")
    return listener_components_pb2.Filter(name=NETWORK_RBAC, typed_config=pack(rules))


def _requests(snapshot: ProxySnapshot, settings: ProxySettings, problems: list[str]) -> listener_components_pb2.Filter:
    made = http_manager.manager(
        names.PUBLIC, snapshot.protocol, _judges(snapshot), access_logs(snapshot, problems), names.PUBLIC
    )
    telling.tell_requests(made, snapshot)
    http_manager.receive_from_mesh(made, snapshot)
    http_manager.set_limits(made, settings.max_request_headers_kb, settings.local_idle_timeout)
    if settings.listener_tracing_json:
        tracing = parse_tracing(settings.listener_tracing_json, problems)
        if tracing is not None:
            made.tracing.CopyFrom(tracing)
    return http_manager.as_filter(made)


def _judges(snapshot: ProxySnapshot) -> list[manager_pb2.HttpFilter]:
    """What reads tokens, and what decides: by the rules of the route, and without such by none, which denies all. Then
    what counts requests.
    """
    tokens = jwt.http_filter(snapshot)
    nothing = http_rbac_pb2.RBAC(rules=rbac_pb2.RBAC(action=rbac_pb2.RBAC.Action.ALLOW))
    rbac = manager_pb2.HttpFilter(name=HTTP_RBAC, typed_config=pack(nothing))
    return [*([] if tokens is None else [tokens]), rbac, *rate_limits.filters(snapshot.limits)]


def routes(snapshot: ProxySnapshot, settings: ProxySettings, problems: list[str]) -> list[route_pb2.RouteConfiguration]:
    """The way to the service, with the intentions; nothing for a service without requests."""
    if not speaks_requests(snapshot.protocol):
        if snapshot.limits is not None:
            problems.append(f"RateLimits are left out: a service of protocol {snapshot.protocol} has no requests")
        return []
    made = http_manager.single_route(
        names.PUBLIC, names.LOCAL_APP, timeout=settings.local_request_timeout, idle=settings.local_idle_timeout
    )
    rules = http_rbac_pb2.RBAC(rules=intentions.request_rules(snapshot))
    made.virtual_hosts[0].typed_per_filter_config[HTTP_RBAC].CopyFrom(pack(http_rbac_pb2.RBACPerRoute(rbac=rules)))
    rate_limits.limit(made.virtual_hosts[0], snapshot.limits, problems)
    return [made]


def _guarded(made: Override, snapshot: ProxySnapshot) -> listener_pb2.Listener:
    """A listener that somebody wrote, with the mesh's TLS and the intentions put in: these cannot be written away."""
    chains = list(made.filter_chains)
    if made.HasField("default_filter_chain"):
        chains.append(made.default_filter_chain)
    for chain in chains:
        manager = next((one for one in chain.filters if one.typed_config.Is(_MANAGER)), None)
        chain.transport_socket.CopyFrom(tls.inbound(snapshot, snapshot.protocol))
        if manager is not None and speaks_requests(snapshot.protocol):
            config = manager_pb2.HttpConnectionManager()
            manager.typed_config.Unpack(config)
            rules = http_rbac_pb2.RBAC(rules=intentions.request_rules(snapshot))
            guards = [one for one in [jwt.http_filter(snapshot)] if one is not None]
            guards.append(manager_pb2.HttpFilter(name=HTTP_RBAC, typed_config=pack(rules)))
            kept = [*guards, *config.http_filters]
            del config.http_filters[:]
            config.http_filters.extend(kept)
            manager.typed_config.CopyFrom(pack(config))
        else:
            kept_filters = [_connections(snapshot), *chain.filters]
            del chain.filters[:]
            chain.filters.extend(kept_filters)
    return made


def _network(address: str, length: int) -> address_pb2.CidrRange:
    return address_pb2.CidrRange(address_prefix=address, prefix_len=uint32(length))


def exposed_name(path: ExposePath) -> str:
    """What tells an exposed path from others, in the names of its resources."""
    return "".join(c if c.isalnum() else "_" for c in path.path.strip("/")) or "root"


def exposed_cluster(path: ExposePath) -> str:
    """Where an exposed path leads."""
    return f"exposed_cluster_{path.local_path_port}" if path.local_path_port else names.LOCAL_APP


def exposed(snapshot: ProxySnapshot, problems: list[str]) -> list[listener_pb2.Listener]:
    """A listener without TLS for each exposed path, which lets that path through and nothing else. One for a check is
    for the agent that makes it.
    """
    found = []
    for path in snapshot.proxy.expose.paths:
        name = f"exposed_path_{exposed_name(path)}"
        protocol = path.protocol if path.protocol in ("http", "http2") else "http"
        routes = http_manager.single_route(name, exposed_cluster(path), path=path.path)
        made = http_manager.manager(name, protocol, [], access_logs(snapshot, problems), routes)
        chain = listener_components_pb2.FilterChain(filters=[http_manager.as_filter(made)])
        if path.parsed_from_check:
            sources = [_network("127.0.0.0", 8), _network("::1", 128)]
            # Who connects to an address of its own machine may come from that very address.
            for own in dict.fromkeys(map(names.plain_ip, (snapshot.checked_from, snapshot.address))):
                if own and own not in _ANY:
                    sources.append(_network(own, 128 if ":" in own else 32))
            chain.filter_chain_match.source_prefix_ranges.extend(sources)
        host = snapshot.address or _EVERYWHERE
        found.append(
            listener_pb2.Listener(
                name=names.listener_name(f"{name}_{path.listener_port}", host, path.listener_port),
                stat_prefix=name,
                address=address(host, path.listener_port),
                traffic_direction="INBOUND",
                filter_chains=[chain],
            )
        )
    return found
