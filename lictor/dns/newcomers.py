"""Which names that an agent does not hold may be asked of the servers now. Pure.

Names that somebody makes up come once and cost as much as any other, here and at the servers; there is an allowance for
names of which nothing is known. Where it is used up, whoever asks is told that there is no answer, and a name that is
asked for again after that takes from an allowance of its own: programs and resolvers do ask again, a flood does not.
"""

from collections.abc import Hashable

from lictor.rpc.rate import Bucket

RATE = 250.0  # names a second, of either kind
BURST = 1024
REMEMBERED = 16_384  # names that were refused, of which it is known


class Newcomers:
    """See above; `now` is in seconds of one clock."""

    def __init__(self, now: float, rate: float = RATE, burst: int = BURST) -> None:
        self._first = Bucket(rate, burst, now)
        self._again = Bucket(rate, burst, now)
        self._refused: set[int] = set()
        self._refused_before: set[int] = set()
        self.refused = 0

    def admit(self, name: Hashable, now: float) -> bool:
        """Whether a name may be asked for; one that may not is remembered."""
        if self._first.take(now):
            return True
        mark = hash(name)
        if (mark in self._refused or mark in self._refused_before) and self._again.take(now):
            return True
        self.refused += 1
        if len(self._refused) >= REMEMBERED // 2:
            self._refused_before, self._refused = self._refused, set()
        self._refused.add(mark)
        return False
