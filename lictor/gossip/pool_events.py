"""What a pool tells the agent: members that come, change and go, user events, queries, and the end of a leave."""

from __future__ import annotations

import enum

import msgspec

from lictor.gossip.messages import Address
from lictor.gossip.queries import PendingQuery
from lictor.gossip.roster import PoolMember
from lictor.gossip.serf_messages import Query, UserEvent


class Change(enum.Enum):
    """What happened to a member, in the words of event handlers."""

    JOIN = "member-join"
    LEAVE = "member-leave"
    FAILED = "member-failed"
    UPDATE = "member-update"
    REAP = "member-reap"


class MemberChanged(msgspec.Struct, frozen=True):
    """A member and what happened to it."""

    change: Change
    member: PoolMember


class EventReceived(msgspec.Struct, frozen=True):
    """A user event, for the first time."""

    event: UserEvent


class QueryReceived(msgspec.Struct, frozen=True):
    """A query that this node may answer (`Queries.respond`) until `deadline`."""

    query: Query
    source: Address
    deadline: float


class QueryProgressed(msgspec.Struct, frozen=True):
    """Something came back for a query of this node's, or (`finished`) its time is over."""

    pending: PendingQuery


class KeyringChanged(msgspec.Struct, frozen=True):
    """The keyring was changed from somewhere in the pool and has to be saved."""


class NameConflictLost(msgspec.Struct, frozen=True):
    """Most of the pool knows another node by this node's name: this node must stop."""

    matching: int
    responses: int


class Left(msgspec.Struct, frozen=True):
    """The leave is over; the pool has been told."""


PoolEvent = MemberChanged | EventReceived | QueryReceived | QueryProgressed | KeyringChanged | NameConflictLost | Left
