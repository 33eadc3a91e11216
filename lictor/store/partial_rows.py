"""The rows of a client agent's store: those of the topics that it holds, and no other.

A row may belong to several topics. It is the same one for all of them, as it was last told, and leaves the store with
the last of them. Pure: whoever changes topics here tells those who depend on them.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lictor.store.store import Store
from lictor.store.watch import Topic

Packed = Mapping[str, Sequence[Any]]
"""Rows, or keys of rows, by table."""


class PartialRows:
    """The topics that are held, and their rows in `store`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._tables = store.tables
        self._keys: dict[Topic, dict[str, set[Any]]] = {}
        # How many topics hold a row, by table and key.
        self._holders: dict[str, dict[Any, int]] = {name: {} for name in self._tables}

    def __len__(self) -> int:
        return sum(map(len, self._holders.values()))

    def has_rows(self, topic: Topic) -> bool:
        """Whether a topic has any row."""
        return any(self._keys.get(topic, {}).values())

    def keys(self, topic: Topic) -> Mapping[str, Iterable[Any]]:
        """The keys of a topic's rows by table."""
        return self._keys.get(topic, {})

    def replace(self, topic: Topic, put: Packed) -> None:
        """Hold a topic, with just these rows."""
        before = self._keys.pop(topic, {})
        self.change(topic, put)
        now = self._keys.setdefault(topic, {})
        for name, keys in before.items():
            kept = now.setdefault(name, set())
            for key in keys:
                if key in kept:
                    self._holders[name][key] -= 1  # it was counted again
                else:
                    self._release(name, key)

    def change(self, topic: Topic, put: Packed) -> None:
        """Rows of a topic that are new, or other than before."""
        held = self._keys.setdefault(topic, {})
        for name, rows in put.items():
            table, keys, holders = self._tables[name], held.setdefault(name, set()), self._holders[name]
            for row in rows:
                key = table.key(row)
                if key not in keys:
                    keys.add(key)
                    holders[key] = holders.get(key, 0) + 1
                if table.get(key) != row:
                    table.fill((row,))

    def leave(self, topic: Topic, left: Packed) -> None:
        """Rows that belong to a topic no more, as they are now: other topics may go on holding them."""
        for name, rows in left.items():
            table = self._tables[name]
            keys = self._keys.get(topic, {}).get(name, set())
            for row in rows:
                key = table.key(row)
                if key in keys:
                    keys.discard(key)
                    self._release(name, key)
                if key in self._holders[name]:
                    table.fill((row,))

    def remove(self, topic: Topic, gone: Packed) -> None:
        """Rows of a topic that are no more, whoever holds them."""
        for name, gone_keys in gone.items():
            keys = self._keys.get(topic, {}).get(name, set())
            for key in gone_keys:
                if key in keys:
                    keys.discard(key)
                    self._release(name, key)
                self._tables[name].undo(key, None)

    def drop(self, topic: Topic) -> None:
        """Hold a topic no more."""
        for name, keys in self._keys.pop(topic, {}).items():
            for key in keys:
                self._release(name, key)

    def _release(self, name: str, key: Any) -> None:
        holders = self._holders[name]
        left = holders[key] - 1
        if left:
            holders[key] = left
        else:
            del holders[key]
            self._tables[name].undo(key, None)
