"""Network coordinates: where this node is in a space in which distance is round trip time.

Each answered ping pulls or pushes the node a little, as a spring between the two would (Dabek et al., "Vivaldi",
section 3.3, adaptive timestep; heights, section 5.4). A median of recent samples keeps single slow answers out and an
adjustment learns what the space cannot express (Ledlie et al., "Network Coordinates in the Wild", sections 4.2, 4.4);
a weak pull to the origin keeps the whole pool from drifting.
"""

from __future__ import annotations

import math
import random
from collections import deque

from lictor.model.coordinate import distance
from lictor.model.coordinate_entry import Coord

DIMENSIONS = 8
ERROR_MAX = 1.5
ERROR_GAIN = 0.25
POSITION_GAIN = 0.25
ADJUSTMENT_WINDOW = 20
HEIGHT_MIN = 10e-6
MEDIAN_OF = 3
GRAVITY_RADIUS = 150.0
LONGEST_RTT = 10.0
_TINY = 1e-6


class RejectedSample(ValueError):
    """A coordinate or a time that no honest ping gives."""


def _finite(coordinate: Coord) -> bool:
    return all(map(math.isfinite, (*coordinate.vec, coordinate.error, coordinate.adjustment, coordinate.height)))


class Coordinates:
    """This node's coordinate, and the last one that each other node told."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.own = Coord()
        self.known: dict[str, Coord] = {}
        self.resets = 0
        self._recent: dict[str, deque[float]] = {}
        self._offsets: deque[float] = deque([0.0] * ADJUSTMENT_WINDOW, maxlen=ADJUSTMENT_WINDOW)

    def forget(self, node: str) -> None:
        """A node is gone for good."""
        self._recent.pop(node, None)
        self.known.pop(node, None)

    def update(self, node: str, other: Coord, rtt: float) -> None:
        """`node`, at `other`, answered in `rtt` seconds. Raises RejectedSample, and has then changed nothing."""
        if len(other.vec) != DIMENSIONS or not _finite(other):
            raise RejectedSample("coordinate is not finite or has other dimensions")
        if not 0 <= rtt <= LONGEST_RTT:
            raise RejectedSample(f"round trip time not in valid range: {rtt}")
        recent = self._recent.setdefault(node, deque(maxlen=MEDIAN_OF))
        recent.append(rtt)
        typical = sorted(recent)[len(recent) // 2]
        moved = self._sprung(other, typical)
        # The offset is measured in the bare space, without either side's adjustment.
        bare = math.dist(moved.vec, other.vec) + moved.height + other.height
        self._offsets.append(typical - bare)
        adjustment = sum(self._offsets) / (2 * ADJUSTMENT_WINDOW)
        moved = Coord(moved.vec, moved.error, adjustment, moved.height)
        origin = Coord((0.0,) * DIMENSIONS, ERROR_MAX, 0.0, HEIGHT_MIN)
        away = distance(origin, moved) / GRAVITY_RADIUS
        moved = self._pushed(moved, origin, -away * away)
        if not _finite(moved):
            self.resets += 1
            moved = Coord()
        self.own = moved
        self.known[node] = other

    def _sprung(self, other: Coord, rtt: float) -> Coord:
        own = self.own
        rtt = max(rtt, _TINY)
        estimate = distance(own, other)
        # Who is less sure of its own place moves more.
        weight = own.error / max(own.error + other.error, _TINY)
        wrong = abs(estimate - rtt) / rtt
        trust = ERROR_GAIN * weight
        error = min(trust * wrong + own.error * (1 - trust), ERROR_MAX)
        sprung = self._pushed(own, other, POSITION_GAIN * weight * (rtt - estimate))
        return Coord(sprung.vec, error, sprung.adjustment, sprung.height)

    def _pushed(self, here: Coord, there: Coord, force: float) -> Coord:
        """`here`, moved by `force` seconds away from `there`."""
        apart = [a - b for a, b in zip(here.vec, there.vec, strict=True)]
        length = math.hypot(*apart)
        height = here.height
        if length > _TINY:
            height = max(height + (height + there.height) * force / length, HEIGHT_MIN)
        else:
            # Two nodes at one place part in a random direction.
            apart = [self._rng.random() - 0.5 for _ in here.vec]
            length = math.hypot(*apart) or 1.0
        vec = tuple(a + d * force / length for a, d in zip(here.vec, apart, strict=True))
        return Coord(vec, here.error, here.adjustment, height)
