"""The table of applied numbers: each number counts once, whatever comes twice, and equal logs make equal tables."""

import random

from lictor.raft.once import ORIGINS, AppliedNumbers, Proposal


def proposal(origin: int, number: int, low: int = 1) -> Proposal:
    return Proposal(origin, number, low, b"")


def test_a_number_counts_once() -> None:
    table = AppliedNumbers()
    assert table.take(proposal(1, 1))
    assert not table.take(proposal(1, 1))
    assert table.take(proposal(2, 1))
    assert table.has(1, 1) and not table.has(1, 2)


def test_what_is_settled_is_not_applied_late() -> None:
    table = AppliedNumbers()
    assert table.take(proposal(1, 5, low=5))
    assert not table.take(proposal(1, 4, low=2))
    assert table.has(1, 3)


def test_numbers_may_come_in_any_order() -> None:
    table, chance = AppliedNumbers(), random.Random(3)
    numbers = [*range(1, 200)] * 3
    chance.shuffle(numbers)
    assert sum(table.take(proposal(1, number)) for number in numbers) == 199


def test_a_table_that_was_encoded_is_the_same() -> None:
    chance = random.Random(4)
    first, second = AppliedNumbers(), AppliedNumbers()
    for step in range(3000):
        number = chance.randint(1, 400)
        one = proposal(chance.randint(1, 1200), number, chance.randint(1, number))
        if step == 1500:
            second.load(first.encode())
        results = {first.take(one)} | ({second.take(one)} if step >= 1500 else set())
        assert len(results) == 1
    assert first.encode() == second.encode()


def test_the_longest_silent_origin_is_forgotten() -> None:
    table = AppliedNumbers()
    for origin in range(ORIGINS):
        table.take(proposal(origin, 1))
    table.take(proposal(0, 2))
    table.take(proposal(ORIGINS, 1))
    assert table.has(0, 1) and not table.has(1, 1)


def test_memory_is_bounded_by_what_is_waited_for() -> None:
    table = AppliedNumbers()
    for number in range(1, 50_000):
        assert table.take(proposal(1, number, low=max(1, number - 10)))
    assert len(table.encode()) < 200
