"""A node's network coordinate, as nodes report it to the catalog (the arithmetic is in `coordinate`)."""

import msgspec


class Coord(msgspec.Struct, frozen=True, rename="pascal"):
    """A point of the Vivaldi space: an 8-dimensional vector and its error, adjustment and height, in seconds."""

    vec: tuple[float, ...] = (0.0,) * 8
    error: float = 1.5
    adjustment: float = 0.0
    height: float = 1e-5


class CoordinateEntry(msgspec.Struct, frozen=True, rename="pascal"):
    """A row of the coordinate table."""

    node: str
    segment: str = ""
    coord: Coord = Coord()
