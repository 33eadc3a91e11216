"""What a client agent holds of the servers' state: topics and their rows, as the last piece of news left them. Pure.

What is held is always one state of the servers': pieces take effect when they have brought all of one, and those who
depend on what has changed are told once, after that. A piece that cannot be read changes nothing.
"""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from lictor.store import partial_messages as wire
from lictor.store.partial_messages import Change, Dropped, Kept, Message, Piece, Refused, Start, State
from lictor.store.partial_rows import PartialRows
from lictor.store.store import Store
from lictor.store.watch import KV, KV_PREFIX, Topic

PENDING_MOST = 256 * 1024 * 1024  # bytes of pieces that wait for the rest of a state

_Packed = dict[str, list[Any]]
_Read = tuple[Message, _Packed, _Packed, _Packed]


class Holding:
    """A topic that is held, or will be. `used` is when somebody last looked at it; `asked` whether those who depend on
    it were made to look again since; `emptied` when the last look was, as it was found without a row.
    """

    __slots__ = ("asked", "covered", "emptied", "parts", "topic", "used", "version", "waiters")

    def __init__(self, topic: Topic, now: float) -> None:
        self.topic = topic
        self.version = 0
        self.covered = False
        self.used = now
        self.asked = False
        self.emptied = now
        self.parts: _Packed = {}
        self.waiters: list[asyncio.Future[None]] = []


class Former(msgspec.Struct, frozen=True):
    """A topic as it was held before: with its index, the seconds since its last look, and its rows by table."""

    topic: Topic
    version: int
    index: int
    idle: float
    rows: dict[str, list[Any]]


class News(msgspec.Struct, frozen=True):
    """What a piece has brought: topics that have changed, that are held from now on, and those that cannot be."""

    changed: dict[Topic, None]
    begun: list[Holding]
    refused: list[tuple[Holding, str]]


class Holdings:
    """All of them, in `store`. `index` is that of the state that they are of."""

    def __init__(self, store: Store) -> None:
        self.topics: dict[Topic, Holding] = {}
        self.empty: dict[Topic, Holding] = {}  # those of them that are there, without a row
        self.cluster = ""
        self.index = 0
        self.changes = 0
        # Topics that the server was asked to drop, and how often it has not said yet that it did: what comes of them is
        # of a former beginning.
        self.leaving: dict[Topic, int] = {}
        self.store = store
        self._rows = PartialRows(store)
        self._pending: list[_Read] = []
        self._pending_bytes = 0

    @property
    def rows(self) -> int:
        """How many rows are held."""
        return len(self._rows)

    def keys(self, topic: Topic) -> Mapping[str, Iterable[Any]]:
        """The keys of a topic's rows by table."""
        return self._rows.keys(topic)

    def load(self, cluster: str, index: int, floor: int, base: int, former: Iterable[Former], now: float) -> None:
        """Hold what was held before, of a state of `cluster`; only for one that holds nothing. Without the cluster's
        name nobody goes on from there, and all of it is told anew.
        """
        store = self.store
        self.cluster, self.index = cluster, index
        store.index, store.floor, store.base = max(store.index, index), floor, base
        for one in former:
            holding = self.hold(one.topic, now - one.idle)
            holding.covered, holding.version = True, one.version
            self._rows.replace(one.topic, one.rows)
            self._count(holding)
            if one.index:
                store.touched[one.topic] = one.index

    def hold(self, topic: Topic, now: float) -> Holding:
        """Make a place for a topic."""
        found = self.topics[topic] = Holding(topic, now)
        return found

    def resume(self) -> tuple[tuple[Topic, int], ...]:
        """Every topic with the version that is held, 0 for none; what has come of those that begin is let go."""
        self.leaving.clear()
        self._pending.clear()
        self._pending_bytes = 0
        return tuple((one.topic, one.version if one.covered else 0) for one in self.topics.values())

    def drop(self, holding: Holding) -> None:
        """Hold a topic no more. Its dependents are told first: what they were made from may be gone."""
        topic = holding.topic
        self.tell([topic])
        del self.topics[topic]
        self.empty.pop(topic, None)
        self._rows.drop(topic)
        self.store.touched.pop(topic, None)

    def tell(self, topics: list[Topic]) -> None:
        """Tell everything that depends on any of these topics."""
        self.store.watches.fire(topics)

    def apply(self, data: bytes, piece: Piece) -> News:
        """Take a piece of news, whose bytes are `data`. Raises `transport.UNREADABLE`, `KeyError` and `ValueError` for
        what is none, `OverflowError` where there is no end of what belongs together.
        """
        read = [(message, *_unpacked(message)) for message in piece.messages]
        changed: dict[Topic, None] = {}
        news = News(changed, [], [])
        self._pending += read
        if not piece.state.whole:
            self._pending_bytes += len(data)
            if self._pending_bytes > PENDING_MOST:
                raise OverflowError(f"{self._pending_bytes} bytes have come, and still not all of a state")
            return news
        read, self._pending, self._pending_bytes = self._pending, [], 0
        if piece.state.cluster != self.cluster:
            self._begin_anew(piece.state.cluster)
        for message, put, left, gone in read:
            self._take(message, put, left, gone, news)
        self._reach(piece.state, changed)
        self.changes += len(changed)
        if changed:
            self.tell(list(changed))
        self.store.flush()
        return news

    def _take(self, message: Message, put: _Packed, left: _Packed, gone: _Packed, news: News) -> None:
        if isinstance(message, Dropped):
            self._have_left(message.topics)
            return
        holding = self.topics.get(message.topic)
        if holding is None or message.topic in self.leaving:
            return
        if isinstance(message, Refused):
            news.refused.append((holding, message.reason))
            return
        if isinstance(message, Change):
            if not holding.covered:
                return  # of a former time
            self._rows.remove(holding.topic, gone)
            self._rows.leave(holding.topic, left)
            self._rows.change(holding.topic, put)
        elif isinstance(message, Start):
            for name, rows in put.items():
                holding.parts.setdefault(name, []).extend(rows)
            if not message.last:
                return
            parts, holding.parts = holding.parts, {}
            self._rows.replace(holding.topic, parts)
        if not isinstance(message, Kept):
            news.changed[holding.topic] = None
            self._count(holding)
        self._stands(holding, message.index, message.version, news)

    def _count(self, holding: Holding) -> None:
        topic = holding.topic
        if self._rows.has_rows(topic):
            self.empty.pop(topic, None)
        elif topic not in self.empty:
            holding.emptied = holding.used
            self.empty[topic] = holding

    def _have_left(self, topics: tuple[Topic, ...]) -> None:
        for topic in topics:
            left = self.leaving.pop(topic, 1) - 1
            if left:
                self.leaving[topic] = left

    def _stands(self, holding: Holding, index: int, version: int, news: News) -> None:
        """A topic is as it was at a version."""
        topic = holding.topic
        holding.version = version
        if topic[0] not in (KV, KV_PREFIX):
            self.store.touched[topic] = max(index, self.store.touched.get(topic, 0))
        if not holding.covered:
            holding.covered = True
            news.begun.append(holding)

    def _reach(self, state: State, changed: dict[Topic, None]) -> None:
        store = self.store
        self.index = store.index = max(self.index, state.index)
        if (state.floor, state.base) != (store.floor, store.base):
            store.floor, store.base = max(state.floor, store.floor), max(state.base, store.base)
            changed.update((topic, None) for topic in self.topics if topic[0] in (KV, KV_PREFIX))

    def _begin_anew(self, cluster: str) -> None:
        """The news are of another cluster: indexes mean nothing any more. Rows stay until others take their place."""
        self.cluster = cluster
        self.index = 0
        self.store.index, self.store.floor, self.store.base = 1, 0, 0
        self.store.touched.clear()


_NOTHING: tuple[_Packed, _Packed, _Packed] = ({}, {}, {})


def _unpacked(message: Message) -> tuple[_Packed, _Packed, _Packed]:
    if isinstance(message, Start):
        return wire.rows(message.put), {}, {}
    if isinstance(message, Change):
        return wire.rows(message.put), wire.rows(message.left), wire.keys(message.gone)
    return _NOTHING
