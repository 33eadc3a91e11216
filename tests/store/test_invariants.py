"""What must hold after any commands at all: the one mechanism that blocking queries and cached answers rest on."""

from collections.abc import Iterable
from typing import Any

import msgspec
import pytest

from lictor.model.command import Batch, Command, Restore, RestorePart
from lictor.model.errors import LictorError
from lictor.store import commands, snapshot
from lictor.store.snapshot import Image
from lictor.store.store import Answer, Store
from lictor.store.table import OrderedTable, Table
from lictor.store.watch import Dependent
from tests.store.random_commands import READS, Dice

SEEDS = pytest.mark.parametrize("seed", range(6))
LENGTH = 300


class Told(Dependent):
    """Remembers that it was told."""

    def __init__(self) -> None:
        self.seen = ()
        self.told = False

    def changed(self) -> None:
        self.told = True


def apply(store: Store, command: Command, now: float) -> Exception | None:
    """Apply a command as a log entry is; returns what it failed with."""
    (result,) = commands.apply_batch(store, Batch(now, (command,)))
    store.flush()
    return result if isinstance(result, LictorError) else None


def answers(store: Store) -> dict[str, Answer[Any]]:
    """Every read's answer, its value as bytes."""
    found = {}
    for name, read in READS.items():
        answer = store.read(read)
        found[name] = Answer(msgspec.json.encode(answer.value), answer.index, answer.seen)
    return found


def contents(store: Store) -> dict[str, Any]:
    """Everything that a snapshot holds, but for the index and the clock."""
    tables: dict[str, Any] = {name: dict(table.rows) for name, table in store.tables.items()}
    return tables | {"touched": dict(store.touched), "departed": dict(store.departed), "floor": store.floor}


def rebuilt(table: Table[Any, Any]) -> dict[str, dict[Any, dict[Any, Any]]]:
    """A table's indexes, made anew from its rows."""
    found: dict[str, dict[Any, dict[Any, Any]]] = {}
    for name, index in table.indexes.items():
        values: dict[Any, dict[Any, Any]] = {}
        for key, row in table.rows.items():
            for value in index._of(row):
                values.setdefault(value, {})[key] = row
        found[name] = values
    return found


def assert_indexes(store: Store) -> None:
    for name, table in store.tables.items():
        for key, row in table.rows.items():
            assert table.key(row) == key, f"{name} has a row under another's key"
        for index, values in rebuilt(table).items():
            assert table.indexes[index]._rows == values, f"index {index} of {name}"
        assert [table.key(row) for row in table] == sorted(table.rows.keys())
        if isinstance(table, OrderedTable):
            assert list(table.keys_under("")) == sorted(table.rows.keys())


@SEEDS
def test_whoever_sees_a_change_was_told_of_it(seed: int) -> None:
    """A read says what it looked at: if its answer changes, or its index does, one of those topics was touched. A value
    that changes has a higher index, and no index ever falls.
    """
    store = Store()
    before = answers(store)
    for number, command in enumerate(Dice(seed).script(LENGTH)):
        watchers = {}
        for name, answer in before.items():
            watchers[name] = Told()
            store.watches.add(watchers[name], answer.seen)
        apply(store, command, 1000.0 + number)
        after = answers(store)
        for name, new in after.items():
            old = before[name]
            assert new.index >= old.index, f"{name}: the index fell with {command}"
            if new.value != old.value:
                assert watchers[name].told, f"{name}: changed untold with {command}"
                assert new.index > old.index, f"{name}: changed at the same index with {command}"
            if new.index != old.index:
                assert watchers[name].told, f"{name}: index moved untold with {command}"
        for watcher in watchers.values():
            store.watches.discard(watcher)
        assert len(store.watches) == 0
        before = after


@SEEDS
def test_indexes_are_those_of_the_rows(seed: int) -> None:
    store = Store()
    for number, command in enumerate(Dice(seed).script(LENGTH)):
        apply(store, command, 1000.0 + number)
    assert_indexes(store)


@SEEDS
def test_a_command_that_fails_leaves_everything_as_it_was(seed: int) -> None:
    store = Store()
    for number, command in enumerate(Dice(seed).script(LENGTH)):
        before = contents(store)
        if apply(store, command, 1000.0 + number) is not None:
            assert contents(store) == before, f"{command} failed and changed something"
            assert_indexes(store)


@SEEDS
def test_rows_belong_to_each_other(seed: int) -> None:
    """No service without its node, no check without its service, no lock without its session."""
    store = Store()
    for number, command in enumerate(Dice(seed).script(LENGTH)):
        apply(store, command, 1000.0 + number)
    for instance in store.services:
        assert instance.node.lower() in store.nodes.rows
    for check in store.checks:
        assert check.node.lower() in store.nodes.rows
        assert not check.service_id or (check.node.lower(), check.service_id.lower()) in store.services.rows
    for session in store.sessions:
        assert session.node.lower() in store.nodes.rows
        for check_id in session.check_ids:
            assert store.checks.rows[session.node.lower(), check_id.lower()].status != "critical"
    for entry in store.kv:
        assert not isinstance(entry.session, str) or entry.session in store.sessions.rows
        assert entry.key not in store.tombstones.rows
    for query in store.queries:
        assert not query.session or query.session in store.sessions.rows
    for coordinate in store.coordinates:
        assert coordinate.node.lower() in store.nodes.rows
    ids = [node.id for node in store.nodes if node.id]
    assert len(ids) == len(set(ids)), "two nodes have one id"


def state_of(store: Store) -> bytes:
    """The store's snapshot."""
    return b"".join(Image(store).encode())


@SEEDS
async def test_a_snapshot_loads_to_the_same_state(seed: int) -> None:
    store = Store()
    for number, command in enumerate(Dice(seed).script(LENGTH)):
        apply(store, command, 1000.0 + number)
    other = Store()
    run(other, Dice(seed + 2000).script(LENGTH))
    await snapshot.load_pieces(other, [state_of(store)])
    assert contents(other) == contents(store)
    assert (other.index, other.now, other.base) == (store.index, store.now, store.base)
    assert_indexes(other)
    assert answers(other) == answers(store)
    for number, command in enumerate(Dice(seed + 1000).script(LENGTH)):
        assert str(apply(other, command, 2000.0 + number)) == str(apply(store, command, 2000.0 + number))
    assert contents(other) == contents(store), "a loaded state goes on as the one it was taken from"


@SEEDS
def test_a_restored_snapshot_tells_everybody_and_no_index_falls(seed: int) -> None:
    store = Store()
    run(store, Dice(seed).script(LENGTH))
    saved, rows = state_of(store), contents(store)
    run(store, Dice(seed + 1000).script(LENGTH))
    before = answers(store)
    watchers = []
    for answer in before.values():
        watchers.append(Told())
        store.watches.add(watchers[-1], answer.seen)
    apply(store, RestorePart("t", 0, saved), 3000.0)
    assert apply(store, Restore("t", 1), 3000.0) is None
    assert all(watcher.told for watcher in watchers)
    after = answers(store)
    for name, answer in after.items():
        assert answer.index > before[name].index, f"{name}: a waiting query would not return"
    restored = contents(store)
    # What was revoked meanwhile stays so.
    others = store.tables.keys() - {"ca_revoked"}
    assert {name: restored[name] for name in others} == {name: rows[name] for name in others}
    assert restored["ca_revoked"].keys() >= rows["ca_revoked"].keys()
    assert_indexes(store)


def run(store: Store, script: Iterable[Command]) -> None:
    """Apply commands one after the other."""
    for number, command in enumerate(script):
        apply(store, command, 1000.0 + number)
