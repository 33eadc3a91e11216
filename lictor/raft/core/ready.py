"""What a server has to do next, collected.

A `Ready` is everything that came up since the last one. The shell does it in this order:

1. write `hard_state`, `snapshot` and `entries` to disk, as one, and sync if `must_sync`;
2. send `messages`, and apply `snapshot`, then `committed`, to the state machine (calling `Node.apply_change` for
   changes of membership);
3. call `Node.advance`.

With `Config.async_storage`, all of this is in `messages`: those to `APPEND_THREAD` and `APPLY_THREAD` are work, to be
done in order for each of the two; after that, the message's `responses` are delivered, to this server too. The other
messages may be sent at once. Work without responses need not be durable before what follows it. The fields `entries`,
`hard_state`, `snapshot` and `committed` only repeat what the messages say.

What is written together must be found together after a crash, all of it or nothing. Entries without the state that came
with them: an election could be held by a membership that is too old, since how recent it is rests on the commit index
that the log's last entries came with. The state without its entries: its commit index would be taken for that of
entries that were to be replaced.

A snapshot may overtake entries that are being applied: who applies must skip entries that its state holds already.
"""

from collections.abc import Mapping

import msgspec

from lictor.raft.core.events import Role
from lictor.raft.core.membership import Membership
from lictor.raft.core.message import (
    APPEND_THREAD,
    APPLY_THREAD,
    BLANK_STATE,
    Entry,
    HardState,
    Message,
    MessageKind,
    Snapshot,
)
from lictor.raft.core.progress import Progress
from lictor.raft.core.state import Raft


class SoftState(msgspec.Struct, frozen=True):
    """What need not be durable."""

    leader: int
    role: Role


class ReadState(msgspec.Struct, frozen=True):
    """A read is confirmed: it may be answered from a state that has everything up to `index` applied."""

    index: int
    context: bytes


class Ready(msgspec.Struct, frozen=True):
    """Work for the shell. `soft_state` and `hard_state` are None if they did not change."""

    soft_state: SoftState | None
    hard_state: HardState | None
    read_states: tuple[ReadState, ...]
    entries: tuple[Entry, ...]
    snapshot: Snapshot | None
    committed: tuple[Entry, ...]
    messages: tuple[Message, ...]
    must_sync: bool


class Status(msgspec.Struct, frozen=True):
    """A server as it is now. `progress` is a copy; only a leader has it."""

    id: int
    hard_state: HardState
    soft_state: SoftState
    applied: int
    transferee: int
    membership: Membership
    progress: Mapping[int, Progress]


def soft_state(raft: Raft) -> SoftState:
    """The state that need not be durable."""
    return SoftState(raft.leader, raft.role)


def status(raft: Raft) -> Status:
    """The server as it is now."""
    progress = {}
    if raft.role is Role.LEADER:
        progress = {node: one.copy() for node, one in raft.tracker.progress.items()}
    return Status(
        raft.id,
        raft.hard_state(),
        soft_state(raft),
        raft.log.applied,
        raft.transferee,
        raft.tracker.membership,
        progress,
    )


def written(raft: Raft, snapshot: Snapshot | None) -> Message | None:
    """The message that reports everything handed out so far as durable; None if nothing needs to be reported.

    It names the end of the log and the present term, also when no entry is among what is written now: a report of an
    earlier term is not believed (a later leader may have replaced the entries while they were written, and what was
    reported could still be overwritten by what is on its way), so the next write makes up for it.
    """
    index = term = 0
    if raft.log.unstable.entries:
        index, term = raft.log.last_index(), raft.log.last_term()
    elif snapshot is None:
        return None
    return Message(
        MessageKind.STORAGE_APPEND_RESPONSE, raft.id, APPEND_THREAD, raft.term, term, index, snapshot=snapshot
    )


def applied(raft: Raft, entries: tuple[Entry, ...]) -> Message:
    """The message that reports entries as applied."""
    return Message(MessageKind.STORAGE_APPLY_RESPONSE, raft.id, APPLY_THREAD, entries=entries)


def storage_work(raft: Raft, ready: Ready) -> list[Message]:
    """A `Ready`'s storage work as messages."""
    work = []
    if ready.entries or ready.hard_state or ready.snapshot or raft.after_sync:
        state = ready.hard_state or BLANK_STATE
        # The report comes last: a leader finds the terms of entries faster before it.
        report = written(raft, ready.snapshot)
        responses = (*raft.after_sync, report) if report is not None else tuple(raft.after_sync)
        work.append(
            Message(
                MessageKind.STORAGE_APPEND,
                APPEND_THREAD,
                raft.id,
                state.term,
                entries=ready.entries,
                commit=state.commit,
                vote=state.vote,
                snapshot=ready.snapshot,
                responses=responses,
            )
        )
    if ready.committed:
        work.append(
            Message(
                MessageKind.STORAGE_APPLY,
                APPLY_THREAD,
                raft.id,
                entries=ready.committed,
                responses=(applied(raft, ready.committed),),
            )
        )
    return work
