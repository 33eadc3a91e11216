"""Reads for the web page: nodes with all they have, services in summary, topology, and an overview of the catalog."""

from collections.abc import Callable, Iterable

import msgspec

from lictor.model.check import CRITICAL, PASSING, WARNING, Check, aggregate
from lictor.model.config_entry.entry import WILDCARD
from lictor.model.intention import DefaultPolicy, Intention, in_order
from lictor.model.node import Node
from lictor.model.service import CONNECT_PROXY, NodeService
from lictor.model.spiffe import ServiceId
from lictor.store.reads import catalog, gateways, health, intentions
from lictor.store.reads.health import CheckServiceNode
from lictor.store.store import View

EXTERNAL_SOURCE = "external-source"
TRANSPARENT = "transparent"
REGISTRATION = "proxy-registration"


class NodeInfo(msgspec.Struct, frozen=True, rename="pascal"):
    """A node with its services and checks."""

    id: str = msgspec.field(name="ID")
    node: str
    address: str
    tagged_addresses: dict[str, str] | None
    meta: dict[str, str] | None
    services: list[NodeService]
    checks: list[Check]


class GatewayConfig(msgspec.Struct, frozen=True, rename="pascal", omit_defaults=True):
    """What a service has to do with gateways."""

    associated_service_count: int = 0
    addresses: tuple[str, ...] = ()


class ServiceSummary(msgspec.Struct, frozen=True, rename="pascal", kw_only=True):
    """All instances of a service in one row. Lists are null where they are empty, as Consul's are."""

    kind: str | msgspec.UnsetType = msgspec.UNSET
    name: str
    datacenter: str = ""
    tags: list[str] | None = None
    nodes: list[str] | None = None
    external_sources: list[str] | None = None
    instance_count: int = 0
    checks_passing: int = 0
    checks_warning: int = 0
    checks_critical: int = 0
    gateway_config: GatewayConfig = GatewayConfig()
    transparent_proxy: bool = False
    connect_native: bool = False


class ServiceListing(ServiceSummary, frozen=True, rename="pascal", kw_only=True):
    """A summary in the list of all services."""

    connected_with_proxy: bool = False
    connected_with_gateway: bool = False


class IntentionDecision(msgspec.Struct, frozen=True, rename="pascal"):
    """Whether a connection between two services is allowed, and why."""

    default_allow: bool = True
    allowed: bool = True
    has_permissions: bool = False
    external_source: str = ""
    has_exact: bool = False


class ServiceTopologySummary(ServiceSummary, frozen=True, rename="pascal", kw_only=True):
    """A summary of a service that another one calls or is called by."""

    source: str = ""
    intention: IntentionDecision = IntentionDecision()


class ServiceTopology(msgspec.Struct, frozen=True, rename="pascal"):
    """Who a service calls, and who calls it."""

    protocol: str
    transparent_proxy: bool
    upstreams: list[ServiceTopologySummary]
    downstreams: list[ServiceTopologySummary]
    filtered_by_acls: bool = msgspec.field(default=False, name="FilteredByACLs")


class HealthSummary(msgspec.Struct, frozen=True, rename="pascal", omit_defaults=True):
    """How many of something there are, by status."""

    name: str = ""
    total: int = msgspec.field(default_factory=int)
    passing: int = msgspec.field(default_factory=int)
    warning: int = msgspec.field(default_factory=int)
    critical: int = msgspec.field(default_factory=int)


class CatalogSummary(msgspec.Struct, frozen=True, rename="pascal"):
    """The catalog's health in numbers."""

    nodes: list[HealthSummary]
    services: list[HealthSummary]
    checks: list[HealthSummary]


def _info(view: View, node: Node) -> NodeInfo:
    name = node.node.lower()
    checks = [check for _, check in sorted(view.store.checks.by("node", name).items())]
    services = catalog.services_of_node(view, node)
    return NodeInfo(node.id, node.node, node.address, node.tagged_addresses, node.meta, services, checks)


def nodes(view: View) -> list[NodeInfo]:
    """Every node, by name."""
    view.saw("catalog")
    return [_info(view, node) for node in view.store.nodes]


def node(view: View, name: str) -> NodeInfo | None:
    """One node."""
    found = catalog.find_node(view, name)
    return _info(view, found) if found is not None else None


def every_instance(view: View) -> list[CheckServiceNode]:
    """Every instance with its node and checks, by node and id."""
    view.saw("catalog")
    return health.with_checks(view, list(view.store.services))


class _Collected:
    """A summary in the making."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.kind = ""
        self.datacenter = ""
        self.tags: set[str] = set()
        self.nodes: set[str] = set()
        self.sources: dict[str, None] = {}
        self.instances = 0
        self.native = False
        self.checks: dict[tuple[str, str], str] = {}
        self.proxied = False
        # Transparent only where every proxy is.
        self.transparent: bool | None = None

    def add(self, row: CheckServiceNode) -> None:
        service = row.service
        self.kind, self.datacenter = service.kind, row.node.datacenter
        self.tags.update(service.tags)
        self.nodes.add(row.node.node)
        self.instances += 1
        self.native = self.native or service.connect.native
        source = (service.meta or {}).get(EXTERNAL_SOURCE, "")
        if source:
            self.sources[source] = None
        self.add_checks(row)

    def add_proxy(self, row: CheckServiceNode) -> None:
        self.proxied = True
        self.add_checks(row)
        mode = row.service.proxy.mode == TRANSPARENT
        self.transparent = mode if self.transparent is None else self.transparent and mode

    def add_checks(self, row: CheckServiceNode) -> None:
        for check in row.checks:
            self.checks[row.node.node, check.check_id] = check.status

    def fields(self) -> dict[str, object]:
        statuses = list(self.checks.values())
        return {
            "kind": self.kind or msgspec.UNSET,
            "name": self.name,
            "datacenter": self.datacenter,
            "tags": sorted(self.tags) or None,
            "nodes": sorted(self.nodes) or None,
            "external_sources": list(self.sources) or None,
            "instance_count": self.instances,
            "checks_passing": statuses.count(PASSING),
            "checks_warning": statuses.count(WARNING),
            "checks_critical": statuses.count(CRITICAL),
            "transparent_proxy": bool(self.transparent),
            "connect_native": self.native,
        }


def _collect(rows: Iterable[CheckServiceNode]) -> dict[str, _Collected]:
    found: dict[str, _Collected] = {}
    for row in rows:
        name = row.service.service
        found.setdefault(name, _Collected(name)).add(row)
        if row.service.kind == CONNECT_PROXY:
            destination = row.service.proxy.destination_service_name
            found.setdefault(destination, _Collected(destination)).add_proxy(row)
    return found


def services(view: View, rows: Iterable[CheckServiceNode]) -> list[ServiceListing]:
    """Every service that `rows` have instances of, or proxies for, by name."""
    collected = _collect(rows)
    linked: dict[str, int] = {}
    behind: dict[str, list[str]] = {}
    for bound in gateways.every_gateway_service(view):
        linked[bound.gateway.name] = linked.get(bound.gateway.name, 0) + 1
        behind.setdefault(bound.service.name, []).append(bound.gateway.name)
    listed = []
    for name, one in sorted(collected.items()):
        fields: dict[str, object] = one.fields() | {
            "gateway_config": GatewayConfig(linked.get(name, 0)),
            "connected_with_proxy": one.proxied,
            "connected_with_gateway": one.instances > 0 and any(g in collected for g in behind.get(name, ())),
        }
        listed.append(ServiceListing(**fields))  # type: ignore[arg-type]
    return listed


def gateway_services(view: View, gateway: str, domains: Iterable[str], datacenter: str) -> list[ServiceSummary]:
    """The services of a gateway in summary, an ingress gateway's with the names under which they are reached."""
    summaries = []
    addresses: dict[str, dict[str, None]] = {}
    domains = [domain.strip(".") for domain in domains if domain.strip(".")]
    for bound in gateways.gateway_services(view, gateway):
        own = addresses.setdefault(bound.service.name, {})
        if bound.gateway_kind != gateways.INGRESS:
            continue
        names = bound.hosts or [f"{bound.service.name}.ingress.{datacenter}.{domain}." for domain in domains]
        own.update(dict.fromkeys(f"{name}:{bound.port}" for name in names))
    for name, own in sorted(addresses.items()):
        one = _Collected(name)
        for row in health.service(view, name, (), {}):
            one.add(row)
        fields: dict[str, object] = one.fields() | {"gateway_config": GatewayConfig(0, tuple(own))}
        summaries.append(ServiceSummary(**fields))  # type: ignore[arg-type]
    return summaries


def topology(view: View, service: str, protocol: str, default: DefaultPolicy) -> ServiceTopology:
    """Who a service's proxies call and whose proxies call it, as their registrations say, and whether they may."""
    view.saw("kind", CONNECT_PROXY)
    wanted = service.lower()
    upstreams: dict[str, None] = {}
    downstreams: dict[str, None] = {}
    modes: list[bool] = []
    for _, instance in sorted(view.store.services.by("kind", CONNECT_PROXY).items()):
        proxy = instance.service.proxy
        called = [u.destination_name for u in proxy.upstreams if u.destination_type in ("", "service")]
        if proxy.destination_service_name.lower() == wanted:
            upstreams.update(dict.fromkeys(called))
            modes.append(proxy.mode == TRANSPARENT)
        if wanted in [name.lower() for name in called]:
            downstreams[proxy.destination_service_name] = None
    return ServiceTopology(
        protocol,
        bool(modes) and all(modes),
        _ends(view, upstreams, lambda name: _decision(view, service, name, default)),
        _ends(view, downstreams, lambda name: _decision(view, name, service, default)),
    )


def _decision(view: View, source: str, destination: str, default: DefaultPolicy) -> IntentionDecision:
    found = intentions.decision(view, ServiceId("", "", source), destination, default)
    rule = found.rule
    return IntentionDecision(
        default_allow=default.allow,
        allowed=found.allowed,
        has_permissions=rule is not None and bool(rule.permissions),
        external_source=(rule.meta or {}).get(EXTERNAL_SOURCE, "") if rule is not None else "",
        has_exact=rule is not None and WILDCARD not in (rule.source_name, rule.destination_name),
    )


def gateway_intentions(view: View, gateway: str) -> list[Intention]:
    """The intentions for connections to the services of a gateway, in the order in which they are considered."""
    found: dict[tuple[str, str, str], Intention] = {}
    for bound in gateways.gateway_services(view, gateway):
        for one in intentions.for_destination(view, bound.service.name):
            found[one.source_peer, one.source_name, one.destination_name] = one
    return in_order(found.values())


def _ends(
    view: View, names: Iterable[str], decision: Callable[[str], IntentionDecision]
) -> list[ServiceTopologySummary]:
    ends = []
    for name in sorted(names):
        one = _Collected(name)
        for row in health.service(view, name, (), {}):
            one.add(row)
        for row in health.connect(view, name, (), {}):
            if row.service.kind == CONNECT_PROXY:
                one.add_proxy(row)
        fields: dict[str, object] = one.fields() | {"source": REGISTRATION, "intention": decision(name)}
        ends.append(ServiceTopologySummary(**fields))  # type: ignore[arg-type]
    return ends


def overview(view: View) -> CatalogSummary:
    """How many nodes, services and checks there are, by status."""
    view.saw("catalog")
    store = view.store
    nodes_counted = [aggregate(list(store.checks.by("node", name).values())) for name in store.nodes.rows]
    services_counted: dict[str, list[str]] = {}
    for row in every_instance(view):
        services_counted.setdefault(row.service.service, []).append(aggregate(row.checks))
    checks_counted: dict[str, list[str]] = {}
    for check in store.checks:
        checks_counted.setdefault(check.name, []).append(check.status)
    return CatalogSummary(
        [_counted("", nodes_counted)],
        [_counted(name, statuses) for name, statuses in sorted(services_counted.items())],
        [_counted(name, statuses) for name, statuses in sorted(checks_counted.items())],
    )


def _counted(name: str, statuses: list[str]) -> HealthSummary:
    passing, warning = statuses.count(PASSING), statuses.count(WARNING)
    return HealthSummary(name, len(statuses), passing, warning, len(statuses) - passing - warning)
