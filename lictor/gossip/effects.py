"""What the core wants done, and what the layer above it provides. The shell does the first; `serf` is the second."""

from __future__ import annotations

import enum
from typing import Protocol

import msgspec

from lictor.gossip.members import Member
from lictor.gossip.messages import Address, Alive, NodeState


class SendPacket(msgspec.Struct, frozen=True):
    """Seal `content` and send it as a datagram; `checksummed` when the receiver is known to check."""

    to: Address
    content: bytes
    checksummed: bool = False


class PingStream(msgspec.Struct, frozen=True):
    """Open a stream, send `content`, and report `stream_ack(seq_no)` when an Ack of that number comes by `deadline`."""

    to: Address
    content: bytes
    seq_no: int
    deadline: float


class PushPull(msgspec.Struct, frozen=True):
    """Open a stream and exchange states: send `local_state`, give the answer to `merge`."""

    to: Address
    join: bool


class Severity(enum.Enum):
    """How loud a notice is."""

    DEBUG = "DEBUG"
    INFO = "INFO"
    WARN = "WARN"
    ERROR = "ERR"


class Notice(msgspec.Struct, frozen=True):
    """Something for the log."""

    severity: Severity
    text: str


Effect = SendPacket | PingStream | PushPull | Notice


class JoinRefused(Exception):
    """The states of the other side must not be merged into this pool; the text says why."""


class Delegate(Protocol):
    """The layer above membership."""

    def meta(self) -> bytes:
        """This node's metadata."""

    def refusal(self, name: str, addr: bytes, meta: bytes) -> str:
        """Why a node must not be in this pool; empty when it may."""

    def same_node(self, meta: bytes, other: bytes) -> bool:
        """Whether the metadata of two is that of one node, which only has another address."""

    def user_message(self, body: bytes, now: float) -> None:
        """A message of this layer arrived."""

    def broadcasts(self, overhead: int, room: int) -> list[bytes]:
        """Messages of this layer to piggyback."""

    def local_state(self, join: bool) -> bytes:
        """This layer's part of an exchange of states."""

    def merge_state(self, state: bytes, join: bool, now: float) -> None:
        """The other side's part."""

    def ack_payload(self) -> bytes:
        """What an Ack carries."""

    def pinged(self, member: Member, seconds: float, payload: bytes) -> None:
        """A member answered a ping directly, after this time."""

    def joined(self, member: Member, now: float) -> None:
        """A member is new, or back."""

    def updated(self, member: Member, now: float) -> None:
        """A member's metadata changed."""

    def left(self, member: Member, now: float) -> None:
        """A member failed or left."""

    def conflict(self, known: Member, other: Alive, now: float) -> None:
        """Two nodes at different addresses use one name."""


def as_alive(state: NodeState) -> Alive:
    """A node of an exchange of states as the message that would have told it."""
    return Alive(state.incarnation, state.name, state.addr, state.port, state.meta, state.vsn)
