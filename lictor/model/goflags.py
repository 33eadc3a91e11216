"""Command-line flags with the grammar of Go's `flag` package, which every Consul verb uses.

One dash or two, `-name=value` and `-name value`, booleans that need no value (`-dev`, `-server=false`), repeatable
flags, parsing that stops at the first argument that is not a flag or after `--`. Both the agent's configuration
flags and every verb of the command line are read by this one class, so that the grammar, the error texts and the
layout of `-h` cannot differ between them.

    flags = FlagSet("kv get", "Usage: lictor kv get [options] [KEY_OR_PREFIX]")
    flags.bool("recurse", False, "Recursively look at all keys prefixed with the given path.")
    flags.string("separator", "/", "String to use as a separator between keys.")
    rest = flags.parse(["-recurse", "web/"])
    flags["recurse"]             # True
    flags.given("separator")     # False: the value is the default
"""

from __future__ import annotations

import builtins
import difflib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

import msgspec

from lictor.model.duration import format_duration, parse_duration

WIDTH = 72
"""Columns that a line of help may take, its indentation included."""

INDENT = 5
RAGGED_PENALTY = 100_000

COMMAND_OPTIONS = "Command Options"
HTTP_API_OPTIONS = "HTTP API Options"

TRUE_WORDS = frozenset({"1", "t", "T", "true", "TRUE", "True"})
FALSE_WORDS = frozenset({"0", "f", "F", "false", "FALSE", "False"})


class FlagError(Exception):
    """A command line that cannot be read; the text is what Go's flag package says, plus the nearest flag.

    A verb prints it to standard error, followed by `FlagSet.defaults_text()`, and exits with code 1.
    """


class HelpWanted(Exception):
    """`-h` or `-help` was given: print `FlagSet.help_text()` and exit with code 0."""


class Flag(msgspec.Struct, frozen=True):
    """One declared flag. `read` turns its text into a value and raises ValueError with the reason."""

    name: str
    default: Any
    help: str
    placeholder: str
    section: str
    is_bool: bool
    repeatable: bool
    read: Callable[[str], Any]


def read_bool(text: str) -> bool:
    """`text` as Go's strconv.ParseBool reads it. Raises ValueError."""
    if text in TRUE_WORDS:
        return True
    if text in FALSE_WORDS:
        return False
    raise ValueError("parse error")


def read_int(text: str) -> int:
    """`text` as a signed 64-bit integer in Go's literal forms (`12`, `0x1f`, `0o17`, `0b1`). Raises ValueError."""
    return _read_integer(text, -(2**63), 2**63)


def read_uint(text: str) -> int:
    """`text` as an unsigned 64-bit integer in Go's literal forms. Raises ValueError."""
    if text[:1] in ("+", "-"):
        raise ValueError("parse error")
    return _read_integer(text, 0, 2**64)


def _read_integer(text: str, lowest: int, above: int) -> int:
    digits = text.lstrip("+-")
    if len(text) - len(digits) > 1 or not digits.isascii() or not digits[:1].isdigit() or len(text) > 80:
        raise ValueError("parse error")
    try:
        number = int(text, 8) if len(digits) > 1 and digits.isdigit() and digits[0] == "0" else int(text, 0)
    except ValueError:
        raise ValueError("parse error") from None
    if not lowest <= number < above:
        raise ValueError("value out of range")
    return number


def read_duration(text: str) -> float:
    """`text` as a duration in seconds. Raises ValueError."""
    try:
        return parse_duration(text)
    except ValueError:
        raise ValueError("parse error") from None


def nearest(word: str, candidates: Iterable[str]) -> str | None:
    """The candidate most like `word`, or None when none is near enough to be worth suggesting."""
    found = difflib.get_close_matches(word, list(candidates), n=1, cutoff=0.6)
    return found[0] if found else None


class FlagSet:
    """The flags of one verb: declare them, `parse` the arguments, then read `flags["name"]`.

    Lifecycle: a set parses once; a second `parse` starts from the defaults again.
    """

    def __init__(self, name: str, usage: str = "") -> None:
        self.name = name
        self.usage = usage
        self._flags: dict[str, Flag] = {}
        self._values: dict[str, Any] = {}
        self._order: list[tuple[str, Any]] = []
        self._section = COMMAND_OPTIONS

    # -- declaring -------------------------------------------------------------------------------------------------

    def section(self, title: str) -> None:
        """Flags declared from now on are listed under `title` in the help (default "Command Options")."""
        self._section = title

    def string(self, name: str, default: str, help: str, placeholder: str = "string") -> None:
        """A flag with a text value. `placeholder` is what `-name=<placeholder>` shows in the help."""
        self._declare(name, default, help, placeholder, str)

    def bool(self, name: str, default: bool, help: str) -> None:
        """A flag that is true when present; `-name=false` makes it false."""
        self._declare(name, default, help, "", read_bool, is_bool=True)

    def int(self, name: str, default: int, help: str, placeholder: str = "int") -> None:
        """A flag with a signed 64-bit integer value."""
        self._declare(name, default, help, placeholder, read_int)

    def uint(self, name: str, default: builtins.int, help: str, placeholder: str = "uint") -> None:
        """A flag with an unsigned 64-bit integer value."""
        self._declare(name, default, help, placeholder, read_uint)

    def duration(self, name: str, default: float, help: str, placeholder: str = "duration") -> None:
        """A flag with a duration value ("1m30s"); read as seconds."""
        self._declare(name, default, help, placeholder, read_duration)

    def strings(self, name: str, default: Sequence[str], help: str, placeholder: str = "value") -> None:
        """A flag that may be given several times; read as a tuple of texts in the order given."""
        self._declare(name, tuple(default), help, placeholder, str, repeatable=True)

    def _declare(
        self,
        name: str,
        default: Any,
        help: str,
        placeholder: str,
        read: Callable[[str], Any],
        is_bool: builtins.bool = False,
        repeatable: builtins.bool = False,
    ) -> None:
        if name in self._flags:
            raise ValueError(f"flag redefined: {name}")
        quoted = _quoted_word(help)
        self._flags[name] = Flag(
            name=name,
            default=default,
            help=help,
            placeholder="" if is_bool else (quoted or placeholder),
            section=self._section,
            is_bool=is_bool,
            repeatable=repeatable,
            read=read,
        )

    # -- parsing ---------------------------------------------------------------------------------------------------

    def parse(self, argv: Sequence[str]) -> list[str]:
        """Read the flags in `argv` and return the arguments after them.

        Raises FlagError for a flag that is unknown, lacks its value or has a bad one; HelpWanted for `-h`, `-help`.
        """
        self._values = {}
        self._order = []
        rest = list(argv)
        while rest:
            argument = rest[0]
            if len(argument) < 2 or argument[0] != "-":
                break
            rest.pop(0)
            if argument == "--":
                break
            body = argument[2:] if argument.startswith("--") else argument[1:]
            if not body or body[0] in "-=":
                raise FlagError(f"bad flag syntax: {argument}")
            name, equals, text = body.partition("=")
            flag = self._flags.get(name)
            if flag is None:
                self._unknown(name)
            if flag.is_bool:
                self._store(flag, text if equals else "true")
            elif equals:
                self._store(flag, text)
            elif rest:
                self._store(flag, rest.pop(0))
            else:
                raise FlagError(f"flag needs an argument: -{name}")
        return rest

    def _unknown(self, name: str) -> NoReturn:
        if name in ("h", "help"):
            raise HelpWanted(self.name)
        near = nearest(name, self._flags)
        hint = f" (did you mean -{near}?)" if near else ""
        raise FlagError(f"flag provided but not defined: -{name}{hint}")

    def _store(self, flag: Flag, text: str) -> None:
        try:
            value = flag.read(text)
        except ValueError as error:
            kind = "boolean value" if flag.is_bool else "value"
            where = f"-{flag.name}" if flag.is_bool else f"flag -{flag.name}"
            raise FlagError(f'invalid {kind} "{text}" for {where}: {error}') from None
        self._order.append((flag.name, value))
        if flag.repeatable:
            self._values[flag.name] = (*self._values.get(flag.name, ()), value)
        else:
            self._values[flag.name] = value

    # -- reading ---------------------------------------------------------------------------------------------------

    def __getitem__(self, name: str) -> Any:
        """The value given for `name`, or its default. KeyError for a flag that was never declared."""
        if name in self._values:
            return self._values[name]
        return self._flags[name].default

    def given(self, name: str) -> builtins.bool:
        """Whether `name` was on the command line."""
        return name in self._values

    def in_order(self, *names: str) -> list[Any]:
        """The values given for any of `names`, in the order of the command line."""
        return [value for name, value in self._order if name in names]

    def names(self) -> list[str]:
        """Every declared flag's name, sorted: what shell completion offers."""
        return sorted(self._flags)

    def flag(self, name: str) -> Flag:
        """The declaration of `name`. KeyError for a flag that was never declared."""
        return self._flags[name]

    # -- help ------------------------------------------------------------------------------------------------------

    def help_text(self) -> str:
        """What `-h` prints: the usage, then each section's flags in name order, wrapped as Consul wraps them."""
        parts = [self.usage.strip()]
        for title in self._section_titles():
            lines = [title]
            for flag in sorted(self._flags.values(), key=lambda flag: flag.name):
                if flag.section != title:
                    continue
                shown = f"  -{flag.name}=<{flag.placeholder}>" if flag.placeholder else f"  -{flag.name}"
                body = [" " * INDENT + line for line in wrap(flag.help, WIDTH - INDENT)]
                lines.append("\n".join(["", shown, *body]))
            parts.append("\n".join(lines))
        return "\n\n".join(parts)

    def defaults_text(self) -> str:
        """What follows the message of a FlagError: every flag on a line, as Go's PrintDefaults lays them out."""
        lines = ["Usage:"]
        for name in self.names():
            flag = self._flags[name]
            lines.append(f"  -{name} {flag.placeholder}".rstrip())
            lines.append(f"    \t{flag.help.replace('`', '', 2)}{_default_note(flag)}")
        return "\n".join(lines)

    def _section_titles(self) -> list[str]:
        titles = list(dict.fromkeys(flag.section for flag in self._flags.values()))
        titles.sort(key=lambda title: title == COMMAND_OPTIONS)
        return titles


def _default_note(flag: Flag) -> str:
    if not flag.default:
        return ""
    if isinstance(flag.default, str):
        return f' (default "{flag.default}")'
    if flag.is_bool:
        return " (default true)"
    if isinstance(flag.default, float):
        return f" (default {format_duration(flag.default)})"
    return "" if flag.repeatable else f" (default {flag.default})"


def _quoted_word(help: str) -> str:
    """The placeholder that a back-quoted word in `help` names, or ""."""
    parts = help.split("`", 2)
    return parts[1] if len(parts) == 3 else ""


def wrap(text: str, width: int) -> list[str]:
    """`text` in lines of at most `width` columns (a longer word stands alone), broken where the sum of the squares
    of the space left at the line ends, the last line's apart, is least."""
    words = text.split()
    count = len(words)
    cost = [0] * (count + 1)
    after = [count] * (count + 1)
    for start in range(count - 1, -1, -1):
        if len(" ".join(words[start:])) <= width:
            continue
        best: int | None = None
        length = -1
        for stop in range(start + 1, count):
            length += 1 + len(words[stop - 1])
            left = width - length
            here = left * left + cost[stop] + (RAGGED_PENALTY if left < 0 else 0)
            if best is None or here < best:
                best, after[start] = here, stop
            if left < 0:
                break
        cost[start] = best or 0
    lines = []
    position = 0
    while position < count:
        lines.append(" ".join(words[position : after[position]]))
        position = after[position]
    return lines
