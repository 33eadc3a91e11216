"""The answer cache: finished bytes by the bytes of the request, until something the answer's read looked at changes.

A door asks it first, with what arrived on the wire, before it parses anything. An entry is put in the same turn in
which its read ran, so the state cannot have moved between; it is dropped by the store's own telling, so it is never
older than the store. The size is bounded in bytes; the oldest entries go first.
"""

from collections import OrderedDict
from typing import Generic, TypeVar

from lictor.store.watch import Dependent, Topic, Watches

V = TypeVar("V")

ENTRY_OVERHEAD = 400  # bytes that an entry costs beside its key and value: its objects and its places in the tables
TOPIC_OVERHEAD = 120  # bytes that each topic costs which its read looked at: the topic and the entry's place under it


class _Entry(Dependent, Generic[V]):
    __slots__ = ("cache", "key", "size", "value")

    def __init__(self, cache: "AnswerCache[V]", key: bytes, value: V, size: int) -> None:
        self.cache = cache
        self.key = key
        self.value = value
        self.size = size

    def changed(self) -> None:
        self.cache.drop(self)


class AnswerCache(Generic[V]):
    """Finished answers by request bytes. `answers` maps a request straight to its value: the hot path reads it
    directly.

    `limit` is in bytes, keys, values and overhead together; 0 keeps nothing.
    """

    __slots__ = ("_entries", "_watches", "answers", "dropped", "evicted", "limit", "size", "stored")

    def __init__(self, watches: Watches, limit: int) -> None:
        self._watches = watches
        # Ordered, because the first key of a plain dict is found ever more slowly as others before it are deleted.
        self._entries: OrderedDict[bytes, _Entry[V]] = OrderedDict()
        self.answers: dict[bytes, V] = {}
        self.limit = limit
        self.size = 0
        self.stored = 0
        self.dropped = 0
        self.evicted = 0

    def put(self, request: bytes, value: V, size: int, seen: tuple[Topic, ...]) -> None:
        """Remember the answer to a request; `size` is that of the value in bytes, `seen` what its read looked at."""
        self.forget(request)
        size += len(request) + ENTRY_OVERHEAD + TOPIC_OVERHEAD * len(seen)
        if size > self.limit:
            return
        entry = _Entry(self, request, value, size)
        self._entries[request] = entry
        self.answers[request] = value
        self.size += size
        self.stored += 1
        self._watches.add(entry, seen)
        while self.size > self.limit:
            self.evicted += 1
            self.forget(next(iter(self._entries)))

    def forget(self, request: bytes) -> None:
        """Remove an answer; harmless where there is none."""
        entry = self._entries.get(request)
        if entry is not None:
            self._watches.discard(entry)
            self._remove(entry)

    def drop(self, entry: _Entry[V]) -> None:
        """Remove an answer of which the store has told a change; one that a newer answer replaced is gone already."""
        if self._entries.get(entry.key) is entry:
            self.dropped += 1
            self._remove(entry)

    def clear(self) -> None:
        """Remove every answer."""
        for request in list(self._entries):
            self.forget(request)

    def _remove(self, entry: _Entry[V]) -> None:
        del self._entries[entry.key]
        del self.answers[entry.key]
        self.size -= entry.size
