"""What replicas send each other: messages of the consensus core, together with what leases need. Pure."""

from collections.abc import Sequence
from typing import Annotated

import msgspec

from lictor.model.transport import UNREADABLE as _UNREADABLE
from lictor.raft.core.message import Count, Message, MessageKind
from lictor.raft.once import Proposal
from lictor.raft.wal import Offer

MESSAGES = "raft.messages"
PROPOSE = "raft.propose"
INDEX = "raft.index"
OFFER = "raft.snapshot.offer"
DATA = "raft.snapshot.data"
DONE = "raft.snapshot.done"

ADDRESS_MOST = 300  # characters
TERM_LEAP = 1 << 32  # terms; no server is that far ahead of another, and terms must not run out
MESSAGES_MOST = 4096  # in one envelope
PROPOSALS_MOST = 65536  # in one message or entry
INDEX_LEAP = 1 << 48  # entries; no server is that far behind another, and indexes must not run out
ROSTER_MOST = 1024 * 1024  # bytes of what a snapshot says of the servers

# What servers send each other as messages. All else is between a server and its own storage, or is asked as a call.
PEER_KINDS = frozenset(
    {
        MessageKind.APPEND,
        MessageKind.APPEND_RESPONSE,
        MessageKind.VOTE,
        MessageKind.VOTE_RESPONSE,
        MessageKind.PRE_VOTE,
        MessageKind.PRE_VOTE_RESPONSE,
        MessageKind.HEARTBEAT,
        MessageKind.HEARTBEAT_RESPONSE,
        MessageKind.TIMEOUT_NOW,
    }
)
# What only a leader sends.
LEADER_KINDS = frozenset({MessageKind.APPEND, MessageKind.HEARTBEAT, MessageKind.SNAPSHOT})


def is_plausible(message: Message, term: int) -> bool:
    """Whether a server can have sent a message to one that is in a term: a mangled or forged one must not end it."""
    return message.kind in PEER_KINDS and message.term <= term + TERM_LEAP and not message.responses


class Envelope(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Messages of one moment from one server to another, by their numbers. They are decoded one by one, so that no
    more of what makes no sense is looked at than the first of it.

    `address` is where the sender can be reached. `sent` is the sender's lease clock as it sent this; `echo` the latest
    such time that it took from the receiver as its leader in the term `echo_term`, zeros for none.
    """

    to: int
    sender: int
    address: Annotated[str, msgspec.Meta(max_length=ADDRESS_MOST)]
    sent: float
    echo_term: int
    echo: float
    messages: Annotated[tuple[msgspec.Raw, ...], msgspec.Meta(max_length=MESSAGES_MOST)]


class Proposed(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Proposals for the leader, by its number."""

    to: int
    proposals: Annotated[tuple[Proposal, ...], msgspec.Meta(max_length=PROPOSALS_MOST)]


class IndexAsked(msgspec.Struct, frozen=True, array_like=True):
    """A reader asks the leader, by its number, from which index on a state is new enough; see `Consensus.confirm`."""

    to: int
    quorum: bool


class Offered(msgspec.Struct, frozen=True, array_like=True):
    """A leader offers a snapshot. The answer is the offset from which on its bytes are wanted."""

    to: int
    sender: int
    term: int
    offer: Offer


class Piece(msgspec.Struct, frozen=True, array_like=True):
    """Bytes of an offered snapshot's file. The answer is the offset of the next."""

    to: int
    id: int
    offset: Count
    data: bytes


class Complete(msgspec.Struct, frozen=True, array_like=True):
    """All of an offered snapshot was sent; `message` is what the core gets when it has been checked."""

    to: int
    id: int
    message: Message


UNREADABLE = (*_UNREADABLE, ValueError)  # what the decoders raise

encode = msgspec.msgpack.Encoder().encode


def pack(
    to: int, sender: int, address: str, sent: float, echo_term: int, echo: float, messages: Sequence[Message]
) -> bytes:
    """The bytes of an `Envelope`."""
    return encode((to, sender, address, sent, echo_term, echo, messages))


decode_envelope = msgspec.msgpack.Decoder(Envelope).decode
decode_message = msgspec.msgpack.Decoder(Message).decode
decode_proposed = msgspec.msgpack.Decoder(Proposed).decode
decode_asked = msgspec.msgpack.Decoder(IndexAsked).decode
decode_offered = msgspec.msgpack.Decoder(Offered).decode
decode_piece = msgspec.msgpack.Decoder(Piece).decode
decode_complete = msgspec.msgpack.Decoder(Complete).decode
decode_index = msgspec.msgpack.Decoder(Count).decode
decode_entry = msgspec.msgpack.Decoder(Annotated[list[Proposal], msgspec.Meta(max_length=PROPOSALS_MOST)]).decode
