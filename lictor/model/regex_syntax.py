"""The syntax of RE2's regular expressions, compiled into a program of four instructions.

A recursive-descent parser (https://github.com/google/re2/wiki/Syntax) that writes the program as it reads (Thompson's
construction). `lictor.model.regex` runs the program and is what others use; this file is apart because the syntax can
be read without the automaton, and the automaton without the syntax.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from typing import NamedTuple

__all__ = [
    "EDGE",
    "MAX_PATTERN",
    "Compiler",
    "Fork",
    "Instruction",
    "Look",
    "Match",
    "Predicate",
    "Read",
    "RegexError",
    "kind_of",
]

MAX_PATTERN = 2048
"""Longest pattern, in characters."""
_MAX_PROGRAM = 4_000  # instructions, after counted repetitions are written out
_MAX_DEPTH = 100  # groups within groups
_MAX_REPEAT = 1000  # as in RE2

Predicate = Callable[[str], bool]


class RegexError(ValueError):
    """A pattern that is not in the language. The text is RE2's: what is wrong, and which part in backticks."""


class Read(NamedTuple):
    """Read one character for which `accepts` holds."""

    accepts: Predicate


class Fork(NamedTuple):
    """Go on at each of the targets."""

    targets: list[int]


class Look(NamedTuple):
    """Go on when what lies around this place is right; reads nothing."""

    holds: Callable[[int, int], bool]


class Match(NamedTuple):
    """The pattern has occurred."""


# What stands to the left or right of a place in the text, as far as assertions care.
EDGE, _NEWLINE, _WORD, _OTHER = range(4)

_LOOKS: dict[str, Callable[[int, int], bool]] = {
    "start of text": lambda before, after: before == EDGE,
    "end of text": lambda before, after: after == EDGE,
    "start of line": lambda before, after: before in (EDGE, _NEWLINE),
    "end of line": lambda before, after: after in (EDGE, _NEWLINE),
    "word boundary": lambda before, after: (before == _WORD) != (after == _WORD),
    "no word boundary": lambda before, after: (before == _WORD) == (after == _WORD),
}

_DIGITS = "0-9"
_SPACES = "\t-\n\f-\r - "
_WORDS = "0-9A-Za-z_-_"
_PERL = {"d": _DIGITS, "s": _SPACES, "w": _WORDS}
_POSIX = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "ascii": "\0-\x7f",
    "blank": "\t-\t - ",
    "cntrl": "\0-\x1f\x7f-\x7f",
    "digit": _DIGITS,
    "graph": "!-~",
    "lower": "a-z",
    "print": " -~",
    "punct": "!-/:-@[-`{-~",
    "space": "\t-\r - ",
    "upper": "A-Z",
    "word": _WORDS,
    "xdigit": "0-9A-Fa-f",
}
_ESCAPES = {"a": "\a", "f": "\f", "t": "\t", "n": "\n", "r": "\r", "v": "\v"}
_CATEGORIES = frozenset(
    (*"CLMNPSZ", "Cc", "Cf", "Co", "Cs", "Ll", "Lm", "Lo", "Lt", "Lu", "Mc", "Me", "Mn", "Nd", "Nl", "No")
    + ("Pc", "Pd", "Pe", "Pf", "Pi", "Po", "Ps", "Sc", "Sk", "Sm", "So", "Zl", "Zp", "Zs")
)


def kind_of(char: str) -> int:
    if char == "\n":
        return _NEWLINE
    return _WORD if char.isascii() and (char.isalnum() or char == "_") else _OTHER


def _ranges(spec: str, negated: bool) -> Predicate:
    """A predicate from "a-zA-Z"-like triples."""
    pairs = [(spec[at], spec[at + 2]) for at in range(0, len(spec), 3)]
    return lambda char: any(low <= char <= high for low, high in pairs) != negated


def _category(name: str, negated: bool) -> Predicate:
    return lambda char: unicodedata.category(char).startswith(name) != negated


def _variants(char: str) -> set[str]:
    """A character and those that differ from it in case alone."""
    once = {char, char.lower(), char.upper(), char.title(), char.casefold()}
    return {form for first in once for form in (first, first.lower(), first.upper()) if len(form) == 1}


def _folded(accepts: Predicate) -> Predicate:
    return lambda char: any(accepts(form) for form in _variants(char))


class _Flags(NamedTuple):
    fold: bool = False
    multi_line: bool = False
    dot_all: bool = False


class Compiler:
    """Reads the pattern from left to right and writes the program as it goes.

    A piece that was just read is the end of the program from some index on; an operator after it moves or repeats that
    end. Targets inside a piece are relative (an offset from the instruction), so that a piece may be copied.
    """

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.at = 0
        self.depth = 0

    def compile(self) -> list[Instruction]:
        code, _ = self.alternation(_Flags())
        if self.at < len(self.pattern):
            raise RegexError(f"unexpected ): `{self.pattern}`")
        return [*code, Match()]

    def alternation(self, flags: _Flags) -> tuple[list[Instruction], _Flags]:
        branches = []
        while True:
            branch, flags = self.sequence(flags)
            branches.append(branch)
            if not self.take("|"):
                break
        code = branches.pop()
        while branches:
            left = branches.pop()
            code = self.limited([Fork([1, len(left) + 2]), *left, Fork([len(code) + 1]), *code])
        return code, flags

    def sequence(self, flags: _Flags) -> tuple[list[Instruction], _Flags]:
        code: list[Instruction] = []
        while self.at < len(self.pattern) and self.pattern[self.at] not in "|)":
            if self.pattern.startswith("(?", self.at):
                piece, inner, is_group = self.flag_group(flags)
                if not is_group:
                    flags = inner
                    continue
            else:
                piece = self.atom(flags)
            code += self.repetition(piece)
            self.limited(code)
        return code, flags

    def flag_group(self, flags: _Flags) -> tuple[list[Instruction], _Flags, bool]:
        """`(?P<name>...)`, `(?flags:...)`, or `(?flags)`, which holds until the enclosing group ends."""
        start = self.at
        for opening in ("(?P<", "(?<"):
            if self.take(opening):
                end = self.pattern.find(">", self.at)
                name = self.pattern[self.at : end] if end >= 0 else ""
                if not name or not name.replace("_", "a").isalnum() or not name.isascii():
                    if end < 0:
                        end = len(self.pattern)
                    raise RegexError(f"invalid named capture: `{self.pattern[start : end + 1]}`")
                self.at = end + 1
                return self.group_body(flags), flags, True
        self.at += 2
        values = {"i": flags.fold, "m": flags.multi_line, "s": flags.dot_all, "U": False}
        turn_on = True
        seen = False
        while self.at < len(self.pattern):
            char = self.pattern[self.at]
            self.at += 1
            if char in values:
                values[char] = turn_on
                seen = True
            elif char == "-" and turn_on:
                turn_on = seen = False
            elif char in ":)" and (turn_on or seen):
                inner = _Flags(values["i"], values["m"], values["s"])
                if char == ")":
                    return [], inner, False
                return self.group_body(inner), inner, True
            else:
                break
        raise RegexError(f"invalid or unsupported Perl syntax: `{self.pattern[start : self.at]}`")

    def group_body(self, flags: _Flags) -> list[Instruction]:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise RegexError(f"expression nests too deeply: `{self.pattern}`")
        code, _ = self.alternation(flags)
        self.depth -= 1
        if not self.take(")"):
            raise RegexError(f"missing closing ): `{self.pattern}`")
        return code

    def atom(self, flags: _Flags) -> list[Instruction]:
        char = self.pattern[self.at]
        if char == "[":
            return [Read(self.character_class(flags))]
        if char == "\\":
            return self.escape(flags)
        if char in "*+?" or (char == "{" and self.counts() is not None):
            operator = char if char != "{" else self.pattern[self.at : self.pattern.index("}", self.at) + 1]
            raise RegexError(f"missing argument to repetition operator: `{operator}`")
        self.at += 1
        if char == "(":
            return self.group_body(flags)
        if char == ".":
            return [Read((lambda char: True) if flags.dot_all else (lambda char: char != "\n"))]
        if char == "^":
            return [Look(_LOOKS["start of line" if flags.multi_line else "start of text"])]
        if char == "$":
            return [Look(_LOOKS["end of line" if flags.multi_line else "end of text"])]
        return [_literal(char, flags)]

    def escape(self, flags: _Flags) -> list[Instruction]:
        following = self.pattern[self.at + 1 : self.at + 2]
        looks = {"A": "start of text", "z": "end of text", "b": "word boundary", "B": "no word boundary"}
        if following in looks:
            self.at += 2
            return [Look(_LOOKS[looks[following]])]
        if following == "Q":
            end = self.pattern.find("\\E", self.at + 2)
            text = self.pattern[self.at + 2 : end if end >= 0 else None]
            self.at = end + 2 if end >= 0 else len(self.pattern)
            # A repetition after \E concerns the last character alone.
            if text and self.at < len(self.pattern) and self.pattern[self.at] in "*+?{":
                last: list[Instruction] = [_literal(text[-1], flags)]
                return [*(_literal(char, flags) for char in text[:-1]), *self.repetition(last)]
            return [_literal(char, flags) for char in text]
        predicate = self.class_escape()
        if predicate is not None:
            return [Read(_folded(predicate) if flags.fold else predicate)]
        return [_literal(self.character_escape(), flags)]

    def class_escape(self) -> Predicate | None:
        """`\\d`, `\\pL`, `\\P{Lu}` and their like; None (nothing read) when another escape stands here."""
        start = self.at
        letter = self.pattern[self.at + 1 : self.at + 2]
        if letter and letter in "dDsSwW":
            self.at += 2
            return _ranges(_PERL[letter.lower()], letter.isupper())
        if letter not in ("p", "P"):
            return None
        self.at += 2
        if self.take("{"):
            end = self.pattern.find("}", self.at)
            name = self.pattern[self.at : end] if end >= 0 else ""
            self.at = end + 1 if end >= 0 else len(self.pattern)
        else:
            name = self.pattern[self.at : self.at + 1]
            self.at += 1
        negated = (letter == "P") != name.startswith("^")
        name = name.removeprefix("^")
        if name == "Any":
            return lambda char: not negated
        if name not in _CATEGORIES:
            raise RegexError(f"invalid character class range: `{self.pattern[start : self.at]}`")
        return _category(name, negated)

    def character_escape(self) -> str:
        """One escaped character, in or out of a class."""
        start = self.at
        self.at += 2
        if self.at > len(self.pattern):
            raise RegexError("trailing backslash at end of expression: ``")
        char = self.pattern[start + 1]
        code = None
        if char in _ESCAPES:
            return _ESCAPES[char]
        if char.isascii() and not char.isalnum():
            return char
        if char == "x":
            if self.take("{"):
                end = self.pattern.find("}", self.at)
                digits = self.pattern[self.at : end] if end >= 0 else ""
                self.at = end + 1 if end >= 0 else len(self.pattern)
            else:
                digits = self.pattern[self.at : self.at + 2]
                self.at += 2
                digits = digits if len(digits) == 2 else ""
            if digits and len(digits) <= 8 and all(digit in "0123456789abcdefABCDEF" for digit in digits):
                code = int(digits, 16)
        elif char == "0" or (char in "1234567" and self.pattern[self.at : self.at + 1] in set("01234567")):
            # A single digit that is not 0 would be a back-reference, which the language lacks.
            end = start + 2
            while end < start + 4 and self.pattern[end : end + 1] in set("01234567"):
                end += 1
            code = int(self.pattern[start + 1 : end], 8)
            self.at = end
        if code is None or code > 0x10FFFF:
            raise RegexError(f"invalid escape sequence: `{self.pattern[start : self.at]}`")
        return chr(code)

    def character_class(self, flags: _Flags) -> Predicate:
        start = self.at
        self.at += 1
        negated = self.take("^")
        first = True
        parts: list[Predicate] = []
        spec = ""
        while first or not self.pattern.startswith("]", self.at):
            if self.at >= len(self.pattern):
                raise RegexError(f"missing closing ]: `{self.pattern[start:]}`")
            first = False
            if self.pattern.startswith("[:", self.at) and (end := self.pattern.find(":]", self.at + 2)) >= 0:
                name = self.pattern[self.at + 2 : end]
                if name.removeprefix("^") not in _POSIX:
                    raise RegexError(f"invalid character class range: `{self.pattern[self.at : end + 2]}`")
                parts.append(_ranges(_POSIX[name.removeprefix("^")], name.startswith("^")))
                self.at = end + 2
                continue
            if self.pattern[self.at] == "\\" and (predicate := self.class_escape()) is not None:
                parts.append(predicate)
                continue
            range_start = self.at
            low = high = self.class_character(start)
            if self.pattern.startswith("-", self.at) and self.pattern[self.at + 1 : self.at + 2] not in ("]", ""):
                self.at += 1
                high = self.class_character(start)
                if high < low:
                    raise RegexError(f"invalid character class range: `{self.pattern[range_start : self.at]}`")
            spec += f"{low}-{high}"
            if flags.fold and low == high:
                spec += "".join(f"{form}-{form}" for form in _variants(low))
        self.at += 1
        if spec:
            parts.append(_ranges(spec, False))

        def within(char: str) -> bool:
            return any(part(char) for part in parts)

        inside = _folded(within) if flags.fold else within
        return (lambda char: not inside(char)) if negated else inside

    def class_character(self, class_start: int) -> str:
        if self.at >= len(self.pattern):
            raise RegexError(f"missing closing ]: `{self.pattern[class_start:]}`")
        if self.pattern[self.at] == "\\":
            return self.character_escape()
        self.at += 1
        return self.pattern[self.at - 1]

    def counts(self) -> tuple[int, int | None] | None:
        """`{n}`, `{n,}` or `{n,m}` at the current place as (least, most), or None where the brace is plain text."""
        end = self.pattern.find("}", self.at)
        if end < 0:
            return None
        least, comma, most = self.pattern[self.at + 1 : end].partition(",")
        if not _is_count(least) or (most and not _is_count(most)):
            return None
        return int(least), (int(most) if most else None) if comma else int(least)

    def repetition(self, piece: list[Instruction]) -> list[Instruction]:
        operator_at = -1
        while self.at < len(self.pattern):
            operator_start = self.at
            char = self.pattern[self.at]
            if char in "*+?":
                least, most = {"*": (0, None), "+": (1, None), "?": (0, 1)}[char]
                self.at += 1
            elif char == "{" and (bounds := self.counts()) is not None:
                least, most = bounds
                self.at = self.pattern.index("}", self.at) + 1
                if least > _MAX_REPEAT or (most is not None and (most > _MAX_REPEAT or most < least)):
                    raise RegexError(f"invalid repeat count: `{self.pattern[operator_start : self.at]}`")
            else:
                break
            self.take("?")
            if operator_at >= 0:
                raise RegexError(f"invalid nested repetition operator: `{self.pattern[operator_at : self.at]}`")
            operator_at = operator_start
            piece = self.repeated(piece, least, most)
        return piece

    def repeated(self, piece: list[Instruction], least: int, most: int | None) -> list[Instruction]:
        size = len(piece)
        if size * max(least, most or 1, 1) > _MAX_PROGRAM:
            raise RegexError(f"expression is too large: `{self.pattern}`")
        code = piece * least
        if most is None:
            if least:
                return self.limited([*code, Fork([-size, 1])])
            return self.limited([Fork([1, size + 2]), *piece, Fork([-size - 1])])
        for left in range(most - least, 0, -1):
            code += [Fork([1, left * (size + 1)]), *piece]
        return self.limited(code)

    def limited(self, code: list[Instruction]) -> list[Instruction]:
        if len(code) > _MAX_PROGRAM:
            raise RegexError(f"expression is too large: `{self.pattern}`")
        return code

    def take(self, text: str) -> bool:
        if self.pattern.startswith(text, self.at):
            self.at += len(text)
            return True
        return False


Instruction = Read | Fork | Look | Match


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 9


def _literal(char: str, flags: _Flags) -> Read:
    if flags.fold:
        forms = frozenset(_variants(char))
        return Read(lambda other: other in forms)
    return Read(lambda other: other == char)
