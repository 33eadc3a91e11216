"""The records of membership: what nodes say to know who is there (memberlist's messages, field by field)."""

from __future__ import annotations

import enum
import ipaddress
from typing import ClassVar

import msgspec

from lictor.gossip.codec import I64, U8, U16, U32, Record, WireError


class Kind(enum.IntEnum):
    """The first byte of a message."""

    PING = 0
    INDIRECT_PING = 1
    ACK = 2
    SUSPECT = 3
    ALIVE = 4
    DEAD = 5
    PUSH_PULL = 6
    COMPOUND = 7
    USER = 8
    COMPRESS = 9
    ENCRYPT = 10
    NACK = 11
    HAS_CRC = 12
    ERROR = 13
    HAS_LABEL = 244  # high, so that it is neither a message nor an encryption version


class State(enum.IntEnum):
    """What a node holds about another."""

    ALIVE = 0
    SUSPECT = 1
    DEAD = 2
    LEFT = 3


class Address(msgspec.Struct, frozen=True):
    """Where a node listens, datagrams and streams alike; `host` is an IP address as text."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def packed_ip(host: str) -> bytes:
    """An IP address as 4 or 16 bytes. Raises ValueError for other text."""
    return ipaddress.ip_address(host).packed


def ip_text(packed: bytes) -> str:
    """4 or 16 bytes as an IP address; an IPv4 address in IPv6's form is the IPv4 address. Raises WireError."""
    try:
        address = ipaddress.ip_address(packed)
    except ValueError:
        raise WireError(f"an IP address has 4 or 16 bytes, not {len(packed)}") from None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


_SOURCE = frozenset({"source_addr", "source_port", "source_node"})


class Ping(Record, frozen=True):
    """Asks `node` for an Ack; the answer goes to the source when one is named, else where the packet came from."""

    omitted_when_empty: ClassVar[frozenset[str]] = _SOURCE
    seq_no: U32
    node: str
    source_addr: bytes = b""
    source_port: U16 = 0
    source_node: str = ""


class IndirectPing(Record, frozen=True):
    """Asks a third node to ping `node` and to pass its Ack on, or a Nack when none came."""

    omitted_when_empty: ClassVar[frozenset[str]] = _SOURCE
    seq_no: U32
    target: bytes
    port: U16
    node: str
    nack: bool
    source_addr: bytes = b""
    source_port: U16 = 0
    source_node: str = ""


class Ack(Record, frozen=True):
    """Answers a ping; the payload is the upper layer's."""

    seq_no: U32
    payload: bytes = b""


class Nack(Record, frozen=True):
    """Tells the asker of an indirect ping that it was tried and nothing came back."""

    seq_no: U32


class ErrorReply(Record, frozen=True):
    """Why a stream's request was refused."""

    error: str


class Suspect(Record, frozen=True):
    """`sender` could not reach `node` at this incarnation."""

    incarnation: U32
    node: str
    sender: str = msgspec.field(name="From")


class Alive(Record, frozen=True):
    """`node` is there, here, with this metadata. `vsn`: a byte each for the versions (see `versions`)."""

    incarnation: U32
    node: str
    addr: bytes
    port: U16
    meta: bytes = b""
    vsn: bytes = b""


class Dead(Record, frozen=True):
    """`node` is gone; when it is itself the sender, it left."""

    incarnation: U32
    node: str
    sender: str = msgspec.field(name="From")


class PushPullHeader(Record, frozen=True):
    """Starts an exchange of states: how many nodes' follow, how many bytes of the upper layer's state after them."""

    nodes: I64
    user_state_len: I64
    join: bool


class NodeState(Record, frozen=True):
    """One node of an exchange of states."""

    name: str
    addr: bytes
    port: U16
    incarnation: U32
    state: I64
    meta: bytes = b""
    vsn: bytes = b""


class UserHeader(Record, frozen=True):
    """The length of an upper layer's message on a stream."""

    user_msg_len: I64


class Compressed(Record, frozen=True):
    """Another message, compressed; algorithm 0 is LZW and there is no other."""

    algo: U8
    buf: bytes
