"""What happens inside the core, told to whoever wants to know.

A `Trace` is called with one record for each thing worth a line in a log, at the moment when it happens. Nobody asked:
nothing is built, the core pays for one comparison. What the records are turned into (log lines, metrics, a simulation's
history) is the listener's affair; nothing in the core depends on it.

`node` is the server that tells, `term` its term, `peer` another server.
"""

from collections.abc import Callable
from enum import Enum

from msgspec import Struct

from lictor.raft.core.membership import Membership, MembershipChange
from lictor.raft.core.message import MessageKind
from lictor.raft.core.progress import Progress


class Role(Enum):
    """What a server is in its term."""

    FOLLOWER = "follower"
    CANDIDATE = "candidate"
    LEADER = "leader"
    PRE_CANDIDATE = "pre-candidate"


class Event(Struct, frozen=True):
    """Something happened."""


Trace = Callable[[Event], None] | None


# --- life, roles, membership


class Started(Event, frozen=True):
    """A server begins, with what its storage holds."""

    node: int
    voters: tuple[int, ...]
    term: int
    commit: int
    applied: int
    last_index: int
    last_term: int


class RoleTaken(Event, frozen=True):
    node: int
    term: int
    role: Role


class MembershipAdopted(Event, frozen=True):
    node: int
    membership: Membership


class ChangeVerdict(Enum):
    """Why a proposed change of membership became an empty entry."""

    PENDING = "another change may not be applied yet"
    JOINT = "the configuration is joint, and must be left first"
    NOT_JOINT = "the configuration is not joint, there is nothing to leave"
    IMPOSSIBLE = "the rules for changes forbid it"


class ChangeIgnored(Event, frozen=True):
    node: int
    change: MembershipChange
    membership: Membership
    verdict: ChangeVerdict
    pending_index: int
    applied: int


class AutoLeaveProposed(Event, frozen=True):
    membership: Membership


class AutoLeavePostponed(Event, frozen=True):
    membership: Membership
    reason: str


# --- elections


class Obstacle(Enum):
    """Why a server does not stand for election."""

    LEADS = "it is the leader already"
    NOT_A_VOTER = "it is not a voter, or waits for a snapshot"
    UNAPPLIED_CHANGE = "a committed change of membership is not applied yet"


class CampaignRefused(Event, frozen=True):
    node: int
    term: int
    obstacle: Obstacle


class CampaignStarted(Event, frozen=True):
    node: int
    term: int


class VoteRequested(Event, frozen=True):
    node: int
    term: int
    kind: MessageKind
    peer: int
    last_term: int
    last_index: int


class VoteReceived(Event, frozen=True):
    node: int
    term: int
    kind: MessageKind
    peer: int
    granted: bool


class VotesCounted(Event, frozen=True):
    node: int
    kind: MessageKind
    granted: int
    rejected: int


class VoteVerdict(Enum):
    """What became of a request for a vote."""

    CAST = "cast"
    REJECTED = "rejected"
    IN_LEASE = "ignored, as the leader was heard of lately"


class VoteDecided(Event, frozen=True):
    """`remaining` ticks are left of the lease, where the verdict is IN_LEASE."""

    node: int
    term: int
    verdict: VoteVerdict
    kind: MessageKind
    vote: int
    last_term: int
    last_index: int
    candidate: int
    candidate_last_term: int
    candidate_last_index: int
    remaining: int = 0


class QuorumLost(Event, frozen=True):
    """A leader steps down, as too few voters answered for an election timeout."""

    node: int


# --- terms


class HigherTermSeen(Event, frozen=True):
    node: int
    term: int
    kind: MessageKind
    peer: int
    peer_term: int


class LowerTermIgnored(Event, frozen=True):
    node: int
    term: int
    kind: MessageKind
    peer: int
    peer_term: int


class StaleWriteIgnored(Event, frozen=True):
    """Entries were written, but the term changed meanwhile; they may be overwritten yet."""

    node: int
    term: int
    kind: MessageKind
    written_term: int


# --- proposals and reads


class Dropped(Enum):
    """Why a request is not taken."""

    NO_LEADER = "there is no leader"
    NOT_FORWARDED = "forwarding to the leader is switched off"
    TRANSFER = "leadership is being transferred"
    TOO_MUCH_UNCOMMITTED = "too many bytes wait to be committed"
    REMOVED = "the leader was removed from the cluster"
    INVALID = "a change of membership in it cannot be read"


class ProposalRefused(Event, frozen=True):
    node: int
    term: int
    reason: Dropped
    peer: int = 0


class ReadDropped(Event, frozen=True):
    node: int
    term: int


# --- replication, seen by the leader


class RejectionReceived(Event, frozen=True):
    node: int
    peer: int
    index: int
    hint: int
    hint_term: int


class ProgressDecreased(Event, frozen=True):
    node: int
    peer: int
    progress: Progress


class SnapshotSent(Event, frozen=True):
    node: int
    peer: int
    first_index: int
    commit: int
    index: int
    term: int
    progress: Progress


class SnapshotWithheld(Event, frozen=True):
    """A follower needs a snapshot, but is not heard of, or (`available` false) there is none yet."""

    node: int
    peer: int
    available: bool


class ReplicationPaused(Event, frozen=True):
    node: int
    peer: int
    progress: Progress


class Resumption(Enum):
    """What ended the wait for a snapshot."""

    CAUGHT_UP = "the follower's log joins the leader's"
    SENT = "the snapshot arrived"
    FAILED = "the snapshot did not arrive"


class ReplicationResumed(Event, frozen=True):
    node: int
    peer: int
    progress: Progress
    cause: Resumption


class PeerUnreachable(Event, frozen=True):
    node: int
    peer: int
    progress: Progress


class StrangerIgnored(Event, frozen=True):
    """A message from a server that is no member."""

    node: int
    peer: int


# --- replication, seen by the follower


class AppendRejected(Event, frozen=True):
    """`own_term` is the term of this server's entry at `index`, 0 if it has none."""

    node: int
    peer: int
    index: int
    own_term: int
    peer_term: int


class ConflictFound(Event, frozen=True):
    index: int
    own_term: int
    peer_term: int


class SnapshotVerdict(Enum):
    """What became of a snapshot that arrived."""

    RESTORED = "restored"
    OLD = "ignored, as it holds nothing new"


class RestoreStarted(Event, frozen=True):
    committed: int
    applied: int
    applying: int
    offset: int
    writing: int
    unstable_entries: int
    index: int
    term: int


class Restored(Event, frozen=True):
    """The log begins anew after the snapshot."""

    node: int
    commit: int
    last_index: int
    last_term: int
    index: int
    term: int


class FastForwarded(Event, frozen=True):
    """The log holds the snapshot's last entry already: all up to it is committed."""

    node: int
    commit: int
    last_index: int
    last_term: int
    index: int
    term: int


class SnapshotHandled(Event, frozen=True):
    node: int
    commit: int
    index: int
    term: int
    verdict: SnapshotVerdict


# --- what is written


class WrittenUnknown(Event, frozen=True):
    index: int


class WrittenIsSnapshot(Event, frozen=True):
    index: int


class WrittenReplaced(Event, frozen=True):
    index: int
    term: int
    replaced_by_term: int


class UnstableReplaced(Event, frozen=True):
    first_index: int


class UnstableTruncated(Event, frozen=True):
    first_index: int


# --- leadership given away


class TransferStep(Enum):
    """Where a transfer of leadership stands."""

    STARTED = "started"
    REPEATED = "ignored, as it is under way"
    ABORTED = "aborted in favour of another"
    TO_LEARNER = "ignored, as the target is a learner"
    TO_SELF = "ignored, as the target leads"
    READY_AT_ONCE = "the target has the whole log: told to campaign"
    READY = "the target caught up: told to campaign"
    CAMPAIGN = "told to campaign"
    IGNORED = "told to campaign, but campaigning already"
    NO_LEADER = "dropped, as there is no leader"


class Transfer(Event, frozen=True):
    """`peer` is the one that shall lead, or, for CAMPAIGN and IGNORED, the one that asks to."""

    node: int
    term: int
    peer: int
    step: TransferStep
    role: Role = Role.LEADER


class LeaderForgotten(Event, frozen=True):
    node: int
    term: int
    leader: int


class ForgetRefused(Event, frozen=True):
    """Leases rest on followers that remember their leader."""

    node: int
