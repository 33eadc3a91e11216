"""Reads of network coordinates."""

from lictor.model.coordinate_entry import CoordinateEntry
from lictor.store.store import View


def coordinates(view: View, segment: str | None) -> list[CoordinateEntry]:
    """Every coordinate, by node; with a segment only those in it."""
    view.saw("coordinates")
    return [row for row in view.store.coordinates if segment is None or row.segment == segment]


def coordinates_of(view: View, node: str, segment: str | None) -> list[CoordinateEntry]:
    """A node's coordinates, by segment; with a segment only the one in it."""
    name = node.lower()
    view.saw("coordinate", name)
    rows = sorted(view.store.coordinates.by("node", name).items())
    return [row for _, row in rows if segment is None or row.segment == segment]
