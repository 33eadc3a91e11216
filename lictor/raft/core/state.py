"""A server's state in the protocol, and the moves between roles.

`Raft` holds the state and makes only the moves that need no message: taking a role, counting ticks, queueing messages.
What a message does is told in one module a subject, as functions on this state: `election` (candidates and votes),
`follower`, `leader`, `replication` (what a leader sends), `reconfigure` (changes of membership), and `step`, which
sorts arriving messages by term and role. `node.Node` is the face of it all.

Messages leave in two queues. `messages` may go at once. `after_sync` must wait until everything accepted so far is
durable: answers that promise a vote or a stored entry, also those that a server gives to itself.
"""

import random

from lictor.raft.core import events
from lictor.raft.core.config import Config
from lictor.raft.core.events import Role
from lictor.raft.core.log import InvariantBroken, Log
from lictor.raft.core.message import NOBODY, HardState, Message, payload_bytes
from lictor.raft.core.reads import PendingReads
from lictor.raft.core.storage import Storage
from lictor.raft.core.tracker import Tracker


class ProposalDropped(Exception):
    """A proposal was not taken, and never will be; the client may try again, perhaps at another server."""

    def __init__(self, reason: events.Dropped) -> None:
        super().__init__(f"proposal dropped: {reason.value}")
        self.reason = reason


class Raft:
    """The state of one server.

    `leader`: who leads this term, as far as known. `transferee`: to whom a leader is giving its leadership.
    `pending_change`: the highest index that may hold an unapplied change of membership; the leader takes no other
    change until it is applied. `membership_index`: the entry or snapshot that the active membership comes from.
    `uncommitted_bytes`: payloads proposed in this term and not committed yet. `election_elapsed`: ticks since the
    election timeout was last put off; for a leader, since the quorum was last checked. `election_deadline`: at how many
    of them a follower stands for election, chosen anew with each role.
    """

    __slots__ = (
        "_random",
        "after_sync",
        "config",
        "election_deadline",
        "election_elapsed",
        "heartbeat_elapsed",
        "id",
        "leader",
        "log",
        "membership_index",
        "messages",
        "pending_change",
        "pending_reads",
        "postponed_reads",
        "read_states",
        "role",
        "term",
        "trace",
        "tracker",
        "transferee",
        "uncommitted_bytes",
        "vote",
    )

    def __init__(self, config: Config, storage: Storage, chance: random.Random, trace: events.Trace) -> None:
        self.config = config
        self.id = config.id
        self.trace = trace
        self._random = chance
        self.term = 0
        self.vote = NOBODY
        self.leader = NOBODY
        self.role = Role.FOLLOWER
        self.log = Log(storage, config.max_applying_bytes, trace)
        self.tracker = Tracker(config.max_inflight, config.max_inflight_bytes)
        self.messages: list[Message] = []
        self.after_sync: list[Message] = []
        self.read_states: list[tuple[int, bytes]] = []
        self.pending_reads = PendingReads()
        self.postponed_reads: list[Message] = []
        self.transferee = NOBODY
        self.pending_change = 0
        self.membership_index = 0
        self.uncommitted_bytes = 0
        self.election_elapsed = 0
        self.heartbeat_elapsed = 0
        self.election_deadline = 0

    def load(self, state: HardState) -> None:
        """Take up what was saved. A snapshot may be newer than the note of what is committed."""
        self.log.commit(state.commit)
        self.term = state.term
        self.vote = state.vote

    def hard_state(self) -> HardState:
        """What must be durable now."""
        return HardState(self.term, self.vote, self.log.committed)

    def promotable(self) -> bool:
        """Whether this server may become leader: a voter, and not about to be overwritten by a snapshot."""
        progress = self.tracker.progress.get(self.id)
        return progress is not None and not progress.is_learner and self.log.unstable.snapshot is None

    def committed_in_term(self) -> bool:
        """Whether an entry of this term is committed; only then a leader knows what is."""
        return self.log.term(self.log.committed) == self.term

    def become_follower(self, term: int, leader: int) -> None:
        """Follow `leader`, or whoever will show up in `term`."""
        self._reset(term)
        self.leader = leader
        self._take(Role.FOLLOWER)

    def become_candidate(self) -> None:
        """Stand for election in a new term, with an own vote."""
        self._not_from(Role.LEADER)
        self._reset(self.term + 1)
        self.vote = self.id
        self._take(Role.CANDIDATE)

    def become_pre_candidate(self) -> None:
        """Ask how an election would end. Neither term nor vote change."""
        self._not_from(Role.LEADER)
        self.tracker.votes = {}
        self.leader = NOBODY
        self._take(Role.PRE_CANDIDATE)

    def become_leader(self) -> None:
        """Lead the term. The log may hold an unapplied change of membership anywhere, so suppose that it does."""
        self._not_from(Role.FOLLOWER)
        self._reset(self.term)
        self.leader = self.id
        own = self.tracker.progress[self.id]
        own.match = self.log.last_index()
        own.replicate()
        own.active = True
        self.pending_change = self.log.last_index()
        self._take(Role.LEADER)

    def _not_from(self, role: Role) -> None:
        if self.role is role:
            raise InvariantBroken(f"a {role.value} cannot take this role")

    def _take(self, role: Role) -> None:
        self.role = role
        if self.trace:
            self.trace(events.RoleTaken(self.id, self.term, role))

    def _reset(self, term: int) -> None:
        if self.term != term:
            self.term = term
            self.vote = NOBODY
        self.leader = NOBODY
        self.election_elapsed = 0
        self.heartbeat_elapsed = 0
        self.election_deadline = self.config.election_ticks + self._random.randrange(self.config.election_ticks)
        self.transferee = NOBODY
        self.tracker.reset(self.log.last_index())
        self.pending_change = 0
        self.uncommitted_bytes = 0
        self.pending_reads = PendingReads()
        self.postponed_reads = []

    def reserve(self, size: int) -> bool:
        """Count a proposal's payload. Returns False where it would exceed the limit.

        A first one is never too large, and empty ones always pass: a new leader's first entry, and leaving a joint
        configuration, must not depend on room.
        """
        if size and self.uncommitted_bytes and self.uncommitted_bytes + size > self.config.max_uncommitted_bytes:
            return False
        self.uncommitted_bytes += size
        return True

    def release(self, message: Message) -> None:
        """The entries of the message were applied. Those of earlier terms were never counted, hence the floor."""
        self.uncommitted_bytes = max(0, self.uncommitted_bytes - payload_bytes(message.entries))
