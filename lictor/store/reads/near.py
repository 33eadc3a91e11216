"""Rows by distance from a node: what every `?near=` and a prepared query's `Near` ask for."""

import math
from collections.abc import Callable, Iterable
from typing import TypeVar

from lictor.model.coordinate import distance
from lictor.store.store import View

R = TypeVar("R")


def by_distance(view: View, rows: Iterable[R], node: str, node_of: Callable[[R], str], segment: str = "") -> list[R]:
    """`rows` from the nearest to the farthest from `node`; `node_of` names the node of a row.

    Rows whose node has no coordinate come last; equally far ones stay in their order, and all do where `node` itself
    has none.
    """
    found = list(rows)
    view.saw("coordinates")
    coordinates = view.store.coordinates
    source = coordinates.get((node.lower(), segment))
    if source is None:
        return found
    here = source.coord

    def far(row: R) -> float:
        entry = coordinates.get((node_of(row).lower(), segment))
        if entry is None or len(entry.coord.vec) != len(here.vec):
            return math.inf
        return distance(here, entry.coord)

    return sorted(found, key=far)
