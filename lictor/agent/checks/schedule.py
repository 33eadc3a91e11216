"""When each check is probed: spread in time, at a steady pace, never twice at once.

- A check of which nothing is known is first run within a second, and until it has been passing once, again after 1, 2,
  4, ... seconds where that is before its turn: a service that comes up is found soon, after a restart of the agent too.
  One that was registered with a status has that until its first turn, as in Consul.
- A random point of its first interval sets its phase: turn *n* is at `first + n * interval`. A thousand checks
  registered together are thereby spread evenly for good, and time that a run takes does not add up to drift.
- A check that is still running when it comes due again leaves that turn out, and so does one that the machine slept
  through: it runs once, then at its next regular turn.
- Each lane has a bound on how many run at once. Checks that are due while a lane is full wait in line and are started,
  oldest first, as others finish.

Pure: the clock (monotonic seconds) and the random generator are handed in.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Mapping
from math import floor

import msgspec

from lictor.agent.checks.deadlines import Deadlines
from lictor.agent.checks.result import Lane

MIN_INTERVAL = 1.0
"""Seconds: a shorter interval is raised to this, as in Consul; probing is not to be a load of its own."""

SOON = 1.0
"""Seconds within which a check is run for the first time."""

LANE_BOUNDS: Mapping[Lane, int] = {Lane.NETWORK: 512, Lane.PROCESS: 32}
"""How many probes of a lane run at once. A network probe costs a socket; a process costs a fork."""


class Run(msgspec.Struct, frozen=True, gc=False):
    """A probe to start now. `generation` tells a run of a check from one of its predecessor under the same id."""

    check_id: str
    generation: int


class _Entry:
    __slots__ = ("first", "generation", "interval", "lane", "running", "waiting")

    def __init__(self, generation: int, lane: Lane, first: float, interval: float) -> None:
        self.generation = generation
        self.lane = lane
        self.first = first
        self.interval = interval
        self.running = False
        self.waiting = False

    def turn_after(self, now: float) -> float:
        """The first regular turn later than `now`."""
        turn = self.first + (floor((now - self.first) / self.interval) + 1) * self.interval
        # Rounding may land on `now` itself, which would be a second run at once.
        return turn if turn > now else turn + self.interval


class Schedule:
    """The runs of all checks. Call `start` at `next_due()` and after each `finished`."""

    def __init__(self, rng: random.Random, bounds: Mapping[Lane, int] = LANE_BOUNDS) -> None:
        self._rng = rng
        self._free = dict(bounds)
        self._entries: dict[str, _Entry] = {}
        self._due: Deadlines[str] = Deadlines()
        self._lines: dict[Lane, deque[Run]] = {lane: deque() for lane in bounds}
        self._generation = 0

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, check_id: str, interval: float, lane: Lane, now: float, *, soon: bool) -> None:
        """Run `check_id` every `interval` seconds from a random point of the first on, and where it is wanted `soon`,
        once before that; replaces an earlier one.
        """
        self.remove(check_id)
        interval = max(interval, MIN_INTERVAL)
        self._generation += 1
        first = now + self._rng.random() * interval
        self._entries[check_id] = _Entry(self._generation, lane, first, interval)
        self._due.set(check_id, min(first, now + self._rng.random() * SOON) if soon else first)

    def remove(self, check_id: str) -> None:
        """Run `check_id` no more. A run that is under way keeps its place in the lane until `finished`."""
        self._entries.pop(check_id, None)
        self._due.discard(check_id)

    def is_current(self, run: Run) -> bool:
        """Whether the check that `run` was started for is still the one under that id."""
        entry = self._entries.get(run.check_id)
        return entry is not None and entry.generation == run.generation

    def next_due(self) -> float | None:
        """When the next check comes due; None when there is none."""
        return self._due.next()

    def start(self, now: float) -> list[Run]:
        """The probes to start now."""
        for check_id in self._due.pop_due(now):
            entry = self._entries[check_id]
            if not (entry.running or entry.waiting):
                entry.waiting = True
                self._lines[entry.lane].append(Run(check_id, entry.generation))
            self._due.set(check_id, entry.turn_after(now))
        return [run for lane, line in self._lines.items() for run in self._admit(lane, line)]

    def sooner(self, check_id: str, seconds: float, now: float) -> None:
        """Run `check_id` once more after so many seconds, if its next turn is later."""
        entry = self._entries.get(check_id)
        if entry is not None and not entry.waiting:
            self._due.set(check_id, min(entry.turn_after(now), now + seconds))

    def finished(self, run: Run, lane: Lane) -> None:
        """A probe that `start` returned is over, in whatever way."""
        self._free[lane] += 1
        entry = self._entries.get(run.check_id)
        if entry is not None and entry.generation == run.generation:
            entry.running = False

    def _admit(self, lane: Lane, line: deque[Run]) -> list[Run]:
        admitted: list[Run] = []
        while line and self._free[lane] > 0:
            run = line.popleft()
            entry = self._entries.get(run.check_id)
            if entry is None or entry.generation != run.generation:
                continue  # removed while it stood in line
            entry.waiting = False
            entry.running = True
            self._free[lane] -= 1
            admitted.append(run)
        return admitted
