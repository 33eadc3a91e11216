"""What a leader does with messages: take proposals, follow everyone's progress, confirm reads, hand over.

Proposals of one message are appended together. A change of membership among them is replaced by an empty entry, where
it could overlap with another one or cannot be made at all; the proposer sees it committed without effect.
"""

from collections.abc import Callable, Mapping
from typing import Final, NoReturn

from lictor.raft.core import events, replication
from lictor.raft.core.config import ReadMode
from lictor.raft.core.events import ChangeVerdict, Dropped, Resumption, TransferStep
from lictor.raft.core.membership import (
    EMPTY_CHANGE,
    ChangeRefused,
    MembershipChange,
    changed,
    decode_change,
    decode_single_change,
    encode_change,
)
from lictor.raft.core.message import NOBODY, Entry, EntryKind, Message, MessageKind
from lictor.raft.core.progress import Progress, ProgressState
from lictor.raft.core.state import ProposalDropped, Raft

LEAVE: Final = Entry(kind=EntryKind.CHANGE_V2, data=encode_change(EMPTY_CHANGE))


def propose(raft: Raft, request: Message) -> None:
    """Append proposals, and send them to everyone. Raises `ProposalDropped`; then none of them is taken."""
    entries = request.entries
    if not entries:
        return
    if raft.id not in raft.tracker.progress:
        raise ProposalDropped(Dropped.REMOVED)
    if raft.transferee != NOBODY:
        _drop(raft, Dropped.TRANSFER, raft.transferee)
    pending = raft.pending_change
    if any(entry.kind is not EntryKind.NORMAL for entry in entries):
        entries = _check_changes(raft, entries)
    if not replication.append(raft, entries):
        raft.pending_change = pending
        _drop(raft, Dropped.TOO_MUCH_UNCOMMITTED)
    replication.broadcast(raft)


def _drop(raft: Raft, reason: Dropped, peer: int = NOBODY) -> NoReturn:
    if raft.trace:
        raft.trace(events.ProposalRefused(raft.id, raft.term, reason, peer))
    raise ProposalDropped(reason)


def _check_changes(raft: Raft, entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
    changes = [_change_in(raft, entry) for entry in entries]
    checked = []
    for place, (entry, change) in enumerate(zip(entries, changes, strict=True), 1):
        if change is None:
            checked.append(entry)
            continue
        verdict = _judge(raft, change)
        if verdict is not None and raft.config.validate_changes:
            if raft.trace:
                membership = raft.tracker.membership
                pending, applied = raft.pending_change, raft.log.applied
                raft.trace(events.ChangeIgnored(raft.id, change, membership, verdict, pending, applied))
            checked.append(Entry())
        else:
            raft.pending_change = raft.log.last_index() + place
            checked.append(entry)
    return tuple(checked)


def _change_in(raft: Raft, entry: Entry) -> MembershipChange | None:
    try:
        if entry.kind is EntryKind.CHANGE_V1:
            return decode_single_change(entry.data).as_membership_change()
        return decode_change(entry.data) if entry.kind is EntryKind.CHANGE_V2 else None
    except ValueError:
        _drop(raft, Dropped.INVALID)


def _judge(raft: Raft, change: MembershipChange) -> ChangeVerdict | None:
    joint = raft.tracker.membership.quorum.joint
    if raft.pending_change > raft.log.applied:
        return ChangeVerdict.PENDING
    if joint and change.changes:
        return ChangeVerdict.JOINT
    if not joint and not change.changes:
        return ChangeVerdict.NOT_JOINT
    try:
        changed(raft.tracker.membership, change)
    except ChangeRefused:
        return ChangeVerdict.IMPOSSIBLE
    return None


def leave_joint_if_due(raft: Raft) -> None:
    """Once the first step of a joint change is applied, propose the second, if that was asked for.

    Called whenever something was applied: a proposal that is dropped, during a transfer, is made up for then.
    """
    membership = raft.tracker.membership
    if not membership.auto_leave or raft.log.applied < raft.pending_change:
        return
    request = Message(MessageKind.PROPOSE, raft.id, raft.id, entries=(LEAVE,))
    try:
        propose(raft, request)
    except ProposalDropped as error:
        if raft.trace:
            raft.trace(events.AutoLeavePostponed(membership, str(error)))
    else:
        if raft.trace:
            raft.trace(events.AutoLeaveProposed(membership))


def check_quorum(raft: Raft) -> None:
    """Step down if too few voters were heard of since the last check."""
    active = raft.tracker.quorum_active()
    if not active:
        if raft.trace:
            raft.trace(events.QuorumLost(raft.id))
        raft.become_follower(raft.term, NOBODY)
    for peer, progress in raft.tracker.progress.items():
        if peer != raft.id:
            progress.active = False


def append_answered(raft: Raft, answer: Message, progress: Progress) -> None:
    """A follower, or this server's own disk, took entries or refused them."""
    progress.active = True
    if answer.reject:
        _step_back(raft, answer, progress)
        return
    peer = answer.sender
    news = progress.acknowledge(answer.index)
    if not news and not (progress.match == answer.index and progress.state is ProgressState.PROBE):
        return
    if progress.state is ProgressState.REPLICATE:
        progress.window.free(answer.index)
    elif progress.state is ProgressState.PROBE:
        progress.replicate()
    elif progress.match + 1 >= raft.log.first_index():
        # Whatever snapshot it took, the log continues from there.
        if raft.trace:
            raft.trace(events.ReplicationResumed(raft.id, peer, progress.copy(), Resumption.CAUGHT_UP))
        progress.probe()
        progress.replicate()
    if replication.commit(raft):
        _confirm_postponed(raft)
        replication.broadcast(raft)
    elif peer != raft.id and progress.wants_commit(raft.log.committed):
        replication.send_append(raft, peer)
    if peer == raft.id:
        return
    while replication.send_entries(raft, peer):
        pass  # as many messages as the window takes
    if peer == raft.transferee and progress.match == raft.log.last_index():
        _tell(raft, peer, TransferStep.READY)
        _send_timeout_now(raft, peer)


def _step_back(raft: Raft, answer: Message, progress: Progress) -> None:
    peer = answer.sender
    if raft.trace:
        raft.trace(events.RejectionReceived(raft.id, peer, answer.index, answer.hint, answer.log_term))
    hint = answer.hint
    if answer.log_term > 0:
        # Entries here of a later term than the follower's last cannot be in its log: skip them.
        hint, _ = raft.log.match_candidate(hint, answer.log_term)
    if progress.refuse(answer.index, hint):
        if raft.trace:
            raft.trace(events.ProgressDecreased(raft.id, peer, progress.copy()))
        if progress.state is ProgressState.REPLICATE:
            progress.probe()
        replication.send_append(raft, peer)


def heartbeat_answered(raft: Raft, answer: Message, progress: Progress) -> None:
    """A follower is there: it may be sent to again, and confirms the reads that the heartbeat was for."""
    progress.active = True
    progress.paused = False
    if progress.match < raft.log.last_index() or progress.state is ProgressState.PROBE:
        replication.send_append(raft, answer.sender)
    if raft.config.reads is ReadMode.SAFE and answer.context:
        raft.pending_reads.acknowledge(answer.sender, answer.context)
        for request, commit in raft.pending_reads.take_confirmed(raft.tracker.membership.quorum):
            _read_confirmed(raft, request, commit)


def read(raft: Raft, request: Message) -> None:
    """Confirm a read: now, once a quorum answered, or once an entry of this term is committed."""
    quorum = raft.tracker.membership.quorum
    if len(quorum.incoming) == 1 and not quorum.joint and raft.id in quorum.incoming and raft.committed_in_term():
        _read_confirmed(raft, request, raft.log.committed)
    elif not raft.committed_in_term():
        raft.postponed_reads.append(request)
    else:
        _confirm(raft, request)


def _confirm(raft: Raft, request: Message) -> None:
    if raft.config.reads is ReadMode.LEASE:
        _read_confirmed(raft, request, raft.log.committed)
        return
    raft.pending_reads.add(request, raft.log.committed)
    raft.pending_reads.acknowledge(raft.id, raft.pending_reads.heartbeat_context())
    replication.broadcast_heartbeat(raft)


def _confirm_postponed(raft: Raft) -> None:
    postponed, raft.postponed_reads = raft.postponed_reads, []
    for request in postponed:
        read(raft, request)


def _read_confirmed(raft: Raft, request: Message, commit: int) -> None:
    if request.sender == raft.id:
        raft.read_states.append((commit, request.context))
    else:
        raft.messages.append(
            Message(
                MessageKind.READ_INDEX_RESPONSE,
                request.sender,
                raft.id,
                raft.term,
                index=commit,
                context=request.context,
            )
        )


def snapshot_sent(raft: Raft, peer: int) -> None:
    """The shell delivered the snapshot that a follower waits for. Nothing is sent before the follower answers."""
    _snapshot_ended(raft, peer, Resumption.SENT)


def snapshot_failed(raft: Raft, peer: int) -> None:
    """The shell could not deliver it. It is tried again after the next heartbeat."""
    _snapshot_ended(raft, peer, Resumption.FAILED)


def _snapshot_ended(raft: Raft, peer: int, cause: Resumption) -> None:
    progress = raft.tracker.progress.get(peer)
    if progress is None or progress.state is not ProgressState.SNAPSHOT:
        return
    if cause is Resumption.FAILED:
        progress.pending_snapshot = 0
    progress.probe()
    if raft.trace:
        raft.trace(events.ReplicationResumed(raft.id, peer, progress.copy(), cause))
    progress.paused = True


def unreachable(raft: Raft, peer: int) -> None:
    """What was sent to a follower lately is probably lost."""
    progress = raft.tracker.progress.get(peer)
    if progress is None:
        return
    if progress.state is ProgressState.REPLICATE:
        progress.probe()
    if raft.trace:
        raft.trace(events.PeerUnreachable(raft.id, peer, progress.copy()))


def transfer(raft: Raft, request: Message, progress: Progress) -> None:
    """Hand over to the request's sender: bring its log up to date, then let it campaign. No proposals meanwhile."""
    peer = request.sender
    if progress.is_learner:
        _tell(raft, peer, TransferStep.TO_LEARNER)
        return
    if raft.transferee == peer:
        _tell(raft, peer, TransferStep.REPEATED)
        return
    if raft.transferee != NOBODY:
        _tell(raft, raft.transferee, TransferStep.ABORTED)
        raft.transferee = NOBODY
    if peer == raft.id:
        _tell(raft, peer, TransferStep.TO_SELF)
        return
    _tell(raft, peer, TransferStep.STARTED)
    raft.election_elapsed = 0  # it has one election timeout to succeed
    raft.transferee = peer
    if progress.match == raft.log.last_index():
        _send_timeout_now(raft, peer)
        _tell(raft, peer, TransferStep.READY_AT_ONCE)
    else:
        replication.send_append(raft, peer)


def _send_timeout_now(raft: Raft, peer: int) -> None:
    raft.messages.append(Message(MessageKind.TIMEOUT_NOW, peer, raft.id, raft.term))


def _tell(raft: Raft, peer: int, step: TransferStep) -> None:
    if raft.trace:
        raft.trace(events.Transfer(raft.id, raft.term, peer, step))


HANDLERS: Final[Mapping[MessageKind, Callable[[Raft, Message], None]]] = {
    MessageKind.PROPOSE: propose,
    MessageKind.READ_INDEX: read,
}
# These need to know how far their sender is, so it must be a member.
MEMBER_HANDLERS: Final[Mapping[MessageKind, Callable[[Raft, Message, Progress], None]]] = {
    MessageKind.APPEND_RESPONSE: append_answered,
    MessageKind.HEARTBEAT_RESPONSE: heartbeat_answered,
    MessageKind.TRANSFER_LEADER: transfer,
}
