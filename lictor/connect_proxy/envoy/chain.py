"""From an upstream to where its connections and requests go: the step between the listener and the clusters.

Today every upstream leads to one target. What shapes traffic (routers, splitters, resolvers, failover, gateways) makes
more routes and targets here; the listeners, which ask for a `Way`, and the clusters, which are made of its targets,
stay as they are.
"""

from __future__ import annotations

import msgspec
from envoy.config.route.v3 import route_pb2

from lictor.connect_proxy.envoy import http_manager, names
from lictor.connect_proxy.envoy.settings import speaks_requests
from lictor.connect_proxy.envoy.snapshot import ProxySnapshot, Target, UpstreamNeeds


class Way(msgspec.Struct, frozen=True):
    """Where an upstream leads: through routes of that name, or else straight to a cluster."""

    name: str
    cluster: str
    has_routes: bool
    targets: tuple[Target, ...]


def way(needs: UpstreamNeeds, snapshot: ProxySnapshot) -> Way:
    """Where an upstream leads."""
    target = needs.target
    cluster = names.target_name(target, snapshot.trust_domain)
    return Way(needs.name, cluster, speaks_requests(needs.protocol), (target,))


def routes(snapshot: ProxySnapshot) -> list[route_pb2.RouteConfiguration]:
    """The routes of all upstreams that have any."""
    ways = {one.name: one for one in (way(needs, snapshot) for needs in snapshot.upstreams)}
    return [http_manager.single_route(one.name, one.cluster) for one in ways.values() if one.has_routes]
