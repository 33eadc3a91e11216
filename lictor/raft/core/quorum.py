"""Majorities, and decisions that need two of them at once.

While members are being exchanged, a decision needs a majority of the new voters and a majority of the old (the Raft
dissertation, 4.3, "joint consensus"). A `Quorum` is both sets; in ordinary times the second is empty. An empty set
agrees to everything, so that it never stands in the way of the other.
"""

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Final

import msgspec

UNBOUNDED: Final = (1 << 64) - 1


class Outcome(Enum):
    """Where a vote stands."""

    PENDING = "pending"
    LOST = "lost"
    WON = "won"


def majority_index(voters: frozenset[int], acknowledged: Callable[[int], int]) -> int:
    """The highest index that a majority acknowledged. Who acknowledged nothing is at 0."""
    if not voters:
        return UNBOUNDED
    return sorted(map(acknowledged, voters))[(len(voters) - 1) // 2]


def majority_outcome(voters: frozenset[int], votes: Mapping[int, bool]) -> Outcome:
    """Where a vote stands, when `votes` are in."""
    needed = len(voters) // 2 + 1 if voters else 0
    yes = no = 0
    for voter in voters:
        vote = votes.get(voter)
        if vote is True:
            yes += 1
        elif vote is False:
            no += 1
    if yes >= needed:
        return Outcome.WON
    return Outcome.PENDING if len(voters) - no >= needed else Outcome.LOST


class Quorum(msgspec.Struct, frozen=True, array_like=True):
    """Who decides: `incoming`, and while it is being exchanged also `outgoing`."""

    incoming: frozenset[int] = frozenset()
    outgoing: frozenset[int] = frozenset()

    @property
    def joint(self) -> bool:
        """Whether two majorities are needed."""
        return bool(self.outgoing)

    @property
    def voters(self) -> frozenset[int]:
        """Everyone who votes in either majority."""
        return self.incoming | self.outgoing if self.outgoing else self.incoming

    def committed_index(self, acknowledged: Callable[[int], int]) -> int:
        """The highest index that was acknowledged by all majorities needed."""
        index = majority_index(self.incoming, acknowledged)
        return min(index, majority_index(self.outgoing, acknowledged)) if self.outgoing else index

    def outcome(self, votes: Mapping[int, bool]) -> Outcome:
        """Where a vote stands: won if both majorities say yes, lost as soon as one says no."""
        outcomes = {majority_outcome(self.incoming, votes), majority_outcome(self.outgoing, votes)}
        if Outcome.LOST in outcomes:
            return Outcome.LOST
        return Outcome.PENDING if Outcome.PENDING in outcomes else Outcome.WON
