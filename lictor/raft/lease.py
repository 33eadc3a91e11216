"""The leader's lease: until when its own state is the newest there is, without asking anybody.

Everything a leader sends carries its clock; a follower sends the latest such time back with its answers. What a
follower echoed proves that it heard this leader no earlier than then, and for `hold` seconds after it heard a leader a
follower helps to elect no other: it casts no vote, and stands for none itself. So if a majority echoed a time, there
is no other leader before that time plus `hold`; the lease is shorter, for clocks that run at different rates.

A follower that restarted does not know whom it heard: it holds its vote for the same time. The only vote without this
wait is the one that the leader itself asks for when it hands over, after which it takes no lease in this term again.

Pure: times are handed in, each server's of its own clock.
"""

from typing import Final

from lictor.raft.core.quorum import Quorum

HOLD: Final = 0.9  # of the election timeout: how long votes are held
LEASE: Final = 0.7  # of the election timeout; safe while one clock is less than HOLD / LEASE times as fast as another
NEVER: Final = float("-inf")


class Lease:
    """A leader's side, in one term."""

    def __init__(self, number: int, election_timeout: float) -> None:
        self._number = number
        self._length = election_timeout * LEASE
        self._term = 0
        self._echoed: dict[int, float] = {}
        self._given_up = False

    def begin(self, term: int) -> None:
        """This server became leader."""
        self._term = term
        self._echoed = {}
        self._given_up = False

    def give_up(self) -> None:
        """The leadership is handed over, or may be: no lease any more in this term."""
        self._given_up = True

    def echoed(self, number: int, term: int, sent: float) -> None:
        """A follower sent back a time of this leader's, of a term."""
        if term == self._term and sent > self._echoed.get(number, NEVER):
            self._echoed[number] = sent

    def until(self, quorum: Quorum, now: float) -> float:
        """When the lease ends; in the past where there is none."""
        if self._given_up:
            return NEVER
        ends = [self._majority(voters, now) for voters in (quorum.incoming, quorum.outgoing) if voters]
        return min(ends) + self._length if ends else NEVER

    def _majority(self, voters: frozenset[int], now: float) -> float:
        """The latest time that a majority of these echoed; the leader hears itself."""
        times = sorted(now if voter == self._number else self._echoed.get(voter, NEVER) for voter in voters)
        return times[(len(times) - 1) // 2]

    def heard(self, number: int) -> float | None:
        """The latest time that a follower echoed in this term."""
        return self._echoed.get(number)


class Hold:
    """A follower's side: which leader it heard when, and how long it helps no other."""

    def __init__(self, election_timeout: float) -> None:
        self._length = election_timeout * HOLD
        self._until = NEVER
        self._heard: dict[int, tuple[int, float]] = {}

    def hear(self, leader: int, term: int, sent: float, now: float) -> None:
        """A message of the present leader was taken in; it carried the leader's time `sent`."""
        self._heard = {leader: (term, sent)}
        self._until = now + self._length

    def restarted(self, now: float) -> None:
        """This server may have heard a leader just before it was started."""
        self._until = now + self._length

    def echo(self, leader: int) -> tuple[int, float]:
        """What to send back to a server: term and time, zeros where nothing was heard of it as leader."""
        return self._heard.get(leader, (0, 0.0))

    def holds(self, now: float) -> bool:
        """Whether a vote must not be cast."""
        return now < self._until
