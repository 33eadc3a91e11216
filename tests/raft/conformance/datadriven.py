"""Scenario files: a command with arguments and input, `----`, and what it prints.

    # comment
    command positional key=value key=(value,value)
    input
    ----
    output, until an empty line

If the output holds empty lines, two `----` in a row begin it and two end it.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

_ARGUMENT = re.compile(r"(?P<key>[^\s=]+)(?:=(?:\((?P<many>[^)]*)\)|(?P<one>\S*)))?")


class Argument(msgspec.Struct, frozen=True):
    """`key`, `key=value` or `key=(value,value)`."""

    key: str
    values: tuple[str, ...] = ()


class Command(msgspec.Struct, frozen=True):
    """One command of a file, and what it has to print."""

    line: int
    name: str
    arguments: tuple[Argument, ...]
    input: str
    expected: str

    @property
    def positional(self) -> list[str]:
        """The arguments without a value."""
        return [argument.key for argument in self.arguments if not argument.values]

    def values(self, key: str) -> tuple[str, ...]:
        """The values of an argument, empty if it is not there."""
        return next((argument.values for argument in self.arguments if argument.key == key), ())

    def value(self, key: str, default: str = "") -> str:
        """The first value of an argument."""
        return next(iter(self.values(key)), default)


def read_commands(path: Path) -> Iterator[Command]:
    """The commands of a file, in order."""
    lines = path.read_text(encoding="utf-8").split("\n")
    at = 0
    while at < len(lines):
        if not lines[at].strip() or lines[at].startswith("#"):
            at += 1
            continue
        start = at
        at = lines.index("----", start)
        given = "\n".join(lines[start + 1 : at])
        at += 1
        if lines[at : at + 1] == ["----"]:
            end = at + 1
            while lines[end : end + 2] != ["----", "----"]:
                end += 1
            expected, at = lines[at + 1 : end], end + 2
        else:
            end = at
            while end < len(lines) and lines[end]:
                end += 1
            expected, at = lines[at:end], end
        name, *rest = lines[start].split(maxsplit=1)
        arguments = tuple(map(_argument, _ARGUMENT.finditer("".join(rest))))
        yield Command(start + 1, name, arguments, given, "".join(line + "\n" for line in expected))


def _argument(match: re.Match[str]) -> Argument:
    one, many = match["one"], match["many"]
    if many is not None:
        return Argument(match["key"], tuple(value.strip() for value in many.split(",") if value.strip()))
    return Argument(match["key"], (one,) if one is not None else ())
