"""The arithmetic of network coordinates: the round trip time that two nodes' coordinates estimate.

Source: Dabek et al., "Vivaldi: A Decentralized Network Coordinate System" (2004): the distance of two nodes is that of
their vectors plus both heights. The adjustment is a running correction of the whole (Ledlie, Gardner, Seltzer,
"Network Coordinates in the Wild", 2007), used where it leaves the estimate positive.
"""

from __future__ import annotations

import math

from lictor.model.coordinate_entry import Coord


def distance(here: Coord, there: Coord) -> float:
    """The estimated round trip time in seconds; infinite when the vectors differ in dimensions."""
    if len(here.vec) != len(there.vec):
        return math.inf
    raw = math.dist(here.vec, there.vec) + here.height + there.height
    adjusted = raw + here.adjustment + there.adjustment
    return adjusted if adjusted > 0 else raw
