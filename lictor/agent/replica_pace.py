"""How often a client agent asks servers for one and the same topic (`cache.entry_fetch_rate`, `entry_fetch_max_burst`).
Pure.

What is held is told by the servers and never asked for again; this is about what comes and goes: a name that nobody can
answer for, a topic that is dropped and wanted again. What is too soon waits, as in Consul.
"""

from lictor.store.watch import Topic

UNNOTICED = 1e-6  # seconds between two that are as good as none
MOST = 4096  # topics of which it is known when they were asked for


class Pace:
    """At most `rate` times a second each, after `burst` times at once. Times are seconds of one clock."""

    def __init__(self, rate: float, burst: int) -> None:
        self._between = 1.0 / rate
        self._ahead = self._between * (burst - 1)
        self._due: dict[Topic, float] = {}  # when all that was asked for would have been asked for at an even pace

    def wait(self, topic: Topic, now: float) -> float:
        """A topic is to be asked for: in how many seconds it may be."""
        if self._between < UNNOTICED:
            return 0.0
        due = max(self._due.pop(topic, now), now)
        self._forget(now)
        self._due[topic] = due + self._between
        return max(0.0, due - self._ahead - now)

    def _forget(self, now: float) -> None:
        if len(self._due) >= MOST:
            self._due = {topic: due for topic, due in self._due.items() if due > now}
            while len(self._due) >= MOST:
                del self._due[next(iter(self._due))]
