"""From a question to records: a read of the store, like any other.

The result is not yet an answer. It is a list of *parts*, one for each instance that may be named, with what belongs to
it; which parts an answer holds and in which order is settled when it is packed (`packing`, `rotation`), since the same
result serves requests of every size.

A service or node whose address is a host name is answered with a CNAME and what the host name stands for: a name under
our own domain is resolved here, another must be asked of the recursors. This code does no I/O: it leaves the name in
`Resolved.wanted`, and is run again with what was found in `External`. What is in another datacenter it leaves in
`Resolved.lookups` likewise.
"""

from collections.abc import Callable, Mapping
from random import Random

import msgspec

from lictor.agent import elsewhere
from lictor.agent.elsewhere import FAILED, UNKNOWN, Found, Lookup, failover_of
from lictor.dns import addresses, names
from lictor.dns.message import (
    AAAA,
    ANY,
    CNAME,
    NOERROR,
    NS,
    NXDOMAIN,
    PTR,
    SERVFAIL,
    SOA,
    SRV,
    TXT,
    A,
    Labels,
    Record,
    Request,
    labels_of,
    text_data,
)
from lictor.dns.names import Asked
from lictor.dns.settings import MAX_TTL, DnsSettings
from lictor.model.address import packed_address
from lictor.model.check import CRITICAL, MAINTENANCE, PASSING, WARNING, aggregate
from lictor.model.duration import parse_nanoseconds
from lictor.model.errors import LictorError, NotFound
from lictor.model.node import Node
from lictor.store.reads import catalog, gateways, health, prepared_queries, virtual_ips
from lictor.store.reads.health import CheckServiceNode
from lictor.store.reads.prepared_queries import Execution
from lictor.store.store import View

External = Mapping[str, tuple[Record, ...]]
"""Records by the host name (lower case, without the last dot) that recursors gave them for."""

Beyond = Mapping[Lookup, Found]
"""What other datacenters have answered."""

MAX_ALIASES = 3
MAX_FOLLOWED = 64
MAX_WANTED = 16
MAX_NAME_SERVERS = 3
CONSUL_SERVICE = "consul"

_ADDRESS_TYPES = (A, AAAA, ANY, TXT, SRV, NS)  # the types that a plain address answers, as the reference has it
_FOLLOWED = (CNAME, A, AAAA, TXT)
_NODE_TYPES = (A, AAAA, ANY, TXT)  # the types that a node answers


class Part(msgspec.Struct, frozen=True, gc=False):
    """The records of one instance, by section."""

    answers: tuple[Record, ...] = ()
    additionals: tuple[Record, ...] = ()
    authorities: tuple[Record, ...] = ()


class Resolved(msgspec.Struct, frozen=True):
    """What a question comes to.

    `lead` goes before the parts in the answer section. At most `limit` parts are named (0: all). `in_order`: the parts
    stay in their order, otherwise they take turns. `soa`: put into the authority section when nothing is answered.
    `common`: the result is one of few and worth keeping for requests that differ in form; `cacheable`: the same bytes
    may be answered with it until the store changes. `subnet_global`: it does not depend on who asks. `recurse`: nothing
    was found here and the recursors are to be asked.
    """

    rcode: int = NOERROR
    parts: tuple[Part, ...] = ()
    lead: tuple[Record, ...] = ()
    limit: int = 0
    in_order: bool = False
    soa: Record | None = None
    common: bool = False
    cacheable: bool = True
    subnet_global: bool = True
    recurse: bool = False
    wanted: tuple[str, ...] = ()
    lookups: tuple[Lookup, ...] = ()


class Client(msgspec.Struct, frozen=True):
    """Who asks, as far as an answer may depend on it: the address of the client subnet option or of the sender."""

    address: str = ""


class _Question(msgspec.Struct):
    """One question being resolved, with all that its records depend on."""

    view: View
    settings: DnsSettings
    request: Request
    client: Client
    now: float
    rng: Random
    external: External
    beyond: Beyond | None = None
    depth: int = MAX_ALIASES
    wanted: dict[str, None] = {}
    lookups: dict[Lookup, None] = {}
    followed: dict[tuple[str, int], tuple[Record, ...]] = {}

    def soa(self) -> Record:
        domain = tuple([label.encode() for label in self.settings.domains[0]])
        soa = self.settings.soa
        numbers = (int(self.now), soa.refresh, soa.retry, soa.expire, soa.min_ttl)
        tail = b"".join([(number & 0xFFFFFFFF).to_bytes(4, "big") for number in numbers])
        return Record(domain, SOA, soa.min_ttl, b"", (b"ns", *domain), (b"hostmaster", *domain), tail)

    def unknown(self) -> Resolved:
        return Resolved(NXDOMAIN, soa=self.soa())

    def look_up(self, lookup: Lookup) -> Found | Resolved:
        """What another datacenter has answered; where it has not, or not what was asked, what the question comes to."""
        if self.beyond is None:
            return self.unknown()
        found = self.beyond.get(lookup)
        if found is None:
            if len(self.lookups) >= MAX_WANTED:
                return Resolved(SERVFAIL, cacheable=False)
            self.lookups[lookup] = None
            return Resolved(cacheable=False)
        if found.problem == UNKNOWN:
            return self.unknown()
        return Resolved(SERVFAIL, cacheable=False) if found.problem == FAILED else found

    def under_domain(self, *labels: str) -> Labels | None:
        """A name of ours: under the main domain, whichever the question was under."""
        return labels_of(".".join((*labels, *self.settings.domains[0])))


def resolve(
    view: View,
    settings: DnsSettings,
    request: Request,
    client: Client,
    now: float,
    rng: Random,
    external: External,
    beyond: Beyond | None = None,
) -> Resolved:
    """Resolve a request for a name under one of the settings' domains or under `arpa`. `now` is the wall clock in
    seconds, for the SOA record's serial. `beyond` is None where no other datacenter can be asked.
    """
    question = _Question(
        view, settings, request, client, now, rng, external, beyond, wanted={}, lookups={}, followed={}
    )
    result = _reverse(question) if request.name[-1:] == ("arpa",) else _forward(question)
    if question.wanted or question.lookups:
        wanted, lookups = tuple(question.wanted), tuple(question.lookups)
        return msgspec.structs.replace(result, wanted=wanted, lookups=lookups, cacheable=False, common=False)
    if external or beyond:
        return msgspec.structs.replace(result, cacheable=False, common=False)
    return result


def _forward(q: _Question) -> Resolved:
    qtype = q.request.qtype
    if qtype == SOA:
        return Resolved(lead=(q.soa(),), parts=_name_servers(q, in_authority=True), limit=MAX_NAME_SERVERS)
    if qtype == NS:
        parts = _name_servers(q, in_authority=False)
        return Resolved(parts=parts, limit=MAX_NAME_SERVERS, soa=None if parts else q.soa())
    domain = names.under(q.request.name, q.settings.domains) or ()
    return _by_name(q, q.request.name[: len(q.request.name) - len(domain)])


def _by_name(q: _Question, labels: names.Name) -> Resolved:
    wanted = names.asked(labels, q.request.qtype)
    if wanted is None or wanted.peer:
        return q.unknown()
    if wanted.datacenter not in ("", q.settings.datacenter.lower()):
        return _elsewhere(q, wanted)
    return _KINDS[wanted.kind](q, wanted)


def _elsewhere(q: _Question, wanted: Asked) -> Resolved:
    """What is in another datacenter."""
    kind = _LOOKED_UP.get(wanted.kind)
    if kind is None:
        return q.unknown()
    if kind == elsewhere.NODE and q.request.qtype not in _NODE_TYPES:
        return Resolved(cacheable=False)
    found = q.look_up(Lookup(kind, wanted.datacenter, wanted.name, wanted.tag, stale=q.settings.allow_stale))
    if isinstance(found, Resolved):
        return found
    if kind == elsewhere.NODE:
        return _node_found(q, found.node)
    if kind == elsewhere.QUERY:
        return _query_found(q, found)
    return _instances(q, found.rows, wanted.name)


# -- nodes and plain addresses ----------------------------------------------------------------------------------------


def _node(q: _Question, wanted: Asked) -> Resolved:
    if q.request.qtype not in _NODE_TYPES:
        return Resolved(cacheable=False)
    return _node_found(q, catalog.find_node(q.view, wanted.name))


def _node_found(q: _Question, node: Node | None) -> Resolved:
    if node is None:
        return q.unknown()
    qtype, ttl = q.request.qtype, q.settings.node_ttl
    answers: tuple[Record, ...] = ()
    if qtype != TXT:
        answers = _node_records(q, node, None, qtype, ttl)
    additionals: tuple[Record, ...] = ()
    if qtype in (TXT, ANY):
        answers += node_meta(node, None, ttl)
    elif q.settings.node_meta_txt:
        additionals = node_meta(node, None, ttl)
    return Resolved(parts=(Part(answers, additionals),), common=True)


def _node_records(q: _Question, node: Node, name: Labels | None, qtype: int, ttl: int) -> tuple[Record, ...]:
    """A node's own address: A or AAAA, or a CNAME and what it leads to."""
    address = addresses.node_address(node, qtype, _is_remote(q, node))
    packed = packed_address(address)
    if packed is not None:
        return _address_records(packed, name, qtype, ttl)
    target = labels_of(address) if address else None
    if target is None:
        return ()
    return (Record(name, CNAME, ttl, b"", target), *_follow(q, address, None))


def node_meta(node: Node, name: Labels | None, ttl: int) -> tuple[Record, ...]:
    """A node's metadata as TXT records: `key=value` after RFC 1464, or the bare value under a key `rfc1035-...`."""
    records = []
    for key, value in sorted((node.meta or {}).items()):
        text = value if key.lower().startswith("rfc1035-") else rfc1464(key, value)
        records.append(Record(name, TXT, ttl, text_data(text)))
    return tuple(records)


def rfc1464(key: str, value: str) -> str:
    """An attribute as RFC 1464 section 2 writes it: a grave accent quotes itself, `=` and blanks at the key's ends."""
    quoted = key.replace("`", "``").replace("=", "`=")
    core = quoted.strip(" \t")
    if not core:
        return "".join("`" + blank for blank in quoted) + "=" + value.replace("`", "``")
    start = quoted.index(core)
    before, after = quoted[:start], quoted[start + len(core) :]
    quote = "".join
    blanks_before, blanks_after = quote("`" + c for c in before), quote("`" + c for c in after)
    return f"{blanks_before}{core}{blanks_after}={value.replace('`', '``')}"


def _address_records(packed: bytes, name: Labels | None, qtype: int, ttl: int) -> tuple[Record, ...]:
    kind = A if len(packed) == 4 else AAAA
    if qtype == kind or (qtype not in (A, AAAA) and qtype in _ADDRESS_TYPES):
        return (Record(name, kind, ttl, packed),)
    return ()


def _plain_address(q: _Question, wanted: Asked) -> Resolved:
    digits = wanted.name
    if len(digits) // 2 not in (4, 16):
        return Resolved()
    try:
        packed = bytes.fromhex(digits)
    except ValueError:
        return q.unknown()
    if len(digits) != len(packed) * 2:
        return q.unknown()
    kind = A if len(packed) == 4 else AAAA
    return Resolved(parts=(Part((Record(None, kind, q.settings.node_ttl, packed),)),))


def _name_servers(q: _Question, in_authority: bool) -> tuple[Part, ...]:
    """The servers of this datacenter as NS records with their addresses."""
    ttl = q.settings.node_ttl
    domain = tuple([label.encode() for label in q.settings.domains[0]])
    parts = []
    rows = health.service(q.view, CONSUL_SERVICE, (), {})
    for row in _healthy(q, rows):
        name = row.node.node
        target = labels_of(".".join((name, "node", _datacenter(q, row.node), *q.settings.domains[0])).lower())
        if target is None or not name.isascii() or not name.replace("-", "a").isalnum():
            continue
        servers = (Record(domain, NS, ttl, b"", target),)
        glue = _node_records(q, row.node, target, ANY, ttl)
        parts.append(Part(additionals=glue, authorities=servers) if in_authority else Part(servers, glue))
    q.rng.shuffle(parts)
    return tuple(parts)


# -- services ---------------------------------------------------------------------------------------------------------


def _healthy(q: _Question, rows: list[CheckServiceNode]) -> list[CheckServiceNode]:
    return health.passing(rows) if q.settings.only_passing else health.not_critical(rows)


def _service(q: _Question, wanted: Asked) -> Resolved:
    return _instances(q, health.service(q.view, wanted.name, (wanted.tag,) if wanted.tag else (), {}), wanted.name)


def _connect(q: _Question, wanted: Asked) -> Resolved:
    return _instances(q, health.connect(q.view, wanted.name, (), {}), wanted.name)


def _ingress(q: _Question, wanted: Asked) -> Resolved:
    return _instances(q, gateways.listing_gateways(q.view, wanted.name), wanted.name)


def _virtual(q: _Question, wanted: Asked) -> Resolved:
    """The one address under which transparent proxies reach a service."""
    address = virtual_ips.virtual_ip(q.view, wanted.name)
    packed = packed_address(address) if address is not None else None
    if packed is None:
        return q.unknown()
    records = _address_records(packed, None, q.request.qtype, q.settings.node_ttl)
    return Resolved(parts=(Part(records),), soa=None if records else q.soa(), common=True)


def _instances(q: _Question, rows: list[CheckServiceNode], service: str) -> Resolved:
    rows = _healthy(q, rows)
    if not rows:
        return q.unknown()
    return _named(q, rows, q.settings.ttl_of(service), in_order=False)


def _prepared(q: _Question, wanted: Asked) -> Resolved:
    settings = q.settings
    how = Execution(
        settings.datacenter, settings.node_name, segment=settings.segment, source_ip=q.client.address, limit=0
    )
    try:
        ranked = prepared_queries.rank(q.view, wanted.name, how, q.rng)
    except NotFound:
        return q.unknown()
    except LictorError:
        return Resolved(SERVFAIL, cacheable=False)
    query, found = ranked.query, Found(ranked.rows, in_order=ranked.by_distance)
    if not found.rows:
        beyond = failover_of(query, connect=False, limit=0, stale=settings.allow_stale)
        there = q.look_up(beyond) if beyond is not None else q.unknown()
        if isinstance(there, Resolved):
            return there
        found = there
    result = _query_found(q, msgspec.structs.replace(found, service=query.service.service, ttl=query.dns.ttl))
    cacheable = result.cacheable and ranked.by_distance is ranked.measured and not ranked.by_client
    return msgspec.structs.replace(result, cacheable=cacheable, common=False, subnet_global=False)


def _query_found(q: _Question, found: Found) -> Resolved:
    if not found.rows:
        return q.unknown()
    ttl = q.settings.ttl_of(found.service.lower())
    if found.ttl:
        try:
            ttl = min(max(0, parse_nanoseconds(found.ttl) // 1_000_000_000), MAX_TTL)
        except ValueError:
            pass
    return _named(q, found.rows, ttl, in_order=found.in_order)


def _named(q: _Question, rows: list[CheckServiceNode], ttl: int, in_order: bool) -> Resolved:
    """The rows as parts: each address, or each address and port, once."""
    parts: dict[object, Part] = {}
    aliases: list[CheckServiceNode] = []
    is_srv = q.request.qtype == SRV
    for row in rows:
        if is_srv:
            remote = _is_remote(q, row.node)
            address = addresses.service_address(row.service, ANY, remote)
            key: object = (row.node.node, address, addresses.service_port(row.service, remote))
            if key not in parts and (part := _srv(q, row, ttl)) is not None:
                parts[key] = part
            continue
        found = _instance_address(q, row)
        if isinstance(found, str):
            aliases.append(row)
        elif found and (records := _address_records(found, None, q.request.qtype, ttl)):
            parts.setdefault(found, Part(records))
    named = list(parts.values())
    if not named:
        # Host names only where there is no address at all.
        followed = (_alias(q, row, ttl) for row in aliases)
        named = list({part.answers[0]: part for part in followed if part is not None}.values())
        limit = 1
    else:
        limit = 0 if is_srv else max(0, q.settings.a_record_limit)
    if not in_order:
        q.rng.shuffle(named)
    soa = None if named else q.soa()
    return Resolved(parts=tuple(named), limit=limit, in_order=in_order, soa=soa, common=True)


def _instance_address(q: _Question, row: CheckServiceNode) -> bytes | str:
    """Where an instance is: its own address, else its node's; 4 or 16 bytes, a host name, or nothing that fits."""
    qtype = q.request.qtype
    remote = _is_remote(q, row.node)
    address = addresses.service_address(row.service, qtype, remote)
    packed = packed_address(address) if address else None
    if packed is not None:
        return packed
    if not address or address.lower().rstrip(".") == ".".join(q.request.name):
        # An instance that is registered under the very name that is asked for would lead in a circle.
        own = addresses.node_address(row.node, qtype, remote)
        packed = packed_address(own)
        if packed is not None:
            return packed
        address = address or own
    return address


def _alias(q: _Question, row: CheckServiceNode, ttl: int) -> Part | None:
    found = _instance_address(q, row)
    target = labels_of(found) if isinstance(found, str) and found else None
    if target is None or not isinstance(found, str):
        return None
    return Part((Record(None, CNAME, ttl, b"", target), *_follow(q, found, ttl)))


def _srv(q: _Question, row: CheckServiceNode, ttl: int) -> Part | None:
    """An SRV record, its target's addresses, and the node's metadata."""
    node, service = row.node, row.service
    remote = _is_remote(q, node)
    datacenter = _datacenter(q, node)
    found = _instance_address(q, row)
    if isinstance(found, str):
        target = labels_of(found) if found else None
        extra = _follow(q, found, ttl) if target is not None else ()
    else:
        own = addresses.service_address(service, SRV, remote)
        at_node = packed_address(own) is None and addresses.node_address(node, SRV, remote) == node.address
        if at_node:
            target = q.under_domain(node.node, "node", datacenter)
        else:
            target = q.under_domain(found.hex(), "addr", datacenter)
        extra = _address_records(found, target, SRV, ttl)
    if target is None:
        return None
    numbers = (1, weight(row), addresses.service_port(service, remote))
    data = b"".join([(number & 0xFFFF).to_bytes(2, "big") for number in numbers])
    if q.settings.node_meta_txt:
        name = q.under_domain(node.node, "node", datacenter)
        extra += node_meta(node, name, ttl) if name is not None else ()
    return Part((Record(None, SRV, ttl, data, target),), extra)


def weight(row: CheckServiceNode) -> int:
    """An instance's SRV weight, by the state of its checks and its node's."""
    service = row.service
    status = aggregate([c for c in row.checks if c.service_name in ("", service.service)])
    if status == PASSING:
        return service.weights.passing
    if status == WARNING:
        return service.weights.warning
    return 0 if status in (CRITICAL, MAINTENANCE) else 1


def _follow(q: _Question, host: str, ttl: int | None) -> tuple[Record, ...]:
    """What a host name stands for: resolved here under our domain, else what the recursors gave. With a service's
    `ttl`, or with the TTLs that the records have.
    """
    name = host.lower().rstrip(".")
    labels = tuple(name.split("."))
    domain = names.under(labels, q.settings.domains)
    if domain is None:
        if name in q.external:
            return tuple([_with(record, ttl, record.name) for record in q.external[name]])
        if q.settings.recursors and len(q.wanted) < MAX_WANTED:
            q.wanted[name] = None
        return ()
    if q.depth < 1:
        return ()
    key = (name, q.depth)
    if key not in q.followed:
        # Names that lead to each other would be followed once for each instance on each level.
        q.followed[key] = ()
        request = msgspec.structs.replace(q.request, name=labels, labels=(), qtype=ANY)
        inner = msgspec.structs.replace(q, request=request, depth=q.depth - 1)
        found = _by_name(inner, labels[: -len(domain)])
        records = [record for part in found.parts for record in part.answers if record.type in _FOLLOWED]
        owner = labels_of(host)
        q.followed[key] = tuple([_with(r, None, owner if r.name is None else r.name) for r in records[:MAX_FOLLOWED]])
    return tuple([_with(record, ttl, record.name) for record in q.followed[key]])


def _with(record: Record, ttl: int | None, name: Labels | None) -> Record:
    return msgspec.structs.replace(record, ttl=record.ttl if ttl is None else ttl, name=name)


def _is_remote(q: _Question, node: Node) -> bool:
    return q.settings.translate_wan_addrs and _datacenter(q, node) != q.settings.datacenter


def _datacenter(q: _Question, node: Node) -> str:
    return node.datacenter or q.settings.datacenter


_LOOKED_UP = {
    names.SERVICE: elsewhere.SERVICE,
    names.CONNECT: elsewhere.CONNECT,
    names.INGRESS: elsewhere.INGRESS,
    names.NODE: elsewhere.NODE,
    names.PREPARED: elsewhere.QUERY,
}


_KINDS: dict[str, Callable[[_Question, Asked], Resolved]] = {
    names.SERVICE: _service,
    names.CONNECT: _connect,
    names.INGRESS: _ingress,
    names.VIRTUAL: _virtual,
    names.NODE: _node,
    names.PREPARED: _prepared,
    names.ADDRESS: _plain_address,
}


# -- addresses to names -----------------------------------------------------------------------------------------------


def _reverse(q: _Question) -> Resolved:
    """The node or else the service that has an address. No topic stands for that, so it is found anew each time."""
    authority = (q.soa(),) if q.request.qtype == SOA else ()
    address = names.reverse_address(q.request.name)
    target = _owner(q, address) if address is not None else None
    if target is None:
        return Resolved(SERVFAIL, recurse=True, cacheable=False)
    return Resolved(parts=(Part((Record(None, PTR, 0, b"", target),), authorities=authority),), cacheable=False)


def _owner(q: _Question, address: str) -> Labels | None:
    store = q.view.store
    nodes = store.nodes.by("address", address)
    if nodes:
        return q.under_domain(nodes[min(nodes)].node, "node", q.settings.datacenter)
    services = store.services.by("address", address)
    if services:
        return q.under_domain(services[min(services)].service.service, "service", q.settings.datacenter)
    return None
