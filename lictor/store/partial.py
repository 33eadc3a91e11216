"""Which rows belong to which topic: what a client agent must hold to answer a read that has looked at it.

The rows of a topic are all that a read which says it saw the topic may have read for it, whichever read that is. Every
change to one of them touches the topic, or one of those that `Kind.also` names beside it; so who is told of these has
the rows as they are.

| topic | rows | at most |
| --- | --- | --- |
| `("node", n)` | the node, its services, its checks | narrow |
| `("service", s)`, `("connect", s)` | the instances, with their nodes, the checks of both | narrow |
| `("kind", k)` | the same | broad |
| `("nodes",)` | nodes | broad |
| `("services",)`, `("instances",)` | services | broad |
| `("checks",)`, `("checks", status)` | checks, those with the status | broad |
| `("catalog",)` | nodes, services, checks | broad |
| `("coordinates",)`, `("coordinate", n)` | coordinates, a node's | few, narrow |
| `("config",)`, `("config", kind)`, `("config", kind, name)` | entries, a kind's, one | broad, broad, narrow |
| `("setting", name)` | the setting | narrow |
| `("ca-roots",)` | the roots of the mesh's authority | narrow |
| `("ca-revoked",)` | leaves that are not to be believed | narrow |
| `("virtual-ips",)`, `("virtual-ip", s)` | virtual addresses, a service's | broad, narrow |
| `("sessions",)`, `("sessions", n)`, `("session", id)` | sessions, a node's, one | broad, narrow, narrow |
| `("queries",)`, `("query", id)` | queries, one | broad, narrow |
| `("kv", key)`, `("kv/", prefix)` | entries and tombstones | narrow, some |

A topic with more rows than its kind allows is not worth holding: a copy goes to every agent. Topics of other kinds
(`("agent", ...)`) are not the servers', or never leave these (`("authority",)`).

After a change only what is *near* is looked at: of rows that belong to nodes those of the nodes that have changed, of
all others those that have changed themselves. That is all whose belonging to a topic can be another one.
"""

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

import msgspec

from lictor.model.service import Instance
from lictor.store.store import Store
from lictor.store.watch import KV, KV_PREFIX, Topic

NARROW = 131_072
SOME = 16_384
BROAD = 16_384
FEW = 512
KV_WEIGHT = 1024  # bytes of a KV value that count as much as a row
MAX_TEXT = 2048  # characters of a topic's parts

Rows = dict[str, dict[Any, Any]]
"""Rows by table and primary key."""

Keys = dict[str, dict[Any, None]]
"""Keys of rows by table."""

_Reader = Callable[..., Rows | None]


class Kind(msgspec.Struct, frozen=True):
    """A kind of topic. `rows(store, most, *topic[1:])` gives the rows, None where it is plain that they are too many;
    `most` is how many there may be; `also` are the topics that tell of changes to them beside the topic itself.

    `among(store, keys, *topic[1:])` gives those of the rows with such keys that belong to the topic; without it the
    topic is small, and always looked at as a whole. With `joined`, instances bring their nodes and checks with them.
    """

    rows: _Reader
    most: int = NARROW
    also: tuple[Topic, ...] = ()
    among: Callable[..., Rows] | None = None
    joined: bool = False


def _whole(*names: str) -> _Reader:
    def rows(store: Store, most: int) -> Rows | None:
        tables = [store.tables[name] for name in names]
        if sum(map(len, tables)) > most:
            return None
        return {name: dict(table.rows.pairs()) for name, table in zip(names, tables, strict=True)}

    return rows


def _by(name: str, index: str) -> _Reader:
    def rows(store: Store, most: int, value: str) -> Rows | None:
        found = store.tables[name].by(index, value)
        return {name: dict(found)} if len(found) <= most else None

    return rows


def _one(name: str) -> _Reader:
    return lambda store, most, key: _single(store, name, key)


def _single(store: Store, name: str, key: Any) -> Rows:
    row = store.tables[name].get(key)
    return {name: {key: row}} if row is not None else {}


def _node(store: Store, most: int, node: str) -> Rows:
    return {
        **_single(store, "nodes", node),
        "services": dict(store.services.by("node", node)),
        "checks": dict(store.checks.by("node", node)),
    }


def _instances(index: str) -> _Reader:
    def rows(store: Store, most: int, value: str) -> Rows | None:
        found = store.services.by(index, value)
        return with_nodes(store, found) if len(found) <= most else None

    return rows


def with_nodes(store: Store, instances: dict[tuple[str, str], Instance]) -> Rows:
    """Instances by primary key, with their nodes and the checks of both."""
    nodes: dict[Any, Any] = {}
    checks: dict[Any, Any] = {}
    of_service = store.checks.indexes["service"]
    for key in instances:
        node = key[0]
        if node not in nodes:
            row = store.nodes.get(node)
            if row is not None:
                nodes[node] = row
            checks.update(of_service.get((node, "")))
        checks.update(of_service.get(key))
    return {"services": dict(instances), "nodes": nodes, "checks": checks}


def _entry(store: Store, most: int, kind: str, name: str) -> Rows:
    return _single(store, "config", (kind, name))


def _key(store: Store, most: int, key: str) -> Rows:
    return {**_single(store, "kv", key), **_single(store, "tombstones", key)}


def _prefix(store: Store, most: int, prefix: str) -> Rows:
    return {
        "kv": {row.key: row for row in islice(store.kv.under(prefix), most + 1)},
        "tombstones": {row[0]: row for row in islice(store.tombstones.under(prefix), most + 1)},
    }


_OF_NODES = ("nodes", "services", "checks")


def near(store: Store, changed: Iterable[tuple[str, Any]]) -> Keys:
    """The keys that are near to those that have changed, given by table and key."""
    keys: Keys = {}
    nodes: dict[str, None] = {}
    for name, key in changed:
        keys.setdefault(name, {})[key] = None
        if name in _OF_NODES:
            nodes[key if name == "nodes" else key[0]] = None
    for node in nodes:
        keys.setdefault("nodes", {})[node] = None
        for name in ("services", "checks"):
            keys.setdefault(name, {}).update(dict.fromkeys(store.tables[name].by("node", node)))
    return keys


def _existing(store: Store, name: str, keys: Keys) -> dict[Any, Any]:
    get = store.tables[name].get
    return {key: row for key in keys.get(name, ()) if (row := get(key)) is not None}


def _whole_among(*names: str) -> Callable[[Store, Keys], Rows]:
    return lambda store, keys: {name: _existing(store, name, keys) for name in names}


def _by_among(name: str, index: str) -> Callable[[Store, Keys, str], Rows]:
    def among(store: Store, keys: Keys, value: str) -> Rows:
        found = store.tables[name].by(index, value)
        return {name: {key: found[key] for key in keys.get(name, ()) if key in found}}

    return among


def _instances_among(index: str) -> Callable[[Store, Keys, str], Rows]:
    def among(store: Store, keys: Keys, value: str) -> Rows:
        found = store.services.by(index, value)
        return with_nodes(store, {key: found[key] for key in keys.get("services", ()) if key in found})

    return among


def _prefix_among(store: Store, keys: Keys, prefix: str) -> Rows:
    rows = {name: _existing(store, name, keys) for name in ("kv", "tombstones")}
    return {name: {k: row for k, row in found.items() if k.startswith(prefix)} for name, found in rows.items()}


KINDS: dict[tuple[str, int], Kind] = {
    ("nodes", 1): Kind(_whole("nodes"), BROAD, (), _whole_among("nodes")),
    ("node", 2): Kind(_node),
    ("services", 1): Kind(_whole("services"), BROAD, (("instances",),), _whole_among("services")),
    ("instances", 1): Kind(_whole("services"), BROAD, (), _whole_among("services")),
    ("service", 2): Kind(_instances("name"), NARROW, (), _instances_among("name"), joined=True),
    ("connect", 2): Kind(_instances("connect"), NARROW, (), _instances_among("connect"), joined=True),
    ("kind", 2): Kind(_instances("kind"), BROAD, (), _instances_among("kind"), joined=True),
    ("checks", 1): Kind(_whole("checks"), BROAD, (), _whole_among("checks")),
    ("checks", 2): Kind(_by("checks", "status"), BROAD, (), _by_among("checks", "status")),
    ("catalog", 1): Kind(_whole(*_OF_NODES), BROAD, (), _whole_among(*_OF_NODES)),
    ("coordinates", 1): Kind(_whole("coordinates"), FEW),
    ("coordinate", 2): Kind(_by("coordinates", "node")),
    ("config", 1): Kind(_whole("config"), BROAD),
    ("config", 2): Kind(_by("config", "kind"), BROAD),
    ("config", 3): Kind(_entry),
    ("setting", 2): Kind(_one("settings")),
    ("ca-roots", 1): Kind(_whole("ca_roots")),
    ("ca-revoked", 1): Kind(_whole("ca_revoked"), NARROW, (), _whole_among("ca_revoked")),
    ("virtual-ips", 1): Kind(_whole("virtual_ips"), BROAD, (), _whole_among("virtual_ips")),
    ("virtual-ip", 2): Kind(_one("virtual_ips")),
    ("sessions", 1): Kind(_whole("sessions"), BROAD, (), _whole_among("sessions")),
    ("sessions", 2): Kind(_by("sessions", "node")),
    ("session", 2): Kind(_one("sessions")),
    ("queries", 1): Kind(_whole("queries"), BROAD, (), _whole_among("queries")),
    ("query", 2): Kind(_one("queries")),
    (KV, 2): Kind(_key),
    (KV_PREFIX, 2): Kind(_prefix, SOME, (), _prefix_among),
}
"""Every kind of topic that can be held, by its first part and how many parts there are."""


def kind_of(topic: Topic) -> Kind | None:
    """The kind of a topic, None for one that nobody can hold."""
    found = KINDS.get((topic[0], len(topic))) if topic else None
    return found if found is not None and max(map(len, topic)) <= MAX_TEXT else None


def rows_of(store: Store, topic: Topic) -> Rows | None:
    """The rows of a topic that can be held, None where there are more than are worth it."""
    kind = KINDS[topic[0], len(topic)]
    rows = kind.rows(store, kind.most, *topic[1:])
    return rows if rows is not None and weight(topic, rows) <= kind.most else None


def rows_among(store: Store, topic: Topic, keys: Keys) -> Rows | None:
    """The rows of a topic among those with such keys, which are near to each other; None for a topic that is to be
    looked at as a whole.
    """
    among = KINDS[topic[0], len(topic)].among
    return among(store, keys, *topic[1:]) if among is not None else None


def weight(topic: Topic, rows: Rows) -> int:
    """What rows of a topic weigh: one each, and the bytes of KV values beside."""
    total = sum(map(len, rows.values()))
    if topic[0] == KV_PREFIX:
        total += sum(len(row.value) // KV_WEIGHT for row in rows.get("kv", {}).values() if row.value is not None)
    return total


def most(topic: Topic) -> int:
    """What the rows of a topic may weigh."""
    return KINDS[topic[0], len(topic)].most


def watched(topic: Topic) -> tuple[Topic, ...]:
    """The topics to be told of, to know of every change to a topic's rows."""
    return (topic, *KINDS[topic[0], len(topic)].also)


def index_of(store: Store, topic: Topic) -> int:
    """The index that a read gets from a topic. A KV topic's is that of its rows, and is not kept."""
    return 0 if topic[0] in (KV, KV_PREFIX) else store.touched.get(topic, store.floor)


def version_of(store: Store, topic: Topic, rows: Rows, before: int = 0) -> int:
    """A number, at least 1, that is higher after any change to a topic's rows: the same on all servers of a cluster.
    `before` is what it was, where `rows` are those that have changed since.
    """
    if topic[0] in (KV, KV_PREFIX):
        newest = max((row.modify_index for row in rows.get("kv", {}).values()), default=0)
        removed = max((index for _, index in rows.get("tombstones", {}).values()), default=0)
        return max(1, before, newest, removed, store.floor, store.base)
    return max(1, store.base, *(store.touched.get(one, store.floor) for one in watched(topic)))


class Difference(msgspec.Struct, frozen=True):
    """How a topic's rows have changed: rows that are new or other than before, those that belong to it no more as they
    are now, and the keys of those that are no more.
    """

    put: dict[str, list[Any]]
    left: dict[str, list[Any]]
    gone: dict[str, list[Any]]

    def __bool__(self) -> bool:
        return bool(self.put or self.left or self.gone)


def difference(store: Store, before: Rows, after: Rows) -> Difference:
    """What has happened to a topic's rows, or to some of them: `before` and `after` are of the same ones."""
    found = Difference({}, {}, {})
    for name in {**before, **after}:
        old, new = before.get(name) or {}, after.get(name) or {}
        put = [row for key, row in new.items() if (was := old.get(key)) is not row and was != row]
        if put:
            found.put[name] = put
        if len(old) > len(new) or any(key not in new for key in old):
            departed(store, name, (key for key in old if key not in new), found)
    return found


def among(rows: Rows, keys: Keys) -> Rows:
    """Those of some rows that have such keys."""
    return {
        name: {key: row for key in wanted if (row := rows[name].get(key)) is not None}
        for name, wanted in keys.items()
        if name in rows
    }


def amend(rows: Rows, before: Rows, after: Rows) -> None:
    """Have rows `after` in the place of rows `before`."""
    for name in {**before, **after}:
        old, new = before.get(name) or {}, after.get(name) or {}
        table = rows.setdefault(name, {})
        for key in old:
            if key not in new:
                del table[key]
        table.update(new)


def departed(store: Store, name: str, keys: Iterable[Any], found: Difference) -> None:
    """Rows of a topic belong to it no more: note what they are now, or that they are no more."""
    get = store.tables[name].get
    for key in keys:
        row = get(key)
        if row is None:
            found.gone.setdefault(name, []).append(key)
        else:
            found.left.setdefault(name, []).append(row)
