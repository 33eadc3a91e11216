"""The core's events as the lines that etcd's library would log, with their levels.

Every output of the scenario files is compared whole. Where the core cannot or shall not print what a file has,
`NORMALISED` rewrites the file's text before it is compared, and says why. It is empty: everything is kept.
"""

from collections.abc import Callable
from typing import Any

from lictor.raft.core import events
from lictor.raft.core.events import (
    ChangeVerdict,
    Dropped,
    Event,
    Obstacle,
    Resumption,
    SnapshotVerdict,
    TransferStep,
    VoteVerdict,
)
from lictor.raft.core.membership import ChangeRefused, Refusal
from lictor.raft.core.node import ProposalDropped, StrangerAnswered
from lictor.raft.core.storage import Compacted, SnapshotOutdated
from tests.raft.conformance import describe

LEVELS = ("DEBUG", "INFO", "WARN", "ERROR", "FATAL", "NONE")
DEBUG, INFO, WARN, ERROR = range(4)

# (regular expression in a file's expected output, replacement, reason)
NORMALISED: tuple[tuple[str, str, str], ...] = ()

_REFUSALS = {
    Refusal.ALREADY_JOINT: "config is already joint",
    Refusal.NOT_JOINT: "can't leave a non-joint config",
    Refusal.JOINT: "can't apply simple config change in joint config",
    Refusal.NOBODY_TO_JOIN: "can't make a zero-voter config joint",
    Refusal.NO_VOTER_LEFT: "removed all voters",
    Refusal.TOO_MANY: "more than one voter changed without entering joint config",
}
_ERRORS: dict[type[Exception], str] = {
    ProposalDropped: "raft proposal dropped",
    StrangerAnswered: "raft: cannot step as peer not found",
    Compacted: "requested index is unavailable due to compaction",
    SnapshotOutdated: "requested index is older than the existing snapshot",
}


def error(exception: Exception) -> str:
    """An error's text."""
    if isinstance(exception, ChangeRefused):
        return _REFUSALS[exception.refusal]
    return _ERRORS.get(type(exception), str(exception))


def _roles(event: events.RoleTaken) -> str:
    return f"{event.node:x} became {event.role.value} at term {event.term}"


def _started(event: events.Started) -> str:
    peers = ",".join(f"{node:x}" for node in event.voters)
    return (
        f"newRaft {event.node:x} [peers: [{peers}], term: {event.term}, commit: {event.commit}, "
        f"applied: {event.applied}, lastindex: {event.last_index}, lastterm: {event.last_term}]"
    )


def _change_ignored(event: events.ChangeIgnored) -> str:
    why = {
        ChangeVerdict.PENDING: f"possible unapplied conf change at index {event.pending_index} "
        f"(applied to {event.applied})",
        ChangeVerdict.JOINT: "must transition out of joint config first",
        ChangeVerdict.NOT_JOINT: "not in joint state; refusing empty conf change",
        ChangeVerdict.IMPOSSIBLE: event.verdict.value,
    }[event.verdict]
    change, config = describe.change(event.change), describe.membership(event.membership)
    return f"{event.node:x} ignoring conf change {change} at config {config}: {why}"


def _campaign_refused(event: events.CampaignRefused) -> str:
    return {
        Obstacle.LEADS: f"{event.node:x} ignoring MsgHup because already leader",
        Obstacle.NOT_A_VOTER: f"{event.node:x} is unpromotable and can not campaign",
        Obstacle.UNAPPLIED_CHANGE: f"{event.node:x} cannot campaign at term {event.term} since there are still pending "
        "configuration changes to apply",
    }[event.obstacle]


def _vote_decided(event: events.VoteDecided) -> str:
    kind = describe.KINDS[event.kind]
    own = f"{event.node:x} [logterm: {event.last_term}, index: {event.last_index}, vote: {event.vote:x}]"
    other = f"{event.candidate:x} [logterm: {event.candidate_last_term}, index: {event.candidate_last_index}]"
    at = f"at term {event.term}"
    return {
        VoteVerdict.CAST: f"{own} cast {kind} for {other} {at}",
        VoteVerdict.REJECTED: f"{own} rejected {kind} from {other} {at}",
        VoteVerdict.IN_LEASE: f"{own} ignored {kind} from {other} {at}: lease is not expired "
        f"(remaining ticks: {event.remaining})",
    }[event.verdict]


def _vote_received(event: events.VoteReceived) -> str:
    kind = describe.KINDS[event.kind] + ("" if event.granted else " rejection")
    return f"{event.node:x} received {kind} from {event.peer:x} at term {event.term}"


def _refused(event: events.ProposalRefused) -> str:
    at = f"at term {event.term}; dropping proposal"
    return {
        Dropped.NO_LEADER: f"{event.node:x} no leader {at}",
        Dropped.NOT_FORWARDED: f"{event.node:x} not forwarding to leader {event.peer:x} {at}",
        Dropped.TRANSFER: f"{event.node:x} [term {event.term}] transfer leadership to {event.peer:x} is in progress; "
        "dropping proposal",
        Dropped.TOO_MUCH_UNCOMMITTED: f"{event.node:x} appending new entries to log would exceed uncommitted entry "
        "size limit; dropping proposal",
    }.get(event.reason, f"{event.node:x} {event.reason.value}")


def _resumed(event: events.ReplicationResumed) -> str:
    how = {
        Resumption.CAUGHT_UP: "recovered from needing snapshot",
        Resumption.SENT: "snapshot succeeded",
        Resumption.FAILED: "snapshot failed",
    }[event.cause]
    what = f"resumed sending replication messages to {event.peer:x} [{describe.progress(event.progress)}]"
    return f"{event.node:x} {how}, {what}"


def _withheld(event: events.SnapshotWithheld) -> str:
    if event.available:
        return f"ignore sending snapshot to {event.peer:x} since it is not recently active"
    return f"{event.node:x} failed to send snapshot to {event.peer:x} because snapshot is temporarily unavailable"


def _snapshot_handled(event: events.SnapshotHandled) -> str:
    verb = "restored" if event.verdict is SnapshotVerdict.RESTORED else "ignored"
    return f"{event.node:x} [commit: {event.commit}] {verb} snapshot [index: {event.index}, term: {event.term}]"


def _snapshot_in_log(verb: str) -> Callable[[Any], str]:
    def word(event: events.Restored | events.FastForwarded) -> str:
        own = f"commit: {event.commit}, lastindex: {event.last_index}, lastterm: {event.last_term}"
        return f"{event.node:x} [{own}] {verb} snapshot [index: {event.index}, term: {event.term}]"

    return word


def _restore_started(event: events.RestoreStarted) -> str:
    own = (
        f"committed={event.committed}, applied={event.applied}, applying={event.applying}, "
        f"unstable.offset={event.offset}, unstable.offsetInProgress={event.writing}, "
        f"len(unstable.Entries)={event.unstable_entries}"
    )
    return f"log [{own}] starts to restore snapshot [index: {event.index}, term: {event.term}]"


def _transfer(event: events.Transfer) -> str:
    node, at, peer = f"{event.node:x}", f"[term {event.term}]", f"{event.peer:x}"
    return {
        TransferStep.STARTED: f"{node} {at} starts to transfer leadership to {peer}",
        TransferStep.REPEATED: f"{node} {at} transfer leadership to {peer} is in progress, ignores request to same "
        f"node {peer}",
        TransferStep.ABORTED: f"{node} {at} abort previous transferring leadership to {peer}",
        TransferStep.TO_LEARNER: f"{node} is learner. Ignored transferring leadership",
        TransferStep.TO_SELF: f"{node} is already leader. Ignored transferring leadership to self",
        TransferStep.READY_AT_ONCE: f"{node} sends MsgTimeoutNow to {peer} immediately as {peer} already has "
        "up-to-date log",
        TransferStep.READY: f"{node} sent MsgTimeoutNow to {peer} after received MsgAppResp",
        TransferStep.CAMPAIGN: f"{node} {at} received MsgTimeoutNow from {peer} and starts an election to get "
        "leadership.",
        TransferStep.IGNORED: f"{node} [term {event.term} state {describe.ROLES[event.role]}] ignored MsgTimeoutNow "
        f"from {peer}",
        TransferStep.NO_LEADER: f"{node} no leader at term {event.term}; dropping leader transfer msg",
    }[event.step]


_QUIET = {TransferStep.TO_LEARNER, TransferStep.TO_SELF, TransferStep.IGNORED}


def _level(event: Event, usual: int) -> int:
    match event:
        case events.CampaignRefused(obstacle=Obstacle.LEADS) | events.ProposalRefused(reason=Dropped.TRANSFER):
            return DEBUG
        case events.ProposalRefused(reason=Dropped.TOO_MUCH_UNCOMMITTED):
            return WARN
        case events.Transfer(step=step) if step in _QUIET:
            return DEBUG
    return usual


_WORDS: dict[type[Event], tuple[int, Callable[[Any], str]]] = {
    events.RoleTaken: (INFO, _roles),
    events.Started: (INFO, _started),
    events.MembershipAdopted: (
        INFO,
        lambda e: f"{e.node:x} switched to configuration {describe.membership(e.membership)}",
    ),
    events.ChangeIgnored: (INFO, _change_ignored),
    events.AutoLeaveProposed: (
        INFO,
        lambda e: f"initiating automatic transition out of joint configuration {describe.membership(e.membership)}",
    ),
    events.AutoLeavePostponed: (
        DEBUG,
        lambda e: (
            "not initiating automatic transition out of joint configuration "
            f"{describe.membership(e.membership)}: raft proposal dropped"
        ),
    ),
    events.CampaignRefused: (WARN, _campaign_refused),
    events.CampaignStarted: (INFO, lambda e: f"{e.node:x} is starting a new election at term {e.term}"),
    events.VoteRequested: (
        INFO,
        lambda e: (
            f"{e.node:x} [logterm: {e.last_term}, index: {e.last_index}] sent {describe.KINDS[e.kind]} request to "
            f"{e.peer:x} at term {e.term}"
        ),
    ),
    events.VoteReceived: (INFO, _vote_received),
    events.VotesCounted: (
        INFO,
        lambda e: (
            f"{e.node:x} has received {e.granted} {describe.KINDS[e.kind]} votes and {e.rejected} vote rejections"
        ),
    ),
    events.VoteDecided: (INFO, _vote_decided),
    events.QuorumLost: (WARN, lambda e: f"{e.node:x} stepped down to follower since quorum is not active"),
    events.HigherTermSeen: (
        INFO,
        lambda e: (
            f"{e.node:x} [term: {e.term}] received a {describe.KINDS[e.kind]} message with higher term from "
            f"{e.peer:x} [term: {e.peer_term}]"
        ),
    ),
    events.LowerTermIgnored: (
        INFO,
        lambda e: (
            f"{e.node:x} [term: {e.term}] ignored a {describe.KINDS[e.kind]} message with lower term from "
            f"{e.peer:x} [term: {e.peer_term}]"
        ),
    ),
    events.StaleWriteIgnored: (
        INFO,
        lambda e: (
            f"{e.node:x} [term: {e.term}] ignored entry appends from a {describe.KINDS[e.kind]} message with lower "
            f"term [term: {e.written_term}]"
        ),
    ),
    events.ProposalRefused: (INFO, _refused),
    events.ReadDropped: (INFO, lambda e: f"{e.node:x} no leader at term {e.term}; dropping index reading msg"),
    events.RejectionReceived: (
        DEBUG,
        lambda e: (
            f"{e.node:x} received MsgAppResp(rejected, hint: (index {e.hint}, term {e.hint_term})) from {e.peer:x} "
            f"for index {e.index}"
        ),
    ),
    events.ProgressDecreased: (
        DEBUG,
        lambda e: f"{e.node:x} decreased progress of {e.peer:x} to [{describe.progress(e.progress)}]",
    ),
    events.SnapshotSent: (
        DEBUG,
        lambda e: (
            f"{e.node:x} [firstindex: {e.first_index}, commit: {e.commit}] sent snapshot[index: {e.index}, "
            f"term: {e.term}] to {e.peer:x} [{describe.progress(e.progress)}]"
        ),
    ),
    events.SnapshotWithheld: (DEBUG, _withheld),
    events.ReplicationPaused: (
        DEBUG,
        lambda e: f"{e.node:x} paused sending replication messages to {e.peer:x} [{describe.progress(e.progress)}]",
    ),
    events.ReplicationResumed: (DEBUG, _resumed),
    events.PeerUnreachable: (
        DEBUG,
        lambda e: (
            f"{e.node:x} failed to send message to {e.peer:x} because it is unreachable "
            f"[{describe.progress(e.progress)}]"
        ),
    ),
    events.StrangerIgnored: (DEBUG, lambda e: f"{e.node:x} no progress available for {e.peer:x}"),
    events.AppendRejected: (
        DEBUG,
        lambda e: (
            f"{e.node:x} [logterm: {e.own_term}, index: {e.index}] rejected MsgApp [logterm: {e.peer_term}, "
            f"index: {e.index}] from {e.peer:x}"
        ),
    ),
    events.ConflictFound: (
        INFO,
        lambda e: f"found conflict at index {e.index} [existing term: {e.own_term}, conflicting term: {e.peer_term}]",
    ),
    events.RestoreStarted: (INFO, _restore_started),
    events.Restored: (INFO, _snapshot_in_log("restored")),
    events.FastForwarded: (INFO, _snapshot_in_log("fast-forwarded commit to")),
    events.SnapshotHandled: (INFO, _snapshot_handled),
    events.WrittenUnknown: (INFO, lambda e: f"entry at index {e.index} missing from unstable log; ignoring"),
    events.WrittenIsSnapshot: (INFO, lambda e: f"entry at index {e.index} matched unstable snapshot; ignoring"),
    events.WrittenReplaced: (
        INFO,
        lambda e: (
            f"entry at (index,term)=({e.index},{e.term}) mismatched with entry at "
            f"({e.index},{e.replaced_by_term}) in unstable log; ignoring"
        ),
    ),
    events.UnstableReplaced: (INFO, lambda e: f"replace the unstable entries from index {e.first_index}"),
    events.UnstableTruncated: (INFO, lambda e: f"truncate the unstable entries before index {e.first_index}"),
    events.Transfer: (INFO, _transfer),
    events.LeaderForgotten: (INFO, lambda e: f"{e.node:x} forgetting leader {e.leader:x} at term {e.term}"),
    events.ForgetRefused: (ERROR, lambda e: "ignoring MsgForgetLeader due to ReadOnlyLeaseBased"),
}


def line(event: Event) -> tuple[int, str]:
    """An event's level and its words."""
    usual, word = _WORDS[type(event)]
    return _level(event, usual), word(event)
