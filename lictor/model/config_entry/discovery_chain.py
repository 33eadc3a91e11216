"""`service-router`, `service-splitter` and `service-resolver`: how a request for a service finds its instances.

In this order: a router sends a request to a service by its path, headers and so on; a splitter divides a service's
requests between services and subsets by weight; a resolver says what a service's subsets are, and where to go instead
of it (redirect) or when it has no healthy instances (failover).
"""

from __future__ import annotations

import math
import re
import struct
from typing import Self

import msgspec

from lictor.model.config_entry.decode import DurationText, InvalidConfigEntry, Nanoseconds, Unsigned
from lictor.model.config_entry.defaults import (
    FailoverPolicy,
    PrioritizeByLocality,
    check_failover_policy,
    check_prioritize_by_locality,
)
from lictor.model.config_entry.entry import (
    HTTP_METHODS,
    ConfigEntry,
    HTTPHeaderModifiers,
    Record,
    check_path,
    quoted,
    require,
)
from lictor.model.filter_syntax import PREFIX, FilterError, parse_tree

_RETRY_CONDITIONS = (
    *("5xx", "gateway-error", "reset", "connect-failure", "envoy-ratelimited", "retriable-4xx", "refused-stream"),
    *("cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable", "reset-before-request"),
)
_SUBSET_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")
_HASH_POLICIES = ("ring_hash", "maglev")
_POLICIES = ("", "random", "round_robin", "least_request", *_HASH_POLICIES)
_HASH_FIELDS = ("", "header", "cookie", "query_parameter")


class HTTPMatchHeader(Record, frozen=True):
    """A condition on a header. One of present, exact, prefix, suffix, contains and regex is given."""

    name: str = msgspec.field(default_factory=str)
    present: bool = False
    exact: str = ""
    prefix: str = ""
    suffix: str = ""
    contains: str = ""
    regex: str = ""
    invert: bool = False
    ignore_case: bool = False

    def check(self, where: str) -> None:
        """Raise InvalidConfigEntry, starting with `where`, unless there are a name and one condition."""
        require(self.name != "", f"{where} missing required Name field")
        given = (self.present, self.exact, self.prefix, self.suffix, self.contains, self.regex)
        text = f"{where} should only contain one of Present, Exact, Prefix, Suffix, or Regex"
        require([bool(one) for one in given].count(True) == 1, text)


class HTTPMatchQueryParam(Record, frozen=True):
    """A condition on a query parameter. One of present, exact and regex is given."""

    name: str = msgspec.field(default_factory=str)
    present: bool = False
    exact: str = ""
    regex: str = ""

    def check(self, where: str) -> None:
        """Raise InvalidConfigEntry, starting with `where`, unless there are a name and one condition."""
        require(self.name != "", f"{where} missing required Name field")
        given = [bool(one) for one in (self.present, self.exact, self.regex)].count(True)
        require(given == 1, f"{where} should only contain one of Present, Exact, or Regex")


class HTTPMatch(Record, frozen=True):
    """The requests that a route takes: those that meet all conditions that are given."""

    path_exact: str = ""
    path_prefix: str = ""
    path_regex: str = ""
    case_insensitive: bool = False
    header: tuple[HTTPMatchHeader, ...] = ()
    query_param: tuple[HTTPMatchQueryParam, ...] = ()
    methods: tuple[str, ...] = ()

    def check(self, where: str) -> None:
        """Raise InvalidConfigEntry, starting with `where`, for conditions that exclude each other or are malformed."""
        check_path(self.path_exact, "PathExact", where)
        check_path(self.path_prefix, "PathPrefix", where)
        paths = [path for path in (self.path_exact, self.path_prefix, self.path_regex) if path]
        require(len(paths) <= 1, f"{where}should only contain at most one of PathExact, PathPrefix, or PathRegex")
        for at, header in enumerate(self.header):
            header.check(f"{where}Header[{at}]")
        for at, param in enumerate(self.query_param):
            param.check(f"{where}QueryParam[{at}]")
        check_methods(self.methods, where)


def check_methods(methods: tuple[str, ...], where: str) -> None:
    """Raise InvalidConfigEntry, starting with `where`, for an HTTP method that is unknown or given twice."""
    for at, method in enumerate(methods):
        require(method in HTTP_METHODS, f"{where}Methods contains an invalid method {quoted(method)}")
        require(method not in methods[:at], f"{where}Methods contains {quoted(method)} more than once")


class RouteMatch(Record, frozen=True):
    """The requests that a route takes."""

    http: HTTPMatch | None = msgspec.field(default=None, name="HTTP")


class RouteDestination(Record, frozen=True):
    """Where a route leads, and what is done with its requests."""

    request_timeout: DurationText = ""
    idle_timeout: DurationText = ""
    service: str = ""
    service_subset: str = ""
    namespace: str = ""
    partition: str = ""
    prefix_rewrite: str = ""
    num_retries: Unsigned = 0
    retry_on_connect_failure: bool = False
    retry_on: tuple[str, ...] = ()
    retry_on_status_codes: tuple[Unsigned, ...] = ()
    request_headers: HTTPHeaderModifiers | None = None
    response_headers: HTTPHeaderModifiers | None = None


class Route(Record, frozen=True):
    """A route: the first whose conditions a request meets is taken."""

    match: RouteMatch | None = None
    destination: RouteDestination | None = None


class ServiceRouter(ConfigEntry, frozen=True):
    """`service-router`: routes by path, header, query parameter and method."""

    kind: str = msgspec.field(default_factory=lambda: "service-router")
    routes: tuple[Route, ...] | None = msgspec.field(default_factory=lambda: None)

    def normalised(self) -> Self:
        """With methods in upper case."""
        if self.routes is None:
            return self
        return msgspec.structs.replace(self, routes=tuple(map(_with_upper_methods, self.routes)))

    def validate(self) -> None:
        """Raise InvalidConfigEntry naming the route that cannot be."""
        self.require_name()
        super().validate()
        for at, route in enumerate(self.routes or ()):
            match = route.match.http if route.match is not None else None
            where = f"Route[{at}] "
            if match is not None:
                match.check(where)
            if route.destination is not None:
                _check_destination(route.destination, match, where)


def _with_upper_methods(route: Route) -> Route:
    if route.match is None or route.match.http is None:
        return route
    http = msgspec.structs.replace(route.match.http, methods=tuple(map(str.upper, route.match.http.methods)))
    return Route(RouteMatch(http), route.destination)


def _check_destination(destination: RouteDestination, match: HTTPMatch | None, where: str) -> None:
    has_path = match is not None and (match.path_exact or match.path_prefix)
    text = "cannot make use of PrefixRewrite without configuring either PathExact or PathPrefix"
    require(not destination.prefix_rewrite or bool(has_path), where + text)
    for condition in destination.retry_on:
        known = condition in _RETRY_CONDITIONS
        require(known, f"{where}contains an invalid retry condition: {quoted(condition)}")


class Split(Record, frozen=True):
    """A share of the requests, in percent with two decimals."""

    weight: float = msgspec.field(default_factory=float)
    service: str = ""
    service_subset: str = ""
    namespace: str = ""
    partition: str = ""
    request_headers: HTTPHeaderModifiers | None = None
    response_headers: HTTPHeaderModifiers | None = None


class ServiceSplitter(ConfigEntry, frozen=True):
    """`service-splitter`: shares of requests by weight, which are 100 in all."""

    kind: str = msgspec.field(default_factory=lambda: "service-splitter")
    splits: tuple[Split, ...] | None = msgspec.field(default_factory=lambda: None)

    def normalised(self) -> Self:
        """With weights rounded to two decimals."""
        if self.splits is None:
            return self
        splits = tuple(msgspec.structs.replace(split, weight=_hundredths(split.weight) / 100) for split in self.splits)
        return msgspec.structs.replace(self, splits=splits)

    def validate(self) -> None:
        """Raise InvalidConfigEntry unless there are splits, each destination once, weighing 100 together."""
        self.require_name()
        super().validate()
        splits = self.splits or ()
        require(len(splits) > 0, "no splits configured")
        seen = set()
        for split in splits:
            destination = (split.service or self.name, split.service_subset, split.namespace, split.partition)
            text = 'split destination occurs more than once: service="{}", subset="{}", namespace="{}"'
            require(destination not in seen, text.format(*destination))
            seen.add(destination)
        total = sum(_hundredths(split.weight) for split in splits)
        text = f"the sum of all split weights must be 100, not {_single(_single(total) / 100):f}"
        require(total == 10_000, text)


def _single(number: float) -> float:
    """A number with the precision that Consul keeps weights in (IEEE 754 binary32)."""
    try:
        return float(struct.unpack("f", struct.pack("f", number))[0])
    except OverflowError:
        return math.copysign(math.inf, number)


def _hundredths(weight: float) -> int:
    scaled = _single(_single(weight) * 100)
    if not abs(scaled) < 1e9:
        raise InvalidConfigEntry(f"split weight {weight} is out of range, weights are percentages from 0 to 100")
    return math.floor(abs(scaled) + 0.5) * (1 if scaled >= 0 else -1)


class ResolverSubset(Record, frozen=True):
    """A subset of a service's instances, selected by a filter over health entries."""

    filter: str = ""
    only_passing: bool = False


class ResolverRedirect(Record, frozen=True):
    """What is resolved instead of the service."""

    service: str = ""
    service_subset: str = ""
    namespace: str = ""
    partition: str = ""
    datacenter: str = ""
    peer: str = ""
    sameness_group: str = ""


class FailoverTarget(Record, frozen=True):
    """One place to fail over to."""

    service: str = ""
    service_subset: str = ""
    partition: str = ""
    namespace: str = ""
    datacenter: str = ""
    peer: str = ""


class ResolverFailover(Record, frozen=True):
    """Where to go when a subset has no healthy instances."""

    service: str = ""
    service_subset: str = ""
    namespace: str = ""
    datacenters: tuple[str, ...] = ()
    targets: tuple[FailoverTarget, ...] = ()
    policy: FailoverPolicy | None = None
    sameness_group: str = ""


class CookieConfig(Record, frozen=True):
    """The cookie that a client is given so that its requests hash alike."""

    session: bool = False
    ttl: Nanoseconds = msgspec.field(default=0, name="TTL")
    path: str = ""


class HashPolicy(Record, frozen=True):
    """What a request is hashed by."""

    field: str = ""
    field_value: str = ""
    cookie_config: CookieConfig | None = None
    source_ip: bool = msgspec.field(default=False, name="SourceIP")
    terminal: bool = False


class RingHashConfig(Record, frozen=True):
    """Sizes of the hash ring."""

    minimum_ring_size: Unsigned = 0
    maximum_ring_size: Unsigned = 0


class LeastRequestConfig(Record, frozen=True):
    """How many instances are compared."""

    choice_count: Unsigned = 0


class LoadBalancer(Record, frozen=True):
    """How requests are spread over instances."""

    policy: str = ""
    ring_hash_config: RingHashConfig | None = None
    least_request_config: LeastRequestConfig | None = None
    hash_policies: tuple[HashPolicy, ...] = ()


class ServiceResolver(ConfigEntry, frozen=True):
    """`service-resolver`: a service's subsets, redirect, failover, timeouts and load balancing."""

    kind: str = msgspec.field(default_factory=lambda: "service-resolver")
    connect_timeout: DurationText = ""
    request_timeout: DurationText = ""
    default_subset: str = ""
    subsets: dict[str, ResolverSubset] | None = None
    redirect: ResolverRedirect | None = None
    failover: dict[str, ResolverFailover] | None = None
    load_balancer: LoadBalancer | None = None
    prioritize_by_locality: PrioritizeByLocality | None = None

    def validate(self) -> None:
        """Raise InvalidConfigEntry for subsets that are not there, and for what excludes each other."""
        self.require_name()
        super().validate()
        for name, subset in (self.subsets or {}).items():
            _check_subset(name, subset)
        known = not self.default_subset or self._has_subset(self.default_subset)
        require(known, f"DefaultSubset {quoted(self.default_subset)} is not a valid subset")
        if self.redirect is not None:
            self._check_redirect(self.redirect)
        for name, failover in (self.failover or {}).items():
            self._check_failover(name, failover)
        for field, timeout in (("ConnectTimeout", self.connect_timeout), ("RequestTimeout", self.request_timeout)):
            require(not timeout.startswith("-"), f"Bad {field} '{timeout}', must be >= 0")
        if self.load_balancer is not None:
            _check_load_balancer(self.load_balancer)
        check_prioritize_by_locality(self.prioritize_by_locality)

    def _has_subset(self, name: str) -> bool:
        return name in (self.subsets or {})

    def _check_redirect(self, redirect: ResolverRedirect) -> None:
        require(not self.failover, "Redirect and Failover cannot both be set")
        require(redirect != ResolverRedirect(), "Redirect is empty")
        if redirect.peer:
            require(not redirect.service_subset, "Redirect.Peer cannot be set with Redirect.ServiceSubset")
            require(not redirect.partition, "Redirect.Partition cannot be set with Redirect.Peer")
            require(not redirect.datacenter, "Redirect.Peer cannot be set with Redirect.Datacenter")
        if not redirect.service:
            for field in ("service_subset", "namespace", "partition", "peer"):
                shown = "".join(map(str.capitalize, field.split("_")))
                require(not getattr(redirect, field), f"Redirect.{shown} defined without Redirect.Service")
        if redirect.service_subset and redirect.service == self.name:
            text = (
                f"Redirect.ServiceSubset {quoted(redirect.service_subset)} is not a valid subset of {quoted(self.name)}"
            )
            require(self._has_subset(redirect.service_subset), text)

    def _check_failover(self, name: str, failover: ResolverFailover) -> None:
        where = f"Bad Failover[{quoted(name)}]"
        require(name == "*" or self._has_subset(name), f"{where}: not a valid subset")
        given = (failover.service, failover.service_subset, failover.namespace, failover.datacenters, failover.targets)
        text = f"{where} one of Service, ServiceSubset, Namespace, Targets, SamenessGroup, or Datacenters is required"
        require(any(given) or failover.sameness_group != "", text)
        if failover.service_subset and failover.service in ("", self.name):
            shown = f"{quoted(failover.service_subset)} is not a valid subset of {quoted(failover.service)}"
            require(self._has_subset(failover.service_subset), f"{where}.ServiceSubset {shown}")
        if failover.targets:
            for field, value in (
                ("Datacenters", failover.datacenters),
                ("ServiceSubset", failover.service_subset),
                ("Service", failover.service),
            ):
                require(not value, f"{where}: Targets cannot be set with {field}")
        for at, target in enumerate(failover.targets):
            self._check_target(target, f"{where}.Targets[{at}]: ")
        require("" not in failover.datacenters, f"{where}.Datacenters: found empty datacenter")
        check_failover_policy(failover.policy)

    def _check_target(self, target: FailoverTarget, where: str) -> None:
        require(not (target.peer and target.service_subset), f"{where}Peer cannot be set with ServiceSubset")
        require(not (target.peer and target.partition), f"{where}Partition cannot be set with Peer")
        require(not (target.peer and target.datacenter), f"{where}Peer cannot be set with Datacenter")
        require(not (target.partition and target.datacenter), f"{where}Partition cannot be set with Datacenter")
        if target.service_subset and target.service in ("", self.name):
            text = f"{where}ServiceSubset {quoted(target.service_subset)} is not a valid subset of {quoted(self.name)}"
            require(self._has_subset(target.service_subset), text)


def _check_subset(name: str, subset: ResolverSubset) -> None:
    require(name != "", "Subset defined with empty name")
    text = "must be 63 characters or fewer, begin or end with lower case alphanumeric characters, "
    text += "and contain lower case alphanumeric characters or '-' in between"
    well_formed = len(name) <= 63 and _SUBSET_NAME.fullmatch(name) is not None
    require(well_formed, f"Subset {quoted(name)} is invalid: {text}")
    if subset.filter:
        try:
            parse_tree(subset.filter)
        except FilterError as error:
            reason = str(error).removeprefix(PREFIX)
            raise InvalidConfigEntry(f"Filter for subset {quoted(name)} is not a valid expression: {reason}") from None


def _check_load_balancer(balancer: LoadBalancer) -> None:
    policy = balancer.policy
    require(policy in _POLICIES, f"Bad LoadBalancer policy: {quoted(policy)} is not supported")
    where = "Bad LoadBalancer configuration"
    text = f"specified for incompatible load balancing policy {quoted(policy)}"
    require(balancer.ring_hash_config is None or policy == "ring_hash", f"{where}. RingHashConfig {text}")
    allowed = balancer.least_request_config is None or policy == "least_request"
    require(allowed, f"{where}. LeastRequestConfig {text}")
    allowed = not balancer.hash_policies or policy in _HASH_POLICIES
    require(allowed, f"{where}: HashPolicies specified for non-hash-based Policy: {quoted(policy)}")
    for at, hashing in enumerate(balancer.hash_policies):
        _check_hash_policy(hashing, f"Bad LoadBalancer HashPolicy[{at}]: ")


def _check_hash_policy(hashing: HashPolicy, where: str) -> None:
    field = quoted(hashing.field)
    require(hashing.field in _HASH_FIELDS, f"{where}{field} is not a supported field")
    if hashing.source_ip:
        text = f"{where}A single hash policy cannot hash both a source address and a {field}"
        require(not hashing.field, text)
        require(not hashing.field_value, f"{where}A FieldValue cannot be specified when hashing SourceIP")
    require(not hashing.field or hashing.field_value != "", f"{where}Field {field} was specified without a FieldValue")
    require(not hashing.field_value or hashing.field != "", f"{where}FieldValue requires a Field to apply to")
    cookie = hashing.cookie_config
    if cookie is not None:
        require(hashing.field == "cookie", f"{where}cookie_config provided for {field}")
        require(not (cookie.session and cookie.ttl), f"{where}a session cookie cannot have an associated TTL")
