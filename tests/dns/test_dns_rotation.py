"""Load is spread evenly: over instances, over the places in an answer, over who comes next when one fails."""

from collections import Counter
from itertools import pairwise

import pytest
from dnslib import DNSRecord

from lictor.dns.rotation import order, rows_of
from tests.contract.dig import question
from tests.dns.scenario import Zone


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 8, 9, 30, 31])
def test_every_row_has_all_and_places_and_neighbours_are_even(count: int) -> None:
    places: list[Counter[int]] = [Counter() for _ in range(count)]
    neighbours: Counter[tuple[int, int]] = Counter()
    for row in range(rows_of(count)):
        numbers = order(count, row, count)
        assert sorted(numbers) == list(range(count))
        assert order(count, row, 2) == numbers[:2]
        for place, number in enumerate(numbers):
            places[place][number] += 1
        neighbours.update(pairwise(numbers))
    assert all(len(place) == count and len(set(place.values())) == 1 for place in places)
    assert len(neighbours) == count * (count - 1)
    assert len(set(neighbours.values())) <= 1


def test_no_instances_have_no_order() -> None:
    assert order(0, 3, 5) == []


def make_zone(instances: int, settings: str) -> Zone:
    zone = Zone()
    zone.do(f"set {settings}")
    for i in range(instances):
        zone.do(f"node n{i} 10.0.{i // 250}.{i % 250 + 1}")
        zone.do(f"service n{i} web port={1000 + i}")
    return zone


def addresses(
    zone: Zone, kind: str, edns: int | None, asked: int, tcp: bool = False
) -> tuple[Counter[str], Counter[str]]:
    """How often each instance was first, and how often it was named at all."""
    first: Counter[str] = Counter()
    named: Counter[str] = Counter()
    packet = bytes(question("web.service.consul", kind, edns).pack())
    for _ in range(asked):
        found = [str(rr.rdata) for rr in DNSRecord.parse(zone.send(packet, tcp)).rr]
        first[found[0]] += 1
        named.update(found)
    return first, named


@pytest.mark.parametrize("kind", ["A", "SRV"])
@pytest.mark.parametrize(
    ("instances", "settings", "edns"),
    [
        (5, "a_record_limit=0", None),
        (7, "a_record_limit=1", 1232),
        (8, "a_record_limit=2", None),
        (12, "udp_answer_limit=2", None),
        (40, "a_record_limit=0", 512),
        (80, "a_record_limit=3", 1232),
    ],
)
def test_finished_answers_spread_the_load(kind: str, instances: int, settings: str, edns: int | None) -> None:
    zone = make_zone(instances, settings)
    addresses(zone, kind, edns, 3)  # so that the answer is finished
    asked = rows_of(instances) * (20 if instances <= 64 else 64)
    first, named = addresses(zone, kind, edns, asked)
    assert len(first) == len(named) == instances
    share = asked / instances
    assert all(abs(count - share) <= 0.4 * share for count in first.values()), first
    mean = sum(named.values()) / instances
    assert all(abs(count - mean) <= 0.3 * mean for count in named.values()), named


def test_answers_that_are_packed_anew_spread_the_load_too() -> None:
    zone = make_zone(6, "a_record_limit=1")
    first: Counter[str] = Counter()
    for i in range(600):
        # The case of the name differs each time, so none of these is finished.
        name = "".join(c.upper() if i >> at & 1 else c for at, c in enumerate("web.service")) + ".consul"
        data = zone.send(bytes(question(name, "A").pack()))
        parsed = DNSRecord.parse(data)
        assert str(parsed.q.qname) == name + "."
        assert str(parsed.rr[0].rname) == name + "."
        first[str(parsed.rr[0].rdata)] += 1
    assert set(first.values()) == {100}


def test_memory_is_bounded_for_a_service_with_many_instances() -> None:
    zone = make_zone(300, "enable_truncate=true")
    packet = bytes(question("web.service.consul", "A", 4096).pack())
    for _ in range(1000):
        zone.send(packet)
    finished = zone.responder.finished[False]
    assert list(finished.answers) == [packet[2:]]
    kept = finished.answers[packet[2:]]._made
    assert 8 <= len(kept) <= 64
    assert sum(len(answer) for answer in kept) <= finished.size <= 100_000
