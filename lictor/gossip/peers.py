"""The journal of who was in the pool, so that a node that restarts finds its way back and takes no event twice.

Lines, as Serf's snapshot files have them: `alive: name address`, `not-alive: name`, `clock: n`, `event-clock: n`,
`query-clock: n`, `leave`. This file knows the lines and what they add up to; writing them is the shell's.
"""

from __future__ import annotations

import msgspec

_MAX_LINES_PER_PEER = 32
_LEAST_LINES = 1024


class Journal(msgspec.Struct, frozen=True):
    """What a journal adds up to; the clocks are the last Lamport times seen."""

    peers: dict[str, str] = {}
    clock: int = 0
    event_clock: int = 0
    query_clock: int = 0


def parse(text: str, rejoin_after_leave: bool) -> Journal:
    """A journal out of its text. A line that is cut off or unknown is passed over: the rest is worth having."""
    peers: dict[str, str] = {}
    clocks = {"clock": 0, "event-clock": 0, "query-clock": 0}
    for line in text.splitlines():
        key, _, value = line.partition(": ")
        if key == "alive":
            name, _, address = value.rpartition(" ")
            if name and address:
                peers[name] = address
        elif key == "not-alive":
            peers.pop(value, None)
        elif key in clocks and value.isascii() and value.isdigit() and len(value) < 20:
            clocks[key] = int(value)
        elif line == "leave" and not rejoin_after_leave:
            peers.clear()
            clocks = dict.fromkeys(clocks, 0)
    return Journal(peers, clocks["clock"], clocks["event-clock"], clocks["query-clock"])


class JournalKeeper:
    """What has to be appended; `compacted` is a whole new text once the old one has grown too long."""

    def __init__(self, journal: Journal) -> None:
        self._peers = dict(journal.peers)
        self._clocks = {
            "clock": journal.clock,
            "event-clock": journal.event_clock,
            "query-clock": journal.query_clock,
        }
        self._lines = 0

    def alive(self, name: str, address: str) -> str:
        """A peer is there."""
        self._peers[name] = address
        return self._line(f"alive: {name} {address}")

    def gone(self, name: str) -> str:
        """A peer failed or left."""
        self._peers.pop(name, None)
        return self._line(f"not-alive: {name}")

    def clock(self, which: str, time: int) -> str:
        """A clock ("clock", "event-clock" or "query-clock") has seen this time; empty when that is no news."""
        if time <= self._clocks[which]:
            return ""
        self._clocks[which] = time
        return self._line(f"{which}: {time}")

    def leave(self) -> str:
        """This node leaves on purpose."""
        return self._line("leave")

    def _line(self, text: str) -> str:
        self._lines += 1
        return text.replace("\n", " ") + "\n"

    @property
    def too_long(self) -> bool:
        """Whether the file is worth rewriting."""
        return self._lines > max(_LEAST_LINES, _MAX_LINES_PER_PEER * len(self._peers))

    def compacted(self) -> str:
        """The shortest text that adds up to the same."""
        self._lines = 0
        peers = [self._line(f"alive: {name} {address}") for name, address in self._peers.items()]
        return "".join(peers + [self._line(f"{which}: {time}") for which, time in self._clocks.items()])
