"""What has changed of a topic since an older version of it."""

from typing import Any

import msgspec
import pytest

from lictor.model.check import Check
from lictor.model.command import Batch, Deregister, KVWrite, Reap, Register
from lictor.model.node import Node
from lictor.model.service import NodeService
from lictor.store import commands, partial
from lictor.store.history import LEAST, History
from lictor.store.partial_rows import PartialRows
from lictor.store.store import Store
from lictor.store.watch import Topic
from tests.store.random_commands import KEYS, NODES, SERVICES, Dice

TOPICS: tuple[Topic, ...] = (
    *((kind, name.lower()) for kind in ("service", "connect") for name in SERVICES),
    ("kind", "connect-proxy"),
    *((name,) for name in ("nodes", "services", "instances", "checks", "catalog", "sessions", "queries")),
    ("checks", "critical"),
    ("checks", "passing"),
    *(("kv/", key) for key in ("", *KEYS)),
    ("node", NODES[0]),
)


def apply(store: Store, *written: Any) -> None:
    commands.apply_batch(store, Batch(1000.0 + store.index, tuple(written)))
    store.flush()


def instance(number: int, *, node: int | None = None, port: int = 80) -> Register:
    name = f"n{number if node is None else node}"
    check = Check(node=name, check_id=f"c{number}", name="c", status="passing", service_id=f"web{number}")
    return Register(
        Node(node=name, address="10.0.0.1"), NodeService(id=f"web{number}", service="web", port=port), (check,)
    )


class Copy:
    """What an agent holds of one topic."""

    def __init__(self, number: int, topic: Topic, store: Store, rows: partial.Rows) -> None:
        self.number = number
        self.topic = topic
        self.store = Store()
        self.rows = PartialRows(self.store)
        self.version = partial.version_of(store, topic, rows)
        self.rows.replace(topic, {name: list(table.values()) for name, table in rows.items()})

    def take(self, found: partial.Difference) -> None:
        self.rows.remove(self.topic, found.gone)
        self.rows.leave(self.topic, found.left)
        self.rows.change(self.topic, found.put)

    def as_in(self, store: Store, rows: partial.Rows) -> bool:
        """Whether it is what the servers have, but for old tombstones, which nobody can tell from the floor."""
        for name, table in rows.items():
            mine = {self.store.tables[name].key(row): row for row in self.store.tables[name]}
            if name == "tombstones":
                mine = {key: row for key, row in mine.items() if row[1] > store.floor}
                table = {key: row for key, row in table.items() if row[1] > store.floor}
            if mine != table:
                return False
        return len(self.rows) >= sum(map(len, rows.values()))


@pytest.mark.parametrize("seed", range(12))
def test_an_older_version_becomes_the_present_one(seed: int) -> None:
    store, dice = Store(), Dice(seed)
    history = store.changes = History(store, 300)
    copies: list[Copy] = []
    told = 0
    for step in range(400):
        apply(store, dice.command())
        for topic in TOPICS:
            rows = partial.rows_of(store, topic)
            assert rows is not None
            if step % 7 == 0:
                copies.append(Copy(dice.one(range(50)), topic, store, rows))
        for copy in list(copies):
            if (step + copy.number) % 5:
                continue
            rows = partial.rows_of(store, copy.topic)
            assert rows is not None
            copies.remove(copy)
            if partial.version_of(store, copy.topic, rows) == copy.version:
                continue
            found = history.since(copy.topic, rows, copy.version, 10_000)
            if found is not None:
                told += 1
                copy.take(found)
                assert copy.as_in(store, rows), f"{copy.topic} since {copy.version} at {store.index}"
    assert told > 50
    assert 0 < len(history) <= 300


def test_one_of_a_thousand_instances_is_one_row() -> None:
    store = Store()
    history = store.changes = History(store)
    apply(store, *(instance(number) for number in range(1000)))
    rows = partial.rows_of(store, ("service", "web"))
    assert rows is not None
    version = partial.version_of(store, ("service", "web"), rows)
    apply(store, instance(7, port=81))
    rows = partial.rows_of(store, ("service", "web"))
    assert rows is not None
    found = history.since(("service", "web"), rows, version, 3000)
    assert found is not None
    assert [row.service.port for row in found.put.pop("services")] == [81]
    assert not found


def test_who_joins_a_topic_brings_what_was_there_before() -> None:
    store = Store()
    history = store.changes = History(store)
    node_check = Check(node="n1", check_id="serfHealth", name="s", status="passing")
    apply(store, Register(Node(node="n1", address="10.0.0.1"), None, (node_check,)), instance(2))
    rows = partial.rows_of(store, ("service", "web"))
    assert rows is not None
    version = partial.version_of(store, ("service", "web"), rows)
    apply(store, instance(5, node=1))
    apply(store, Deregister("n2", service_id="web2"))
    found = history.since(("service", "web"), rows, version, 3000)
    assert found is not None
    assert [row.node for row in found.put["nodes"]] == ["n1"]
    assert {row.check_id for row in found.put["checks"]} == {"serfHealth", "c5"}
    assert [row.service.id for row in found.put["services"]] == ["web5"]
    assert [row.node for row in found.left["nodes"]] == ["n2"]
    assert found.gone == {"services": [("n2", "web2")], "checks": [("n2", "c2")]}


def test_what_it_does_not_reach_back_to_it_does_not_tell() -> None:
    store = Store()
    apply(store, instance(1))
    history = store.changes = History(store, 100)
    before = store.index
    apply(store, instance(2))
    rows = partial.rows_of(store, ("service", "web"))
    assert rows is not None
    assert history.since(("service", "web"), rows, before - 1, 100) is None, "it was not there yet"
    assert history.since(("service", "web"), rows, before, 100) is not None
    assert history.since(("service", "web"), rows, before, 1) is None, "it is more than is worth it"
    for number in range(50):
        apply(store, instance(number, port=number))
    assert len(history) <= 100
    assert history.since(("service", "web"), rows, before, 10_000) is None, "it is forgotten"
    assert history.since(("service", "web"), rows, store.index - 1, 10_000) is not None
    store.replaced()
    assert history.since(("service", "web"), rows, store.index - 1, 10_000) is None, "it is another state"
    assert len(history) == 0


def test_writes_of_keys_take_no_place() -> None:
    store = Store()
    history = store.changes = History(store)
    for number in range(1000):
        apply(store, KVWrite("set", f"k{number}", b"v"))
    assert len(history) == 0
    rows = partial.rows_of(store, ("kv/", "k"))
    assert rows is not None
    version = partial.version_of(store, ("kv/", "k"), rows)
    apply(store, KVWrite("set", "k7", b"w"), KVWrite("delete", "k8"))
    rows = partial.rows_of(store, ("kv/", "k"))
    assert rows is not None
    found = history.since(("kv/", "k"), rows, version, 10)
    assert found is not None
    assert [(row.key, row.value) for row in found.put["kv"]] == [("k7", b"w")]
    assert found.gone["kv"] == ["k8"]
    apply(store, Reap(store.index))
    rows = partial.rows_of(store, ("kv/", "k"))
    assert rows is not None
    assert history.since(("kv/", "k"), rows, version, 10) is None, "what was removed is not known any more"


def test_it_holds_as_much_as_the_catalog_is_large() -> None:
    store = Store()
    history = store.changes = History(store)
    assert LEAST >= 65_536
    apply(store, instance(1))
    for port in range(LEAST // 2 + 10):
        store.begin(1.0)
        store.services.put(msgspec.structs.replace(next(iter(store.services)), node=f"m{port}"))
        store.touch("service", "web")
        store.commit()
    assert LEAST - 10 < len(history) <= LEAST
