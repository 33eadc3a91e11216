"""A server of the consensus, to be driven by a shell: messages and ticks in, a `Ready` out.

    node = Node(config, storage, random.Random(), trace)
    loop:
        node.tick() / node.step(message) / node.propose(data) / ...
        if node.has_ready():
            ready = node.ready()
            write, send, apply     # in the order that `ready` tells
            node.advance()         # not with `Config.async_storage`

Nothing here does I/O, reads a clock, or rolls dice of its own: the same calls give the same results. Nothing is
thread-safe. All memory that a call hands out is immutable.
"""

import random

import msgspec

from lictor.raft.core import election, events, follower, leader, membership, reconfigure
from lictor.raft.core import ready as work
from lictor.raft.core.config import Config
from lictor.raft.core.events import Role
from lictor.raft.core.log import InvariantBroken
from lictor.raft.core.membership import Membership, MembershipChange, SingleChange
from lictor.raft.core.message import (
    APPEND_THREAD,
    APPLY_THREAD,
    BLANK_STATE,
    LOCAL_KINDS,
    NOBODY,
    Entry,
    EntryKind,
    Message,
    MessageKind,
)
from lictor.raft.core.ready import ReadState, Ready, Status
from lictor.raft.core.state import ProposalDropped, Raft
from lictor.raft.core.step import step, tick
from lictor.raft.core.storage import Storage
from lictor.raft.core.vetting import MessageRefused, StrangerAnswered, vet

__all__ = ["MessageRefused", "Node", "ProposalDropped", "StrangerAnswered"]


class Node:
    """One server. `storage` holds what it saved before; `chance` decides election timeouts."""

    def __init__(
        self, config: Config, storage: Storage, chance: random.Random | None = None, trace: events.Trace = None
    ) -> None:
        self._raft = raft = Raft(config, storage, chance or random.Random(), trace)
        self._async = config.async_storage
        state, members = storage.initial_state()
        members.check()
        reconfigure.adopt(raft, members)
        if state != BLANK_STATE:
            raft.load(state)
        if config.applied:
            raft.log.commit(config.applied)  # the note of what is committed may be older than the state machine
            raft.log.applied_to(config.applied, 0)
        raft.membership_index = raft.log.applied
        raft.become_follower(raft.term, NOBODY)
        if trace:
            log = raft.log
            voters = tuple(sorted(members.quorum.voters))
            trace(
                events.Started(
                    raft.id, voters, raft.term, log.committed, log.applied, log.last_index(), log.last_term()
                )
            )
        self._soft_state = work.soft_state(raft)
        self._hard_state = raft.hard_state()
        self._on_advance: list[Message] = []

    # --- in

    def tick(self) -> None:
        """One tick of the clock passed."""
        tick(self._raft)

    def campaign(self) -> None:
        """Stand for election now."""
        election.stand(self._raft)

    def propose(self, data: bytes) -> None:
        """Put an entry into the log. Raises `ProposalDropped`; otherwise it may still be lost."""
        self._propose(Entry(data=data))

    def propose_change(self, change: MembershipChange | SingleChange) -> None:
        """Put a change of membership into the log; as `propose`."""
        kind = EntryKind.CHANGE_V1 if isinstance(change, SingleChange) else EntryKind.CHANGE_V2
        self._propose(Entry(kind=kind, data=membership.encode_change(change)))

    def _propose(self, entry: Entry) -> None:
        step(self._raft, Message(MessageKind.PROPOSE, NOBODY, self._raft.id, entries=(entry,)))

    def apply_change(self, index: int, change: MembershipChange | SingleChange) -> Membership:
        """Make the change of membership that is being applied at `index`. Returns the membership after it.

        Nothing happens if a snapshot that holds this entry arrived meanwhile. Raises `membership.ChangeRefused` for a
        change that cannot be made, which only comes into the log with `validate_changes` off; then it has no effect, on
        any server. An application that rejects a change for reasons of its own does not call this.
        """
        raft = self._raft
        if index > raft.membership_index:
            if isinstance(change, SingleChange):
                change = change.as_membership_change()
            adopted = membership.changed(raft.tracker.membership, change)
            raft.membership_index = index
            reconfigure.adopt(raft, adopted)
        return raft.tracker.membership

    def step(self, message: Message) -> None:
        """A message arrived, from another server or from own storage.

        Raises `ProposalDropped`, `StrangerAnswered`, or `MessageRefused`; the state is then unchanged.
        """
        kind = message.kind
        if kind in LOCAL_KINDS:
            if message.sender != APPEND_THREAD and message.sender != APPLY_THREAD:
                raise MessageRefused(
                    f"{kind.name} is between a server and its own storage, but {message.sender} sent it"
                )
        else:
            vet(self._raft, message)
        step(self._raft, message)

    def unreachable(self, peer: int) -> None:
        """What was sent to a server lately may be lost."""
        if self._raft.role is Role.LEADER:
            leader.unreachable(self._raft, peer)

    def snapshot_sent(self, peer: int) -> None:
        """The snapshot for a server arrived there."""
        if self._raft.role is Role.LEADER:
            leader.snapshot_sent(self._raft, peer)

    def snapshot_failed(self, peer: int) -> None:
        """The snapshot for a server did not arrive there."""
        if self._raft.role is Role.LEADER:
            leader.snapshot_failed(self._raft, peer)

    def transfer_leader(self, to: int) -> None:
        """Make another voter the leader. A follower passes the wish on."""
        step(self._raft, Message(MessageKind.TRANSFER_LEADER, NOBODY, to))

    def forget_leader(self) -> None:
        """Take the leader for gone, where a follower knows that better than by waiting."""
        if self._raft.role is Role.FOLLOWER:
            follower.forget_leader(self._raft)

    def read_index(self, context: bytes) -> None:
        """Ask from which index on a read is up to date. A `ReadState` with the context answers, or nothing does."""
        step(self._raft, Message(MessageKind.READ_INDEX, NOBODY, self._raft.id, context=context))

    # --- out

    def has_ready(self) -> bool:
        """Whether there is work."""
        raft = self._raft
        unstable = raft.log.unstable
        return bool(
            raft.messages
            or raft.after_sync
            or unstable.has_unwritten
            or raft.log.has_committed_entries(not self._async)
            or raft.read_states
            or unstable.unwritten_snapshot() is not None
            or raft.leader != self._soft_state.leader
            or raft.role is not self._soft_state.role
            or raft.hard_state() != self._hard_state
        )

    def ready(self) -> Ready:
        """The work that came up. It must be done; it is not told again."""
        raft = self._raft
        if self._on_advance:
            raise InvariantBroken("the last Ready was not advanced")
        log = raft.log
        soft, hard = work.soft_state(raft), raft.hard_state()
        entries = log.unstable.unwritten()
        ready = Ready(
            soft if soft != self._soft_state else None,
            hard if hard != self._hard_state else None,
            tuple(ReadState(index, context) for index, context in raft.read_states),
            entries,
            log.unstable.unwritten_snapshot(),
            log.committed_entries(not self._async),
            (),
            bool(entries) or hard.term != self._hard_state.term or hard.vote != self._hard_state.vote,
        )
        if self._async:
            messages = (*raft.messages, *work.storage_work(raft, ready))
        else:
            messages = (*raft.messages, *(message for message in raft.after_sync if message.to != raft.id))
            self._plan_advance(ready)
        self._soft_state, self._hard_state = soft, hard
        raft.messages = []
        raft.after_sync = []
        raft.read_states = []
        log.unstable.hand_out()
        if ready.committed:
            log.hand_out(ready.committed, not self._async)
        return msgspec.structs.replace(ready, messages=messages)

    def _plan_advance(self, ready: Ready) -> None:
        raft = self._raft
        self._on_advance = [message for message in raft.after_sync if message.to == raft.id]
        written = work.written(raft, ready.snapshot)
        if written is not None:
            self._on_advance.append(written)
        if ready.committed:
            self._on_advance.append(work.applied(raft, ready.committed))

    def advance(self) -> None:
        """The work of the last `Ready` is done."""
        if self._async:
            raise InvariantBroken("with async_storage, the responses of storage messages take the place of advance")
        planned, self._on_advance = self._on_advance, []
        for message in planned:
            step(self._raft, message)

    def status(self) -> Status:
        """How things are."""
        return work.status(self._raft)

    @property
    def is_leader(self) -> bool:
        """Whether this server leads its term, as far as it knows."""
        return self._raft.role is Role.LEADER

    @property
    def leader(self) -> int:
        """Who leads, as far as known; 0 if nobody."""
        return self._raft.leader

    @property
    def term(self) -> int:
        """The present term."""
        return self._raft.term

    @property
    def committed_in_term(self) -> bool:
        """Whether an entry of this term is committed: from then on a leader knows everything that is."""
        return self._raft.committed_in_term()

    @property
    def committed(self) -> int:
        """Everything up to here is committed, as far as this server knows."""
        return self._raft.log.committed

    @property
    def membership(self) -> Membership:
        """The membership that counts now."""
        return self._raft.tracker.membership

    @property
    def last_index(self) -> int:
        """The end of the log, durable or not."""
        return self._raft.log.last_index()

    def entry_term(self, index: int) -> int | None:
        """The term of an entry of the log, durable or not; None where the log does not reach."""
        return self._raft.log.term(index)

    def set_election_deadline(self, ticks: int) -> None:
        """Stand for election after that many ticks without a leader, until the next change of role or term."""
        self._raft.election_deadline = ticks
