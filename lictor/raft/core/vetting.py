"""Which messages no server sends, as far as the one that gets them can tell.

A message that was forged or mangled on its way must neither break what the rest of the core rests on, nor put an end to
the server: it is refused before it changes anything. What cannot be told from a true message is believed; only the
network can know better who sent it.
"""

from lictor.raft.core.events import Role
from lictor.raft.core.message import NOBODY, RESPONSE_KINDS, TERMLESS_KINDS, Entry, Message, MessageKind
from lictor.raft.core.state import Raft


class MessageRefused(ValueError):
    """A message that no server would send; the connection it came from is not to be trusted."""


class StrangerAnswered(LookupError):
    """An answer from a server that is not a member, perhaps not any more. To be dropped."""


def vet(raft: Raft, message: Message) -> None:
    """Look at a message from another server. Raises `MessageRefused`, `StrangerAnswered`."""
    kind = message.kind
    if kind in RESPONSE_KINDS and message.sender not in raft.tracker.progress:
        raise StrangerAnswered(f"{kind.name} from {message.sender}, which is not a member")
    if message.sender == NOBODY or (message.term == 0 and kind not in TERMLESS_KINDS):
        raise MessageRefused(f"{kind.name} without sender or term")
    if kind is MessageKind.APPEND:
        _vet_leader(raft, message)
        if message.entries:
            _vet_entries(message, message.entries)
    elif kind is MessageKind.HEARTBEAT:
        _vet_leader(raft, message)
        _vet_heartbeat(raft, message)
    elif kind is MessageKind.SNAPSHOT:
        _vet_leader(raft, message)
        _vet_snapshot(message)
    elif kind is MessageKind.APPEND_RESPONSE:
        end = raft.log.last_index()
        if raft.role is Role.LEADER and message.term == raft.term and message.index > end:
            raise MessageRefused(f"APPEND_RESPONSE for {message.index}, but the leader's log ends at {end}")


def _vet_leader(raft: Raft, message: Message) -> None:
    """A term has one leader."""
    if message.term == raft.term and raft.leader not in (NOBODY, message.sender):
        raise MessageRefused(f"{message.kind.name} of term {message.term}, which is led by {raft.leader}")


def _vet_entries(message: Message, entries: tuple[Entry, ...]) -> None:
    index, term = message.index, message.log_term
    for entry in entries:
        index += 1
        if entry.index != index:
            raise MessageRefused(f"APPEND after {message.index} carries entry {entry.index} in the place of {index}")
        if not term <= entry.term <= message.term:
            raise MessageRefused(f"APPEND of term {message.term} carries an entry of term {entry.term} after {term}")
        term = entry.term


def _vet_heartbeat(raft: Raft, message: Message) -> None:
    """A leader says that no more is committed here than it was told to be durable here."""
    end = raft.log.last_index()
    if message.commit > end and message.term >= raft.term:
        raise MessageRefused(
            f"HEARTBEAT says that entry {message.commit} is committed, and the log ends at {end}. If the message is "
            "true, entries that were reported as durable are gone: take this server out of the cluster, and let it "
            "join again with an empty data directory"
        )


def _vet_snapshot(message: Message) -> None:
    snapshot = message.snapshot
    if snapshot is None:
        return
    if not 0 < snapshot.term <= message.term or snapshot.index <= 0:
        raise MessageRefused(f"SNAPSHOT of term {message.term} carries entry {snapshot.index} of term {snapshot.term}")
    try:
        snapshot.membership.check()
    except ValueError as error:
        raise MessageRefused(f"snapshot {snapshot.index}: {error}") from error
