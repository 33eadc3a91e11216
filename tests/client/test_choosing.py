"""Which of several instances a lookup chooses."""

import random
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lictor.client.choosing import Pool, Turns
from lictor.client.endpoint import Answered, Endpoint

SOURCE = Answered(0.0, lambda: 0.0)


def endpoint(number: int, weight: int = 1, rtt: float = float("inf")) -> Endpoint:
    return Endpoint("web", f"w{number}", "n", "10.0.0.1", number, "passing", weight, rtt, (), {}, "dc1", SOURCE)


def pool(endpoints: Sequence[Endpoint], turns: Turns | None = None) -> Pool:
    return Pool(endpoints, turns or Turns(), random.Random(1).random)


def test_random_chooses_each_as_often() -> None:
    chosen = pool([endpoint(n) for n in range(4)])
    counts = Counter(chosen.random().port for _ in range(4000))
    assert set(counts) == {0, 1, 2, 3}
    assert min(counts.values()) > 800


def test_round_robin_takes_turns_and_goes_on_when_the_service_changes() -> None:
    turns = Turns()
    assert [pool([endpoint(0), endpoint(1)], turns).round_robin().port for _ in range(3)] == [0, 1, 0]
    assert pool([endpoint(0), endpoint(1), endpoint(2)], turns).round_robin().port == 0  # the fourth turn of three


def test_weighted_follows_the_weights_and_leaves_out_those_without() -> None:
    chosen = pool([endpoint(0, 1), endpoint(1, 3), endpoint(2, 0)])
    counts = Counter(chosen.weighted().port for _ in range(4000))
    assert set(counts) == {0, 1}
    assert 2700 < counts[1] < 3300


def test_where_nothing_has_a_weight_all_have_the_same() -> None:
    chosen = pool([endpoint(0, 0), endpoint(1, 0)])
    assert {chosen.weighted().port for _ in range(100)} == {0, 1}


def test_nearest_chooses_among_those_that_are_equally_near() -> None:
    chosen = pool([endpoint(0, rtt=0.2), endpoint(1, rtt=0.1), endpoint(2), endpoint(3, rtt=0.1)])
    assert {chosen.nearest().port for _ in range(100)} == {1, 3}


def test_where_no_distance_is_known_nearest_is_any() -> None:
    chosen = pool([endpoint(0), endpoint(1)])
    assert {chosen.nearest().port for _ in range(100)} == {0, 1}


@given(st.lists(st.tuples(st.sampled_from(["take", "release", "change", "look"]), st.integers(0, 7)), max_size=200))
def test_least_connections_is_always_one_with_the_fewest(steps: list[tuple[str, int]]) -> None:
    turns = Turns()
    chosen = pool([endpoint(n) for n in range(4)], turns)
    other = pool([endpoint(n) for n in (1, 2)], turns)  # another choice among the same, by a tag
    held: list[Endpoint] = []

    def fewest(of: Pool) -> set[int]:
        counts = Counter(e.port for e in held)
        least = min(counts[e.port] for e in of.endpoints)
        return {e.port for e in of.endpoints if counts[e.port] == least}

    for step, number in steps:
        if step == "take":
            of = other if number == 0 else chosen
            allowed = fewest(of)
            held.append(of.take())
            assert held[-1].port in allowed
        elif step == "release" and held:
            turns.release(held.pop(number % len(held)).key)
        elif step == "change":
            turns.queues = []
            chosen = pool([endpoint(n) for n in range(2 + number)], turns)
            other = pool([endpoint(n) for n in (1, 2)], turns)
        else:
            assert chosen.least_connections().port in fewest(chosen)


def test_what_is_held_and_let_go_for_long_leaves_nothing_behind() -> None:
    turns = Turns()
    chosen = pool([endpoint(n) for n in range(3)], turns)
    kept = chosen.take()
    for _ in range(5000):
        turns.release(chosen.take().key)
    assert turns.held == {kept.key: 1}
    (queue,) = turns.queues
    assert len(queue._heap) < 200


@pytest.mark.parametrize(("address", "authority"), [("10.0.0.1", "10.0.0.1:80"), ("2001:db8::1", "[2001:db8::1]:80")])
def test_an_authority_is_as_urls_have_it(address: str, authority: str) -> None:
    found = Endpoint("web", "w", "n", address, 80, "passing", 1, 0.0, (), {}, "dc1", SOURCE)
    assert found.authority == authority


def test_endpoints_are_the_same_whatever_their_health() -> None:
    one, other = endpoint(1, weight=1), endpoint(1, weight=7)
    assert one == other
    assert len({one, other, endpoint(2)}) == 2
