"""Who is to be told of which change.

A *topic* names something a read can look at: `("service", "web")`, `("node", "n1")`, `("kv", "a/b")`, `("kv/", "a/")`
for a KV prefix. A *dependent* is anything made from a read: a cached answer, a group of waiting queries, a proxy's
configuration. It is told once, by `changed()`, that something it looked at has changed, and is forgotten here at that
moment; it registers again with what it looks at next. A topic nobody depends on costs nothing.
"""

from collections.abc import Iterable

Topic = tuple[str, ...]

KV = "kv"
KV_PREFIX = "kv/"


class Dependent:
    """Something made from a read. `seen` holds the topics it is registered under."""

    __slots__ = ("seen",)

    seen: tuple[Topic, ...]

    def changed(self) -> None:
        """Called once, after the change is in the store; must not write to the store."""
        raise NotImplementedError


class Watches:
    """The dependents of every topic."""

    __slots__ = ("_dependents", "_prefix_lengths")

    def __init__(self) -> None:
        self._dependents: dict[Topic, set[Dependent]] = {}
        # How many watched KV prefixes have each length: a written key is looked up once per length in use.
        self._prefix_lengths: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._dependents)

    def add(self, dependent: Dependent, seen: tuple[Topic, ...]) -> None:
        """Register `dependent` under the topics of its read."""
        dependent.seen = seen
        for topic in seen:
            found = self._dependents.get(topic)
            if found is None:
                self._dependents[topic] = {dependent}
                if topic[0] == KV_PREFIX:
                    length = len(topic[1])
                    self._prefix_lengths[length] = self._prefix_lengths.get(length, 0) + 1
            else:
                found.add(dependent)

    def discard(self, dependent: Dependent) -> None:
        """Forget `dependent` wherever it is registered; harmless where it is not."""
        for topic in dependent.seen:
            found = self._dependents.get(topic)
            if found is not None:
                found.discard(dependent)
                if not found:
                    self._forget(topic)
        dependent.seen = ()

    def topics(self) -> list[Topic]:
        """Every topic that something depends on."""
        return list(self._dependents)

    def fire(self, topics: Iterable[Topic]) -> int:
        """Tell every dependent of any of `topics`, each once; returns how many there were."""
        dependents = self._dependents
        if not dependents:
            return 0
        told: set[Dependent] = set()
        for topic in topics:
            found = dependents.get(topic)
            if found is not None:
                told |= found
            if topic[0] == KV and self._prefix_lengths:
                key = topic[1]
                for length in self._prefix_lengths:
                    if length <= len(key):
                        found = dependents.get((KV_PREFIX, key[:length]))
                        if found is not None:
                            told |= found
        for dependent in told:
            self.discard(dependent)
        for dependent in told:
            dependent.changed()
        return len(told)

    def fire_all(self) -> int:
        """Tell every dependent there is: the whole state was replaced."""
        told = set().union(*self._dependents.values()) if self._dependents else set()
        self._dependents.clear()
        self._prefix_lengths.clear()
        for dependent in told:
            dependent.seen = ()
        for dependent in told:
            dependent.changed()
        return len(told)

    def _forget(self, topic: Topic) -> None:
        del self._dependents[topic]
        if topic[0] == KV_PREFIX:
            length = len(topic[1])
            left = self._prefix_lengths[length] - 1
            if left:
                self._prefix_lengths[length] = left
            else:
                del self._prefix_lengths[length]
