"""Prepared queries: which one a name means, how templates are filled in, what is let through and in which order."""

from collections import Counter
from random import Random
from typing import Any

import pytest

from lictor.model import query_template
from lictor.model.check import Check
from lictor.model.command import CoordinateUpdate, QuerySet, Register
from lictor.model.coordinate import distance
from lictor.model.coordinate_entry import Coord, CoordinateEntry
from lictor.model.errors import InvalidRequest, NotFound, Refused
from lictor.model.node import Node
from lictor.model.prepared_query import PreparedQuery, QueryTemplate, ServiceQuery
from lictor.model.regex_groups import GroupRegex
from lictor.model.service import NodeService, ServiceConnect
from lictor.store.commands import apply
from lictor.store.reads import prepared_queries
from lictor.store.reads.prepared_queries import Execution
from lictor.store.store import Store

HERE = Execution("dc1", "n0")
NO_TEMPLATE = QueryTemplate()
TEMPLATE = QueryTemplate("name_prefix_match")


def make_store(*queries: PreparedQuery) -> Store:
    store = Store()
    for i, status in enumerate(("passing", "warning", "critical", "passing")):
        service = NodeService(
            id="web",
            service="web",
            tags=("V1", f"n{i}"),
            port=80,
            meta={"tier": str(i % 2)},
            connect=ServiceConnect(native=i == 0),
        )
        check = Check(check_id=f"c{i}", status=status, service_id="web", service_name="web")
        node = Node(node=f"n{i}", address=f"10.0.0.{i + 1}", datacenter="dc1", meta={"rack": str(i % 2)})
        apply(store, Register(node, service, (check,)), 0)
    for query in queries:
        apply(store, QuerySet(query), 0)
    return store


def query(name: str, template: QueryTemplate = NO_TEMPLATE, **service: Any) -> PreparedQuery:
    service.setdefault("service", "web")
    number = sum(name.encode()) % 10**12
    return PreparedQuery(
        id=f"00000000-0000-0000-0000-{number:012}", name=name, template=template, service=ServiceQuery(**service)
    )


def nodes(store: Store, name: str, how: Execution = HERE) -> list[str]:
    result = store.read(prepared_queries.rank, name, how, Random(1)).value
    return [row.node.node for row in result.rows]


def resolved(store: Store, name: str) -> PreparedQuery:
    return store.read(prepared_queries.resolve, name, "").value


def test_a_query_is_found_by_id_and_by_name_whatever_its_case() -> None:
    q = query("Web")
    store = make_store(q)
    assert resolved(store, q.id).name == "Web"
    assert resolved(store, "wEB").name == "Web"
    assert store.read(prepared_queries.query, q.id).value == resolved(store, "web")
    assert len(store.read(prepared_queries.queries).value) == 1


def test_an_unknown_query_is_not_found() -> None:
    with pytest.raises(NotFound, match="Query not found"):
        resolved(make_store(), "nope")


def test_a_name_goes_before_a_template_and_the_longest_prefix_goes_first() -> None:
    store = make_store(
        query("", TEMPLATE, service="any"),
        query("geo-", TEMPLATE, service="short"),
        query("geo-db-", TEMPLATE, service="long"),
        query("geo-db-x", service="exact"),
    )
    assert resolved(store, "geo-DB-x").service.service == "exact"
    assert resolved(store, "geo-db-y").service.service == "long"
    assert resolved(store, "geo-y").service.service == "short"
    assert resolved(store, "y").service.service == "any"


def test_a_template_is_not_found_by_its_id() -> None:
    q = query("geo-", TEMPLATE)
    with pytest.raises(Refused, match="can only be resolved up by name, not by ID"):
        resolved(make_store(q), q.id)


def test_a_template_is_filled_in_from_the_name_asked_for() -> None:
    template = QueryTemplate("name_prefix_match", "^geo-(.*?)-([^-]*)$", remove_empty_tags=True)
    store = make_store(
        query(
            "geo-",
            template,
            service="${match(1)}",
            tags=("${match(2)}", "${match(9)}", "x${name.suffix}"),
            node_meta={"all": "${name.prefix}/${name.full}"},
            near="$${x}",
        )
    )
    service = resolved(store, "geo-web-a-v1").service
    assert service.service == "web-a"
    assert service.tags == ("v1", "xweb-a-v1")
    assert service.node_meta == {"all": "geo-/geo-web-a-v1"}
    assert service.near == "${x}"


def test_groups_are_empty_where_the_expression_does_not_match() -> None:
    template = QueryTemplate("name_prefix_match", "^geo-(a+)$")
    assert resolved(make_store(query("geo-", template, service="[${match(0)}]")), "geo-b").service.service == "[]"


@pytest.mark.parametrize(
    ("template", "service", "error"),
    [
        (QueryTemplate("other"), "web", "failed compiling template: Bad Template.Type 'other'"),
        (QueryTemplate("name_prefix_match", "("), "web", "Bad Regexp: error parsing regexp: missing closing ): `(`"),
        (TEMPLATE, "a${foo.bar}", "Service.Service: 1:4: unknown variable accessed: foo.bar"),
        (TEMPLATE, "a${name.full", "Bad format 'a${name.full' in Service.Service: parse error"),
    ],
)
def test_a_template_that_cannot_be_filled_in_is_refused(template: QueryTemplate, service: str, error: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        query_template.check(query("geo-", template, service=service))
    assert error in str(raised.value)


@pytest.mark.parametrize(
    ("pattern", "text", "groups"),
    [
        ("(a|ab)(c|bcd)(d*)", "abcd", ["abcd", "a", "bcd", ""]),
        ("(a*?)(a*)", "aaa", ["aaa", "", "aaa"]),
        ("x(?P<n>[0-9]+)(?:y)?(z)?", "aax12y", ["x12y", "12", ""]),
        ("(a??)b", "ab", ["ab", "a"]),
        ("^(.*)-(.*)$", "a-b-c", ["a-b-c", "a-b", "c"]),
        ("(?:(a)|b)*", "ab", ["ab", "a"]),
        ("(a{2,3}?)(a*)", "aaaa", ["aaaa", "aa", "aa"]),
        ("q", "zzz", []),
    ],
)
def test_groups_are_those_of_the_preferred_leftmost_match(pattern: str, text: str, groups: list[str]) -> None:
    assert GroupRegex(pattern).groups(text) == groups


def test_groups_take_linear_time() -> None:
    assert GroupRegex("(a+)+$").groups("a" * 2000 + "b") == []


def test_critical_instances_are_left_out_and_warning_ones_with_only_passing() -> None:
    store = make_store(query("q"), query("p", only_passing=True), query("i", ignore_check_ids=("c2",)))
    assert sorted(nodes(store, "q")) == ["n0", "n1", "n3"]
    assert sorted(nodes(store, "p")) == ["n0", "n3"]
    assert sorted(nodes(store, "i")) == ["n0", "n1", "n2", "n3"]


def test_tags_node_meta_service_meta_and_connect_narrow() -> None:
    store = make_store(
        query("all-of", tags=("v1", "N1")),
        query("none-of", tags=("v1", "!n1")),
        query("node-meta", node_meta={"rack": "1"}),
        query("service-meta", service_meta={"tier": "0"}),
        query("mesh", connect=True),
        query("plain"),
    )
    assert nodes(store, "all-of") == ["n1"]
    assert sorted(nodes(store, "none-of")) == ["n0", "n3"]
    assert sorted(nodes(store, "node-meta")) == ["n1", "n3"]
    assert nodes(store, "service-meta") == ["n0"]
    assert nodes(store, "mesh") == ["n0"]
    assert nodes(store, "plain", Execution("dc1", "n0", connect=True)) == ["n0"]


def test_the_order_is_random_and_the_limit_cuts_after_it() -> None:
    store = make_store(query("q"))
    rng = Random(7)
    how = Execution("dc1", "n0", limit=1)
    firsts = Counter(store.read(prepared_queries.rank, "q", how, rng).value.rows[0].node.node for _ in range(600))
    assert set(firsts) == {"n0", "n1", "n3"}
    assert min(firsts.values()) > 140


def test_near_sorts_by_round_trip_time_with_unknown_nodes_last() -> None:
    store = make_store(query("q", near="n3"), query("agent", near="_agent"), query("ip", near="_ip"))
    entries = tuple(CoordinateEntry(f"n{i}", "", Coord(vec=(x, *(0.0,) * 7))) for i, x in ((0, 0.01), (3, 0.03)))
    apply(store, CoordinateUpdate(entries), 0)
    assert nodes(store, "q") == ["n3", "n0", "n1"]
    assert nodes(store, "agent") == ["n0", "n3", "n1"]
    assert nodes(store, "ip", Execution("dc1", "n0", source_ip="10.0.0.4")) == ["n3", "n0", "n1"]
    assert nodes(store, "ip", Execution("dc1", "n0", source_ip="10.9.9.9")) == ["n0", "n3", "n1"]
    assert nodes(store, "q", Execution("dc1", "n0", source_node="n0")) == ["n0", "n3", "n1"]
    assert ("coordinates",) in store.read(prepared_queries.rank, "q", HERE, Random(1)).seen


def test_distance_adds_heights_and_adjustments_unless_they_make_it_negative() -> None:
    origin = Coord(height=0.001)
    assert distance(origin, Coord(vec=(3.0, 4.0, *(0.0,) * 6), height=0.002)) == pytest.approx(5.003)
    assert distance(origin, Coord(height=0.001, adjustment=0.5)) == pytest.approx(0.502)
    assert distance(origin, Coord(height=0.001, adjustment=-0.5)) == pytest.approx(0.002)
