"""What a server tells a client agent of the topics that it holds, and what the agent asks for: the records on the wire.

A stream's pieces are `Piece`s. A topic begins with a `Start` (in several, if it is long; it takes the place of whatever
was held of it) or, where the agent has it as it is already, with `Kept`; `Change`s follow, until the agent drops it, or
`Refused` says that it cannot be held. Rows come as a snapshot has them, by table.
"""

import types
from typing import Annotated, Any

import msgspec

from lictor.store.snapshot import ROW_TYPES
from lictor.store.watch import Topic

FOLLOW = "replica.follow"
WANT = "replica.want"
CONFIRM = "replica.confirm"
REACH = "replica.reach"

TOPICS_MOST = 65_536  # of one agent
CHUNK_BYTES = 128 * 1024  # rows in one message, unless a single one has more

Count = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
Text = Annotated[str, msgspec.Meta(max_length=512)]
_Topic = Annotated[tuple[Annotated[str, msgspec.Meta(max_length=2048)], ...], msgspec.Meta(min_length=1, max_length=3)]
Known = Annotated[tuple[tuple[_Topic, Count], ...], msgspec.Meta(max_length=TOPICS_MOST)]


class Follow(msgspec.Struct, frozen=True, array_like=True):
    """Begin a stream. `session` is a random number that names it in calls; `known` are the topics to follow, each with
    the version that is held, 0 for nothing; `index` is that of the newest state the agent has seen, of the cluster
    `cluster`, if any.
    """

    session: Count
    datacenter: Text
    cluster: Text
    index: Count
    known: Known


class Want(msgspec.Struct, frozen=True, array_like=True):
    """Follow other topics: some more, some no more."""

    session: Count
    add: Annotated[tuple[_Topic, ...], msgspec.Meta(max_length=TOPICS_MOST)]
    drop: Annotated[tuple[_Topic, ...], msgspec.Meta(max_length=TOPICS_MOST)]


class Confirm(msgspec.Struct, frozen=True, array_like=True):
    """Confirm a read, and tell the session when it has all that must be in it; the answer is an index."""

    session: Count
    quorum: bool


class Reach(msgspec.Struct, frozen=True, array_like=True):
    """Tell the session when it has all up to an index."""

    session: Count
    index: Count


class Start(msgspec.Struct, frozen=True, array_like=True, tag="start"):
    """A topic's rows, or with `last` False some of them. `index` is what reads get of the topic."""

    topic: Topic
    index: int
    version: int
    last: bool
    put: dict[str, msgspec.Raw]


class Kept(msgspec.Struct, frozen=True, array_like=True, tag="kept"):
    """A topic is as the agent has it."""

    topic: Topic
    index: int
    version: int


class Change(msgspec.Struct, frozen=True, array_like=True, tag="change"):
    """A topic has changed, see `partial.Difference`."""

    topic: Topic
    index: int
    version: int
    put: dict[str, msgspec.Raw]
    left: dict[str, msgspec.Raw]
    gone: dict[str, msgspec.Raw]


class Refused(msgspec.Struct, frozen=True, array_like=True, tag="refused"):
    """A topic cannot be held."""

    topic: Topic
    reason: str


class Dropped(msgspec.Struct, frozen=True, array_like=True, tag="dropped"):
    """Topics were dropped, as the agent wanted: what comes of one of them from here on is of another beginning."""

    topics: tuple[Topic, ...]


Message = Start | Kept | Change | Refused | Dropped


class State(msgspec.Struct, frozen=True, array_like=True):
    """How things stand. `index`, `floor` and `base` are the store's; with `whole`, what the agent has of its topics is
    all as it is there. `age` is how long ago the server heard of a leader, in seconds, None for never, and `leader`
    whether there is one; `cluster` names the cluster.
    """

    index: int
    floor: int
    base: int
    age: float | None
    leader: bool
    whole: bool
    cluster: str


class Piece(msgspec.Struct, frozen=True, array_like=True):
    """What is new, and how things stand with it."""

    state: State
    messages: list[Message]


encode = msgspec.msgpack.Encoder().encode
decode_follow = msgspec.msgpack.Decoder(Follow).decode
decode_want = msgspec.msgpack.Decoder(Want).decode
decode_confirm = msgspec.msgpack.Decoder(Confirm).decode
decode_reach = msgspec.msgpack.Decoder(Reach).decode
decode_index = msgspec.msgpack.Decoder(int).decode
decode_piece = msgspec.msgpack.Decoder(Piece).decode

_ROWS = {name: msgspec.msgpack.Decoder(types.GenericAlias(list, (row,))) for name, row in ROW_TYPES.items()}
_PAIRS = frozenset(("services", "checks", "coordinates", "config"))
_decode_pairs = msgspec.msgpack.Decoder(list[tuple[str, str]]).decode
_decode_names = msgspec.msgpack.Decoder(list[str]).decode
_KEYS = {name: _decode_pairs if name in _PAIRS else _decode_names for name in ROW_TYPES}


def piece(state: State, messages: list[msgspec.Raw]) -> bytes:
    """A piece's bytes, of messages that were encoded before."""
    return encode((state, messages))


def packed(values: dict[str, list[Any]]) -> dict[str, msgspec.Raw]:
    """Rows, or keys, by table."""
    return {name: msgspec.Raw(encode(found)) for name, found in values.items()}


def rows(packed: dict[str, msgspec.Raw]) -> dict[str, list[Any]]:
    """The rows that were packed. Raises `transport.UNREADABLE` and `KeyError`."""
    return {name: _ROWS[name].decode(raw) for name, raw in packed.items()}


def keys(packed: dict[str, msgspec.Raw]) -> dict[str, list[Any]]:
    """The keys that were packed. Raises `transport.UNREADABLE` and `KeyError`."""
    return {name: _KEYS[name](raw) for name, raw in packed.items()}
