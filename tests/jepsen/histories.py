"""Histories in short: one line a process, `|` between operations, dots for time that passes."""

import re
from collections.abc import Callable
from typing import Any

from jepsen.checker import FOREVER, Operation


def drawn(*lines: str, read: Callable[[str], tuple[str, Any, Any]]) -> list[Operation]:
    """Operations as drawn: `[w1]` runs from its `[` to its `]`, `[w1?` is never answered. `read` reads a text."""
    found = []
    for process, line in enumerate(lines):
        for one in re.finditer(r"\[([^\]\[?]*)([\]?])", line):
            name, value, result = read(one[1].strip("-"))
            known = one[2] == "]"
            found.append(
                Operation(
                    process, name, value, result if known else None, one.start(), one.end() - 1 if known else FOREVER
                )
            )
    return found


def register(text: str) -> tuple[str, Any, Any]:
    """`w1` writes, `r1` and `r_` read a value and nothing, `c12` and `x12` are swaps that matched and that did not."""
    number = None if text[1:] == "_" else int(text[1])
    if text[0] == "w":
        return "write", number, True
    if text[0] == "r":
        return "read", None, number
    return "cas", (number, int(text[2])), text[0] == "c"


def number_set(text: str) -> tuple[str, Any, Any]:
    """`a1` adds, `r12` reads 1 and 2."""
    if text[0] == "a":
        return "add", int(text[1:]), True
    return "read", None, tuple(int(digit) for digit in text[1:])


def lock(text: str) -> tuple[str, Any, Any]:
    """`a:x` acquires, `a!x` fails to; `r:x` and `r!x` release; `h:x` sees the holder, `h:` sees none."""
    name = {"a": "acquire", "r": "release", "h": "holder"}[text[0]]
    if name == "holder":
        return name, None, text[2:] or None
    return name, text[2:], text[1] == ":"
