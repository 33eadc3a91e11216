"""Which topics a client agent lets go of: what nobody has looked at for long, and what has to make room. Pure.

A look at an answer that is kept is not seen here. So before a topic can go, those who depend on it are made to look
again; when that was done its last look is known from then on, and only what was not looked at since goes.

Most room is for what is there. Topics without a row, such as services that do not exist, have a share of their own:
however many names are made up and asked for, they push out each other and nothing else.
"""

from collections.abc import Collection, Iterator

from lictor.agent.replica_topics import Holding, Holdings
from lictor.store.watch import Topic

SPARED = 10.0  # seconds since its last look for which a topic with rows does not go, however many there are
NEARLY_FULL = 0.75  # from here on last looks are to be known closely
CLOSELY = 60.0  # seconds within which they then are
STEPS = 8  # in the time after which a topic goes, in which its last look is found out
EMPTY_SHARE = 4  # one in so many may be without a row
CHANCES = 64  # topics that were looked at since, and are spared, in one search
GLANCE = 0.05  # seconds in which whoever asked for a topic looks at it
AT_ONCE = 512  # that are found to go at a time: to look for them takes long


class Room:
    """See above. `most` is how many topics there may be; `ttl` in seconds."""

    def __init__(self, held: Holdings, most: int, ttl: float) -> None:
        self.ttl = ttl
        self._held = held
        self._most = most
        self._empty_most = max(1, most // EMPTY_SHARE)
        self._oldest: list[tuple[float, Topic]] = []  # with the time of the last look, the oldest last

    @property
    def step(self) -> float:
        """Seconds between two looks at what is idle."""
        return min(self.ttl / STEPS, CLOSELY)

    def idle(self, now: float) -> tuple[list[Holding], list[Holding]]:
        """The topics whose dependents are to be told, to see whether anybody looks at them, and those that are to go.

        A topic goes when nobody has looked at it for `ttl`; at the latest half as long again.
        """
        full = len(self._held.topics) >= self._most * NEARLY_FULL
        doubtful = self.step if full else self.ttl / STEPS
        longest = self.ttl * (1 + 2 / STEPS)
        asked, gone = [], []
        for one in self._held.topics.values():
            if not one.covered:
                continue
            seconds = now - one.used
            if not one.asked:
                if seconds >= doubtful:
                    asked.append(one)
            elif seconds >= longest:
                gone.append(one)
        return asked, gone

    def scarce(self, more: int) -> bool:
        """Whether any has to go for `more`."""
        held = self._held
        return len(held.topics) + more > self._most or len(held.empty) + more > self._empty_most

    def make(self, more: int, spared: Collection[Topic], now: float) -> list[Holding] | None:
        """The topics that are to go so that there is room for `more`; None where there is none."""
        over = len(self._held.topics) + more - self._most
        found = list(self._empty_to_go(max(over, len(self._held.empty) + more - self._empty_most), spared))
        over -= len(found)
        if over > 0:
            oldest = self._oldest_to_go(over, {*spared, *(one.topic for one in found)}, now)
            if oldest is None:
                return None
            found += oldest
        return found

    def _empty_to_go(self, count: int, spared: Collection[Topic]) -> Iterator[Holding]:
        """Empty topics, those first that were found empty first, unless they were looked at since."""
        empty = self._held.empty
        taken: set[Topic] = set()
        for _ in range(min(count + CHANCES, 2 * len(empty)) if count > 0 else 0):
            if len(taken) >= count:
                return
            topic = next(iter(empty))
            holding = empty.pop(topic)
            empty[topic] = holding
            if topic in spared or topic in taken or not holding.covered:
                continue
            if holding.used > holding.emptied + GLANCE:
                holding.emptied = holding.used
                continue
            taken.add(topic)
            yield holding

    def _oldest_to_go(self, count: int, spared: Collection[Topic], now: float) -> list[Holding] | None:
        topics = self._held.topics
        found: list[Holding] = []
        again = True
        while len(found) < count:
            if not self._oldest:
                if not again:
                    self._oldest.extend((one.used, one.topic) for one in reversed(found))
                    return None
                again = False
                taken = {one.topic for one in found}
                rows = [
                    one
                    for one in topics.values()
                    if one.covered and now - one.used >= SPARED and one.topic not in taken and one.topic not in spared
                ]
                rows.sort(key=lambda one: (not one.asked, one.used))
                self._oldest = [(one.used, one.topic) for one in reversed(rows[: max(AT_ONCE, count)])]
                continue
            used, topic = self._oldest.pop()
            holding = topics.get(topic)
            if holding is not None and holding.covered and holding.used == used and topic not in spared:
                found.append(holding)
        return found
