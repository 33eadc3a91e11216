"""Random commands over a few names, so that they meet each other often; and every read, to be asked after each."""

import random
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from lictor.model.check import Check
from lictor.model.command import (
    AuthorityWrite,
    CheckOp,
    Command,
    ConfigWrite,
    CoordinateUpdate,
    Deregister,
    EntriesCopy,
    IntentionWrite,
    KVOp,
    KVWrite,
    LeavesRevoke,
    NodeOp,
    QueryDelete,
    QuerySet,
    Reap,
    Register,
    RevokedForget,
    ServiceOp,
    SessionCreate,
    SessionDestroy,
    SessionOp,
    SettingWrite,
    Txn,
    TxnOp,
)
from lictor.model.connect_ca import CAConfiguration, CARoot, RevokedLeaf
from lictor.model.coordinate_entry import Coord, CoordinateEntry
from lictor.model.intention import DefaultPolicy
from lictor.model.node import Node
from lictor.model.prepared_query import PreparedQuery, QueryTemplate, ServiceQuery
from lictor.model.service import ConnectProxyConfig, NodeService, ServiceConnect, Upstream
from lictor.model.session import Session
from lictor.store.reads import (
    catalog,
    central,
    config,
    connect_ca,
    coordinates,
    exports,
    gateways,
    health,
    intentions,
    kv,
    near,
    prepared_queries,
    sessions,
    ui,
    usage,
    virtual_ips,
)
from lictor.store.reads.prepared_queries import Execution
from lictor.store.store import View

NODES = ("n1", "N1", "n2", "n3")
IDS = ("", "11111111-1111-1111-1111-111111111111", "22222222-2222-2222-2222-222222222222")
SERVICES = ("web", "Web", "db")
CHECKS = ("c1", "C1", "c2", "serfHealth")
KEYS = ("a", "a/b", "a/b/c", "b")
SESSIONS = ("aaaaaaaa-0000-0000-0000-000000000001", "aaaaaaaa-0000-0000-0000-000000000002")
QUERIES = ("bbbbbbbb-0000-0000-0000-000000000001", "bbbbbbbb-0000-0000-0000-000000000002")
STATUSES = ("passing", "warning", "critical")

_ENTRIES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("service-defaults", "web", {"Kind": "service-defaults", "Name": "web", "Protocol": "http"}),
    ("service-defaults", "web", {"Kind": "service-defaults", "Name": "web", "Protocol": "grpc"}),
    ("service-defaults", "db", {"Kind": "service-defaults", "Name": "db", "Protocol": "tcp"}),
    ("proxy-defaults", "global", {"Kind": "proxy-defaults", "Name": "global", "Config": {"protocol": "http2"}}),
    (
        "ingress-gateway",
        "in",
        {"Kind": "ingress-gateway", "Name": "in", "Listeners": [{"Port": 1, "Services": [{"Name": "*"}]}]},
    ),
    ("terminating-gateway", "out", {"Kind": "terminating-gateway", "Name": "out", "Services": [{"Name": "*"}]}),
    (
        "exported-services",
        "default",
        {
            "Kind": "exported-services",
            "Name": "default",
            "Services": [{"Name": "*", "Consumers": [{"Peer": "p"}, {"SamenessGroup": "g"}]}],
        },
    ),
    ("sameness-group", "g", {"Kind": "sameness-group", "Name": "g", "Members": [{"Peer": "z"}]}),
)

_LEGACY_IDS = ("i1", "i2", "i3")


T = TypeVar("T")


class Dice:
    """Random commands from one seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def one(self, choices: Sequence[T]) -> T:
        """Any of these."""
        return self._random.choice(choices)

    def often(self, chance: float) -> bool:
        """True with this chance."""
        return self._random.random() < chance

    def script(self, length: int) -> list[Command]:
        """Commands, one after the other."""
        return [self.command() for _ in range(length)]

    def command(self) -> Command:
        """Any command; registrations are the most frequent."""
        makers: tuple[tuple[int, Callable[[], Command]], ...] = (
            (8, self.register),
            (2, self.deregister),
            (4, self.kv_write),
            (2, self.session),
            (1, self.session_end),
            (4, self.transaction),
            (2, self.query_set),
            (1, self.query_delete),
            (4, self.coordinate),
            (6, self.config),
            (4, self.intention),
            (1, self.setting),
            (2, self.authority),
            (2, self.revoke),
            (1, self.forget_revoked),
            (2, self.entries_copy),
            (2, self.reap),
        )
        return self._random.choices([make for _, make in makers], [weight for weight, _ in makers])[0]()

    def small(self) -> int:
        """A small index."""
        return self._random.randint(0, 40)

    def meta(self) -> dict[str, str] | None:
        return self.one((None, {"k": "v"}, {"k": "w"}))

    def node(self) -> Node:
        return Node(
            id=self.one(IDS),
            node=self.one(NODES),
            address=self.one(("10.0.0.1", "10.0.0.2", "x")),
            datacenter="dc1",
            meta=self.meta(),
            modify_index=self.small(),
        )

    def service(self) -> NodeService:
        if self.often(0.6):
            return NodeService(
                id=self.one(("s1", "S1", "s2")),
                service=self.one(SERVICES),
                tags=self.one(((), ("t",), ("t", "u"))),
                address=self.one(("", "10.1.0.1")),
                meta=self.meta(),
                port=self.one((0, 80)),
                connect=ServiceConnect(native=self.often(0.3)),
                modify_index=self.small(),
            )
        return NodeService(
            kind=self.one(("connect-proxy", "connect-proxy", "ingress-gateway")),
            id=self.one(("s1", "p1", "p1")),
            service=self.one(("web-proxy", "in")),
            proxy=ConnectProxyConfig(
                destination_service_name=self.one(SERVICES),
                upstreams=self.one(((), (Upstream(destination_name="web"),), (Upstream(destination_name="db"),))),
                mode=self.one(("", "transparent")),
            ),
            modify_index=self.small(),
        )

    def check(self, node: str) -> Check:
        return Check(
            node=node,
            check_id=self.one(CHECKS),
            name=self.one(("one", "two")),
            status=self.one(STATUSES),
            output=self.one(("", "o")),
            service_id=self.one(("", "", "s1", "p1")),
            modify_index=self.small(),
        )

    def register(self) -> Register:
        node = self.node()
        service = self.service() if self.often(0.7) else None
        checks = tuple(self.check(node.node) for _ in range(self._random.randint(0, 2)))
        return Register(node, service, checks, self.often(0.5))

    def deregister(self) -> Deregister:
        service_id, check_id = self.one((("s1", ""), ("p1", ""), ("", "c1"), ("", "serfHealth"), ("", "")))
        return Deregister(self.one(NODES), service_id, check_id)

    def kv_write(self) -> KVWrite:
        verb = self.one(("set", "set", "cas", "lock", "lock", "unlock", "delete", "delete-cas", "delete-tree"))
        key = self.one((*KEYS, "") if verb == "delete-tree" else KEYS)
        return KVWrite(
            verb, key, self.one((None, b"x", b"y")), self.one((0, 7)), self.one(("", *SESSIONS)), self.small()
        )

    def session(self) -> SessionCreate:
        return SessionCreate(
            Session(
                id=self.one(SESSIONS),
                node=self.one(NODES),
                behavior=self.one(("release", "delete")),
                lock_delay=self.one((0, 0, 10**9)),
                node_checks=self.one((None, None, ("c1",), ("serfHealth",))),
            )
        )

    def operation(self) -> TxnOp:
        verb = self.one(("get", "set", "set", "set", "cas", "delete", "delete-cas"))
        kind = self._random.randrange(6)
        if kind == 0:
            return NodeOp(verb, self.node())
        if kind == 1:
            return ServiceOp(verb, self.one(NODES), self.service())
        if kind == 2:
            return CheckOp(verb, self.check(self.one(NODES)))
        if kind == 3:
            return SessionOp("delete", Session(id=self.one(SESSIONS)))
        kv_verb = self.one(
            ("set", "cas", "lock", "unlock", "delete", "delete-cas", "delete-tree", "get-or-empty", "get-tree")
        )
        write = self.kv_write()
        return KVOp(kv_verb, write.key, write.value, write.flags, write.index, write.session)

    def query(self) -> PreparedQuery:
        return PreparedQuery(
            id=self.one(QUERIES),
            name=self.one(("", "q", "Q", "web")),
            session=self.one(("", "", *SESSIONS)),
            template=self.one((QueryTemplate(), QueryTemplate(), QueryTemplate("name_prefix_match"))),
            service=ServiceQuery(service=self.one((*SERVICES, "${name.full}")), only_passing=self.often(0.5)),
        )

    def coordinate(self) -> CoordinateUpdate:
        vector = (self.one((0.0, 1.0, 2.0)), *(0.0,) * 7)
        return CoordinateUpdate((CoordinateEntry(self.one(NODES), self.one(("", "seg")), Coord(vector)),))

    def setting(self) -> SettingWrite:
        return SettingWrite(self.one(("autopilot", "other")), {"x": self.one((1, 2))}, self.small(), self.often(0.5))

    def root(self) -> CARoot:
        root_id, active = self.one(("r1", "r2", "r3")), self.often(0.5)
        return CARoot(root_id, 1, "k", "c", 0.0, 1.0, "pem", active, "ec", 256, 1.0)

    def authority(self) -> AuthorityWrite:
        configuration = CAConfiguration(self.one(("c", "c", "d")), "consul", {"x": self.one((1, 2))}, {"Key": "k"})
        roots = {root.id: root for root in (self.root(), self.root())}
        return AuthorityWrite(self.one((0, self.small())), configuration, tuple(roots.values()))

    def revoke(self) -> LeavesRevoke:
        serials = [self.one(("01", "02", "0a:01", "0A")) for _ in range(self._random.randint(0, 2))]
        print_, until = self.one(("", "ab" * 32)), self.one((500.0, 2000.0, 1e6))
        return LeavesRevoke(tuple(RevokedLeaf(serial, print_, "web", "n1", until) for serial in serials))

    def forget_revoked(self) -> RevokedForget:
        return RevokedForget(self.one((500.0, 2000.0)))

    def session_end(self) -> SessionDestroy:
        return SessionDestroy(self.one(SESSIONS))

    def transaction(self) -> Txn:
        return Txn(tuple(self.operation() for _ in range(self._random.randint(1, 3))))

    def query_set(self) -> QuerySet:
        return QuerySet(self.query())

    def query_delete(self) -> QueryDelete:
        return QueryDelete(self.one(QUERIES))

    def reap(self) -> Reap:
        return Reap(self._random.randint(0, 250))

    def config(self) -> ConfigWrite:
        kind, name, body = self.one(_ENTRIES)
        verb = self.one(("upsert", "upsert", "upsert-cas", "delete", "delete-cas"))
        return ConfigWrite(verb, kind, name, body, self.small())

    def entries_copy(self) -> EntriesCopy:
        put = tuple(self.one(_ENTRIES) for _ in range(self._random.randint(0, 2)))
        delete = tuple((kind, name.lower()) for kind, name, _ in (self.one(_ENTRIES),) if self.often(0.5))
        return EntriesCopy(put, delete, {"index": self.small()})

    def intention(self) -> IntentionWrite:
        verb = self.one(("upsert", "upsert", "delete", "create", "update", "delete-id"))
        source = {"Name": self.one(("web", "api", "*")), "Action": self.one(("allow", "deny")), "Type": "consul"}
        if verb in ("create", "update"):
            source |= {"LegacyID": self.one(_LEGACY_IDS), "LegacyCreateTime": "then", "LegacyUpdateTime": "now"}
        destination = self.one(("web", "db", "*"))
        return IntentionWrite(verb, destination, source["Name"], source.get("LegacyID", self.one(_LEGACY_IDS)), source)


MINE = Execution(datacenter="dc1", agent_node="n1", source_ip="10.0.0.1")
_META = {"k": "v"}

Read = Callable[[View], Any]


def _executed(name: str, how: Execution) -> Read:
    def read(view: View) -> Any:
        try:
            return prepared_queries.rank(view, name, how, random.Random(1))
        except Exception as error:
            return str(error)

    return read


def _resolved(name: str) -> Read:
    def read(view: View) -> Any:
        try:
            return prepared_queries.resolve(view, name, "")
        except Exception as error:
            return str(error)

    return read


def _central(view: View) -> Any:
    return [central.centrally(view, row.service) for row in health.connect(view, "web", (), {})]


def _of(read: Callable[[View, str], Any], name: str) -> Read:
    return lambda view: read(view, name)


READS: dict[str, Read] = {
    "nodes": lambda v: catalog.nodes(v, {}),
    "nodes with meta": lambda v: catalog.nodes(v, _META),
    "services": lambda v: catalog.services(v, {}),
    "services with meta": lambda v: catalog.services(v, _META),
    "every instance": lambda v: catalog.every_instance(v, _META),
    "usage": usage.usage,
    "coordinates": lambda v: coordinates.coordinates(v, None),
    "config": config.every_entry,
    "exports": exports.exported_services,
    "gateways": gateways.every_gateway_service,
    "ui nodes": ui.nodes,
    "ui services": lambda v: ui.services(v, ui.every_instance(v)),
    "ui overview": ui.overview,
    "sessions": sessions.sessions,
    "queries": prepared_queries.queries,
    "central": _central,
    **{f"service {n}": _of(lambda v, n: catalog.service(v, n, ("t",), {}), n) for n in SERVICES},
    **{f"connect {n}": _of(lambda v, n: catalog.connect(v, n, (), _META), n) for n in SERVICES},
    **{f"health {n}": _of(lambda v, n: health.service(v, n, (), {}), n) for n in (*SERVICES, "nothing", "in")},
    **{f"health connect {n}": _of(lambda v, n: health.connect(v, n, (), _META), n) for n in SERVICES},
    **{f"health checks {n}": _of(lambda v, n: health.checks_of_service(v, n, _META), n) for n in SERVICES},
    **{f"state {s}": _of(lambda v, s: health.checks_in_state(v, s, {}), s) for s in ("any", *STATUSES)},
    **{f"state {s} with meta": _of(lambda v, s: health.checks_in_state(v, s, _META), s) for s in ("any", "passing")},
    **{f"node {n}": _of(lambda v, n: catalog.node_services(v, n), n) for n in (*NODES, "nothing", *IDS[1:])},
    **{f"node list {n}": _of(lambda v, n: catalog.node_service_list(v, n), n) for n in NODES},
    **{f"health node {n}": _of(lambda v, n: health.checks_of_node(v, n), n) for n in (*NODES, "nothing")},
    **{f"ui node {n}": _of(lambda v, n: ui.node(v, n), n) for n in NODES},
    **{f"key {k}": _of(lambda v, k: kv.entry(v, k), k) for k in (*KEYS, "nothing")},
    **{f"tree {k}": _of(lambda v, k: kv.tree(v, k), k) for k in ("", "a", "a/", "a/b/", "z")},
    **{f"keys {k}": _of(lambda v, k: kv.keys(v, k, "/"), k) for k in ("", "a/")},
    **{f"session {s}": _of(lambda v, s: sessions.session(v, s), s) for s in SESSIONS},
    **{f"sessions of {n}": _of(lambda v, n: sessions.sessions_of_node(v, n), n) for n in NODES},
    **{f"query {q}": _of(lambda v, q: prepared_queries.query(v, q), q) for q in QUERIES},
    **{f"resolve {q}": _resolved(q) for q in (*QUERIES, "q", "web", "Qx")},
    **{f"execute {q}": _executed(q, MINE) for q in ("q", "web")},
    "execute from here": _executed("web", Execution("dc1", "n1", source_node="_ip", source_ip="10.0.0.1")),
    "near": lambda v: near.by_distance(v, catalog.nodes(v, {}), "n1", lambda n: n.node),
    **{f"coordinate {n}": _of(lambda v, n: coordinates.coordinates_of(v, n, None), n) for n in NODES},
    "entry": lambda v: config.entry(v, "service-defaults", "web"),
    "entries": lambda v: config.entries(v, "service-defaults"),
    "setting": lambda v: config.setting(v, "autopilot"),
    "virtual ips": virtual_ips.virtual_ips,
    **{f"virtual ip {s}": _of(virtual_ips.virtual_ip, s) for s in (*SERVICES, "nothing")},
    "roots": connect_ca.roots,
    "root": connect_ca.active_root,
    "trusted": connect_ca.trusted,
    "gateway in": lambda v: gateways.gateway_services(v, "in"),
    "ingress web": lambda v: gateways.ingress_instances(v, "web"),
    "ui gateway intentions": lambda v: ui.gateway_intentions(v, "in"),
    "ui gateway": lambda v: ui.gateway_services(v, "in", ["consul"], "dc1"),
    "intentions": intentions.intentions,
    "intention": lambda v: intentions.by_id(v, "i1"),
    **{f"intentions to {s}": _of(intentions.for_destination, s) for s in (*SERVICES, "*")},
    **{f"intentions from {s}": _of(intentions.for_source, s) for s in ("web", "api", "*")},
    "topology": lambda v: ui.topology(v, "web", central.protocol_of(v, "web"), DefaultPolicy(True)),
}
