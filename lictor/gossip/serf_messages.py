"""The records of Serf's layer: intents, events, queries and answers, tags, and an Ack's payload (a coordinate)."""

from __future__ import annotations

import enum

import msgspec

from lictor.gossip import codec
from lictor.gossip.codec import I64, U8, U16, U32, U64, Record, WireError, pack, unpack
from lictor.model.coordinate_entry import Coord

TAG_MAGIC = 255  # starts metadata that is a map of tags; without it the whole is the tag "role"
PING_VERSION = 1
FLAG_ACK = 1
FLAG_NO_BROADCAST = 2


class SerfKind(enum.IntEnum):
    """The first byte of a message of this layer."""

    LEAVE = 0
    JOIN = 1
    PUSH_PULL = 2
    USER_EVENT = 3
    QUERY = 4
    QUERY_RESPONSE = 5
    CONFLICT_RESPONSE = 6
    KEY_REQUEST = 7
    KEY_RESPONSE = 8
    RELAY = 9


class FilterKind(enum.IntEnum):
    """The first byte of a query's filter."""

    NODE = 0
    TAG = 1


class JoinIntent(Record, frozen=True):
    """`node` means to be in the pool as of this Lamport time."""

    l_time: U64 = msgspec.field(name="LTime")
    node: str = ""


class LeaveIntent(Record, frozen=True):
    """`node` means to leave, or an operator wants it out; with `prune` its entry goes at once."""

    l_time: U64 = msgspec.field(name="LTime")
    node: str = ""
    prune: bool = False


class HeldEvent(Record, frozen=True):
    """A user event as an exchange of states carries it."""

    name: str
    payload: bytes = b""


class EventsAt(Record, frozen=True):
    """The user events of one Lamport time."""

    l_time: U64 = msgspec.field(name="LTime")
    events: tuple[HeldEvent, ...] = ()


class SerfState(Record, frozen=True):
    """This layer's part of an exchange of states."""

    l_time: U64 = msgspec.field(name="LTime")
    status_l_times: dict[str, U64] = msgspec.field(name="StatusLTimes")
    left_members: tuple[str, ...]
    event_l_time: U64 = msgspec.field(name="EventLTime")
    events: tuple[EventsAt, ...]
    query_l_time: U64 = msgspec.field(name="QueryLTime")


class UserEvent(Record, frozen=True):
    """An event for every node; `coalesce` allows its receivers to keep the newest of a name alone."""

    l_time: U64 = msgspec.field(name="LTime")
    name: str = ""
    payload: bytes = b""
    coalesce: bool = msgspec.field(name="CC", default=False)


class Query(Record, frozen=True):
    """A question to the nodes that pass the filters; answers go to `addr`:`port`. `timeout` in nanoseconds."""

    l_time: U64 = msgspec.field(name="LTime")
    id: U32 = msgspec.field(name="ID")
    addr: bytes
    port: U16
    source_node: str
    filters: tuple[bytes, ...] = ()
    flags: U32 = 0
    relay_factor: U8 = 0
    timeout: I64 = 0
    name: str = ""
    payload: bytes = b""


class QueryResponse(Record, frozen=True):
    """A node's answer to a query, or with FLAG_ACK the word that the query arrived."""

    l_time: U64 = msgspec.field(name="LTime")
    id: U32 = msgspec.field(name="ID")
    sender: str = msgspec.field(name="From")
    flags: U32 = 0
    payload: bytes = b""


class TagFilter(Record, frozen=True):
    """Passes the nodes whose tag matches the expression."""

    tag: str
    expr: str


class UdpAddress(Record, frozen=True):
    """Where a relayed message goes, in Go's field names."""

    ip: bytes = msgspec.field(name="IP")
    port: I64 = 0
    zone: str = ""


class RelayHeader(Record, frozen=True):
    """Starts a message that the receiver passes on."""

    dest_addr: UdpAddress
    dest_name: str = ""


class MemberRecord(Record, frozen=True):
    """What a node holds about a member, as it answers a query about a name conflict."""

    name: str
    addr: bytes
    port: U16
    tags: dict[str, str]
    status: I64
    protocol_min: U8
    protocol_max: U8
    protocol_cur: U8
    delegate_min: U8
    delegate_max: U8
    delegate_cur: U8


class KeyRequest(Record, frozen=True):
    """The key that a keyring operation is about."""

    key: bytes


class KeyResponse(Record, frozen=True):
    """How a node fared with a keyring operation; keys are base64."""

    result: bool
    message: str = ""
    keys: tuple[str, ...] = ()
    primary_key: str = ""


class WireCoordinate(Record, frozen=True):
    """A network coordinate as an Ack carries it, in seconds."""

    vec: tuple[float, ...]
    error: float
    adjustment: float
    height: float


def encode(kind: SerfKind, record: Record) -> bytes:
    """A message of this layer: its kind's byte and its fields."""
    return bytes((kind,)) + pack(record)


def encode_tags(tags: dict[str, str]) -> bytes:
    """Tags as a node's metadata."""
    return bytes((TAG_MAGIC,)) + pack(tags)


def decode_tags(meta: bytes) -> dict[str, str]:
    """A node's metadata as tags; what is no map is the tag "role", what cannot be read is no tags."""
    if not meta or meta[0] != TAG_MAGIC:
        return {"role": meta.decode(errors="replace")}
    try:
        return codec.unpack_tags(meta[1:])
    except WireError:
        return {}


def encode_coordinate(coordinate: Coord) -> bytes:
    """An Ack's payload."""
    wire = WireCoordinate(coordinate.vec, coordinate.error, coordinate.adjustment, coordinate.height)
    return bytes((PING_VERSION,)) + pack(wire)


def decode_coordinate(payload: bytes) -> Coord:
    """The coordinate of an Ack's payload. Raises WireError."""
    if not payload or payload[0] != PING_VERSION:
        raise WireError("an Ack's payload of an unknown version")
    wire = unpack(WireCoordinate, payload[1:])
    return Coord(wire.vec, wire.error, wire.adjustment, wire.height)


def encode_relay(address: UdpAddress, name: str, message: bytes) -> bytes:
    """A message wrapped for another node to pass on."""
    return bytes((SerfKind.RELAY,)) + pack(RelayHeader(address, name)) + message


def decode_relay(body: bytes) -> tuple[RelayHeader, bytes]:
    """The header and the message behind it. Raises WireError."""
    header, end = codec.unpack_first(RelayHeader, body)
    return header, body[end:]
