"""The topics that client agents follow at this server. However many follow one, it is looked at once after a change,
and what has changed is encoded once. Pure.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import msgspec

from lictor.store import partial
from lictor.store.history import History
from lictor.store.partial_messages import CHUNK_BYTES, Change, Start, encode, packed
from lictor.store.store import Store
from lictor.store.watch import Dependent, Topic

if TYPE_CHECKING:
    from lictor.server.subscriptions_session import Session

MANY = 20_000  # changed rows at once: then topics are looked at as a whole
_ROWS_AT_ONCE = 256  # that are encoded before their size is looked at


class Followed(Dependent):
    """A topic that somebody follows: its rows as all of its `sessions` have been told, or will be next."""

    __slots__ = ("_chunks", "_since", "_store", "_told", "index", "rows", "sessions", "topic", "version", "weight")

    def __init__(self, store: Store, topic: Topic, rows: partial.Rows, told: Callable[["Followed"], None]) -> None:
        self.seen = ()
        self.topic = topic
        self.rows = rows
        self.weight = partial.weight(topic, rows)
        self.index = partial.index_of(store, topic)
        self.version = partial.version_of(store, topic, rows)
        self.sessions: dict[Session, None] = {}
        self._store = store
        self._told = told
        self._chunks: list[msgspec.Raw] = []
        self._since: dict[int, msgspec.Raw | None] = {}
        store.watches.add(self, partial.watched(topic))

    def changed(self) -> None:
        self._told(self)

    def look(self, keys: partial.Keys | None, count: int) -> bytes | None:
        """Look at the topic again: a `Change`, or None where there is none. `keys` are those of the rows that may have
        changed, `count` of them; None for any. Raises `OverflowError` where it has become too large to be followed.
        """
        store, topic = self._store, self.topic
        store.watches.add(self, partial.watched(topic))
        after = partial.rows_among(store, topic, keys) if keys is not None and count < self.weight else None
        if keys is not None and after is not None:
            before = partial.among(self.rows, keys)
            found = partial.difference(store, before, after)
            partial.amend(self.rows, before, after)
            self.weight += partial.weight(topic, after) - partial.weight(topic, before)
            version = partial.version_of(store, topic, after, self.version)
        else:
            after = partial.rows_of(store, topic)
            if after is None:
                raise OverflowError
            found = partial.difference(store, self.rows, after)
            self.rows, self.weight = after, partial.weight(topic, after)
            version = partial.version_of(store, topic, after)
        if self.weight > partial.most(topic):
            raise OverflowError
        index = partial.index_of(store, topic)
        same = not found and index == self.index and version == self.version
        self.index, self.version = index, version
        if same:
            return None
        self.forget_start()
        return self._change(found)

    def _change(self, found: partial.Difference) -> bytes:
        put, left, gone = packed(found.put), packed(found.left), packed(found.gone)
        return encode(Change(self.topic, self.index, self.version, put, left, gone))

    def start(self) -> list[msgspec.Raw]:
        """The topic as it is, in `Start`s."""
        if not self._chunks:
            parts = list(_parts(self.rows))
            last = len(parts) - 1
            self._chunks = [
                msgspec.Raw(encode(Start(self.topic, self.index, self.version, number == last, part)))
                for number, part in enumerate(parts)
            ]
        return self._chunks

    def forget_start(self) -> None:
        """Let go of what was kept of `start` and `since`."""
        self._chunks = []
        self._since = {}

    def since(self, version: int, history: History) -> msgspec.Raw | None:
        """What has changed since an older version, in a `Change`; None where that is not known, or is not less than all
        of it.
        """
        if version not in self._since:
            found = history.since(self.topic, self.rows, version, self.weight)
            change = self._change(found) if found is not None else None
            self._since[version] = msgspec.Raw(change) if change is not None and len(change) <= CHUNK_BYTES else None
        return self._since[version]

    def close(self) -> None:
        """Nobody follows it any more."""
        self._store.watches.discard(self)


def _parts(rows: partial.Rows) -> Iterator[dict[str, msgspec.Raw]]:
    """Rows in encoded parts of about one size; at least one, which may be empty."""
    part: dict[str, msgspec.Raw] = {}
    size = 0
    for name, table in rows.items():
        listed = list(table.values())
        step = _ROWS_AT_ONCE
        at = 0
        while at < len(listed):
            raw = encode(listed[at : at + step])
            if len(raw) > CHUNK_BYTES and step > 1:
                step = max(1, step // 4)
                continue
            if name in part or size + len(raw) > CHUNK_BYTES:
                if part:
                    yield part
                part, size = {}, 0
            part[name] = msgspec.Raw(raw)
            size += len(raw)
            at += step
    yield part


class Topics:
    """All topics that are followed. `told` is called when one of them has changed, and none had since `look`.

    `looks` counts looks at a topic after a change, `changes` what they found.
    """

    def __init__(self, store: Store, told: Callable[[], None]) -> None:
        self._store = store
        self._told = told
        self._names = {id(table): name for name, table in store.tables.items()}
        self._changes = store.changes = History(store)
        self._open: dict[Topic, Followed] = {}
        self._dirty: dict[Followed, None] = {}
        self._started: dict[Followed, None] = {}
        self.looks = 0
        self.changes = 0

    def __len__(self) -> int:
        return len(self._open)

    def open(self, topic: Topic) -> Followed | None:
        """A topic as it is followed, None where it is not worth following; nothing may be dirty."""
        found = self._open.get(topic)
        if found is None:
            rows = partial.rows_of(self._store, topic)
            if rows is None:
                return None
            found = self._open[topic] = Followed(self._store, topic, rows, self._changed)
        return found

    def start(self, followed: Followed) -> list[msgspec.Raw]:
        """A topic as it is, in `Start`s; kept until `forget_starts`, for others who begin now."""
        self._started[followed] = None
        return followed.start()

    def since(self, followed: Followed, version: int) -> msgspec.Raw | None:
        """What has changed of a topic since a version; kept until `forget_starts`. None where it has to start anew."""
        self._started[followed] = None
        return followed.since(version, self._changes)

    def leave(self, followed: Followed, session: "Session") -> None:
        """A session follows a topic no more."""
        followed.sessions.pop(session, None)
        if not followed.sessions:
            self.close(followed)

    def close(self, followed: Followed) -> None:
        """A topic is followed no more."""
        followed.close()
        self._dirty.pop(followed, None)
        self._started.pop(followed, None)
        if self._open.get(followed.topic) is followed:
            del self._open[followed.topic]

    def close_all(self) -> None:
        """Nothing is followed any more."""
        for followed in list(self._open.values()):
            self.close(followed)
        self._store.changes = None

    def look(self) -> list[tuple[Followed, bytes | None]]:
        """Look at all topics that may have changed: those that have with their `Change`, and with None those that are
        too large to be followed any more.
        """
        found: list[tuple[Followed, bytes | None]] = []
        while self._dirty:
            dirty, self._dirty = self._dirty, {}
            keys = self._near()
            count = sum(map(len, keys.values())) if keys is not None else 0
            for followed in dirty:
                self.looks += 1
                try:
                    change = followed.look(keys, count)
                except OverflowError:
                    found.append((followed, None))
                    continue
                if change is not None:
                    self.changes += 1
                    found.append((followed, change))
        return found

    def forget_changes(self) -> None:
        """Those who depend on what has changed have been told: what nobody follows is of no interest."""
        if not self._dirty:
            self._changes.clear()

    def _near(self) -> partial.Keys | None:
        """The keys of all rows that may have changed since the last look; None for any."""
        changes = self._changes
        if changes.replaced or len(changes.rows) > MANY:
            keys = None
        else:
            keys = partial.near(self._store, [(self._names[id(table)], key) for table, key, _ in changes.rows])
        changes.clear()
        return keys

    def forget_starts(self) -> None:
        """Let go of encoded topics that may not be asked for again."""
        started, self._started = self._started, {}
        for followed in started:
            followed.forget_start()

    def _changed(self, followed: Followed) -> None:
        first = not self._dirty
        self._dirty[followed] = None
        if first:
            self._told()
