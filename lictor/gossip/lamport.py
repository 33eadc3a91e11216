"""Lamport's logical clock: orders what happens on many nodes without a shared time ("Time, Clocks, ...", 1978)."""

from __future__ import annotations

from lictor.gossip.codec import WireError

# Half of what the wire can hold: a forged time at the very end must not leave the clock without a next one.
_GREATEST = 1 << 62


class LamportClock:
    """Counts on with every own event and jumps past every time that is seen."""

    def __init__(self, time: int = 0) -> None:
        self.time = time

    def increment(self) -> int:
        """The next time."""
        self.time += 1
        return self.time

    def witness(self, time: int) -> None:
        """Another node was at this time. Raises WireError for one that no pool can have reached."""
        if time > max(_GREATEST, self.time):
            raise WireError(f"Lamport time {time} is out of range")
        if time >= self.time:
            self.time = time + 1
