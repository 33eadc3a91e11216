"""The pool's members as users see them: tags, and whether a member that is gone left or failed.

Membership alone cannot tell a graceful leave from a death that someone foresaw, so members say what they intend before
they do it. Intents are ordered by Lamport time; one about a node that is not known yet is kept for a while.
"""

from __future__ import annotations

import enum

import msgspec

from lictor.gossip.members import Member
from lictor.gossip.messages import Address
from lictor.gossip.serf_messages import MemberRecord, decode_tags

_MAX_INTENTS = 16_384


class Status(enum.IntEnum):
    """A member's state, numbered as on the wire."""

    NONE = 0
    ALIVE = 1
    LEAVING = 2
    LEFT = 3
    FAILED = 4


class PoolMember(msgspec.Struct, frozen=True):
    """A member. `left_at` is on the core's clock, in seconds; `vsn` is the version vector, or empty."""

    name: str
    addr: bytes
    address: Address
    tags: dict[str, str]
    status: Status
    status_time: int = 0
    left_at: float = 0.0
    vsn: bytes = b""

    def as_record(self) -> MemberRecord:
        """As it is told to others."""
        vsn = self.vsn or bytes(6)
        return MemberRecord(self.name, self.addr, self.address.port, self.tags, self.status, *vsn)


def from_membership(member: Member, status: Status, status_time: int) -> PoolMember:
    """What membership knows of a node, as a member of this status."""
    return PoolMember(
        member.name, member.addr, member.address, decode_tags(member.meta), status, status_time, 0.0, member.vsn
    )


class Intent(msgspec.Struct, frozen=True):
    """What a node that is not known yet was said to intend, and when that was heard."""

    leaving: bool
    time: int
    heard: float


class Roster:
    """Members by name, and the intents that are ahead of their members."""

    def __init__(self) -> None:
        self.members: dict[str, PoolMember] = {}
        self._intents: dict[str, Intent] = {}

    def set(self, name: str, **changes: object) -> PoolMember:
        """The member with these fields changed."""
        member = msgspec.structs.replace(self.members[name], **changes)
        self.members[name] = member
        return member

    def with_status(self, *statuses: Status) -> list[PoolMember]:
        """The members in one of these states."""
        return [m for m in self.members.values() if m.status in statuses]

    def keep_intent(self, name: str, leaving: bool, time: int, now: float) -> bool:
        """Whether the intent is newer than what was heard of this unknown node."""
        held = self._intents.get(name)
        if held is not None and time <= held.time:
            return False
        if held is None and len(self._intents) >= _MAX_INTENTS:
            return False
        self._intents[name] = Intent(leaving, time, now)
        return True

    def intent(self, name: str) -> Intent | None:
        """What was heard of a node before the node itself."""
        return self._intents.get(name)

    def forget_intents(self, before: float) -> None:
        """Drops what was heard before this time."""
        self._intents = {name: i for name, i in self._intents.items() if i.heard >= before}
