"""What has changed of a topic since an older version of it, for client agents that come back to a server, to this one
or to another. Pure.

`History` keeps for the last commands which topics they touched and which rows they changed, whoever follows these. It
is bounded: an agent that was away for longer, or for a state that took the place of all of it, is told the topic whole.
KV prefixes need none of it: their rows have their indexes, and what was removed has left a tombstone.
"""

from collections.abc import Container, Iterable, Mapping
from typing import Any

import msgspec

from lictor.model.service import Instance
from lictor.store import partial
from lictor.store.partial import Difference, Keys, Rows
from lictor.store.store import Changes, Store
from lictor.store.table import Journal
from lictor.store.watch import KV_PREFIX, Topic

LEAST = 65_536  # topics and keys of rows that are kept, whatever the size of the catalog
_RESUMED = frozenset(name for (name, _), kind in partial.KINDS.items() if kind.among is not None) - {KV_PREFIX}
_JOINED = frozenset(name for (name, _), kind in partial.KINDS.items() if kind.joined)
_NOTED = _RESUMED | {"node"}


class _Entry(msgspec.Struct, frozen=True, gc=False):
    """What one command has changed; for each of its topics the number of the entry before that touched it, or -1.
    `moved` are the keys of instances that were not there before, or are in other topics than before.
    """

    index: int
    topics: dict[Topic, int]
    keys: tuple[tuple[str, Any], ...]
    moved: tuple[tuple[str, str], ...]


class History(Changes):
    """See above. `most` is how many topics and keys are kept; 0 for as many as there are rows in the catalog."""

    __slots__ = ("_entries", "_last", "_most", "_names", "_number", "_since", "_size", "_store")

    def __init__(self, store: Store, most: int = 0) -> None:
        super().__init__()
        self._store = store
        self._most = most
        self._names = {id(table): name for name, table in store.tables.items()}
        self._entries: dict[int, _Entry] = {}
        self._last: dict[Topic, int] = {}  # the number of the newest entry that touched a topic
        self._number = 0
        self._size = 0
        self._since: int | None = None  # all that has changed after this index is known

    def __len__(self) -> int:
        return self._size

    def note(self, index: int, topics: Mapping[Topic, bool], journal: Journal) -> None:
        super().note(index, topics, journal)
        if self._since is None:
            self._since = index - 1
        touched = {topic: self._last.get(topic, -1) for topic in topics if topic[0] in _NOTED}
        if not touched:
            return
        names = self._names
        keys = tuple({(names[id(table)], key): None for table, key, _ in journal})
        number = self._number
        self._number += 1
        services = self._store.services
        moved = tuple(key for table, key, old in journal if table is services and _moved(old, services.get(key)))
        self._entries[number] = _Entry(index, touched, keys, moved)
        self._last.update(dict.fromkeys(touched, number))
        self._size += len(touched) + len(keys)
        most = self._most or max(LEAST, len(self._store.services) + len(self._store.checks))
        while self._size > most:
            self._forget()

    def replace(self) -> None:
        super().replace()
        self._entries.clear()
        self._last.clear()
        self._size = 0
        self._since = None

    def _forget(self) -> None:
        number = next(iter(self._entries))
        entry = self._entries.pop(number)
        self._since = entry.index
        self._size -= len(entry.topics) + len(entry.keys)
        for topic in entry.topics:
            if self._last[topic] == number:
                del self._last[topic]

    def _changed(self, topics: Iterable[Topic], after: int, most: int) -> tuple[Keys, set[tuple[str, str]]] | None:
        """The keys of rows that commands after the index `after` have changed which touched one of the topics, and of
        instances that they have moved; None where that is not known any more, or they are more than `most`.
        """
        if self._since is None or after < self._since:
            return None
        found: Keys = {}
        moved: set[tuple[str, str]] = set()
        count = 0
        for topic in topics:
            number = self._last.get(topic, -1)
            while (entry := self._entries.get(number)) is not None and entry.index > after:
                count += len(entry.keys)
                if count > most:
                    return None
                for name, key in entry.keys:
                    found.setdefault(name, {})[key] = None
                moved.update(entry.moved)
                number = entry.topics[topic]
        return found, moved

    def since(self, topic: Topic, rows: Rows, version: int, most: int) -> Difference | None:
        """How a topic, which now has these rows, has changed since a version of it: rows that are new, or other than
        then, and what may have been there and is not any more. None where that is not known, or is more than `most`
        rows.
        """
        store = self._store
        if version < store.base:
            return None
        if topic[0] == KV_PREFIX:
            return _of_prefix(rows, version) if version >= store.floor else None
        if topic[0] not in _RESUMED:
            return None
        known = self._changed(partial.watched(topic), version, most)
        if known is None:
            return None
        changed, moved = known
        if topic[0] in _JOINED:
            near = partial.near(store, [(name, key) for name, keys in changed.items() for key in keys])
            after = partial.rows_among(store, topic, near)
        else:
            after = partial.rows_among(store, topic, changed)
        if after is None:
            return None
        found = Difference({}, {}, {})
        for name, new in (_not_had(after, version, moved) if topic[0] in _JOINED else after).items():
            if new:
                found.put[name] = list(new.values())
        candidates = changed
        if topic[0] in _JOINED:
            left = {key[0] for key in changed.get("services", ()) if key not in after["services"]}
            # What a node had then may have gone since, which was the business of its own topic alone.
            known = self._changed((("node", node) for node in left), version, most)
            if known is None:
                return None
            candidates = _with_joined(store, changed, known[0])
        for name, present in after.items():
            partial.departed(store, name, (key for key in candidates.get(name, ()) if key not in present), found)
        return found


def _moved(before: Instance | None, now: Instance | None) -> bool:
    if before is None or now is None:
        return True
    old, new = before.service, now.service
    return (old.service, old.kind, old.connect_name) != (new.service, new.kind, new.connect_name)


def _not_had(after: Rows, version: int, moved: Container[tuple[str, str]]) -> Rows:
    """Those of some instances, nodes and checks that one who has a version of their topic lacks: what has changed
    since, and what an instance has brought that was not among them then.
    """
    instances = after["services"]
    old = {key for key in instances if key not in moved}
    nodes = {key[0] for key in old}

    def had(key: tuple[str, str], row: Any) -> bool:
        of = (key[0], row.service_id.lower())
        return row.modify_index <= version and (of in old if row.service_id else key[0] in nodes)

    return {
        "services": {k: row for k, row in instances.items() if row.service.modify_index > version or k not in old},
        "nodes": {k: row for k, row in after["nodes"].items() if row.modify_index > version or k not in nodes},
        "checks": {key: row for key, row in after["checks"].items() if not had(key, row)},
    }


def _with_joined(store: Store, changed: Keys, of_nodes: Keys) -> Keys:
    """Keys of rows that have changed, and of those that instances among them have brought and may have taken along;
    `of_nodes` have changed at nodes that instances have left.
    """
    nodes = dict(changed.get("nodes", {}))
    checks = {**changed.get("checks", {}), **of_nodes.get("checks", {})}
    of_service = store.checks.indexes["service"]
    for key in changed.get("services", ()):
        nodes[key[0]] = None
        for of in (key, (key[0], "")):
            checks.update(dict.fromkeys(of_service.get(of)))
    return {**changed, "nodes": nodes, "checks": checks}


def _of_prefix(rows: Rows, version: int) -> Difference:
    entries = [row for row in rows["kv"].values() if row.modify_index > version]
    removed = [row for row in rows["tombstones"].values() if row[1] > version]
    found = Difference({"kv": entries, "tombstones": removed}, {}, {})
    found.gone["kv"] = [key for key, _ in removed]
    found.gone["tombstones"] = [row.key for row in entries if row.create_index > version]
    return found
