"""HCL, the first version of the language: what Consul's configuration files and ACL rules are written in.

Its grammar is small: a list of items `key = value` or `key "label" { ... }`, separated by newlines, spaces or commas;
values are numbers, booleans, quoted texts, here-documents, lists and objects. It is *not* the HCL that Terraform
speaks: there are no expressions, keys may be quoted, commas may stand between the items of a block, and
`service { ... }` and `service = { ... }` mean the same. The parser keeps the line of every key, so that a mistake found
later can be reported where it was made.

    document = parse_hcl('ports { http = 8500, dns = 8600 }')
    document.value                      # {"ports": {"http": 8500, "dns": 8600}}
    document.line(("ports", "http"))    # 1

A key whose object is written several times becomes a list of objects in order. Work is linear in the text's length.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

MAX_DEPTH = 64
MAX_NUMBER = 64
"""Characters of a number beyond which it is refused."""

Path = tuple[str | int, ...]


class SyntaxProblem(Exception):
    """A document that does not follow its language's grammar; `line` counts from 1."""

    def __init__(self, line: int, text: str) -> None:
        super().__init__(text)
        self.line = line
        self.text = text


class Document(msgspec.Struct, frozen=True):
    """A parsed document: plain values, and the line of every key and list element that is known."""

    value: dict[str, Any]
    lines: dict[Path, int]

    def line(self, path: Path) -> int | None:
        """The line of `path`, or of the nearest thing around it that is known; None when nothing is."""
        for length in range(len(path), 0, -1):
            found = self.lines.get(path[:length])
            if found is not None:
                return found
        return None


class _Token(msgspec.Struct, frozen=True):
    kind: str
    value: Any
    line: int


class _Item(msgspec.Struct, frozen=True):
    keys: tuple[str, ...]
    value: Any
    line: int


class _Object(msgspec.Struct, frozen=True):
    items: tuple[_Item, ...]


class _Element(msgspec.Struct, frozen=True):
    value: Any
    line: int


_SPACE = re.compile(r"[ \t\r\ufeff]+")
_COMMENT = re.compile(r"(?:#|//)[^\n]*")
_IDENT = re.compile(r"[^\W\d][\w.\-]*")
_NUMBER = re.compile(r"-?(?:0[xX][0-9a-fA-F]+|[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?)")
_HEREDOC = re.compile(r"<<(-?)([^\W\d]\w*)[ \t]*\r?\n")
_PUNCTUATION = {"{", "}", "[", "]", "=", ","}
_PLAIN = re.compile(r'[^"\\\n$]+')
_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\", '"': '"'}
_CODE_ESCAPE = re.compile(r"x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{3})")


class _Scanner:
    """Text to tokens."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0
        self.line = 1

    def tokens(self) -> list[_Token]:
        found: list[_Token] = []
        while True:
            token = self._next()
            found.append(token)
            if token.kind == "end":
                return found

    def _next(self) -> _Token:
        text = self.text
        while self.position < len(text):
            character = text[self.position]
            if character == "\n":
                self.line += 1
                self.position += 1
            elif match := _SPACE.match(text, self.position) or _COMMENT.match(text, self.position):
                self.position = match.end()
            elif text.startswith("/*", self.position):
                self._block_comment()
            else:
                return self._token(character)
        return _Token("end", None, self.line)

    def _block_comment(self) -> None:
        end = self.text.find("*/", self.position + 2)
        if end < 0:
            raise SyntaxProblem(self.line, "a comment that starts with /* has no end")
        self.line += self.text.count("\n", self.position, end)
        self.position = end + 2

    def _token(self, character: str) -> _Token:
        line = self.line
        if character in _PUNCTUATION:
            self.position += 1
            return _Token(character, character, line)
        if character == '"':
            return _Token("text", self._quoted(), line)
        if character == "<":
            return _Token("text", self._heredoc(), line)
        if match := _NUMBER.match(self.text, self.position):
            self.position = match.end()
            return _Token("number", self._number(match[0]), line)
        if match := _IDENT.match(self.text, self.position):
            self.position = match.end()
            return _Token("word", match[0], line)
        raise SyntaxProblem(line, f"unexpected character {character!r}")

    def _number(self, text: str) -> int | float:
        if len(text) > MAX_NUMBER:
            raise SyntaxProblem(self.line, "a number has too many digits")
        digits = text.lstrip("-")
        if digits[:2] in ("0x", "0X"):
            return int(text, 16)
        if not digits.isdigit():
            return float(text)
        if len(digits) > 1 and digits[0] == "0":
            if "8" in digits or "9" in digits:
                raise SyntaxProblem(self.line, f"{text} is not an octal number; leave out the leading 0")
            return int(text, 8)
        return int(text)

    def _quoted(self) -> str:
        start_line = self.line
        self.position += 1
        parts: list[str] = []
        text = self.text
        while self.position < len(text):
            if match := _PLAIN.match(text, self.position):
                parts.append(match[0])
                self.position = match.end()
                continue
            character = text[self.position]
            if character == '"':
                self.position += 1
                return "".join(parts)
            if character == "\n":
                break
            if character == "\\":
                parts.append(self._escape())
            elif text.startswith("${", self.position):
                parts.append(self._interpolation())
            else:
                parts.append(character)
                self.position += 1
        raise SyntaxProblem(start_line, "a quoted text has no closing quote on its line")

    def _escape(self) -> str:
        following = self.text[self.position + 1 : self.position + 2]
        if following in _ESCAPES:
            self.position += 2
            return _ESCAPES[following]
        match = _CODE_ESCAPE.match(self.text, self.position + 1)
        if match is None:
            raise SyntaxProblem(self.line, f"unknown escape \\{following} in a quoted text")
        code = int(match[4], 8) if match[4] else int(match[1] or match[2] or match[3], 16)
        if code > 0x10FFFF or 0xD800 <= code <= 0xDFFF:
            raise SyntaxProblem(self.line, f"\\{match[0]} is not a character")
        self.position = match.end()
        return chr(code)

    def _interpolation(self) -> str:
        start, depth = self.position, 0
        for position in range(start, len(self.text)):
            character = self.text[position]
            if character == "{":
                depth += 1
            elif character == "}":
                depth -= 1
                if depth == 0:
                    self.position = position + 1
                    self.line += self.text.count("\n", start, self.position)
                    return self.text[start : self.position]
        raise SyntaxProblem(self.line, "${ has no closing brace")

    def _heredoc(self) -> str:
        match = _HEREDOC.match(self.text, self.position)
        if match is None:
            raise SyntaxProblem(self.line, "<< must be followed by a word and a newline")
        start_line = self.line
        self.line += 1
        position = match.end()
        body: list[str] = []
        while position < len(self.text):
            end = self.text.find("\n", position)
            line = self.text[position:] if end < 0 else self.text[position:end]
            if line.strip(" \t\r") == match[2]:
                self.position = position + len(line.rstrip("\r"))
                return _joined(body, strip_indent=bool(match[1]))
            body.append(line)
            if end < 0:
                break
            self.line += 1
            position = end + 1
        raise SyntaxProblem(start_line, f"a here-document has no closing line {match[2]}")


def _joined(lines: list[str], *, strip_indent: bool) -> str:
    if strip_indent:
        indents = [len(line) - len(line.lstrip(" \t")) for line in lines if line.strip()]
        least = min(indents, default=0)
        lines = [line[least:] for line in lines]
    return "".join(line + "\n" for line in lines)


class _Parser:
    """Tokens to objects."""

    def __init__(self, tokens: list[_Token]) -> None:
        self.tokens = tokens
        self.index = 0

    @property
    def token(self) -> _Token:
        return self.tokens[self.index]

    def take(self) -> _Token:
        token = self.tokens[self.index]
        self.index += 1
        return token

    def items(self, closing: str, depth: int) -> _Object:
        if depth > MAX_DEPTH:
            raise SyntaxProblem(self.token.line, "blocks are nested too deeply")
        found: list[_Item] = []
        while self.token.kind != closing:
            if self.token.kind == "end":
                raise SyntaxProblem(self.token.line, "a block is not closed: } is missing")
            found.append(self._item(depth))
            if self.token.kind == ",":
                self.take()
        return _Object(tuple(found))

    def _item(self, depth: int) -> _Item:
        line = self.token.line
        keys: list[str] = []
        while self.token.kind in ("word", "text"):
            keys.append(self.take().value)
        if not keys:
            raise SyntaxProblem(line, f"expected a key, found {_shown(self.token)}")
        if self.token.kind == "=":
            if len(keys) > 1:
                raise SyntaxProblem(line, f'"{keys[0]}" has more than one key before =; a block starts with {{')
            self.take()
            return _Item((keys[0],), self._value(depth), line)
        if self.token.kind == "{":
            self.take()
            inner = self.items("}", depth + 1)
            self.take()
            return _Item(tuple(keys), inner, line)
        raise SyntaxProblem(line, f'key "{keys[-1]}" must be followed by = or {{, found {_shown(self.token)}')

    def _value(self, depth: int) -> Any:
        token = self.take()
        if token.kind in ("text", "number"):
            return token.value
        if token.kind == "word" and token.value in ("true", "false"):
            return token.value == "true"
        if token.kind == "{":
            inner = self.items("}", depth + 1)
            self.take()
            return inner
        if token.kind == "[":
            return self._list(depth + 1)
        raise SyntaxProblem(token.line, f"expected a value, found {_shown(token)}; texts need double quotes")

    def _list(self, depth: int) -> list[_Element]:
        if depth > MAX_DEPTH:
            raise SyntaxProblem(self.token.line, "lists are nested too deeply")
        found: list[_Element] = []
        while self.token.kind != "]":
            line = self.token.line
            found.append(_Element(self._value(depth), line))
            if self.token.kind == ",":
                self.take()
            elif self.token.kind != "]":
                raise SyntaxProblem(self.token.line, f"expected , or ] in a list, found {_shown(self.token)}")
        self.take()
        return found


def _shown(token: _Token) -> str:
    if token.kind == "end":
        return "the end of the file"
    return f'"{token.value}"' if token.kind == "text" else str(token.value)


def _plain(value: Any, path: Path, lines: dict[Path, int]) -> Any:
    if isinstance(value, list):
        plain = []
        for position, element in enumerate(value):
            lines[(*path, position)] = element.line
            plain.append(_plain(element.value, (*path, position), lines))
        return plain
    if not isinstance(value, _Object):
        return value
    grouped: dict[str, list[tuple[int, Any]]] = {}
    for item in value.items:
        inner = item.value
        for label in reversed(item.keys[1:]):
            inner = _Object((_Item((label,), inner, item.line),))
        grouped.setdefault(item.keys[0], []).append((item.line, inner))
    result: dict[str, Any] = {}
    for key, written in grouped.items():
        here = (*path, key)
        lines[here] = written[0][0]
        objects = [(line, inner) for line, inner in written if isinstance(inner, _Object)]
        if len(objects) != len(written) or len(written) == 1:
            lines[here], last = written[-1]
            result[key] = _plain(last, here, lines)
            continue
        for position, (line, _) in enumerate(objects):
            lines[(*here, position)] = line
        result[key] = [_plain(inner, (*here, position), lines) for position, (_, inner) in enumerate(objects)]
    return result


def parse_hcl(text: str) -> Document:
    """The document in `text`. Raises SyntaxProblem with the line."""
    parser = _Parser(_Scanner(text).tokens())
    braced = parser.token.kind == "{"
    if braced:
        parser.take()
        whole = parser.items("}", 1)
        parser.take()
        if parser.token.kind != "end":
            raise SyntaxProblem(parser.token.line, f"unexpected {_shown(parser.token)} after the closing brace")
    else:
        whole = parser.items("end", 1)
    lines: dict[Path, int] = {}
    return Document(_plain(whole, (), lines), lines)
