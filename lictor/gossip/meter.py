"""Where a pool's figures go, if anybody wants them. Names are those that memberlist and Serf publish."""

from __future__ import annotations

from typing import Protocol


class Meter(Protocol):
    """Counts things, and takes samples of sizes and times (milliseconds)."""

    def count(self, name: str, value: float = 1) -> None:
        """Something happened, or so many bytes went by."""

    def sample(self, name: str, value: float) -> None:
        """Something was that large, or took that long."""


class NoMeter:
    """Nobody wants them."""

    def count(self, name: str, value: float = 1) -> None:
        """Passed over."""

    def sample(self, name: str, value: float) -> None:
        """Passed over."""
