"""How a server's consensus is set up. Times are in ticks, whose length the shell decides."""

from enum import Enum

import msgspec

from lictor.raft.core.message import APPEND_THREAD, APPLY_THREAD, NO_LIMIT, NOBODY


class ReadMode(Enum):
    """How a leader makes sure that it still leads before it answers a read.

    SAFE asks a quorum. LEASE trusts that a leader without a quorum has stepped down: it answers at once, and may be
    wrong for up to one election timeout, as it notices only at its second check what others may use after one timeout.
    The same holds after a transfer of leadership that was given up, and when servers restart within a timeout.
    """

    SAFE = "safe"
    LEASE = "lease"


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """Settings. Raises `ValueError` for those that make no sense.

    `election_ticks`: without a word from the leader for this long, and at random up to twice as long, a follower stands
    for election. `heartbeat_ticks`: between two heartbeats. `applied`: the last index that the state machine holds at
    start. `async_storage`: storage work leaves as messages, several may be under way, and their responses come back
    through `Node.step`; otherwise a `Ready` is done with by `Node.advance`.

    Limits, in bytes unless said otherwise: `max_message_bytes` of entries in a message (one entry at least);
    `max_applying_bytes` in the state machine's hands; `max_uncommitted_bytes` of proposals waiting at the leader,
    others are refused; `max_inflight` messages and `max_inflight_bytes` under way to one follower.

    `check_quorum`: a leader that a quorum does not answer steps down; who heard of its leader lately does not vote.
    `pre_vote`: ask whether an election could be won before starting one, so that a server that comes back does not
    disturb. `forward_proposals`: followers pass proposals on. `validate_changes`: the leader refuses a change of
    membership while another may be unapplied. `step_down_on_removal`: a leader that is removed becomes a follower;
    without this it leads on, but takes no proposals, until someone stops it.
    """

    id: int
    election_ticks: int = 10
    heartbeat_ticks: int = 1
    applied: int = 0
    async_storage: bool = False
    max_message_bytes: int = NO_LIMIT
    max_applying_bytes: int = NO_LIMIT
    max_uncommitted_bytes: int = NO_LIMIT
    max_inflight: int = 256
    max_inflight_bytes: int = NO_LIMIT
    check_quorum: bool = False
    pre_vote: bool = False
    reads: ReadMode = ReadMode.SAFE
    forward_proposals: bool = True
    validate_changes: bool = True
    step_down_on_removal: bool = True

    def __post_init__(self) -> None:
        if self.id in (NOBODY, APPEND_THREAD, APPLY_THREAD) or not 0 < self.id <= NO_LIMIT:
            raise ValueError(f"id {self.id} cannot name a server: use 1 to {APPLY_THREAD - 1}")
        if self.heartbeat_ticks < 1:
            raise ValueError(f"heartbeat_ticks is {self.heartbeat_ticks}, at least 1 is needed")
        if self.election_ticks <= self.heartbeat_ticks:
            raise ValueError(
                f"election_ticks ({self.election_ticks}) must exceed heartbeat_ticks ({self.heartbeat_ticks})"
            )
        if self.max_inflight < 1:
            raise ValueError(f"max_inflight is {self.max_inflight}, at least 1 is needed")
        if self.max_inflight_bytes < self.max_message_bytes and self.max_inflight_bytes != NO_LIMIT:
            raise ValueError("max_inflight_bytes must not be less than max_message_bytes")
        if self.reads is ReadMode.LEASE and not self.check_quorum:
            raise ValueError("reads by lease need check_quorum")
