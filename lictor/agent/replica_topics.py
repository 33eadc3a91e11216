"""What a client agent holds of the servers' state: topics and their rows, as the last piece of news left them. Pure.

A piece takes effect whole, and those who depend on what has changed are told once, after it. A piece that cannot be
read changes nothing.
"""

import asyncio
from typing import Any

import msgspec

from lictor.store import partial_messages as wire
from lictor.store.partial_messages import Change, Dropped, Kept, Message, Piece, Start
from lictor.store.partial_rows import PartialRows
from lictor.store.store import Store
from lictor.store.watch import KV, KV_PREFIX, Topic

_Packed = dict[str, list[Any]]


class Holding:
    """A topic that is held, or will be. `used` is when somebody last looked at it; `asked` whether those who depend on
    it were made to look again since.
    """

    __slots__ = ("asked", "covered", "parts", "topic", "used", "version", "waiters")

    def __init__(self, topic: Topic, now: float) -> None:
        self.topic = topic
        self.version = 0
        self.covered = False
        self.used = now
        self.asked = False
        self.parts: _Packed = {}
        self.waiters: list[asyncio.Future[None]] = []


class News(msgspec.Struct, frozen=True):
    """What a piece has brought beside changes: topics that are held from now on, and those that cannot be."""

    begun: list[Holding]
    refused: list[tuple[Holding, str]]


class Holdings:
    """All of them, in `store`. `whole` is the index of the newest state that all held topics are of."""

    def __init__(self, store: Store) -> None:
        self.topics: dict[Topic, Holding] = {}
        self.cluster = ""
        self.index = 0
        self.whole = 0
        self.changes = 0
        # Topics that the server was asked to drop, and how often it has not said yet that it did: what comes of them is
        # of a former beginning.
        self.leaving: dict[Topic, int] = {}
        self._store = store
        self._rows = PartialRows(store)

    @property
    def rows(self) -> int:
        """How many rows are held."""
        return len(self._rows)

    def hold(self, topic: Topic, now: float) -> Holding:
        """Make a place for a topic."""
        found = self.topics[topic] = Holding(topic, now)
        return found

    def resume(self) -> tuple[tuple[Topic, int], ...]:
        """Every topic with the version that is held, 0 for none; what has come of those that begin is let go."""
        self.leaving.clear()
        for one in self.topics.values():
            one.parts = {}
        return tuple((one.topic, one.version if one.covered else 0) for one in self.topics.values())

    def drop(self, holding: Holding) -> None:
        """Hold a topic no more. Its dependents are told first: what they were made from may be gone."""
        topic = holding.topic
        self.tell([topic])
        del self.topics[topic]
        self._rows.drop(topic)
        self._store.touched.pop(topic, None)

    def tell(self, topics: list[Topic]) -> None:
        """Tell everything that depends on any of these topics."""
        self._store.watches.fire(topics)

    def apply(self, piece: Piece) -> News:
        """Take a piece of news. Raises `transport.UNREADABLE`, `KeyError` and `ValueError` for what is none."""
        read = [(message, *_unpacked(message)) for message in piece.messages]
        if piece.state.cluster != self.cluster:
            self._begin_anew(piece.state.cluster)
        news = News([], [])
        changed: dict[Topic, None] = {}
        for message, put, left, gone in read:
            if isinstance(message, Dropped):
                self._have_left(message.topics)
                continue
            holding = self.topics.get(message.topic)
            if holding is None or message.topic in self.leaving:
                continue
            if isinstance(message, wire.Refused):
                news.refused.append((holding, message.reason))
                continue
            if isinstance(message, Change):
                if not holding.covered:
                    continue  # of a former time, or while it begins anew: what comes holds it
                self._rows.remove(holding.topic, gone)
                self._rows.leave(holding.topic, left)
                self._rows.change(holding.topic, put)
            elif isinstance(message, Start):
                for name, rows in put.items():
                    holding.parts.setdefault(name, []).extend(rows)
                if not message.last:
                    continue
                parts, holding.parts = holding.parts, {}
                self._rows.replace(holding.topic, parts)
            if not isinstance(message, Kept):
                changed[holding.topic] = None
            self._stands(holding, message.index, message.version, news)
        self._reach(piece, changed)
        self.changes += len(changed)
        if changed:
            self.tell(list(changed))
        self._store.flush()
        return news

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
            self._store.touched[topic] = max(index, self._store.touched.get(topic, 0))
        if not holding.covered:
            holding.covered = True
            news.begun.append(holding)

    def _reach(self, piece: Piece, changed: dict[Topic, None]) -> None:
        store = self._store
        self.index = max(self.index, piece.state.index)
        store.index = max(store.index, piece.state.index)
        if not piece.state.whole:
            return  # floor and base count for all topics: as long as some are older, theirs are those of before
        self.whole = max(self.whole, piece.state.index)
        if (piece.state.floor, piece.state.base) != (store.floor, store.base):
            store.floor, store.base = max(piece.state.floor, store.floor), max(piece.state.base, store.base)
            changed.update((topic, None) for topic in self.topics if topic[0] in (KV, KV_PREFIX))

    def _begin_anew(self, cluster: str) -> None:
        """The news are of another cluster: indexes mean nothing any more. Rows stay until others take their place."""
        self.cluster = cluster
        self.index = self.whole = 0
        self._store.index, self._store.floor, self._store.base = 1, 0, 0
        self._store.touched.clear()
        for holding in self.topics.values():
            holding.version = 0
            holding.parts = {}


_NOTHING: tuple[_Packed, _Packed, _Packed] = ({}, {}, {})


def _unpacked(message: Message) -> tuple[_Packed, _Packed, _Packed]:
    if isinstance(message, Start):
        return wire.rows(message.put), {}, {}
    if isinstance(message, Change):
        return wire.rows(message.put), wire.rows(message.left), wire.keys(message.gone)
    return _NOTHING
