"""The rows of a table in the order of their keys, held so that no single step touches all of them.

They lie in *parts* of at most `MANY` rows, each a dict for a range of keys. So a picture of all rows at one moment is a
list of parts: it costs nothing, and from then on a part is copied before it is first changed. Filling a table and
dropping one go part by part, and the garbage collector, which passes over dicts of plain rows, has nothing to look at.

A part knows the order of its keys only from the first time that it was read in order; it is kept up from then on.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar, overload

K = TypeVar("K")
R = TypeVar("R")
T = TypeVar("T")

MANY = 1360  # a dict of so many has no room left over
FEW = MANY // 8
SOME = 64  # keys that are taken at a time when a few are wanted

Parts = list[dict[K, R]]


class Rows(Mapping[K, R]):
    """Rows by key. Keys of one table can be compared with each other.

    Going through it while it changes is allowed: it gives every row that is there all the time.
    """

    __slots__ = ("_bounds", "_count", "_orders", "_owned", "_parts")

    def __init__(self) -> None:
        self._parts: Parts[K, R] = [{}]
        self._bounds: list[Any] = []  # the lowest key that each part but the first may hold
        self._orders: list[list[Any] | None] = [None]
        self._owned = bytearray(b"\1")  # whether a part is in no picture
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, key: object) -> bool:
        return key in self._parts[bisect_right(self._bounds, key)]

    def __getitem__(self, key: K) -> R:
        return self._parts[bisect_right(self._bounds, key)][key]

    @overload
    def get(self, key: K, /) -> R | None: ...
    @overload
    def get(self, key: K, /, default: R | T) -> R | T: ...
    def get(self, key: K, /, default: Any = None) -> Any:
        """The row under a key."""
        return self._parts[bisect_right(self._bounds, key)].get(key, default)

    def swap(self, key: K, row: R | None) -> R | None:
        """Put a row under a key, or with None remove it; returns the row that was there."""
        at = bisect_right(self._bounds, key)
        part = self._parts[at]
        old = part.get(key)
        if old is None and row is None:
            return None
        if not self._owned[at]:
            part = self._parts[at] = part.copy()
            self._owned[at] = 1
        if row is not None:
            part[key] = row
            if old is None:
                self._add(at, part, key)
        else:
            self._remove(at, part, key)
        return old

    def clear(self) -> None:
        """Remove all rows."""
        self.__init__()  # type: ignore[misc]

    def picture(self) -> Parts[K, R]:
        """All rows as they are now, in parts that nobody changes any more."""
        self._owned = bytearray(len(self._parts))
        return list(self._parts)

    def exchange(self, other: "Rows[K, R]") -> None:
        """Have the other's rows, and the other these."""
        for name in Rows.__slots__:
            mine = getattr(self, name)
            setattr(self, name, getattr(other, name))
            setattr(other, name, mine)

    def dismantle(self) -> Iterator[None]:
        """Remove all rows, a part a step."""
        self._bounds, self._orders, self._owned, self._count = [], [None], bytearray(b"\1"), 0
        parts, self._parts = self._parts, [{}]
        while parts:
            parts.pop()
            yield

    # -- in order

    def __iter__(self) -> Iterator[K]:
        for part in tuple(self._parts):
            yield from sorted(part)  # type: ignore[type-var]

    def in_order(self) -> Iterator[R]:
        """The rows in the order of their keys."""
        for part in tuple(self._parts):
            yield from [part[key] for key in sorted(part)]  # type: ignore[type-var]

    def pairs(self) -> Iterator[tuple[K, R]]:
        """Keys and rows in the order of the keys."""
        for part in tuple(self._parts):
            yield from sorted(part.items(), key=_first)

    def keys_from(self, key: K) -> Iterator[K]:
        """The keys from one on, in order."""
        find = bisect_left
        while True:
            at = bisect_right(self._bounds, key)
            bound = self._bounds[at] if at < len(self._bounds) else None
            order = self._orders[at]
            if order is None:
                order = self._orders[at] = sorted(self._parts[at])  # type: ignore[type-var]
            start = find(order, key)
            some = order[start : start + SOME]
            yield from some
            # Whatever may have changed meanwhile: it goes on by the key.
            if len(some) == SOME:
                key, find = some[-1], bisect_right
            elif bound is not None:
                key, find = bound, bisect_left
            else:
                return

    # -- parts

    def _add(self, at: int, part: dict[K, R], key: K) -> None:
        self._count += 1
        order = self._orders[at]
        if order is not None:
            insort(order, key)
        if len(part) > MANY:
            self._split(at, key)

    def _remove(self, at: int, part: dict[K, R], key: K) -> None:
        del part[key]
        self._count -= 1
        order = self._orders[at]
        if order is not None:
            del order[bisect_left(order, key)]
        if len(part) <= FEW and self._bounds:
            self._join(at if at < len(self._bounds) else at - 1)

    def _split(self, at: int, newest: K) -> None:
        """Make two parts of one. Keys that come in order fill one part after the other."""
        part, order = self._parts[at], self._orders[at]
        keys: list[Any] = sorted(part) if order is None else order
        last = at == len(self._bounds) and keys[-1] == newest
        middle = len(keys) - FEW if last else len(keys) // 2
        halves = keys[:middle], keys[middle:]
        self._parts[at : at + 1] = [{key: part[key] for key in half} for half in halves]
        self._orders[at : at + 1] = halves if order is not None else (None, None)
        self._owned[at : at + 1] = b"\1\1"
        self._bounds.insert(at, keys[middle])

    def _join(self, at: int) -> None:
        """Make one part of one and the next, if together they are small, or one of them is empty."""
        left, right = self._parts[at], self._parts[at + 1]
        if left and right and len(left) + len(right) > MANY // 2:
            return
        self._parts[at : at + 2] = [left | right]
        self._orders[at : at + 2] = [None]
        self._owned[at : at + 2] = b"\1"
        del self._bounds[at]


def _first(pair: tuple[Any, Any]) -> Any:
    return pair[0]
