"""Limits of requests to the proxy's own service, counted by this proxy alone: `RateLimits` of service-defaults.

They are part of the routes, as intentions are: when they change, connections stay. Each limit has a count of its own,
and what is over it is answered with 429. Requests that intentions refuse do not count.
"""

from __future__ import annotations

from envoy.config.core.v3 import base_pb2
from envoy.config.route.v3 import route_components_pb2
from envoy.extensions.filters.http.local_ratelimit.v3 import local_rate_limit_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as manager_pb2
from envoy.type.matcher.v3 import regex_pb2
from envoy.type.v3 import percent_pb2, token_bucket_pb2
from google.protobuf import any_pb2

from lictor.connect_proxy.envoy.protobuf import duration, pack, uint32
from lictor.model.config_entry.defaults import InstanceLevelRateLimits, RouteRateLimits
from lictor.model.regex import Regex, RegexError

FILTER = "envoy.filters.http.local_ratelimit"
_STATISTICS = "local_rate_limit"
_SECOND = 1.0


def filters(limits: InstanceLevelRateLimits | None) -> list[manager_pb2.HttpFilter]:
    """What counts; how much is let through is said by the routes."""
    if limits is None:
        return []
    counter = local_rate_limit_pb2.LocalRateLimit(stat_prefix=_STATISTICS)
    return [manager_pb2.HttpFilter(name=FILTER, typed_config=pack(counter))]


def limit(host: route_components_pb2.VirtualHost, limits: InstanceLevelRateLimits | None, problems: list[str]) -> None:
    """Limit the requests that take the only route of `host`; those of some paths by limits of their own."""
    if limits is None:
        return
    only = host.routes[0]
    own = [_of_path(only, one) for one in limits.routes or () if _is_usable(one, problems)]
    if limits.requests_per_second:
        general = _bucket(limits.requests_per_second, limits.requests_max_burst)
        only.typed_per_filter_config[FILTER].CopyFrom(general)
    kept = [*own, *host.routes]
    del host.routes[:]
    host.routes.extend(kept)


def _is_usable(one: RouteRateLimits, problems: list[str]) -> bool:
    """Whether a limit limits anything, and its pattern is one. Envoy would refuse all routes for a bad one."""
    try:
        if one.path_regex:
            Regex(one.path_regex)
    except RegexError as error:
        problems.append(f"RateLimits: PathRegex {one.path_regex!r} is left out: {error}")
        return False
    return one.requests_per_second > 0


def _of_path(general: route_components_pb2.Route, one: RouteRateLimits) -> route_components_pb2.Route:
    found = route_components_pb2.Route()
    found.CopyFrom(general)
    if one.path_exact:
        match = route_components_pb2.RouteMatch(path=one.path_exact)
    elif one.path_prefix:
        match = route_components_pb2.RouteMatch(prefix=one.path_prefix)
    else:
        match = route_components_pb2.RouteMatch(safe_regex=regex_pb2.RegexMatcher(regex=one.path_regex))
    found.match.CopyFrom(match)
    found.typed_per_filter_config[FILTER].CopyFrom(_bucket(one.requests_per_second, one.requests_max_burst))
    return found


def _bucket(per_second: int, burst: int) -> any_pb2.Any:
    """So many requests a second, and as many at once as `burst` says, or else no more than that."""
    everything = base_pb2.RuntimeFractionalPercent(
        default_value=percent_pb2.FractionalPercent(numerator=100, denominator="HUNDRED")
    )
    bucket = token_bucket_pb2.TokenBucket(
        max_tokens=max(burst, per_second), tokens_per_fill=uint32(per_second), fill_interval=duration(_SECOND)
    )
    return pack(
        local_rate_limit_pb2.LocalRateLimit(
            stat_prefix=_STATISTICS, token_bucket=bucket, filter_enabled=everything, filter_enforced=everything
        )
    )
