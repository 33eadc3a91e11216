"""Messages and ticks arrive here, and go to whoever has to deal with them.

The rules about terms come first (Raft paper, 5.1): a message of a later term makes this server a follower in that term;
one of an earlier term is dropped. The exceptions are what pre-vote and check-quorum need:

- asking for or granting a pre-vote speaks of a future term, which nobody enters by that;
- a request for a vote is ignored while the leader's lease holds;
- a leader of an earlier term gets an answer with the later term, since the server that answers may be stuck in it:
  nobody would listen to its requests for votes.

Then the role decides, by a table of handlers.
"""

from collections.abc import Callable, Mapping
from typing import Final

from lictor.raft.core import election, events, follower, leader, replication
from lictor.raft.core.events import Dropped, Role, TransferStep
from lictor.raft.core.message import NOBODY, Message, MessageKind, log_bytes
from lictor.raft.core.state import ProposalDropped, Raft

LEADERS_KINDS: Final = frozenset({MessageKind.APPEND, MessageKind.HEARTBEAT, MessageKind.SNAPSHOT})
VOTE_KINDS: Final = frozenset({MessageKind.VOTE, MessageKind.PRE_VOTE})
VOTE_ANSWERS: Final = frozenset({MessageKind.VOTE_RESPONSE, MessageKind.PRE_VOTE_RESPONSE})


def step(raft: Raft, message: Message) -> None:
    """Deal with a message. Raises `ProposalDropped`."""
    if message.reject and message.context and message.kind in VOTE_ANSWERS:
        election.learn_commit(raft, message)  # true in any term
    if message.term > raft.term:
        if not _enter_term(raft, message):
            return
    elif 0 < message.term < raft.term:
        _answer_past(raft, message)
        return
    kind = message.kind
    if kind in VOTE_KINDS:
        election.vote(raft, message)
    elif kind is MessageKind.STORAGE_APPEND_RESPONSE:
        _written(raft, message)
    elif kind is MessageKind.STORAGE_APPLY_RESPONSE:
        _applied(raft, message)
    elif raft.role is Role.LEADER:
        _lead(raft, message)
    else:
        handler = (follower.HANDLERS if raft.role is Role.FOLLOWER else CANDIDATE_HANDLERS).get(kind)
        if handler is not None:
            handler(raft, message)


def _lead(raft: Raft, message: Message) -> None:
    handler = leader.HANDLERS.get(message.kind)
    if handler is not None:
        handler(raft, message)
        return
    member_handler = leader.MEMBER_HANDLERS.get(message.kind)
    if member_handler is None:
        return
    progress = raft.tracker.progress.get(message.sender)
    if progress is not None:
        member_handler(raft, message, progress)
    elif raft.trace:
        raft.trace(events.StrangerIgnored(raft.id, message.sender))


def _enter_term(raft: Raft, message: Message) -> bool:
    """Follow into a later term. Returns False where the message is to be ignored."""
    kind = message.kind
    if kind in VOTE_KINDS and election.in_lease(raft, message):
        return False
    if kind is MessageKind.PRE_VOTE or (kind is MessageKind.PRE_VOTE_RESPONSE and not message.reject):
        return True
    if raft.trace:
        raft.trace(events.HigherTermSeen(raft.id, raft.term, kind, message.sender, message.term))
    raft.become_follower(message.term, message.sender if kind in LEADERS_KINDS else NOBODY)
    return True


def _answer_past(raft: Raft, message: Message) -> None:
    """Deal with a message of an earlier term."""
    kind = message.kind
    if kind in (MessageKind.HEARTBEAT, MessageKind.APPEND) and (raft.config.check_quorum or raft.config.pre_vote):
        raft.after_sync.append(Message(MessageKind.APPEND_RESPONSE, message.sender, raft.id, raft.term))
    elif kind is MessageKind.PRE_VOTE:
        # Its sender may come from a time before pre-vote was on, with a shorter log and a higher term than the others.
        election.reject(raft, message)
    elif kind is MessageKind.STORAGE_APPEND_RESPONSE:
        if message.index and raft.trace:
            raft.trace(events.StaleWriteIgnored(raft.id, raft.term, kind, message.term))
        if message.snapshot is not None:
            # A snapshot is committed state, valid in any term.
            _snapshot_written(raft, message.snapshot.index)
    elif raft.trace:
        raft.trace(events.LowerTermIgnored(raft.id, raft.term, kind, message.sender, message.term))


def _written(raft: Raft, message: Message) -> None:
    if message.index:
        raft.log.unstable.written(message.index, message.log_term)
    if message.snapshot is not None:
        _snapshot_written(raft, message.snapshot.index)


def _snapshot_written(raft: Raft, index: int) -> None:
    raft.log.unstable.snapshot_written(index)
    _applied_to(raft, index, 0)


def _applied(raft: Raft, message: Message) -> None:
    if message.entries:
        _applied_to(raft, message.entries[-1].index, log_bytes(message.entries))
        raft.release(message)


def _applied_to(raft: Raft, index: int, size: int) -> None:
    raft.log.applied_to(max(index, raft.log.applied), size)
    if raft.role is Role.LEADER:
        leader.leave_joint_if_due(raft)


def tick(raft: Raft) -> None:
    """Time passes."""
    raft.election_elapsed += 1
    if raft.role is not Role.LEADER:
        if raft.election_elapsed >= raft.election_deadline and raft.promotable():
            raft.election_elapsed = 0
            election.stand(raft)
        return
    raft.heartbeat_elapsed += 1
    if raft.election_elapsed >= raft.config.election_ticks:
        raft.election_elapsed = 0
        if raft.config.check_quorum:
            leader.check_quorum(raft)
        # A transfer that did not succeed by now is given up; proposals are taken again.
        raft.transferee = NOBODY
    if raft.role is Role.LEADER and raft.heartbeat_elapsed >= raft.config.heartbeat_ticks:
        raft.heartbeat_elapsed = 0
        replication.broadcast_heartbeat(raft)


def _propose_while_candidate(raft: Raft, message: Message) -> None:
    if raft.trace:
        raft.trace(events.ProposalRefused(raft.id, raft.term, Dropped.NO_LEADER))
    raise ProposalDropped(Dropped.NO_LEADER)


def _follow(raft: Raft, message: Message) -> None:
    """Another one won this term."""
    raft.become_follower(message.term, message.sender)
    follower.HANDLERS[message.kind](raft, message)


def _ignore_timeout_now(raft: Raft, message: Message) -> None:
    if raft.trace:
        raft.trace(events.Transfer(raft.id, raft.term, message.sender, TransferStep.IGNORED, raft.role))


CANDIDATE_HANDLERS: Final[Mapping[MessageKind, Callable[[Raft, Message], None]]] = {
    MessageKind.PROPOSE: _propose_while_candidate,
    MessageKind.APPEND: _follow,
    MessageKind.HEARTBEAT: _follow,
    MessageKind.SNAPSHOT: _follow,
    MessageKind.VOTE_RESPONSE: election.count,
    MessageKind.PRE_VOTE_RESPONSE: election.count,
    MessageKind.TIMEOUT_NOW: _ignore_timeout_now,
    MessageKind.READ_INDEX: follower.read,
}
