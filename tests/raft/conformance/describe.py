"""The core's records in the notation of etcd's scenario files."""

from collections.abc import Iterable, Mapping

from lictor.raft.core.events import Role
from lictor.raft.core.membership import (
    Change,
    ChangeKind,
    Membership,
    MembershipChange,
    Transition,
    decode_change,
    decode_single_change,
)
from lictor.raft.core.message import (
    APPEND_THREAD,
    APPLY_THREAD,
    NOBODY,
    Entry,
    EntryKind,
    HardState,
    Message,
    MessageKind,
    Snapshot,
)
from lictor.raft.core.progress import Progress, ProgressState
from lictor.raft.core.quorum import Outcome, Quorum
from lictor.raft.core.ready import Ready

KINDS = {
    MessageKind.PROPOSE: "MsgProp",
    MessageKind.APPEND: "MsgApp",
    MessageKind.APPEND_RESPONSE: "MsgAppResp",
    MessageKind.VOTE: "MsgVote",
    MessageKind.VOTE_RESPONSE: "MsgVoteResp",
    MessageKind.PRE_VOTE: "MsgPreVote",
    MessageKind.PRE_VOTE_RESPONSE: "MsgPreVoteResp",
    MessageKind.SNAPSHOT: "MsgSnap",
    MessageKind.HEARTBEAT: "MsgHeartbeat",
    MessageKind.HEARTBEAT_RESPONSE: "MsgHeartbeatResp",
    MessageKind.TRANSFER_LEADER: "MsgTransferLeader",
    MessageKind.TIMEOUT_NOW: "MsgTimeoutNow",
    MessageKind.READ_INDEX: "MsgReadIndex",
    MessageKind.READ_INDEX_RESPONSE: "MsgReadIndexResp",
    MessageKind.STORAGE_APPEND: "MsgStorageAppend",
    MessageKind.STORAGE_APPEND_RESPONSE: "MsgStorageAppendResp",
    MessageKind.STORAGE_APPLY: "MsgStorageApply",
    MessageKind.STORAGE_APPLY_RESPONSE: "MsgStorageApplyResp",
}
ROLES = {
    Role.FOLLOWER: "StateFollower",
    Role.CANDIDATE: "StateCandidate",
    Role.LEADER: "StateLeader",
    Role.PRE_CANDIDATE: "StatePreCandidate",
}
PROGRESS = {
    ProgressState.PROBE: "StateProbe",
    ProgressState.REPLICATE: "StateReplicate",
    ProgressState.SNAPSHOT: "StateSnapshot",
}
ENTRIES = {
    EntryKind.NORMAL: "EntryNormal",
    EntryKind.CHANGE_V1: "EntryConfChange",
    EntryKind.CHANGE_V2: "EntryConfChangeV2",
}
OUTCOMES = {Outcome.PENDING: "VotePending", Outcome.LOST: "VoteLost", Outcome.WON: "VoteWon"}
CHANGES = {
    ChangeKind.ADD_VOTER: ("v", "ConfChangeAddNode"),
    ChangeKind.REMOVE: ("r", "ConfChangeRemoveNode"),
    ChangeKind.UPDATE: ("u", "ConfChangeUpdateNode"),
    ChangeKind.ADD_LEARNER: ("l", "ConfChangeAddLearnerNode"),
}
TRANSITIONS = {
    Transition.AUTO: "ConfChangeTransitionAuto",
    Transition.IMPLICIT: "ConfChangeTransitionJointImplicit",
    Transition.EXPLICIT: "ConfChangeTransitionJointExplicit",
}
TARGETS = {NOBODY: "None", APPEND_THREAD: "AppendThread", APPLY_THREAD: "ApplyThread"}


def ids(nodes: Iterable[int]) -> str:
    """`(1 2 3)`"""
    return "(" + " ".join(f"{node:x}" for node in sorted(nodes)) + ")"


def quorum(value: Quorum) -> str:
    """`(1 2)&&(1)`"""
    return ids(value.incoming) + (f"&&{ids(value.outgoing)}" if value.joint else "")


def membership(value: Membership) -> str:
    """`voters=(1 2)&&(1) learners=(3) learners_next=(1) autoleave`"""
    parts = [f"voters={quorum(value.quorum)}"]
    if value.learners:
        parts.append(f"learners={ids(value.learners)}")
    if value.learners_next:
        parts.append(f"learners_next={ids(value.learners_next)}")
    if value.auto_leave:
        parts.append("autoleave")
    return " ".join(parts)


def progress(value: Progress) -> str:
    """`StateReplicate match=1 next=3 inflight=1`"""
    parts = [f"{PROGRESS[value.state]} match={value.match} next={value.next}"]
    if value.is_learner:
        parts.append("learner")
    if value.blocked:
        parts.append("paused")
    if value.pending_snapshot:
        parts.append(f"pendingSnap={value.pending_snapshot}")
    if not value.active:
        parts.append("inactive")
    if len(value.window):
        parts.append(f"inflight={len(value.window)}" + ("[full]" if value.window.full else ""))
    return " ".join(parts)


def progress_map(values: Mapping[int, Progress]) -> str:
    """One line a server."""
    return "".join(f"{node}: {progress(values[node])}\n" for node in sorted(values))


def changes(values: Iterable[Change]) -> str:
    """`v1 l2 r3`"""
    return " ".join(f"{CHANGES[change.kind][0]}{change.node}" for change in values)


def parse_changes(text: str) -> tuple[Change, ...]:
    """The reverse of `changes`."""
    letters = {letter: kind for kind, (letter, _) in CHANGES.items()}
    return tuple(Change(letters[word[0]], int(word[1:])) for word in text.split())


def change(value: MembershipChange) -> str:
    """`transition:ConfChangeTransitionAuto changes:{type:ConfChangeAddNode node_id:3}`"""
    listed = "".join(f" changes:{{type:{CHANGES[one.kind][1]} node_id:{one.node}}}" for one in value.changes)
    context = f" context:{quoted(value.context)}" if value.context else ""
    return f"transition:{TRANSITIONS[value.transition]}{listed}{context}"


def quoted(data: bytes) -> str:
    """A payload as a string literal."""
    text = data.decode("utf-8", "backslashreplace")
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def entry(value: Entry) -> str:
    """`1/12 EntryNormal "data"`"""
    if value.kind is EntryKind.NORMAL:
        shown = quoted(value.data)
    elif value.kind is EntryKind.CHANGE_V1:
        shown = changes(decode_single_change(value.data).as_membership_change().changes)
    else:
        shown = changes(decode_change(value.data).changes)
    return f"{value.term}/{value.index} {ENTRIES[value.kind]}" + (f" {shown}" if shown else "")


def entries(values: Iterable[Entry]) -> str:
    """One line an entry."""
    return "".join(entry(value) + "\n" for value in values)


def snapshot(value: Snapshot) -> str:
    """`Index:4 Term:1 ConfState:Voters:[1 2] ...`"""
    members = value.membership
    lists = {
        "Voters": members.quorum.incoming,
        "VotersOutgoing": members.quorum.outgoing,
        "Learners": members.learners,
        "LearnersNext": members.learners_next,
    }
    shown = " ".join(f"{name}:[{' '.join(map(str, sorted(nodes)))}]" for name, nodes in lists.items())
    auto = "true" if members.auto_leave else "false"
    return f"Index:{value.index} Term:{value.term} ConfState:{shown} AutoLeave:{auto}"


def target(node: int) -> str:
    """A sender or a receiver."""
    return TARGETS.get(node, f"{node:x}")


def message(value: Message, indent: str = "") -> str:
    """`1->2 MsgApp Term:1 Log:1/11 Commit:11 Entries:[1/12 EntryNormal "data"]`"""
    head = f"{indent}{target(value.sender)}->{target(value.to)} {KINDS[value.kind]}"
    parts = [f"{head} Term:{value.term} Log:{value.log_term}/{value.index}"]
    if value.reject:
        parts.append(f" Rejected (Hint: {value.hint})")
    if value.commit:
        parts.append(f" Commit:{value.commit}")
    if value.vote:
        parts.append(f" Vote:{value.vote}")
    if len(value.entries) == 1:
        parts.append(f" Entries:[{entry(value.entries[0])}]")
    elif value.entries:
        listed = "".join(f"\n{indent}  {entry(one)}" for one in value.entries)
        parts.append(f" Entries:[{listed}\n{indent}]")
    if value.snapshot is not None:
        parts.append(f"\n{indent}  Snapshot: {snapshot(value.snapshot)}")
    if value.responses:
        listed = "".join("\n" + message(one, indent + "  ") for one in value.responses)
        parts.append(f" Responses:[{listed}\n{indent}]")
    return "".join(parts)


def hard_state(value: HardState) -> str:
    """`Term:1 Vote:1 Commit:11`"""
    return f"Term:{value.term}" + (f" Vote:{value.vote}" if value.vote else "") + f" Commit:{value.commit}"


def ready(value: Ready) -> str:
    """A `Ready`, over several lines."""
    parts = []
    if value.soft_state is not None:
        parts.append(f"Lead:{value.soft_state.leader} State:{ROLES[value.soft_state.role]}\n")
    if value.hard_state is not None:
        parts.append(f"HardState {hard_state(value.hard_state)}\n")
    if value.read_states:
        parts.append(f"ReadStates {[(state.index, state.context) for state in value.read_states]}\n")
    if value.entries:
        parts.append("Entries:\n" + entries(value.entries))
    if value.snapshot is not None:
        parts.append(f"Snapshot {snapshot(value.snapshot)}\n")
    if value.committed:
        parts.append("CommittedEntries:\n" + entries(value.committed))
    if value.messages:
        parts.append("Messages:\n" + "".join(message(one) + "\n" for one in value.messages))
    if not parts:
        return "<empty Ready>"
    return f"Ready MustSync={'true' if value.must_sync else 'false'}:\n" + "".join(parts)
