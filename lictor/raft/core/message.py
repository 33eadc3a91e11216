"""The records that consensus is made of: log entries, messages between servers, snapshots, what must be durable.

All are immutable, and encode to MessagePack as arrays: they go over the wire and to disk as they are. Payloads are
opaque bytes, never looked into. A server is named by an integer; 0 is no server. The two largest integers name this
server's own storage: with `Config.async_storage`, work for the disk and for the state machine leaves as messages to
them.

Sizes are counted as payload bytes plus `ENTRY_OVERHEAD` an entry, an estimate of what the encoding adds.
"""

from collections.abc import Sequence
from enum import IntEnum
from typing import Annotated, Final

import msgspec

from lictor.raft.core.membership import Membership

NOBODY: Final = 0
APPEND_THREAD: Final = (1 << 64) - 1
APPLY_THREAD: Final = (1 << 64) - 2
NO_LIMIT: Final = (1 << 64) - 1
ENTRY_OVERHEAD: Final = 16
ENTRIES_MOST: Final = 1 << 17  # in one message that is decoded; those of 1 MB of `log_bytes` are half as many

Count = Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]
"""A term or an index as it is decoded: never negative, and far from where arithmetic on it would end."""


class EntryKind(IntEnum):
    """What an entry's payload is."""

    NORMAL = 0
    CHANGE_V1 = 1  # a `membership.SingleChange`
    CHANGE_V2 = 2  # a `membership.MembershipChange`


class Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A place in the log. A proposal has neither term nor index until a leader gives it both."""

    term: Count = 0
    index: Count = 0
    kind: EntryKind = EntryKind.NORMAL
    data: bytes = b""


class Snapshot(msgspec.Struct, frozen=True, array_like=True):
    """The state after an entry, in place of all entries up to it.

    `data` is for the shell: the state itself where it is small, or else what is needed to find and fetch it.
    """

    index: Count
    term: Count
    membership: Membership
    data: bytes = b""


class HardState(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a server must remember across a restart, beside its log."""

    term: int = 0
    vote: int = NOBODY
    commit: int = 0


BLANK_STATE: Final = HardState()


class MessageKind(IntEnum):
    """What a message asks or answers."""

    PROPOSE = 1
    APPEND = 2
    APPEND_RESPONSE = 3
    VOTE = 4
    VOTE_RESPONSE = 5
    PRE_VOTE = 6
    PRE_VOTE_RESPONSE = 7
    SNAPSHOT = 8
    HEARTBEAT = 9
    HEARTBEAT_RESPONSE = 10
    TRANSFER_LEADER = 11
    TIMEOUT_NOW = 12
    READ_INDEX = 13
    READ_INDEX_RESPONSE = 14
    STORAGE_APPEND = 15
    STORAGE_APPEND_RESPONSE = 16
    STORAGE_APPLY = 17
    STORAGE_APPLY_RESPONSE = 18


# What only this server and its own storage say to each other.
LOCAL_KINDS: Final = frozenset(
    {
        MessageKind.STORAGE_APPEND,
        MessageKind.STORAGE_APPEND_RESPONSE,
        MessageKind.STORAGE_APPLY,
        MessageKind.STORAGE_APPLY_RESPONSE,
    }
)
# Answers, which mean nothing from a server that is not in the configuration.
RESPONSE_KINDS: Final = frozenset(
    {
        MessageKind.APPEND_RESPONSE,
        MessageKind.VOTE_RESPONSE,
        MessageKind.PRE_VOTE_RESPONSE,
        MessageKind.HEARTBEAT_RESPONSE,
        MessageKind.READ_INDEX_RESPONSE,
    }
)
# What clients of any server may ask of the leader; all others belong to a term.
TERMLESS_KINDS: Final = frozenset({MessageKind.PROPOSE, MessageKind.READ_INDEX}) | LOCAL_KINDS


class Message(msgspec.Struct, frozen=True, array_like=True):
    """One message. What a field means depends on the kind:

    - `log_term` and `index`: for APPEND, the entry before `entries`; for votes, the end of the candidate's log; for
      APPEND_RESPONSE, the last entry that matches, or, if `reject`, `index` is the place that was refused, and
      `hint` and `log_term` are the last entry that might match; for STORAGE_APPEND_RESPONSE, the last durable entry.
    - `commit`: what the sender knows to be committed.
    - `term`, `vote`, `commit` of STORAGE_APPEND: the `HardState` to save; all zero if it did not change.
    - `context`: of reads and heartbeats, handed back with the answer; of VOTE, whether a transfer of leadership asks;
      of a refused vote, what is committed.
    - `responses`: what to deliver once the storage work of the message is done, wherever each is addressed.
    """

    kind: MessageKind
    to: int
    sender: int
    term: Count = 0
    log_term: Count = 0
    index: Count = 0
    entries: Annotated[tuple[Entry, ...], msgspec.Meta(max_length=ENTRIES_MOST)] = ()
    commit: Count = 0
    vote: int = NOBODY
    snapshot: Snapshot | None = None
    reject: bool = False
    hint: Count = 0
    context: bytes = b""
    responses: "tuple[Message, ...]" = ()


def log_bytes(entries: Sequence[Entry]) -> int:
    """The size of entries, in bytes."""
    return sum([len(entry.data) for entry in entries]) + ENTRY_OVERHEAD * len(entries)


def payload_bytes(entries: Sequence[Entry]) -> int:
    """The size of the payloads alone, in bytes; empty entries weigh nothing."""
    return sum([len(entry.data) for entry in entries])


def fitting(entries: Sequence[Entry], limit: int) -> int:
    """How many of the first entries are no larger than `limit` bytes together; at least one, if there is one."""
    if limit >= NO_LIMIT:
        return len(entries)
    size = 0
    for count, entry in enumerate(entries):
        size += len(entry.data) + ENTRY_OVERHEAD
        if size > limit and count > 0:
            return count
    return len(entries)
