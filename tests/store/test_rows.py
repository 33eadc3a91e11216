"""Rows in parts: the same as a dict in the order of its keys, with pictures that nothing changes."""

import random

import pytest

from lictor.store import rows as module
from lictor.store.rows import Rows


def alike(rows: Rows[str, int], expected: dict[str, int]) -> None:
    """Every way of reading says the same as the dict."""
    keys = sorted(expected)
    assert len(rows) == len(expected)
    assert list(rows) == keys
    assert list(rows.in_order()) == [expected[key] for key in keys]
    assert list(rows.pairs()) == [(key, expected[key]) for key in keys]
    assert rows == expected
    for key in [*keys[:3], "", "m", "zzzz"]:
        assert (key in rows) == (key in expected)
        assert rows.get(key) == expected.get(key)
        assert list(rows.keys_from(key)) == [other for other in keys if other >= key]


def pictured(picture: list[dict[str, int]]) -> dict[str, int]:
    """The rows of a picture."""
    found: dict[str, int] = {}
    for part in picture:
        assert not found.keys() & part.keys()
        found |= part
    return found


@pytest.mark.parametrize("seed", range(30))
def test_it_is_a_dict_in_order(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MANY", 8)
    monkeypatch.setattr(module, "FEW", 2)
    monkeypatch.setattr(module, "SOME", 3)
    rng = random.Random(seed)
    rows: Rows[str, int] = Rows()
    expected: dict[str, int] = {}
    pictures: list[tuple[list[dict[str, int]], dict[str, int]]] = []
    growing = 0.7
    for number in range(1500):
        if number % 300 == 0:
            growing = rng.choice((0.3, 0.5, 0.8))
        if rng.random() < growing:
            key = f"{number:04}" if seed % 3 == 0 else f"{rng.randrange(1000):03}"
            assert rows.swap(key, number) == expected.get(key)
            expected[key] = number
        else:
            key = rng.choice([*expected, "nobody"])
            assert rows.swap(key, None) == expected.pop(key, None)
        if rng.random() < 0.03:
            pictures.append((rows.picture(), dict(expected)))
        if number % 50 == 0:
            alike(rows, expected)
    alike(rows, expected)
    for picture, then in pictures:
        assert pictured(picture) == then


def test_parts_stay_large_and_few() -> None:
    for keys in (range(10_000), range(10_000, 0, -1), random.Random(1).sample(range(10_000), 10_000)):
        rows: Rows[int, int] = Rows()
        for key in keys:
            rows.swap(key, key)
        assert len(rows.picture()) <= 3 * 10_000 / module.MANY
        for key in keys:
            if key % 1000:
                rows.swap(key, None)
        assert len(rows) == 10
        assert len(rows.picture()) <= 3


def test_going_through_it_while_it_changes_misses_nothing_that_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MANY", 8)
    monkeypatch.setattr(module, "FEW", 2)
    monkeypatch.setattr(module, "SOME", 3)
    for seed in range(20):
        rng = random.Random(seed)
        rows: Rows[int, int] = Rows()
        for key in range(0, 200, 2):
            rows.swap(key, key)
        for reading in (iter(rows), rows.keys_from(0), rows.in_order(), (key for key, _ in rows.pairs())):
            found = []
            for key in reading:
                found.append(key)
                for _ in range(3):
                    other = rng.randrange(200) // 4 * 4 + 1
                    rows.swap(other, other if rng.random() < 0.5 else None)
            assert found == sorted(set(found))
            assert set(range(0, 200, 2)) <= set(found)


def test_two_can_be_exchanged_and_one_dismantled() -> None:
    one: Rows[int, str] = Rows()
    other: Rows[int, str] = Rows()
    for key in range(5000):
        one.swap(key, "one")
    other.swap(7, "other")
    picture = one.picture()
    one.exchange(other)
    assert (dict(one), len(other)) == ({7: "other"}, 5000)
    steps = 0
    for _ in other.dismantle():
        steps += 1
        assert len(other) == 0
    assert steps == len(picture) > 3
    assert list(other) == []
    other.swap(1, "new")
    assert dict(other) == {1: "new"}
    assert sum(map(len, picture)) == 5000
