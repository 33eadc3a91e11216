"""Where a prepared query fails over to, and which datacenter is the nearest."""

from math import inf

import pytest

from lictor.agent.elsewhere import EXECUTE, Lookup, candidates, definition_of, failover_of
from lictor.agent.wan import nearest_first
from lictor.model.errors import InvalidRequest
from lictor.model.prepared_query import FailoverTarget, PreparedQuery, QueryFailover, ServiceQuery

KNOWN = ["here", "near", "far", "farther"]


def query(**failover: object) -> PreparedQuery:
    return PreparedQuery(service=ServiceQuery(service="web", failover=QueryFailover(**failover)))  # type: ignore[arg-type]


def test_the_nearest_are_tried_first_then_those_that_are_named_and_each_once() -> None:
    assert candidates(query(nearest_n=2), KNOWN) == ["near", "far"]
    assert candidates(query(nearest_n=9), KNOWN) == ["near", "far", "farther"]
    assert candidates(query(datacenters=("farther", "near")), KNOWN) == ["farther", "near"]
    assert candidates(query(nearest_n=1, datacenters=("farther", "near")), KNOWN) == ["near", "farther"]
    targets = (FailoverTarget(datacenter="far"), FailoverTarget(peer="p"))
    assert candidates(query(targets=targets), KNOWN) == ["far"]


def test_neither_strangers_nor_the_own_datacenter_are_tried() -> None:
    assert candidates(query(datacenters=("nowhere", "here", "far")), KNOWN) == ["far"]
    assert candidates(query(nearest_n=3), KNOWN[:1]) == []


def test_a_query_without_failover_is_looked_up_nowhere() -> None:
    assert failover_of(query(), connect=False, limit=0, stale=True) is None
    assert failover_of(query(nearest_n=1), connect=False, limit=0, stale=True) is not None


def test_the_own_datacenter_is_the_first_and_the_others_come_by_their_middle_server() -> None:
    distances = {"here": [0.0, 5.0], "b": [0.2, 0.9, 0.1], "a": [0.3], "z": [inf], "c": [0.3]}
    assert nearest_first("here", distances) == ["here", "b", "a", "c", "z"]
    assert nearest_first("here", {}) == ["here"]


@pytest.mark.parametrize("definition", [b"", b"\xc1", b"\x01", b"\x81\xa7Service\x01"])
def test_a_lookup_with_an_odd_query_is_refused_in_words(definition: bytes) -> None:
    with pytest.raises(InvalidRequest, match="cannot be read"):
        definition_of(Lookup(EXECUTE, "dc2", definition=definition))
