"""Elections: standing for one, voting, counting.

With pre-vote, a candidate first asks whether it would be elected, for the next term, and without anyone changing
theirs. A server that was cut off finds out in this way that it has no chance, instead of forcing a new term on a
healthy cluster.

With check-quorum, who heard of its leader within the election timeout ignores requests for votes altogether; for this
time, the leader holds a lease. Only the leader's own wish overrides it: `TRANSFER`, as a request's context.

A refusal tells what its sender knows to be committed, as its context. Without it, a cluster of two could get stuck: one
applied its own removal, and with it the right to stand for election, but has the longer log; the other has the removal
in its log, does not know that it is committed, and needs the vote that it never gets.

The own vote counts once it is durable, therefore it goes through `after_sync` like an answer to anyone else.
"""

from enum import Enum
from struct import Struct
from typing import Final

from lictor.raft.core import events, replication
from lictor.raft.core.events import Obstacle, Role, VoteVerdict
from lictor.raft.core.message import NOBODY, Entry, EntryKind, Message, MessageKind
from lictor.raft.core.quorum import Outcome
from lictor.raft.core.state import Raft

_COMMITTED = Struct("<QQ")  # index, term
TRANSFER: Final = b"transfer"
ANSWERS: Final = {
    MessageKind.VOTE: MessageKind.VOTE_RESPONSE,
    MessageKind.PRE_VOTE: MessageKind.PRE_VOTE_RESPONSE,
}


class Campaign(Enum):
    """What an election is about."""

    PRE_VOTE = "find out whether an election could be won"
    ELECTION = "become leader"
    TRANSFER = "become leader at the leader's wish"


def stand(raft: Raft) -> None:
    """The election timeout is over, or the application wishes it: try to become leader."""
    campaign_if_allowed(raft, Campaign.PRE_VOTE if raft.config.pre_vote else Campaign.ELECTION)


def campaign_if_allowed(raft: Raft, campaign: Campaign) -> None:
    """Stand for election, unless something is in the way of leading."""
    obstacle = None
    if raft.role is Role.LEADER:
        obstacle = Obstacle.LEADS
    elif not raft.promotable():
        obstacle = Obstacle.NOT_A_VOTER
    elif raft.log.applied < raft.log.committed and raft.log.find_committed(_is_change):
        obstacle = Obstacle.UNAPPLIED_CHANGE
    if obstacle is not None:
        if raft.trace:
            raft.trace(events.CampaignRefused(raft.id, raft.term, obstacle))
        return
    if raft.trace:
        raft.trace(events.CampaignStarted(raft.id, raft.term))
    _campaign(raft, campaign)


def _is_change(entry: Entry) -> bool:
    return entry.kind is not EntryKind.NORMAL


def _campaign(raft: Raft, campaign: Campaign) -> None:
    if campaign is Campaign.PRE_VOTE:
        raft.become_pre_candidate()
        kind, term = MessageKind.PRE_VOTE, raft.term + 1
    else:
        raft.become_candidate()
        kind, term = MessageKind.VOTE, raft.term
    context = TRANSFER if campaign is Campaign.TRANSFER else b""
    last_term, last = raft.log.last_term(), raft.log.last_index()
    for peer in sorted(raft.tracker.membership.quorum.voters):
        if peer == raft.id:
            raft.after_sync.append(Message(ANSWERS[kind], peer, raft.id, term))
            continue
        if raft.trace:
            raft.trace(events.VoteRequested(raft.id, raft.term, kind, peer, last_term, last))
        raft.messages.append(Message(kind, peer, raft.id, term, last_term, last, context=context))


def in_lease(raft: Raft, request: Message) -> bool:
    """Whether a request for a vote in a later term is to be ignored, since there is a leader."""
    if request.context == TRANSFER or not raft.config.check_quorum or raft.leader == NOBODY:
        return False
    remaining = raft.config.election_ticks - raft.election_elapsed
    if remaining > 0:
        _tell(raft, request, VoteVerdict.IN_LEASE, remaining)
    return remaining > 0


def vote(raft: Raft, request: Message) -> None:
    """Answer a request for a vote.

    A learner votes, too: it may have been made a voter without having heard of it, and be needed for a majority.
    A granted vote is answered with the request's term, since that of a pre-vote is ahead of this server's.
    """
    early = request.kind is MessageKind.PRE_VOTE and request.term > raft.term
    free = raft.vote == request.sender or (raft.vote == NOBODY and raft.leader == NOBODY) or early
    if free and raft.log.up_to_date(request.log_term, request.index):
        _tell(raft, request, VoteVerdict.CAST)
        raft.after_sync.append(Message(ANSWERS[request.kind], request.sender, raft.id, request.term))
        if request.kind is MessageKind.VOTE:
            raft.election_elapsed = 0
            raft.vote = request.sender
    else:
        reject(raft, request)


def reject(raft: Raft, request: Message) -> None:
    """Refuse a vote, and tell the own term and what is committed."""
    _tell(raft, request, VoteVerdict.REJECTED)
    committed = raft.log.committed
    known = _COMMITTED.pack(committed, raft.log.term(committed) or 0)
    raft.after_sync.append(
        Message(ANSWERS[request.kind], request.sender, raft.id, raft.term, reject=True, context=known)
    )


def learn_commit(raft: Raft, refusal: Message) -> None:
    """Take over what the sender of a refusal knows to be committed, if this log has the same entry there.

    A candidate that learns of a change of membership has counted votes by a membership that is no longer valid, and
    gives up; it may stand again when the change is applied.
    """
    if raft.role is Role.LEADER or len(refusal.context) != _COMMITTED.size:
        return
    index, term = _COMMITTED.unpack(refusal.context)
    if index <= raft.log.committed or term == 0 or not raft.log.matches(index, term):
        return
    raft.log.commit(index)
    if raft.role is not Role.FOLLOWER and raft.log.find_committed(_is_change):
        raft.become_follower(raft.term, NOBODY)


def _tell(raft: Raft, request: Message, verdict: VoteVerdict, remaining: int = 0) -> None:
    if raft.trace:
        raft.trace(
            events.VoteDecided(
                raft.id,
                raft.term,
                verdict,
                request.kind,
                raft.vote,
                raft.log.last_term(),
                raft.log.last_index(),
                request.sender,
                request.log_term,
                request.index,
                remaining,
            )
        )


def count(raft: Raft, answer: Message) -> None:
    """A vote came in. Those for an earlier stage of the candidacy are not counted."""
    expected = MessageKind.PRE_VOTE_RESPONSE if raft.role is Role.PRE_CANDIDATE else MessageKind.VOTE_RESPONSE
    if answer.kind is not expected:
        return
    raft.tracker.record_vote(answer.sender, not answer.reject)
    granted, rejected, outcome = raft.tracker.tally()
    if raft.trace:
        raft.trace(events.VoteReceived(raft.id, raft.term, answer.kind, answer.sender, not answer.reject))
        raft.trace(events.VotesCounted(raft.id, answer.kind, granted, rejected))
    if outcome is Outcome.LOST:
        raft.become_follower(raft.term, NOBODY)
    elif outcome is Outcome.WON and raft.role is Role.PRE_CANDIDATE:
        _campaign(raft, Campaign.ELECTION)
    elif outcome is Outcome.WON:
        replication.take_lead(raft)
