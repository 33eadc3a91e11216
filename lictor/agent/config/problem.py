"""What can be wrong with a configuration, and where.

A configuration is refused as a whole: every problem is gathered before anything is said, and nothing starts from a
configuration that has one.
"""

from __future__ import annotations

import msgspec

Path = tuple[str | int, ...]


class Place(msgspec.Struct, frozen=True):
    """Where a key was written: a file's name as it was given (or "command line"), and the line where it is known."""

    file: str
    line: int | None = None

    def __str__(self) -> str:
        """`config.hcl:12`, or `config.hcl` where the line is not known."""
        return self.file if self.line is None else f"{self.file}:{self.line}"


class Problem(msgspec.Struct, frozen=True):
    """One thing that is wrong. `path` is the key's full path, `place` is None for what was written nowhere."""

    text: str
    path: Path = ()
    place: Place | None = None

    def __str__(self) -> str:
        """`config.hcl:12: unknown key "datacentre" (did you mean "datacenter"?)`."""
        return self.text if self.place is None else f"{self.place}: {self.text}"


class ConfigError(Exception):
    """A configuration that cannot be used; `problems` holds everything that is wrong with it."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


def dotted(path: Path) -> str:
    """A key's path as people write it: `services[0].check.interval`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if text else part
    return text
