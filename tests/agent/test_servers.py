"""Which server a client agent asks."""

import random

from lictor.agent.servers import FORGIVEN, REBALANCE, Servers, rebalance_after


def servers(*addresses: str, seed: int = 1) -> Servers:
    """Some that are known."""
    known = Servers(random.Random(seed))
    known.learn(addresses)
    return known


def test_it_stays_with_one_server() -> None:
    known = servers("a", "b", "c")
    assert len({known.pick(float(now)) for now in range(100)}) == 1


def test_nobody_is_known() -> None:
    assert servers().pick(0.0) == ""


def test_after_a_failure_it_asks_another_one() -> None:
    known = servers("a", "b", "c")
    asked = []
    for now in range(3):
        asked.append(known.pick(float(now)))
        known.failed(asked[-1], float(now))
    assert sorted(asked) == ["a", "b", "c"]
    assert known.pick(3.0) == asked[0], "all have failed: the one whose failure is the oldest is tried again"


def test_a_single_server_is_tried_again() -> None:
    known = servers("a")
    known.failed("a", 0.0)
    assert known.pick(0.1) == "a"


def test_a_failure_is_forgiven() -> None:
    known = servers("a", "b")
    first = known.pick(0.0)
    known.failed(first, 0.0)
    second = known.pick(1.0)
    known.failed(second, FORGIVEN + 1.0)
    assert known.pick(FORGIVEN + 2.0) == first


def test_what_is_gone_is_not_asked() -> None:
    known = servers("a", "b")
    gone = known.pick(0.0)
    left = "b" if gone == "a" else "a"
    assert not known.learn([left])
    assert known.pick(1.0) == left
    assert known.learn([left, "c"])
    assert known.pick(2.0) == left, "a new server is no reason to leave the present one"


def test_agents_are_spread_over_the_servers() -> None:
    picked = [servers("a", "b", "c", seed=seed).pick(0.0) for seed in range(300)]
    assert all(picked.count(address) > 60 for address in "abc")


def test_rebalancing_takes_any_of_them() -> None:
    known = servers("a", "b", "c")
    found = set()
    for _ in range(50):
        known.rebalance()
        found.add(known.pick(0.0))
    assert found == {"a", "b", "c"}


def test_many_agents_rebalance_seldom() -> None:
    chance = random.Random(1)
    assert REBALANCE <= rebalance_after(10, 3, chance) <= 1.5 * REBALANCE
    assert rebalance_after(100_000, 3, chance) >= 500
