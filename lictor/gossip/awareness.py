"""How healthy this node takes itself to be: 0 is healthy, and every sign that it is the slow one counts up.

Lifeguard's "local health multiplier" (section IV-A): a node that misses Acks, or Nacks that healthy helpers should have
sent, is probably itself the problem, so it waits longer before it accuses.
"""

from __future__ import annotations


class Awareness:
    """A score from 0 to `limit` - 1."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.score = 0

    def add(self, delta: int) -> None:
        """Counts good signs (negative) and bad ones."""
        self.score = min(max(self.score + delta, 0), self._limit - 1)

    def scaled(self, seconds: float) -> float:
        """A timeout, stretched by the score."""
        return seconds * (self.score + 1)
