"""How a replica stands, as the API shows it: who its peers are, and the figures of `agent/self`."""

from lictor.raft.consensus import Peer
from lictor.raft.core.events import Role
from lictor.raft.core.membership import Membership
from lictor.raft.core.node import Node
from lictor.raft.log_view import LogView
from lictor.raft.roster import Roster

_STATES = {Role.LEADER: "Leader", Role.FOLLOWER: "Follower"}


def peers(membership: Membership, roster: Roster, leader: int) -> list[Peer]:
    """The configuration's servers, in order of their names."""
    found = [
        Peer(
            record.id,
            record.node,
            record.address,
            leader=number == leader,
            voter=number in membership.quorum.voters,
            number=number,
        )
        for number, record in roster.records.items()
        if number in membership.members
    ]
    return sorted(found, key=lambda peer: (peer.node, peer.id))


def stats(node: Node, roster: Roster, view: LogView, *, applied: int, pending: int, contact: float) -> dict[str, str]:
    """The figures. `contact` is in seconds since the leader was heard of, `pending` counts what waits to be applied."""
    status, latest, last = node.status(), view.latest, node.last_index
    voters = status.membership.quorum.voters
    servers = " ".join(
        f"{{Suffrage:{'Voter' if number in voters else 'Nonvoter'} ID:{record.id} Address:{record.address}}}"
        for number, record in sorted(roster.records.items(), key=lambda item: item[1].node)
    )
    return {
        "applied_index": str(applied),
        "commit_index": str(status.hard_state.commit),
        "fsm_pending": str(pending),
        "last_contact": "never" if contact == float("inf") else f"{contact * 1000:.6f}ms" if contact else "0",
        "last_log_index": str(last),
        "last_log_term": str(node.entry_term(last) or 0),
        "last_snapshot_index": str(latest.index if latest is not None else 0),
        "last_snapshot_term": str(latest.term if latest is not None else 0),
        "latest_configuration": f"[{servers}]",
        "latest_configuration_index": str(roster.index),
        "num_peers": str(max(0, len(voters) - 1)),
        "protocol_version": "3",
        "protocol_version_max": "3",
        "protocol_version_min": "0",
        "snapshot_version_max": "1",
        "snapshot_version_min": "0",
        "state": _STATES.get(status.soft_state.role, "Candidate"),
        "term": str(status.hard_state.term),
    }
