"""JSON from the network, with what is wrong with it told in the words of Go's decoder, which Consul's clients know.

The fast path is msgspec. Only a body that it refuses is read again here, a character at a time, to find the first one
that cannot stand where it stands. As in Go, what follows a whole value is passed over.
"""

from __future__ import annotations

from typing import Any

import msgspec

MAX_NESTING = 10_000  # as Go's decoder has it
MAX_EXPLAINED = 256 * 1024  # bytes: to read a longer one a character at a time would hold up everybody else

_SPACE = frozenset(" \t\r\n")
_DIGITS = frozenset("0123456789")
_HEX = frozenset("0123456789abcdefABCDEF")
_LITERALS = {"t": "true", "f": "false", "n": "null"}


class JsonError(ValueError):
    """A text that is not JSON; the message is Go's."""


def decode_json(data: bytes) -> Any:
    """The value that a text begins with. Raises JsonError: `EOF` for an empty text, `unexpected EOF` for one that is
    cut off, `invalid character ...` for any other mistake."""
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        if len(data) > MAX_EXPLAINED:
            raise JsonError("exceeded max depth" if isinstance(error, RecursionError) else str(error)) from None
        text = data.decode("utf-8", "replace")
        end = _Scanner(text).value_end()
        try:
            return msgspec.json.decode(text[:end].encode())
        except RecursionError:
            raise JsonError("exceeded max depth") from None
        except (msgspec.DecodeError, ValueError) as error:
            raise JsonError(str(error)) from None


class _Scanner:
    """Reads one value of a text and stops at the first mistake."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def value_end(self) -> int:
        """Where the first value ends. Raises JsonError."""
        if not self._text.strip(" \t\r\n"):
            raise JsonError("EOF")
        # What is open: "[" or "{".
        open_: list[str] = []
        self._value_begins(open_)
        while open_:
            self._skip_space()
            if open_[-1] == "[":
                self._after_element(open_)
            else:
                self._after_pair(open_)
        return self._at

    def _value_begins(self, open_: list[str]) -> None:
        """Read a value that is no container, or the beginning of one that is not empty."""
        while True:
            self._skip_space()
            char = self._peek()
            if char in "[{":
                if len(open_) >= MAX_NESTING:
                    raise JsonError("exceeded max depth")
                self._at += 1
                self._skip_space()
                if self._peek() == {"[": "]", "{": "}"}[char]:
                    self._at += 1
                    return
                open_.append(char)
                if char == "{":
                    self._key()
                continue
            self._scalar(char)
            return

    def _after_element(self, open_: list[str]) -> None:
        char = self._peek()
        self._at += 1
        if char == "]":
            open_.pop()
        elif char == ",":
            self._value_begins(open_)
        else:
            raise self._invalid(char, "after array element")

    def _after_pair(self, open_: list[str]) -> None:
        char = self._peek()
        self._at += 1
        if char == "}":
            open_.pop()
        elif char == ",":
            self._skip_space()
            self._key()
            self._value_begins(open_)
        else:
            raise self._invalid(char, "after object key:value pair")

    def _key(self) -> None:
        char = self._peek()
        if char != '"':
            raise self._invalid(char, "looking for beginning of object key string")
        self._string()
        self._skip_space()
        char = self._peek()
        if char != ":":
            raise self._invalid(char, "after object key")
        self._at += 1

    def _scalar(self, char: str) -> None:
        if char == '"':
            self._string()
        elif char == "-" or char in _DIGITS:
            self._number()
        elif char in _LITERALS:
            self._literal(_LITERALS[char])
        else:
            raise self._invalid(char, "looking for beginning of value")

    def _string(self) -> None:
        self._at += 1
        while True:
            char = self._peek()
            self._at += 1
            if char == '"':
                return
            if char < " ":
                raise self._invalid(char, "in string literal")
            if char == "\\":
                self._escape()

    def _escape(self) -> None:
        char = self._peek()
        self._at += 1
        if char == "u":
            for _ in range(4):
                digit = self._peek()
                self._at += 1
                if digit not in _HEX:
                    raise self._invalid(digit, "in \\u hexadecimal character escape")
        elif char not in '"\\/bfnrt':
            raise self._invalid(char, "in string escape code")

    def _number(self) -> None:
        if self._peek() == "-":
            self._at += 1
            char = self._peek()
            if char not in _DIGITS:
                raise self._invalid(char, "in numeric literal")
        if self._peek() == "0":
            self._at += 1
        else:
            self._digits()
        if self._here() == ".":
            self._at += 1
            self._some_digits("after decimal point in numeric literal")
        if self._here() in ("e", "E"):
            self._at += 1
            if self._here() in ("+", "-"):
                self._at += 1
            self._some_digits("in exponent of numeric literal")

    def _some_digits(self, place: str) -> None:
        char = self._peek()
        if char not in _DIGITS:
            raise self._invalid(char, place)
        self._digits()

    def _digits(self) -> None:
        while self._here() in _DIGITS:
            self._at += 1

    def _literal(self, word: str) -> None:
        for position, expected in enumerate(word):
            char = self._peek()
            self._at += 1
            if char != expected:
                raise self._invalid(char, f"in literal {word} (expecting '{word[position]}')")

    def _skip_space(self) -> None:
        while self._here() in _SPACE:
            self._at += 1

    def _here(self) -> str:
        """The next character, empty at the end."""
        return self._text[self._at : self._at + 1]

    def _peek(self) -> str:
        """The next character. Raises JsonError at the end."""
        if self._at >= len(self._text):
            raise JsonError("unexpected EOF")
        return self._text[self._at]

    def _invalid(self, char: str, place: str) -> JsonError:
        shown = {"'": "'\\''", '"': "'\"'"}.get(char)
        if shown is None:
            shown = f"'{char}'" if char.isprintable() else f"'{_escaped(char)}'"
        return JsonError(f"invalid character {shown} {place}")


def _escaped(char: str) -> str:
    named = {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b", "\f": "\\f", "\v": "\\v", "\a": "\\a"}.get(char)
    if named:
        return named
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
