"""Who belongs to the cluster, and how that may change.

A `Membership` is plain sets; changing it is arithmetic on sets, with the rules that keep any two majorities
overlapping:

- *simple*: as many changes as one likes, as long as no more than one voter comes or goes;
- *joint*: any changes, in two steps. Entering keeps the old voters as `quorum.outgoing`; leaving drops them. In
  between, decisions need a majority of both. `auto_leave` asks the leader to propose the second step by itself.

A learner receives the log and has no vote. A voter that is demoted while the configuration is joint waits in
`learners_next`, since it still votes with the outgoing ones.

A change takes effect when it is applied, not when it is appended; therefore at most one may be in the unapplied part of
the log.
"""

from collections.abc import Callable, Iterable
from enum import Enum, IntEnum
from typing import Any

import msgspec

from lictor.raft.core.quorum import Quorum


class Refusal(Enum):
    """Why a change cannot be made to a membership."""

    ALREADY_JOINT = "the configuration is joint: leave it before entering another"
    NOT_JOINT = "the configuration is not joint: there is nothing to leave"
    JOINT = "the configuration is joint: leave it before making a simple change"
    NOBODY_TO_JOIN = "there is no voter yet: add the first by a simple change"
    NO_VOTER_LEFT = "no voter would be left: keep or add at least one"
    TOO_MANY = "more than one voter would change: use a joint change"


class ChangeRefused(ValueError):
    """A change that the rules forbid; `refusal` says which."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.value)
        self.refusal = refusal


class Membership(msgspec.Struct, frozen=True, array_like=True):
    """The servers of a cluster, by what they may do."""

    quorum: Quorum = Quorum()
    learners: frozenset[int] = frozenset()
    learners_next: frozenset[int] = frozenset()
    auto_leave: bool = False

    @property
    def members(self) -> frozenset[int]:
        """Everyone who gets the log."""
        return self.quorum.voters | self.learners

    def check(self) -> None:
        """Raises `ValueError` if the sets contradict each other, as in a record that was damaged."""
        quorum = self.quorum
        if both := quorum.voters & self.learners:
            raise ValueError(f"servers {sorted(both)} are voters and learners at once")
        if stray := self.learners_next - quorum.outgoing:
            raise ValueError(f"servers {sorted(stray)} wait to become learners, but are no outgoing voters")
        if self.auto_leave and not quorum.joint:
            raise ValueError("auto_leave is set, but the configuration is not joint")
        if 0 in self.members:
            raise ValueError("0 is not a server's id")


class ChangeKind(IntEnum):
    """What to do with a server."""

    ADD_VOTER = 0
    REMOVE = 1
    UPDATE = 2  # nothing changes here; carries a context to the application
    ADD_LEARNER = 3


class Change(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One server's change. Server 0 is skipped: an application uses it to void a change that is in the log already."""

    kind: ChangeKind
    node: int


class Transition(IntEnum):
    """How a `MembershipChange` is made."""

    AUTO = 0  # simple if it is a single change, else joint and left automatically
    IMPLICIT = 1  # joint, left automatically
    EXPLICIT = 2  # joint, left when the application proposes an empty change


class MembershipChange(msgspec.Struct, frozen=True, array_like=True):
    """Changes to make together. Without any, and with `AUTO`, it leaves a joint configuration."""

    changes: tuple[Change, ...] = ()
    transition: Transition = Transition.AUTO
    context: bytes = b""

    @property
    def leaves_joint(self) -> bool:
        """Whether this is the second step of a joint change."""
        return not self.changes and self.transition is Transition.AUTO

    @property
    def enters_joint(self) -> bool:
        """Whether this is the first step of a joint change."""
        return len(self.changes) > 1 or self.transition is not Transition.AUTO


class SingleChange(msgspec.Struct, frozen=True, array_like=True):
    """One change at a time, which is all that version 1 of the protocol knows."""

    kind: ChangeKind
    node: int
    context: bytes = b""

    def as_membership_change(self) -> MembershipChange:
        """The same in version 2."""
        return MembershipChange((Change(self.kind, self.node),), Transition.AUTO, self.context)


EMPTY_CHANGE = MembershipChange()
_encode: Callable[[Any], bytes] = msgspec.msgpack.Encoder().encode
_decode_change = msgspec.msgpack.Decoder(MembershipChange).decode
_decode_single = msgspec.msgpack.Decoder(SingleChange).decode


def encode_change(change: MembershipChange | SingleChange) -> bytes:
    """An entry's payload. The empty change is no bytes at all: it must never be refused for its size."""
    return b"" if change == EMPTY_CHANGE else _encode(change)


def decode_change(data: bytes) -> MembershipChange:
    """The payload of an entry of kind CHANGE_V2. Raises `ValueError` for anything else."""
    return _decode_change(data) if data else EMPTY_CHANGE


def decode_single_change(data: bytes) -> SingleChange:
    """The payload of an entry of kind CHANGE_V1. Raises `ValueError` for anything else."""
    return _decode_single(data)


def simple(membership: Membership, changes: Iterable[Change]) -> Membership:
    """The membership after changes to at most one voter. Raises `ChangeRefused`."""
    if membership.quorum.joint:
        raise ChangeRefused(Refusal.JOINT)
    changed = _change(membership, changes)
    if len(changed.quorum.incoming ^ membership.quorum.incoming) > 1:
        raise ChangeRefused(Refusal.TOO_MANY)
    return changed


def enter_joint(membership: Membership, changes: Iterable[Change]) -> Membership:
    """The joint membership on the way to `changes`. Raises `ChangeRefused`."""
    quorum = membership.quorum
    if quorum.joint:
        raise ChangeRefused(Refusal.ALREADY_JOINT)
    if not quorum.incoming:
        raise ChangeRefused(Refusal.NOBODY_TO_JOIN)
    return _change(msgspec.structs.replace(membership, quorum=Quorum(quorum.incoming, quorum.incoming)), changes)


def leave_joint(membership: Membership) -> Membership:
    """The membership that a joint one leads to. Raises `ChangeRefused`."""
    if not membership.quorum.joint:
        raise ChangeRefused(Refusal.NOT_JOINT)
    return Membership(Quorum(membership.quorum.incoming), membership.learners | membership.learners_next)


def changed(membership: Membership, change: MembershipChange) -> Membership:
    """The membership after a change, made in the way that it asks for. Raises `ChangeRefused`."""
    if change.leaves_joint:
        return leave_joint(membership)
    if change.enters_joint:
        joint = enter_joint(membership, change.changes)
        return msgspec.structs.replace(joint, auto_leave=change.transition is not Transition.EXPLICIT)
    return simple(membership, change.changes)


def _change(membership: Membership, changes: Iterable[Change]) -> Membership:
    incoming = set(membership.quorum.incoming)
    outgoing = membership.quorum.outgoing
    learners = set(membership.learners)
    waiting = set(membership.learners_next)
    for change in changes:
        node = change.node
        if node == 0 or change.kind is ChangeKind.UPDATE:
            continue
        if change.kind is ChangeKind.ADD_LEARNER and node in learners:
            continue
        incoming.discard(node)
        learners.discard(node)
        waiting.discard(node)
        if change.kind is ChangeKind.ADD_VOTER:
            incoming.add(node)
        elif change.kind is ChangeKind.ADD_LEARNER:
            (waiting if node in outgoing else learners).add(node)
    if not incoming:
        raise ChangeRefused(Refusal.NO_VOTER_LEFT)
    return Membership(
        Quorum(frozenset(incoming), outgoing), frozenset(learners), frozenset(waiting), membership.auto_leave
    )
