"""Changes of the configuration, and handing over the leadership: what a leader is asked for by operators and autopilot.

One change is under way at a time. Each carries a token: the proposer knows by it that its own was applied, and by the
index alone, where an empty entry took its place, that it has to try again.
"""

import asyncio
import logging
import random
from typing import Any, Protocol

from lictor.model.errors import NoLeader, NotLeader, Refused
from lictor.raft import envelope
from lictor.raft.applied import AppliedIndex
from lictor.raft.consensus import ServerChange, ServerRecord
from lictor.raft.core.membership import (
    Change,
    ChangeKind,
    ChangeRefused,
    MembershipChange,
    decode_change,
    decode_single_change,
)
from lictor.raft.core.message import Entry, EntryKind
from lictor.raft.core.node import Node, ProposalDropped
from lictor.raft.roster import ChangeNote, Roster, decode_note, encode_note
from lictor.raft.settings import RaftSettings

Planned = tuple[tuple[Change, ...], tuple[ServerRecord, ...]]
NOTHING: Planned = ((), ())

log = logging.getLogger("lictor.server.raft")


class Host(Protocol):
    """The replica, as far as it is needed here."""

    settings: RaftSettings
    chance: random.Random
    applied_index: AppliedIndex

    @property
    def number(self) -> int: ...
    @property
    def node(self) -> Node: ...
    @property
    def roster(self) -> Roster: ...
    @property
    def is_leader(self) -> bool: ...
    @property
    def leader(self) -> str: ...
    def touch(self) -> None: ...
    async def settled(self) -> None: ...


def change_in(entry: Entry) -> tuple[MembershipChange, ChangeNote] | None:
    """The change that an entry holds, and what travels with it; None for one that cannot be read. No server writes such
    a one; it must mean the same to all, and end none.
    """
    try:
        if entry.kind is EntryKind.CHANGE_V1:
            change = decode_single_change(entry.data).as_membership_change()
        else:
            change = decode_change(entry.data)
        return change, decode_note(change.context) if change.context else ChangeNote()
    except envelope.UNREADABLE as error:
        log.error("the change of servers in entry %d cannot be read and changes nothing: %s", entry.index, error)
        return None


def noted(entry: Entry) -> ChangeNote:
    """What travels with the change that an entry holds."""
    found = change_in(entry)
    return found[1] if found is not None else ChangeNote()


def furthest(node: Node) -> int:
    """The other voter that has most of the log, and was heard of lately; 0 if there is none."""
    status = node.status()
    others = [
        (progress.match, number)
        for number, progress in status.progress.items()
        if number != status.id and number in status.membership.quorum.incoming and progress.active
    ]
    return max(others)[1] if others else 0


class Configuring:
    """What a replica does about its configuration."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._waiting: dict[int, asyncio.Future[bool]] = {}  # by token
        self._lock = asyncio.Lock()

    def apply(self, entry: Entry) -> tuple[ServerRecord, ...]:
        """Apply a change from the log. Returns the records that it put in place."""
        found, host = change_in(entry), self._host
        if found is None:
            return ()
        change, note = found
        done = self._waiting.pop(note.token, None)
        try:
            membership = host.node.apply_change(entry.index, change)
        except ChangeRefused as error:
            if done is not None and not done.done():
                done.set_exception(Refused(str(error)))
            return ()
        host.roster.index = entry.index
        host.roster.put(note.records)
        host.roster.keep(membership.members)
        if done is not None and not done.done():
            done.set_result(True)
        return note.records

    def lead_no_more(self) -> None:
        """The leadership is lost: whether what was proposed takes effect is not known."""
        for done in self._waiting.values():
            if not done.done():
                done.set_exception(NotLeader(self._host.leader))
        self._waiting.clear()

    async def change(self, kind: ServerChange, server: ServerRecord, timeout: float) -> None:
        """Change the configuration; see `Consensus.change`."""
        host = self._host
        try:
            async with asyncio.timeout(timeout), self._lock:
                while True:
                    self._require_leading()
                    if not host.node.membership.quorum.joint:
                        changes, records = self._plan(kind, server)
                        if not changes or await self._propose(changes, records):
                            # Only then a server that was removed may be lost with all that it knows.
                            await host.settled()
                            return
                    await asyncio.sleep(host.settings.tick)
        except TimeoutError:
            raise NoLeader from None

    async def _propose(self, changes: tuple[Change, ...], records: tuple[ServerRecord, ...]) -> bool:
        """Returns False where it has to be tried again."""
        host = self._host
        token = host.chance.getrandbits(62) | 1
        change = MembershipChange(changes, context=encode_note(ChangeNote(token, records)))
        loop = asyncio.get_running_loop()
        done: asyncio.Future[bool] = loop.create_future()
        passed: asyncio.Future[None] = loop.create_future()
        self._waiting[token] = done
        try:
            host.node.propose_change(change)
            host.applied_index.when(host.node.last_index, passed)
            host.touch()
            either: list[asyncio.Future[Any]] = [done, passed]
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            return await done if done.done() else False
        except ProposalDropped:
            return False
        finally:
            self._waiting.pop(token, None)
            if done.done():
                done.exception()  # it may have been told just as the caller was cancelled; that is nobody's mistake

    def _plan(self, kind: ServerChange, server: ServerRecord) -> Planned:
        """The changes of membership that a change of a server takes; none where it is as wished already."""
        if kind in (ServerChange.ADD_VOTER, ServerChange.ADD_LEARNER):
            return self._plan_addition(kind, server)
        voters = self._host.node.membership.quorum.incoming
        record = self._host.roster.by_id(server.id)
        if record is None:
            raise Refused(f'id "{server.id}" was not found in the Raft configuration')
        number = record.number
        if kind is ServerChange.PROMOTE:
            return NOTHING if number in voters else ((Change(ChangeKind.ADD_VOTER, number),), ())
        if kind is ServerChange.MOVE:
            moved = ServerRecord(record.id, server.node, server.address, number)
            return NOTHING if moved == record else ((Change(ChangeKind.UPDATE, number),), (moved,))
        if voters == {number}:
            raise Refused("need at least one voter in configuration")
        if kind is ServerChange.DEMOTE:
            return ((Change(ChangeKind.ADD_LEARNER, number),), ()) if number in voters else NOTHING
        return (Change(ChangeKind.REMOVE, number),), ()

    def _plan_addition(self, kind: ServerChange, server: ServerRecord) -> Planned:
        host, number = self._host, server.number
        membership = host.node.membership
        if not number:
            raise Refused(f"server {server.id} has not told its number")
        if number in membership.members and (kind is ServerChange.ADD_LEARNER or number in membership.quorum.incoming):
            if host.roster.records.get(number) == server:
                return NOTHING
            return (Change(ChangeKind.UPDATE, number),), (server,)
        rivals = host.roster.rivals(server)
        if any(rival.number == host.number for rival in rivals):
            raise Refused(f"server {server.id} has the node id or the address of the leader")
        removed = tuple(Change(ChangeKind.REMOVE, rival.number) for rival in rivals)
        added = ChangeKind.ADD_VOTER if kind is ServerChange.ADD_VOTER else ChangeKind.ADD_LEARNER
        return (*removed, Change(added, number)), (server,)

    async def transfer(self, to: str, timeout: float) -> None:
        """Hand the leadership over; see `Consensus.transfer`."""
        self._require_leading()
        host = self._host
        target = self._target(to)
        host.node.transfer_leader(target)
        host.touch()
        loop, term = asyncio.get_running_loop(), host.node.term
        deadline = loop.time() + min(timeout, 2 * host.settings.election_timeout)
        while host.node.is_leader and host.node.term == term:
            if loop.time() > deadline:
                raise Refused("leadership transfer timeout")
            await asyncio.sleep(host.settings.tick / 5)

    def _target(self, to: str) -> int:
        node = self._host.node
        if not to:
            target = furthest(node)
            if not target:
                raise Refused("cannot find peer")
            return target
        record = self._host.roster.by_id(to)
        if record is None or record.number not in node.membership.quorum.incoming - {self._host.number}:
            raise Refused(f"cannot find peer: no other voter has the id {to!r}")
        return record.number

    def _require_leading(self) -> None:
        if not self._host.is_leader:
            raise NotLeader(self._host.leader)
