"""What is waiting to be gossiped: each message goes out a limited number of times, the least-sent and longest first.

News about a node replaces older news about the same node. Within a packet's room the queue fills up greedily, so small
messages travel beside large ones.
"""

from __future__ import annotations

from collections.abc import Callable

from sortedcontainers import SortedList

from lictor.gossip.scale import retransmit_limit


class Broadcast:
    """A message on its way; `finished` is called when it has been sent often enough or has been replaced."""

    __slots__ = ("finished", "message", "name", "sent", "serial")

    def __init__(self, message: bytes, name: str, finished: Callable[[], None] | None) -> None:
        self.message = message
        self.name = name
        self.finished = finished
        self.sent = 0
        self.serial = 0

    def finish(self) -> None:
        """Tells whoever waits for it."""
        if self.finished is not None:
            self.finished()


_Entry = tuple[int, int, int, Broadcast]


class BroadcastQueue:
    """Messages by how often they were sent, then the longest first, then the newest first."""

    def __init__(self, retransmit_mult: int, nodes: Callable[[], int], depth: int = 4096) -> None:
        self._mult = retransmit_mult
        self._nodes = nodes
        self._depth = depth
        self._entries: SortedList[_Entry] = SortedList()
        self._named: dict[str, _Entry] = {}
        self._serial = 0

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, message: bytes, name: str = "", finished: Callable[[], None] | None = None) -> None:
        """Queues a message; one with a name replaces the one that has it. Beyond the depth, the most-sent goes."""
        if name and (old := self._named.pop(name, None)) is not None:
            self._entries.remove(old)
            old[3].finish()
        self._insert(Broadcast(message, name, finished))
        while len(self._entries) > self._depth:
            self._drop(self._entries[-1]).finish()

    def _insert(self, item: Broadcast) -> None:
        self._serial += 1
        item.serial = self._serial
        entry = (item.sent, -len(item.message), -item.serial, item)
        self._entries.add(entry)
        if item.name:
            self._named[item.name] = entry

    def _drop(self, entry: _Entry) -> Broadcast:
        self._entries.remove(entry)
        item = entry[3]
        if item.name:
            del self._named[item.name]
        return item

    def take(self, overhead: int, room: int) -> list[bytes]:
        """Messages for one packet of `room` bytes, each costing `overhead` more; they count as sent once more."""
        if not self._entries:
            return []
        limit = retransmit_limit(self._mult, self._nodes())
        taken: list[bytes] = []
        again: list[Broadcast] = []
        sent = self._entries[0][0]
        while room - overhead > 0:
            # The longest message of this tier that fits; serials are negative, so a number sorts before all of them.
            at = self._entries.bisect_left((sent, overhead - room))
            if at == len(self._entries):
                break
            entry = self._entries[at]
            if entry[0] != sent:
                sent = entry[0]
                continue
            item = self._drop(entry)
            taken.append(item.message)
            room -= overhead + len(item.message)
            item.sent += 1
            if item.sent >= limit:
                item.finish()
            else:
                again.append(item)
        for item in again:
            if item.name in self._named:
                continue  # a finished callback queued newer news of the same name
            self._insert(item)
        return taken
