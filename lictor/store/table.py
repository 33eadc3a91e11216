"""A table: immutable rows in the order of a primary key, with secondary indexes.

Every change is journalled, so that a transaction which fails half-way is undone row by row.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any, Generic, TypeVar

from lictor.store.rows import Rows

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

    def change(self, key: K, old: R | None, row: R | None) -> None:
        """A row takes the place of another; None is no row."""
        if old is not None:
            for value in self._of(old):
                rows = self._rows.get(value)
                if rows is not None:
                    rows.pop(key, None)
                    if not rows:
                        del self._rows[value]
        if row is not None:
            for value in self._of(row):
                self._rows.setdefault(value, {})[key] = row

    def exchange(self, other: "Index[K, R]") -> None:
        self._rows, other._rows = other._rows, self._rows

    def dismantle(self) -> Iterator[None]:
        while self._rows:
            for _ in range(min(FREED, len(self._rows))):
                self._rows.popitem()
            yield


_NOTHING: dict[Any, Any] = {}
FREED = 500  # values of an index that are dropped in one step


class Table(Generic[K, R]):
    """Rows by primary key. `key` derives it from a row; `indexes` name further derivations."""

    __slots__ = ("_indexes", "get", "indexes", "journal", "key", "rows")

    def __init__(self, key: Callable[[R], K], **indexes: Callable[[R], Iterable[Hashable]]) -> None:
        self.key = key
        self.rows: Rows[K, R] = Rows()
        self.get: Callable[[K], R | None] = self.rows.get
        """The row under a key."""
        self.indexes: dict[str, Index[K, R]] = {name: Index(of) for name, of in indexes.items()}
        self._indexes = tuple(self.indexes.values())
        self.journal: Journal = []

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[R]:
        return self.rows.in_order()

    def by(self, index: str, value: Hashable) -> dict[K, R]:
        """The rows that have `value` in the named index, by primary key; not to be changed by the caller."""
        return self.indexes[index].get(value)

    def put(self, row: R) -> R | None:
        """Insert or replace a row; returns the one it replaced."""
        key = self.key(row)
        old = self.rows.swap(key, row)
        for index in self._indexes:
            index.change(key, old, row)
        self.journal.append((self, key, old))
        return old

    def delete(self, key: K) -> R | None:
        """Remove a row; returns it, or None where there was none."""
        old = self._swap(key, None)
        if old is not None:
            self.journal.append((self, key, old))
        return old

    def undo(self, key: K, old: R | None) -> None:
        """Put back what a journal entry says stood under `key`."""
        self._swap(key, old)

    def fill(self, rows: Iterable[R]) -> None:
        """Put rows that no command is answerable for, as those of a snapshot."""
        for row in rows:
            self._swap(self.key(row), row)

    def exchange(self, other: "Table[K, R]") -> None:
        """Have all rows of another table of this kind, and let it have these."""
        self.rows.exchange(other.rows)
        for name, index in self.indexes.items():
            index.exchange(other.indexes[name])

    def dismantle(self) -> Iterator[None]:
        """Remove all rows, some a step: to drop many at once takes long."""
        yield from self.rows.dismantle()
        for index in self.indexes.values():
            yield from index.dismantle()

    def _swap(self, key: K, row: R | None) -> R | None:
        old = self.rows.swap(key, row)
        for index in self._indexes:
            index.change(key, old, row)
        return old


class OrderedTable(Table[str, R]):
    """A table whose keys are texts, for reading by prefix."""

    __slots__ = ()

    def under(self, prefix: str) -> Iterator[R]:
        """The rows whose key begins with `prefix`, in key order."""
        get = self.rows.get
        for key in self.keys_under(prefix):
            row = get(key)
            if row is not None:
                yield row

    def keys_under(self, prefix: str, after: str = "") -> Iterator[str]:
        """The keys that begin with `prefix`, in order, from `after` on where it is given."""
        for key in self.rows.keys_from(max(prefix, after)):
            if not key.startswith(prefix):
                return
            yield key
