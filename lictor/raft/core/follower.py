"""What a follower does with messages: take over the leader's log, and pass on what clients want from the leader.

A leader's message always says which entry comes before those it carries; if this log has another one there, the answer
names the last entry that might match, by term and index, so that the leader skips whole terms at a time (Raft paper,
5.3).
"""

from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from lictor.raft.core import election, events, reconfigure
from lictor.raft.core.config import ReadMode
from lictor.raft.core.election import Campaign
from lictor.raft.core.events import Dropped, SnapshotVerdict, TransferStep
from lictor.raft.core.message import NOBODY, Message, MessageKind, Snapshot
from lictor.raft.core.state import ProposalDropped, Raft


def propose(raft: Raft, request: Message) -> None:
    """Pass a proposal on to the leader. Raises `ProposalDropped`."""
    reason = None
    if raft.leader == NOBODY:
        reason = Dropped.NO_LEADER
    elif not raft.config.forward_proposals:
        reason = Dropped.NOT_FORWARDED
    if reason is not None:
        if raft.trace:
            raft.trace(events.ProposalRefused(raft.id, raft.term, reason, raft.leader))
        raise ProposalDropped(reason)
    raft.messages.append(msgspec.structs.replace(request, to=raft.leader))


def read(raft: Raft, request: Message) -> None:
    """Pass a read on to the leader; without one it is dropped, and the client has to ask again."""
    if raft.leader == NOBODY:
        if raft.trace:
            raft.trace(events.ReadDropped(raft.id, raft.term))
        return
    raft.messages.append(msgspec.structs.replace(request, to=raft.leader))


def read_confirmed(raft: Raft, answer: Message) -> None:
    """The leader confirmed a read of this server."""
    raft.read_states.append((answer.index, answer.context))


def _heard_from_leader(raft: Raft, message: Message) -> None:
    raft.election_elapsed = 0
    raft.leader = message.sender


def append(raft: Raft, message: Message) -> None:
    """Entries from the leader."""
    _heard_from_leader(raft, message)
    log = raft.log
    if message.index < log.committed:
        # An old message. What is committed is the leader's, too.
        _answer(raft, message, log.committed)
        return
    last = log.accept(message.index, message.log_term, message.entries, message.commit)
    if last is not None:
        _answer(raft, message, last)
        return
    if raft.trace:
        own = log.term(message.index) or 0
        raft.trace(events.AppendRejected(raft.id, message.sender, message.index, own, message.log_term))
    hint, hint_term = log.match_candidate(min(message.index, log.last_index()), message.log_term)
    raft.after_sync.append(
        Message(
            MessageKind.APPEND_RESPONSE,
            message.sender,
            raft.id,
            raft.term,
            hint_term,
            message.index,
            reject=True,
            hint=hint,
        )
    )


def _answer(raft: Raft, message: Message, index: int) -> None:
    raft.after_sync.append(Message(MessageKind.APPEND_RESPONSE, message.sender, raft.id, raft.term, index=index))


def heartbeat(raft: Raft, message: Message) -> None:
    """The leader is there, and says what is committed."""
    _heard_from_leader(raft, message)
    raft.log.commit(message.commit)
    raft.messages.append(
        Message(MessageKind.HEARTBEAT_RESPONSE, message.sender, raft.id, raft.term, context=message.context)
    )


def snapshot(raft: Raft, message: Message) -> None:
    """A snapshot from the leader."""
    _heard_from_leader(raft, message)
    if message.snapshot is None:
        return
    verdict = _restore(raft, message.snapshot)
    if raft.trace:
        index, term = message.snapshot.index, message.snapshot.term
        raft.trace(events.SnapshotHandled(raft.id, raft.log.committed, index, term, verdict))
    _answer(raft, message, raft.log.last_index() if verdict is SnapshotVerdict.RESTORED else raft.log.committed)


def _restore(raft: Raft, arrived: Snapshot) -> SnapshotVerdict:
    # This server need not be in the snapshot's membership: the change that adds it may come later in the log.
    log = raft.log
    if arrived.index <= log.committed:
        return SnapshotVerdict.OLD
    if log.matches(arrived.index, arrived.term):
        if raft.trace:
            raft.trace(
                events.FastForwarded(
                    raft.id, log.committed, log.last_index(), log.last_term(), arrived.index, arrived.term
                )
            )
        log.commit(arrived.index)
        return SnapshotVerdict.OLD
    log.restore(arrived)
    raft.membership_index = arrived.index
    reconfigure.adopt(raft, arrived.membership)
    if raft.trace:
        raft.trace(
            events.Restored(raft.id, log.committed, log.last_index(), log.last_term(), arrived.index, arrived.term)
        )
    return SnapshotVerdict.RESTORED


def transfer(raft: Raft, message: Message) -> None:
    """Pass the wish for another leader on to the present one."""
    if raft.leader == NOBODY:
        if raft.trace:
            raft.trace(events.Transfer(raft.id, raft.term, message.sender, TransferStep.NO_LEADER, raft.role))
        return
    raft.messages.append(msgspec.structs.replace(message, to=raft.leader, term=raft.term))


def timeout_now(raft: Raft, message: Message) -> None:
    """The leader wants this server in its place. No need to ask first whether that could succeed."""
    if raft.trace:
        raft.trace(events.Transfer(raft.id, raft.term, message.sender, TransferStep.CAMPAIGN, raft.role))
    election.campaign_if_allowed(raft, Campaign.TRANSFER)


def forget_leader(raft: Raft) -> None:
    """Take the leader for gone: vote for another at once, without waiting for the timeout."""
    if raft.config.reads is ReadMode.LEASE:
        if raft.trace:
            raft.trace(events.ForgetRefused(raft.id))
    elif raft.leader != NOBODY:
        if raft.trace:
            raft.trace(events.LeaderForgotten(raft.id, raft.term, raft.leader))
        raft.leader = NOBODY


HANDLERS: Final[Mapping[MessageKind, Callable[[Raft, Message], None]]] = {
    MessageKind.PROPOSE: propose,
    MessageKind.APPEND: append,
    MessageKind.HEARTBEAT: heartbeat,
    MessageKind.SNAPSHOT: snapshot,
    MessageKind.TRANSFER_LEADER: transfer,
    MessageKind.TIMEOUT_NOW: timeout_now,
    MessageKind.READ_INDEX: read,
    MessageKind.READ_INDEX_RESPONSE: read_confirmed,
}
