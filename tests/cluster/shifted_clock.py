"""Runs `lictor` with a wall clock that is off by the seconds that a file says: `python -m tests.cluster.shifted_clock
FILE ...`. The clock of the machine is left alone, and so is the one that measures how much time passes.
"""

from __future__ import annotations

import mmap
import struct
import sys
import time
from pathlib import Path
from typing import Final

SECONDS: Final = struct.Struct("<d")


class Shift:
    """By how much the clocks of all programs with this file are off."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.set(0.0)

    def set(self, seconds: float) -> None:
        """Put the clocks forward by so much, or back."""
        with self.file.open("r+b" if self.file.exists() else "wb") as file:
            file.write(SECONDS.pack(seconds))


def shift_clock(file: Path) -> None:
    """Have this process's wall clock look into the file each time that it is asked."""
    with file.open("rb") as opened:
        mapped = mmap.mmap(opened.fileno(), SECONDS.size, access=mmap.ACCESS_READ)
    clock, clock_ns = time.time, time.time_ns

    def shifted() -> float:
        return clock() + float(SECONDS.unpack(mapped[: SECONDS.size])[0])

    def shifted_ns() -> int:
        return clock_ns() + int(1e9 * float(SECONDS.unpack(mapped[: SECONDS.size])[0]))

    time.time, time.time_ns = shifted, shifted_ns


def main() -> int:
    """Run `lictor` with the arguments after the file."""
    shift_clock(Path(sys.argv[1]))
    from lictor.cli.main import main as lictor  # looks at the clock's name when it is imported

    sys.argv[:2] = ["lictor"]
    return lictor()


if __name__ == "__main__":
    sys.exit(main())
