"""The active membership, with each member's progress, and the votes of a running election.

Progress is kept in the order of ids, so that messages to all leave in the same order everywhere.
"""

from collections.abc import Callable

from lictor.raft.core.membership import Membership
from lictor.raft.core.progress import Progress, Window
from lictor.raft.core.quorum import Outcome


class Tracker:
    """What a server knows of the members of its cluster."""

    __slots__ = ("_acknowledged", "_bytes_limit", "_messages_limit", "membership", "progress", "votes")

    def __init__(self, messages_limit: int, bytes_limit: int) -> None:
        self.membership = Membership()
        self.progress: dict[int, Progress] = {}
        self.votes: dict[int, bool] = {}
        self._messages_limit = messages_limit
        self._bytes_limit = bytes_limit
        self._acknowledged: Callable[[int], int] = lambda node: self.progress[node].match

    def adopt(self, membership: Membership, last_index: int) -> None:
        """Make a membership the active one. Who stays keeps its progress; a new member is probed at `last_index`."""
        kept = self.progress
        self.membership = membership
        self.progress = {}
        for node in sorted(membership.members):
            progress = kept.get(node)
            if progress is None:
                progress = self._fresh(max(last_index, 1), node)
                progress.active = True  # or else the leader would step down before the newcomer could answer
            progress.is_learner = node in membership.learners
            self.progress[node] = progress

    def reset(self, last_index: int) -> None:
        """Forget votes and progress, as a new term begins."""
        self.votes = {}
        for node in self.progress:
            self.progress[node] = self._fresh(last_index + 1, node)

    def _fresh(self, next_index: int, node: int) -> Progress:
        window = Window(self._messages_limit, self._bytes_limit)
        return Progress(next_index, window, is_learner=node in self.membership.learners)

    def committed(self) -> int:
        """The highest index that enough voters have."""
        return self.membership.quorum.committed_index(self._acknowledged)

    def quorum_active(self) -> bool:
        """Whether enough voters were heard of since they were last marked inactive."""
        votes = {node: progress.active for node, progress in self.progress.items() if not progress.is_learner}
        return self.membership.quorum.outcome(votes) is Outcome.WON

    def record_vote(self, node: int, granted: bool) -> None:
        """A vote came in; only the first of each server counts."""
        self.votes.setdefault(node, granted)

    def tally(self) -> tuple[int, int, Outcome]:
        """How many granted their vote, how many refused, and what follows from that."""
        counted = [
            self.votes[node]
            for node, progress in self.progress.items()
            if node in self.votes and not progress.is_learner
        ]
        granted = sum(counted)
        return granted, len(counted) - granted, self.membership.quorum.outcome(self.votes)
