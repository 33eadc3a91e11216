"""Which instance of several: random, round robin, weighted, nearest, least connections.

A `Pool` is made once for each version of a service; choosing from it is all that a lookup costs. What must outlive a
version, whose turn it is and how many connections are held, is the service's own (`Turns`).
"""

import heapq
import itertools
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from lictor.client.endpoint import Endpoint

Policy = Literal["random", "round_robin", "weighted", "nearest", "least_connections"]
Chance = Callable[[], float]
"""A random number from 0 up to, not including, 1."""

Key = tuple[str, str]


class Turns:
    """What a service keeps while its instances come and go. Safe for use by several threads."""

    __slots__ = ("held", "lock", "queues", "turn")

    def __init__(self) -> None:
        self.turn: Iterator[int] = itertools.count()
        self.held: dict[Key, int] = {}  # connections by instance; none where there is no entry
        self.lock = threading.Lock()
        self.queues: list[_Queue] = []  # those of the present version

    def release(self, key: Key) -> None:
        """Count one connection less to an instance."""
        with self.lock:
            held = self.held.get(key, 0) - 1
            if held > 0:
                self.held[key] = held
            else:
                self.held.pop(key, None)
            for queue in self.queues:
                queue.lowered(key)


class Pool:
    """The instances from which one is chosen, not empty."""

    __slots__ = ("_count", "_nearest", "_queue", "_sums", "chance", "endpoints", "turns")

    def __init__(self, endpoints: Sequence[Endpoint], turns: Turns, chance: Chance) -> None:
        self.endpoints = tuple(endpoints)
        self.turns = turns
        self.chance = chance
        self._count = len(self.endpoints)
        self._sums: list[int] = list(itertools.accumulate(max(0, e.weight) for e in self.endpoints))
        least = min(e.rtt for e in self.endpoints)
        self._nearest = tuple(e for e in self.endpoints if e.rtt == least)
        self._queue: _Queue | None = None

    def random(self) -> Endpoint:
        """Any, each as likely."""
        return self.endpoints[int(self.chance() * self._count)]

    def round_robin(self) -> Endpoint:
        """The next in turn. Each process has its own turns."""
        return self.endpoints[next(self.turns.turn) % self._count]

    def weighted(self) -> Endpoint:
        """Any, as likely as its weight says; where all weigh nothing, each as likely."""
        total = self._sums[-1]
        if not total:
            return self.random()
        return self.endpoints[bisect_right(self._sums, int(self.chance() * total))]

    def nearest(self) -> Endpoint:
        """Any of those with the shortest round trip; where none is known, any."""
        nearest = self._nearest
        return nearest[int(self.chance() * len(nearest))]

    def least_connections(self) -> Endpoint:
        """One to which this process holds the fewest connections."""
        with self.turns.lock:
            return self.endpoints[self._ordered().first()]

    def take(self) -> Endpoint:
        """The same, and count one more connection to it."""
        turns = self.turns
        with turns.lock:
            queue = self._ordered()
            number = queue.first()
            key = queue.keys[number]
            turns.held[key] = turns.held.get(key, 0) + 1
            return self.endpoints[number]

    def _ordered(self) -> "_Queue":
        queue = self._queue
        if queue is None:
            self._queue = queue = _Queue([e.key for e in self.endpoints], self.turns.held, self.chance)
            self.turns.queues.append(queue)
        return queue


class _Queue:
    """Instances by how many connections are held to them, equal ones in any order. To be used under the lock.

    A heap with one entry that counts for each instance. An entry whose number has become too low is corrected when it
    comes to the front; for one that has become too high another is put in, and the old one thrown away when it is met.
    """

    __slots__ = ("_chance", "_entries", "_heap", "_held", "_numbers", "keys")

    def __init__(self, keys: list[Key], held: dict[Key, int], chance: Chance) -> None:
        self.keys = keys
        self._numbers = {key: number for number, key in enumerate(keys)}
        self._held = held
        self._chance = chance
        self._fill()

    def _fill(self) -> None:
        self._entries = [(self._held.get(key, 0), self._chance(), number) for number, key in enumerate(self.keys)]
        self._heap = self._entries.copy()
        heapq.heapify(self._heap)

    def first(self) -> int:
        """The number of an instance with the fewest connections."""
        while True:
            entry = self._heap[0]
            count, _, number = entry
            if entry is not self._entries[number]:
                heapq.heappop(self._heap)
                continue
            held = self._held.get(self.keys[number], 0)
            if held == count:
                return number
            self._entries[number] = entry = (held, self._chance(), number)
            heapq.heapreplace(self._heap, entry)

    def lowered(self, key: Key) -> None:
        """Note that there are fewer connections to an instance than there were."""
        number = self._numbers.get(key)
        if number is None:
            return
        if len(self._heap) > 4 * len(self.keys) + 64:
            self._fill()
            return
        self._entries[number] = entry = (self._held.get(key, 0), self._chance(), number)
        heapq.heappush(self._heap, entry)
