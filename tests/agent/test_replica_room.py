"""Which topics go, of those that an agent holds."""

from lictor.agent.replica_room import Room
from lictor.agent.replica_topics import Holding, Holdings
from lictor.store.store import Store


def hold(held: Holdings, name: str, now: float, *, empty: bool = False) -> Holding:
    """A topic that is there, looked at once."""
    made = held.hold(("service", name), now)
    made.covered = True
    if empty:
        held.empty[made.topic] = made
    return made


def names(found: list[Holding] | None) -> list[str]:
    assert found is not None
    return [one.topic[1] for one in found]


def test_who_was_looked_at_longest_ago_makes_room() -> None:
    held = Holdings(Store())
    room = Room(held, 4, 3600.0)
    for at, name in enumerate(("b", "c", "a", "d")):
        hold(held, name, float(at))
    assert room.scarce(1)
    assert names(room.make(1, (), 100.0)) == ["b"]
    held.drop(held.topics["service", "b"])
    held.topics["service", "c"].used = 100.0
    hold(held, "e", 100.0)
    assert names(room.make(2, (("service", "a"),), 120.0)) == ["d", "c"]
    assert room.make(2, (), 105.0) is not None
    for one in held.topics.values():
        one.used = 200.0
    assert room.make(1, (), 205.0) is None, "all are in use"


def test_what_does_not_exist_goes_first_and_nothing_twice() -> None:
    held = Holdings(Store())
    room = Room(held, 8, 3600.0)
    for number in range(6):
        hold(held, f"s{number}", 0.0)
    for number in range(2):
        hold(held, f"x{number}", 1.0, empty=True)
    assert names(room.make(1, (), 100.0)) == ["x0"]
    found = names(room.make(4, (), 100.0))
    assert found[:2] == ["x1", "x0"] or found[:2] == ["x0", "x1"]
    assert len(set(found)) == 4
    assert found[2:] == ["s0", "s1"]


def test_a_look_is_asked_for_before_a_topic_goes() -> None:
    held = Holdings(Store())
    room = Room(held, 100, 80.0)
    one = hold(held, "a", 0.0)
    assert room.idle(9.0) == ([], [])
    assert room.idle(10.0) == ([one], [])
    one.asked = True
    assert room.idle(99.0) == ([], [])
    assert room.idle(100.0) == ([], [one])
    one.used, one.asked = 60.0, False
    assert room.idle(100.0) == ([one], [])
    assert room.step == 10.0


def test_looks_are_known_closely_where_there_is_little_room() -> None:
    held = Holdings(Store())
    room = Room(held, 4, 86_400.0)
    some = [hold(held, name, 0.0) for name in ("a", "b")]
    assert room.idle(60.0) == ([], [])
    some.append(hold(held, "c", 30.0))
    assert room.idle(60.0) == (some[:2], [])
