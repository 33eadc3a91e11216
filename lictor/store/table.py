"""A table: immutable rows under a primary key, with secondary indexes and, where asked for, its keys in order.

Every change is journalled, so that a transaction which fails half-way is undone row by row.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any, Generic, TypeVar

from sortedcontainers import SortedList

K = TypeVar("K", bound=Hashable)
R = TypeVar("R")

Journal = list[tuple["Table[Any, Any]", Any, Any]]


class Index(Generic[K, R]):
    """Rows by a derived value; a row may have none or several of them."""

    __slots__ = ("_of", "_rows")

    def __init__(self, of: Callable[[R], Iterable[Hashable]]) -> None:
        self._of = of
        self._rows: dict[Hashable, dict[K, R]] = {}

    def get(self, value: Hashable) -> dict[K, R]:
        """The rows under `value` by primary key; not to be changed by the caller."""
        return self._rows.get(value, _NOTHING)

    def values(self) -> Iterable[Hashable]:
        """Every value that some row has."""
        return self._rows.keys()

    def add(self, key: K, row: R) -> None:
        for value in self._of(row):
            self._rows.setdefault(value, {})[key] = row

    def discard(self, key: K, row: R) -> None:
        for value in self._of(row):
            rows = self._rows.get(value)
            if rows is not None:
                rows.pop(key, None)
                if not rows:
                    del self._rows[value]

    def clear(self) -> None:
        self._rows.clear()


_NOTHING: dict[Any, Any] = {}


class Table(Generic[K, R]):
    """Rows by primary key. `key` derives it from a row; `indexes` name further derivations."""

    __slots__ = ("indexes", "journal", "key", "rows")

    def __init__(self, key: Callable[[R], K], **indexes: Callable[[R], Iterable[Hashable]]) -> None:
        self.key = key
        self.rows: dict[K, R] = {}
        self.indexes: dict[str, Index[K, R]] = {name: Index(of) for name, of in indexes.items()}
        self.journal: Journal = []

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[R]:
        return iter(self.rows.values())

    def get(self, key: K) -> R | None:
        """The row under `key`."""
        return self.rows.get(key)

    def by(self, index: str, value: Hashable) -> dict[K, R]:
        """The rows that have `value` in the named index, by primary key; not to be changed by the caller."""
        return self.indexes[index].get(value)

    def put(self, row: R) -> R | None:
        """Insert or replace a row; returns the one it replaced."""
        key = self.key(row)
        old = self._swap(key, row)
        self.journal.append((self, key, old))
        return old

    def delete(self, key: K) -> R | None:
        """Remove a row; returns it, or None where there was none."""
        if key not in self.rows:
            return None
        old = self._swap(key, None)
        self.journal.append((self, key, old))
        return old

    def undo(self, key: K, old: R | None) -> None:
        """Put back what a journal entry says stood under `key`."""
        self._swap(key, old)

    def replace_all(self, rows: Iterable[R]) -> None:
        """Drop every row and take these, as a restored snapshot does."""
        self.rows.clear()
        for index in self.indexes.values():
            index.clear()
        for row in rows:
            self._swap(self.key(row), row)

    def _swap(self, key: K, row: R | None) -> R | None:
        old = self.rows.get(key)
        if old is not None:
            for index in self.indexes.values():
                index.discard(key, old)
        if row is None:
            self.rows.pop(key, None)
        else:
            self.rows[key] = row
            for index in self.indexes.values():
                index.add(key, row)
        return old


class OrderedTable(Table[str, R]):
    """A table whose keys are texts kept in order, for reading by prefix."""

    __slots__ = ("_keys",)

    def __init__(self, key: Callable[[R], str], **indexes: Callable[[R], Iterable[Hashable]]) -> None:
        super().__init__(key, **indexes)
        self._keys: SortedList = SortedList()

    def under(self, prefix: str) -> Iterator[R]:
        """The rows whose key begins with `prefix`, in key order."""
        rows = self.rows
        for key in self.keys_under(prefix):
            yield rows[key]

    def keys_under(self, prefix: str, after: str = "") -> Iterator[str]:
        """The keys that begin with `prefix`, in order, from `after` on where it is given."""
        for key in self._keys.irange(max(prefix, after)):
            if not key.startswith(prefix):
                return
            yield key

    def replace_all(self, rows: Iterable[R]) -> None:
        """Drop every row and take these; the order is built once, not a row at a time."""
        self.rows.clear()
        self._keys = SortedList()
        for index in self.indexes.values():
            index.clear()
        for row in rows:
            key = self.key(row)
            self.rows[key] = row
            for index in self.indexes.values():
                index.add(key, row)
        self._keys = SortedList(self.rows)

    def _swap(self, key: str, row: R | None) -> R | None:
        old = super()._swap(key, row)
        if old is None and row is not None:
            self._keys.add(key)
        elif old is not None and row is None:
            self._keys.remove(key)
        return old
