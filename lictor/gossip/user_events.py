"""User events: small messages for every node, each taken once, with a memory of the recent ones to tell what is new.

The memory holds the last so many Lamport times. What is older than that cannot be told from a repetition and is
dropped; a node that joins may also refuse all that happened before.
"""

from __future__ import annotations

from lictor.gossip.lamport import LamportClock
from lictor.gossip.serf_messages import EventsAt, HeldEvent, UserEvent

_MAX_AT_ONE_TIME = 256


class UserEvents:
    """The events' clock and memory of `size` times."""

    def __init__(self, size: int, least_time: int) -> None:
        self.clock = LamportClock(1)
        self.least_time = least_time
        self._size = size
        self._held: dict[int, tuple[int, list[HeldEvent]]] = {}
        if least_time > 0:
            self.clock.witness(least_time - 1)

    def is_new(self, event: UserEvent) -> bool:
        """Whether the event is to be delivered and passed on; it is remembered. Raises WireError for a forged time."""
        self.clock.witness(event.l_time)
        if event.l_time < self.least_time or event.l_time + self._size < self.clock.time:
            return False
        held = HeldEvent(event.name, event.payload)
        slot = event.l_time % self._size
        time, events = self._held.get(slot, (-1, []))
        if time != event.l_time:
            self._held[slot] = (event.l_time, [held])
            return True
        if held in events or len(events) >= _MAX_AT_ONE_TIME:
            return False
        events.append(held)
        return True

    def recent(self) -> tuple[EventsAt, ...]:
        """What is remembered, for a node that may have missed it."""
        return tuple(EventsAt(time, tuple(events)) for time, events in sorted(self._held.values()))
