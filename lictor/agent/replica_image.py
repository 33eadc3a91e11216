"""What a client agent keeps of its replica for a restart, as bytes, and back. Pure.

Format 1: `MAGIC`, the SHA-256 of the rest, and the rest: one MessagePack object, `_Body`. Each row is in it once,
however many topics it belongs to: topics name their rows by position. `MAGIC` has the format's number, which is another
one whenever other rows belong to a topic than before.

A topic comes with the version that is held of it, and the whole with the cluster and its index, so a server is asked to
go on from there as after any interruption: it tells what has changed since or, where it does not know that or is of
another cluster, everything (`server.subscriptions`). Nobody goes on from what another release of this program has
written: it is answered from, and told anew.

KV entries and sessions are left out, because what is in them may be secret, and so are the tokens of prepared queries.
A topic that lacks something of its rows is of version 1: all that there is has changed since.
"""

import hashlib
import math
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Final

import msgspec

from lictor.agent.replica_topics import Former, Holdings
from lictor.model.prepared_query import PreparedQuery
from lictor.model.transport import UNREADABLE
from lictor.model.version import __version__
from lictor.store import partial_messages as wire
from lictor.store.partial import kind_of
from lictor.store.watch import KV, KV_PREFIX, Topic

MAGIC: Final = b"lictor replica 1\n"
MOST: Final = 64 * 1024 * 1024  # bytes; what was looked at longest ago is left out for more
SECRET: Final = frozenset((KV, KV_PREFIX, "sessions", "session"))
DECIDING: Final = frozenset(("config", "setting", "ca-roots", "ca-revoked"))
"""Topics that say who may talk to whom: they come first where not all can be kept."""
INCOMPLETE: Final = 1  # the version of a topic of which something is left out

_DIGEST: Final = hashlib.sha256().digest_size
_Position = Annotated[int, msgspec.Meta(ge=0, le=(1 << 31))]
_Version = Annotated[int, msgspec.Meta(ge=1, le=(1 << 63) - 1)]
_Seconds = Annotated[float, msgspec.Meta(ge=0.0)]
_Name = Annotated[tuple[Annotated[str, msgspec.Meta(max_length=2048)], ...], msgspec.Meta(min_length=1, max_length=3)]


class Moment(msgspec.Struct, frozen=True, array_like=True):
    """A moment that is told after a restart: seconds since 1970, and those that the machine's run `boot` had lasted;
    `boot` is empty where its runs cannot be told apart.
    """

    wall: float
    boot: str = ""
    steady: float = 0.0

    def until(self, now: "Moment") -> float:
        """Seconds from this moment to another: in one run of the machine whatever was done to its clock, and never
        less than none.
        """
        if self.boot and self.boot == now.boot:
            return max(0.0, now.steady - self.steady)
        return max(0.0, now.wall - self.wall)


class _Topic(msgspec.Struct, frozen=True, array_like=True):
    """A topic, the version and index that are held of it, the seconds since its last look, and its rows' positions by
    table.
    """

    topic: _Name
    version: _Version
    index: wire.Count
    idle: _Seconds
    rows: dict[str, list[_Position]]


class _Body(msgspec.Struct, frozen=True, array_like=True):
    """All of it. `age` is how long ago, at the moment `at`, all was the newest there is."""

    program: str
    datacenter: str
    cluster: str
    index: wire.Count
    floor: wire.Count
    base: wire.Count
    at: Moment
    age: _Seconds
    rows: dict[str, msgspec.Raw]
    topics: Annotated[list[_Topic], msgspec.Meta(max_length=wire.TOPICS_MOST)]


class _Held(msgspec.Struct, frozen=True):
    """A topic as it was held at one moment."""

    topic: Topic
    version: int
    index: int
    idle: float
    keys: dict[str, set[Any]]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Body).decode


def may_be_kept(topic: Topic) -> bool:
    """Whether a topic may be on the disk of any node that looks at it."""
    return topic[0] not in SECRET


class Image:
    """What is held, as it is now; encoding it can take its time, in a thread. `age` is in seconds, `now` the time by
    which looks are noted.
    """

    def __init__(
        self,
        held: Holdings,
        datacenter: str,
        at: Moment,
        now: float,
        age: float,
        keeps: Callable[[Topic], bool] = may_be_kept,
    ) -> None:
        store = held.store
        self._datacenter = datacenter
        self._at, self._age = at, age
        self._cluster, self._index, self._floor, self._base = held.cluster, held.index, store.floor, store.base
        self._topics: list[_Held] = []
        for one in held.topics.values():
            if one.covered and keeps(one.topic):
                keys = {name: set(found) for name, found in held.keys(one.topic).items()}
                index = store.touched.get(one.topic, 0)
                self._topics.append(_Held(one.topic, one.version, index, max(0.0, now - one.used), keys))
        names = {name for one in self._topics for name in one.keys}
        self._parts = {name: store.tables[name].rows.picture() for name in names}
        self._topics.sort(key=lambda one: (one.topic[0] not in DECIDING, one.idle))

    def __bool__(self) -> bool:
        """Whether there is anything to keep."""
        return bool(self._topics)

    def encode(self, most: int = MOST) -> bytes:
        """The bytes, `most` of them, about: a topic that would make them more is left out."""
        tables = {
            name: {key: row for part in parts for key, row in part.items()} for name, parts in self._parts.items()
        }
        positions: dict[str, dict[Any, int]] = {name: {} for name in tables}
        encoded: dict[str, list[msgspec.Raw]] = {name: [] for name in tables}
        topics: list[_Topic] = []
        size = 0
        for one in self._topics:
            new: list[tuple[str, Any, bytes]] = []
            found: dict[str, list[Any]] = {}
            version = one.version
            for name, keys in one.keys.items():
                rows, known = tables[name], positions[name]
                found[name] = [key for key in keys if key in rows]
                if len(found[name]) < len(keys):  # another topic has told that one is no more
                    version = INCOMPLETE
                for key in found[name]:
                    row = rows[key]
                    if isinstance(row, PreparedQuery) and row.token:
                        row, version = msgspec.structs.replace(row, token=""), INCOMPLETE
                    if key not in known:
                        new.append((name, key, _encode(row)))
            more = sum(len(raw) for _, _, raw in new) + sum(5 * len(keys) for keys in found.values())
            if size + more > most:
                continue
            size += more
            for name, key, raw in new:
                positions[name][key] = len(encoded[name])
                encoded[name].append(msgspec.Raw(raw))
            rows_of = {name: [positions[name][key] for key in keys] for name, keys in found.items() if keys}
            topics.append(_Topic(one.topic, version, one.index, one.idle, rows_of))
        body = _Body(
            __version__,
            self._datacenter,
            self._cluster,
            self._index,
            self._floor,
            self._base,
            self._at,
            self._age,
            {name: msgspec.Raw(_encode(rows)) for name, rows in encoded.items()},
            topics,
        )
        data = _encode(body)
        return MAGIC + hashlib.sha256(data).digest() + data


class Found(msgspec.Struct, frozen=True):
    """What was kept. All of it was the newest there is `age` seconds before `at`; infinite for never."""

    cluster: str
    index: int
    floor: int
    base: int
    at: Moment
    age: float
    topics: list[Former]

    def age_at(self, now: Moment) -> float:
        """The seconds since then."""
        return self.age + self.at.until(now)


def read_image(data: bytes, datacenter: str, keeps: Callable[[Topic], bool] = may_be_kept) -> Found:
    """What `Image.encode` has made for this datacenter. Raises `ValueError`, which says why it cannot be used."""
    if not data.startswith(MAGIC):
        raise ValueError("it is not of this format")
    start = len(MAGIC) + _DIGEST
    if hashlib.sha256(data[start:]).digest() != data[len(MAGIC) : start]:
        raise ValueError("it is damaged or cut off: its checksum is another one")
    try:
        body = _decode(data[start:])
        rows = wire.rows(body.rows)
        topics = [_former(one, rows) for one in body.topics if keeps(one.topic)]
    except (*UNREADABLE, KeyError, IndexError, ValueError, OverflowError) as error:
        raise ValueError(f"it cannot be read: {error}") from None
    if body.datacenter != datacenter:
        raise ValueError(f'it is of datacenter "{body.datacenter}", this agent of "{datacenter}"')
    if len({one.topic for one in topics}) < len(topics) or math.isnan(body.age):
        raise ValueError("it cannot be read: a topic is in it twice, or it has no age")
    cluster = body.cluster if body.program == __version__ else ""
    return Found(cluster, body.index, body.floor, body.base, body.at, body.age, topics)


def _former(one: _Topic, rows: dict[str, list[Any]]) -> Former:
    if kind_of(one.topic) is None:
        raise ValueError(f"no topic is called {one.topic!r}")
    found = {name: [rows[name][at] for at in positions] for name, positions in one.rows.items()}
    return Former(one.topic, one.version, one.index, one.idle, found)


def decides(topics: Iterable[Topic]) -> bool:
    """Whether any of these topics says who may talk to whom."""
    return any(topic[0] in DECIDING for topic in topics)
