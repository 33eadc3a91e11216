"""What a leader sends: entries, commit indexes, snapshots, heartbeats.

Entries go out as soon as they are appended, in parallel with the leader's own disk; its own acknowledgement arrives
like everybody's, once its disk is done. The commit index travels with entries and heartbeats, and alone when there is
news.
"""

from lictor.raft.core import events
from lictor.raft.core.message import Entry, Message, MessageKind, payload_bytes
from lictor.raft.core.progress import Progress, ProgressState
from lictor.raft.core.state import Raft


def append(raft: Raft, proposals: tuple[Entry, ...]) -> bool:
    """Append proposals to the own log, in this term. Returns False if too much is uncommitted."""
    if not raft.reserve(payload_bytes(proposals)):
        return False
    term, index = raft.term, raft.log.last_index()
    raft.log.append([Entry(term, index + place, entry.kind, entry.data) for place, entry in enumerate(proposals, 1)])
    raft.after_sync.append(Message(MessageKind.APPEND_RESPONSE, raft.id, raft.id, term, index=index + len(proposals)))
    return True


def take_lead(raft: Raft) -> None:
    """Become leader, with an empty entry: committing one of the own term commits all before it (Raft paper, 5.4.2)."""
    raft.become_leader()
    append(raft, (Entry(),))
    broadcast(raft)


def broadcast(raft: Raft) -> None:
    """Send everyone what is new, even if that is the commit index alone."""
    for peer in raft.tracker.progress:
        if peer != raft.id:
            send_append(raft, peer)


def broadcast_entries(raft: Raft) -> None:
    """Send entries to those that lack some."""
    for peer in raft.tracker.progress:
        if peer != raft.id:
            send_entries(raft, peer)


def broadcast_heartbeat(raft: Raft) -> None:
    """Tell everyone that this leader is there, and confirm the reads that wait."""
    context = raft.pending_reads.heartbeat_context()
    for peer, progress in raft.tracker.progress.items():
        if peer == raft.id:
            continue
        # No more than what the follower surely has: its log may differ from there on.
        commit = min(progress.match, raft.log.committed)
        raft.messages.append(Message(MessageKind.HEARTBEAT, peer, raft.id, raft.term, commit=commit, context=context))
        progress.told_commit(commit)


def send_append(raft: Raft, peer: int) -> None:
    """Send entries, or a message without any that tells the commit index and finds out where the follower is."""
    progress = raft.tracker.progress[peer]
    if not progress.blocked:
        _send(raft, peer, progress)


def send_entries(raft: Raft, peer: int) -> bool:
    """Send entries if there are any to send. Returns whether a message went out."""
    progress = raft.tracker.progress[peer]
    if progress.blocked or progress.next > raft.log.last_index():
        return False
    if progress.state is ProgressState.REPLICATE and progress.window.full:
        return False
    return _send(raft, peer, progress)


def _send(raft: Raft, peer: int, progress: Progress) -> bool:
    log = raft.log
    previous = progress.next - 1
    term = log.term(previous)
    entries: tuple[Entry, ...] | None = ()
    if progress.state is not ProgressState.REPLICATE or not progress.window.full:
        entries = log.entries(progress.next, raft.config.max_message_bytes)
    if term is None or entries is None:
        return _send_snapshot(raft, peer, progress)
    raft.messages.append(Message(MessageKind.APPEND, peer, raft.id, raft.term, term, previous, entries, log.committed))
    progress.sent(len(entries), payload_bytes(entries), log.committed)
    return True


def _send_snapshot(raft: Raft, peer: int, progress: Progress) -> bool:
    trace = raft.trace
    if not progress.active:
        if trace:
            trace(events.SnapshotWithheld(raft.id, peer, True))
        return False
    snapshot = raft.log.snapshot()
    if snapshot is None:
        if trace:
            trace(events.SnapshotWithheld(raft.id, peer, False))
        return False
    if trace:
        trace(
            events.SnapshotSent(
                raft.id,
                peer,
                raft.log.first_index(),
                raft.log.committed,
                snapshot.index,
                snapshot.term,
                progress.copy(),
            )
        )
    progress.await_snapshot(snapshot.index)
    if trace:
        trace(events.ReplicationPaused(raft.id, peer, progress.copy()))
    raft.messages.append(Message(MessageKind.SNAPSHOT, peer, raft.id, raft.term, snapshot=snapshot))
    return True


def commit(raft: Raft) -> bool:
    """Commit what enough voters have, if it is of this term (Raft paper, 5.4.2). Returns whether that is news."""
    index = raft.tracker.committed()
    if index <= raft.log.committed or not raft.log.matches(index, raft.term):
        return False
    raft.log.commit(index)
    return True
