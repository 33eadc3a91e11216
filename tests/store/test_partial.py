"""The rows of topics: all that a read needs, followed from change to change."""

from typing import Any

import msgspec
import pytest

from lictor.model.command import KVWrite
from lictor.store import partial
from lictor.store import partial_messages as wire
from lictor.store.partial_rows import PartialRows
from lictor.store.store import Changes, Store
from lictor.store.watch import KV, KV_PREFIX, Topic
from tests.store.random_commands import READS, Dice
from tests.store.test_invariants import Told, answers, apply

SEEDS = pytest.mark.parametrize("seed", range(3))


def looked_at(store: Store) -> list[Topic]:
    """Every topic that some read looks at."""
    return list(dict.fromkeys(topic for read in READS.values() for topic in store.read(read).seen))


def names_of(store: Store) -> dict[int, str]:
    return {id(table): name for name, table in store.tables.items()}


def plain(rows: partial.Rows) -> partial.Rows:
    return {name: found for name, found in rows.items() if found}


@SEEDS
def test_near_rows_are_all_that_can_have_changed(seed: int) -> None:
    """Followed by what is near to changes, a topic's rows are those that a look at all of them finds."""
    store = Store()
    changes = store.changes = Changes()
    names = names_of(store)
    held: dict[Topic, partial.Rows] = {}
    versions: dict[Topic, int] = {}
    for number, command in enumerate(Dice(seed).script(150)):
        for topic in looked_at(store):
            if topic not in held:
                rows = held[topic] = partial.rows_of(store, topic) or {}
                versions[topic] = partial.version_of(store, topic, rows)
        changes.clear()
        watchers = {topic: Told() for topic in held}
        for topic, watcher in watchers.items():
            store.watches.add(watcher, partial.watched(topic))
        apply(store, command, 1000.0 + number)
        keys = partial.near(store, [(names[id(table)], key) for table, key, _ in changes.rows])
        for topic, rows in held.items():
            whole = partial.rows_of(store, topic) or {}
            rows_before = {name: dict(found) for name, found in rows.items()}
            moved = plain(rows) != plain(whole)
            assert watchers[topic].told or not moved, f"{topic} has changed untold with {command}"
            after = partial.rows_among(store, topic, keys)
            if after is None:
                held[topic] = whole
                version = partial.version_of(store, topic, whole)
            else:
                partial.amend(rows, partial.among(rows, keys), after)
                assert plain(rows) == plain(whole), f"{topic} after {command}"
                version = partial.version_of(store, topic, after, versions[topic])
                assert version == partial.version_of(store, topic, whole)
            # A tombstone goes when the floor has passed it: for reads nothing has changed.
            same = plain(rows_before | {"tombstones": {}}) == plain(whole | {"tombstones": {}})
            assert version > versions[topic] or (version == versions[topic] and same), topic
            versions[topic] = version
        for watcher in watchers.values():
            store.watches.discard(watcher)


@SEEDS
def test_a_store_of_some_topics_answers_what_looks_at_them(seed: int) -> None:
    """Topics come and go; what is told of them is what has changed, as it goes over the wire."""
    store, other, dice = Store(), Store(), Dice(seed)
    rows = PartialRows(other)
    held: dict[Topic, partial.Rows] = {}

    def sent(packed: dict[str, list[Any]]) -> dict[str, list[Any]]:
        return wire.rows(wire.packed(packed))

    for number, command in enumerate(dice.script(150)):
        apply(store, command, 1000.0 + number)
        other.index, other.floor, other.base = store.index, store.floor, store.base
        for topic, before in held.items():
            after = held[topic] = partial.rows_of(store, topic) or {}
            found = partial.difference(store, before, after)
            rows.remove(topic, wire.keys(wire.packed(found.gone)))
            rows.leave(topic, sent(found.left))
            rows.change(topic, sent(found.put))
        if held and dice.often(0.2):
            topic = dice.one(list(held))
            del held[topic]
            rows.drop(topic)
        if dice.often(0.4):
            topic = dice.one(looked_at(store))
            held[topic] = partial.rows_of(store, topic) or {}
            rows.replace(topic, sent({name: list(found.values()) for name, found in held[topic].items()}))
        other.touched = {t: partial.index_of(store, t) for t in held if t[0] not in (KV, KV_PREFIX)}
        expected, covered = answers(store), 0
        for name, read in READS.items():
            answer = other.read(read)
            if all(topic in held for topic in answer.seen):
                covered += 1
                assert msgspec.json.encode(answer.value) == expected[name].value, f"{name} after {command}"
                assert answer.index == expected[name].index, f"{name} after {command}"
    assert covered > 10
    for topic in list(held):
        rows.drop(topic)
    assert len(rows) == 0
    assert all(len(table) == 0 for table in other.tables.values())


def test_every_topic_of_the_reads_can_be_held_but_those_of_the_agent_itself() -> None:
    store = Store()
    for number, command in enumerate(Dice(1).script(200)):
        apply(store, command, float(number))
    assert {topic for topic in looked_at(store) if partial.kind_of(topic) is None} == set()
    assert partial.kind_of(("agent", "members")) is None
    assert partial.kind_of(("authority",)) is None, "the authority's keys never leave the servers"
    assert partial.kind_of(("kv", "x" * (partial.MAX_TEXT + 1))) is None
    assert partial.kind_of(("service", "web", "more")) is None
    assert partial.kind_of(()) is None


def test_what_is_too_large_has_no_rows() -> None:
    store = Store()
    for number in range(10):
        apply(store, KVWrite("set", f"a/{number}", bytes(partial.KV_WEIGHT * partial.SOME // 10)), 1.0)
    assert partial.rows_of(store, ("kv/", "a/")) is None
    assert partial.rows_of(store, ("kv/", "a/9")) is not None
    assert partial.rows_of(store, ("kv", "a/1")) is not None
