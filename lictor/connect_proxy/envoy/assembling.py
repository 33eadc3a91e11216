"""The read that finds what a proxy needs: its service with the central configuration, who may call it, whom it calls.

A function of the store like any other read, run by `agent.follow`: it says what it looked at, so that a proxy is looked
at again when something of its own has changed, and never for another's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import msgspec

from lictor.connect_proxy.envoy.names import plain_ip, service_uri
from lictor.connect_proxy.envoy.place import Place
from lictor.connect_proxy.envoy.settings import known_protocol
from lictor.connect_proxy.envoy.snapshot import (
    TRANSPARENT,
    Endpoint,
    Leaf,
    ProxySnapshot,
    Rule,
    Target,
    UpstreamNeeds,
)
from lictor.model.check import CRITICAL, PASSING
from lictor.model.config_entry import read_entry
from lictor.model.config_entry.entry import WILDCARD
from lictor.model.config_entry.jwt_provider import JWTProvider
from lictor.model.config_entry.mesh import MESH, Mesh
from lictor.model.errors import LictorError
from lictor.model.intention import Intention, Verdict, decision_of
from lictor.model.service import CONNECT_PROXY, ConnectProxyConfig, ExposePath, NodeService, Upstream
from lictor.model.spiffe import trust_domain
from lictor.model.virtual_ip import is_virtual
from lictor.store.reads import connect_ca, health, intentions, prepared_queries
from lictor.store.reads.central import centrally, is_dialed_directly, is_permissive, protocol_of, request_limits
from lictor.store.reads.health import CheckServiceNode
from lictor.store.reads.virtual_ips import virtual_ip, virtual_ips
from lictor.store.store import View, config_key

PREPARED_QUERY = "prepared_query"
VIRTUAL_TAG = "virtual"
"""The tagged address of an instance under which its whole service is reached in transparent mode, besides the virtual
address that the servers have given it: Kubernetes' own address of a service.
"""

Elsewhere = Callable[[View, str, str], list[CheckServiceNode]]

_NO_LEAF = Leaf("", "")


def assemble(
    view: View,
    proxy_id: str,
    own: Callable[[View], NodeService | None],
    place: Place,
    checks: tuple[ExposePath, ...] = (),
    elsewhere: Elsewhere = lambda view, datacenter, service: [],
) -> ProxySnapshot | None:
    """What a proxy needs, but for its leaf; without roots where there is no authority yet. None where there is no such
    proxy. `own` reads its registration; `checks` is what it exposes for checks of its service; `elsewhere` reads the
    instances of a service of another datacenter.
    """
    service = own(view)
    if service is None or service.kind != CONNECT_PROXY:
        return None
    roots = connect_ca.roots(view)
    service = centrally(view, service)
    name, domain = service.proxy.destination_service_name, trust_domain(roots[-1].cluster) if roots else ""
    rules = tuple(_rule(one) for one in intentions.for_destination(view, name) if not _elsewhere(one))
    transparent = service.proxy.mode == TRANSPARENT
    wanted = (*service.proxy.upstreams, *(_implied(view, service, place) if transparent else ()))
    return ProxySnapshot(
        proxy_id=proxy_id,
        service=name,
        address=service.address,
        port=service.port,
        proxy=_exposing(service.proxy, checks),
        checked_from=place.address if checks else "",
        datacenter=place.datacenter,
        trust_domain=domain,
        roots=tuple(root.root for root in roots),
        leaf=_NO_LEAF,
        protocol=known_protocol(str((service.proxy.config or {}).get("protocol") or protocol_of(view, name))),
        default_allow=place.default_allow,
        rules=rules,
        upstreams=tuple(_upstreams(view, wanted, domain, place, transparent, elsewhere)),
        jwt_providers=tuple(_providers(view, rules)),
        mesh=_mesh(view),
        revoked=tuple(sorted({leaf.fingerprint for leaf in connect_ca.revoked(view)} - {""})),
        permissive=is_permissive(view, name),
        limits=request_limits(view, name),
    )


def _exposing(proxy: ConnectProxyConfig, checks: tuple[ExposePath, ...]) -> ConnectProxyConfig:
    if not checks:
        return proxy
    return msgspec.structs.replace(
        proxy, expose=msgspec.structs.replace(proxy.expose, paths=(*proxy.expose.paths, *checks))
    )


def with_leaf(snapshot: ProxySnapshot, certificate: str, key: str) -> ProxySnapshot:
    """The whole of it."""
    return msgspec.structs.replace(snapshot, leaf=Leaf(certificate, key))


def _elsewhere(one: Intention) -> bool:
    """Whether an intention is about callers of other clusters."""
    return bool(one.source_peer or one.source_sameness_group)


def _rule(one: Intention) -> Rule:
    return Rule(one.source_name, one.action, one.permissions, one.jwt)


def _implied(view: View, service: NodeService, place: Place) -> list[Upstream]:
    """What a transparent proxy reaches without being told: the services with a virtual address that intentions let it
    connect to, or the default policy where none says anything.
    """
    proxy = service.proxy
    known = {one.destination_name.lower() for one in proxy.upstreams if not one.datacenter}
    known.add(proxy.destination_service_name.lower())
    wanted = [name for name in _permitted(view, proxy.destination_service_name, place) if name not in known]
    rest = next((one for one in proxy.upstreams if one.destination_name == WILDCARD), None)
    config = {key: value for key, value in (rest.config or {}).items() if key != "protocol"} if rest else {}
    return [Upstream(destination_name=name, config=config or None, centrally_configured=True) for name in wanted]


def _permitted(view: View, source: str, place: Place) -> Iterator[str]:
    """The services with a virtual address that a service may connect to, some of which look at requests first."""
    deciding: dict[str, tuple[int, Intention]] = {}
    for number, one in enumerate(intentions.for_source(view, source)):
        if not _elsewhere(one):
            deciding.setdefault(one.destination_name.lower(), (number, one))
    general = deciding.get(WILDCARD)
    for row in virtual_ips(view):
        found = min((one for one in (deciding.get(row.service), general) if one is not None), default=None, key=_first)
        if place.default_allow if found is None else decision_of(found[1]).verdict is not Verdict.DENIED:
            yield row.service


def _first(numbered: tuple[int, Intention]) -> int:
    return numbered[0]


def _upstreams(
    view: View, upstreams: Iterable[Upstream], domain: str, place: Place, transparent: bool, elsewhere: Elsewhere
) -> Iterable[UpstreamNeeds]:
    for upstream in upstreams:
        # What stands for all others (`*`) is no upstream; peers and other clusters have no place here yet.
        if upstream.destination_name in ("", WILDCARD) or upstream.destination_peer:
            continue
        protocol = known_protocol(str((upstream.config or {}).get("protocol") or ""))
        if upstream.destination_type == PREPARED_QUERY:
            found = _query(view, upstream.destination_name)
            if found is not None:
                service, rows = found
                yield UpstreamNeeds(upstream, protocol, _target(service, place.datacenter, rows, domain))
            continue
        if not (upstream.config or {}).get("protocol"):
            protocol = known_protocol(protocol_of(view, upstream.destination_name))
        datacenter = upstream.datacenter or place.datacenter
        here = datacenter == place.datacenter
        name = upstream.destination_name
        rows = health.connect(view, name, (), {}) if here else elsewhere(view, datacenter, name)
        target = _target(upstream.destination_name, datacenter, rows, domain)
        if not (transparent and here):
            yield UpstreamNeeds(upstream, protocol, target)
            continue
        virtual = _virtual(view, upstream.destination_name, rows)
        yield UpstreamNeeds(upstream, protocol, target, virtual, tuple(_direct(view, upstream.destination_name, rows)))


def _query(view: View, name: str) -> tuple[str, list[CheckServiceNode]] | None:
    """The service that a prepared query is about, and the instances that it lets through; None where there is none."""
    try:
        asked = prepared_queries.resolve(view, name, "")
    except LictorError:
        return None
    return asked.service.service, prepared_queries.instances(view, asked, connect=True)


def _target(service: str, datacenter: str, rows: list[CheckServiceNode], domain: str) -> Target:
    """A service with its instances. Names have no case in the catalog and have one in certificates: what the instances
    themselves say they are is what theirs say.
    """
    named = sorted({row.service.connect_name for row in rows} - {""}) or [service]
    identities = tuple(service_uri(domain, datacenter, name) for name in named)
    return Target(service, datacenter, identities, tuple(_endpoint(row) for row in rows))


def _endpoint(row: CheckServiceNode) -> Endpoint:
    """An instance, healthy unless a check is critical, with the weight that its checks give it."""
    statuses = {check.status for check in row.checks}
    weights = row.service.weights
    weight = weights.passing if statuses <= {PASSING} else weights.warning
    return Endpoint(row.service.address or row.node.address, row.service.port, max(weight, 1), CRITICAL not in statuses)


def _virtual(view: View, service: str, rows: Iterable[CheckServiceNode]) -> tuple[str, ...]:
    """The virtual addresses of a service: its own, and those that registrations say. Who registers an instance takes
    no address that the servers may give: connections to another service would come to it.
    """
    found = {virtual_ip(view, service) or ""}
    for row in rows:
        tagged = (row.service.tagged_addresses or {}).get(VIRTUAL_TAG)
        if tagged is not None and not is_virtual(address := plain_ip(tagged.address)):
            found.add(address)
    return tuple(sorted(found - {""}))


def _direct(view: View, service: str, rows: list[CheckServiceNode]) -> Iterator[str]:
    """The addresses of the instances that may be reached each by its own."""
    all_of_them = is_dialed_directly(view, service) if rows else False
    addresses = set()
    for row in rows:
        own = row.service.proxy.transparent_proxy
        if all_of_them or (own is not None and own.dialed_directly):
            addresses.add(plain_ip(row.service.address or row.node.address))
    yield from sorted(addresses - {""})


def _providers(view: View, rules: Iterable[Rule]) -> Iterable[JWTProvider]:
    wanted = set()
    for rule in rules:
        for need in (rule.jwt, *(permission.jwt for permission in rule.permissions)):
            if need is not None:
                wanted |= {provider.name for provider in need.providers}
    for name in sorted(wanted):
        key = config_key("jwt-provider", name)
        view.saw("config", *key)
        row = view.store.config.get(key)
        found = read_entry(row.body) if row is not None else None
        if isinstance(found, JWTProvider):
            yield found


def _mesh(view: View) -> Mesh:
    view.saw("config", "mesh", MESH)
    row = view.store.config.get(("mesh", MESH))
    found = read_entry(row.body) if row is not None else None
    return found if isinstance(found, Mesh) else Mesh()
