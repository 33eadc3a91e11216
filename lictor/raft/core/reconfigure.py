"""Changes of membership take effect, and what follows for a leader.

A change is made when its entry is applied, by the application's call, or when a snapshot is restored. A smaller quorum
may commit entries at once; new members are probed at once. A leader that is no voter any more steps down if so
configured; else it leads on without a voice of its own, until another is elected.
"""

from lictor.raft.core import events, replication
from lictor.raft.core.events import Role
from lictor.raft.core.membership import Membership
from lictor.raft.core.message import NOBODY
from lictor.raft.core.state import Raft


def adopt(raft: Raft, membership: Membership) -> None:
    """Make a membership the active one."""
    raft.tracker.adopt(membership, raft.log.last_index())
    if raft.trace:
        raft.trace(events.MembershipAdopted(raft.id, membership))
    if raft.role is not Role.LEADER:
        return
    own = raft.tracker.progress.get(raft.id)
    if own is None or own.is_learner:
        if raft.config.step_down_on_removal:
            raft.become_follower(raft.term, NOBODY)
        return
    if replication.commit(raft):
        replication.broadcast(raft)
    else:
        replication.broadcast_entries(raft)
    if raft.transferee not in membership.quorum.voters:
        raft.transferee = NOBODY
