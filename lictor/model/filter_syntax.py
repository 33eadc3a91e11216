"""The text of a `?filter=` expression, read into a tree.

The language is go-bexpr's (Consul's filtering documentation, /consul/api-docs/features/filtering, and the newer
grammar of the library itself): matches joined by `and`, `or`, `not` and parentheses, and `any`/`all` over lists and
maps. This is a recursive-descent parser over characters, because white space matters in places: `a==b` is a match and
`(a==b)and(c==d)` is not an expression.

Two kinds of failure. A soft one says "this alternative does not fit here": it is noted with what would have fitted,
and the next alternative is tried. When all fail, the note that reached farthest into the text becomes the error, as a
person reading from the left would put it. A hard one (an unclosed string) ends parsing at once. Both are worded as
Consul words them: line, column, (offset in bytes), what was expected.

There is no way to make it slow: no alternative re-reads more than one match, groups nest at most MAX_DEPTH deep, and an
expression has at most MAX_LENGTH characters.
"""

from __future__ import annotations

import enum
import re
from typing import NamedTuple

from lictor.model.errors import InvalidRequest

MAX_LENGTH = 16 * 1024
"""Longest expression, in characters."""
MAX_DEPTH = 64
"""Groups within groups."""
MAX_LOOPS = 2
"""`any`/`all` within `any`/`all`: each level multiplies the work by the length of a list."""

PREFIX = "Failed to create boolean expression evaluator: "


class FilterError(InvalidRequest):
    """An expression that cannot be read, or does not suit the records. The text is what the caller is to be told."""

    def __init__(self, reason: str) -> None:
        super().__init__(PREFIX + reason)


class Operator(enum.Enum):
    """What a match asks of a field. The values are the names that error texts use."""

    EQUAL = "Equal"
    NOT_EQUAL = "Not Equal"
    IN = "In"
    NOT_IN = "Not In"
    IS_EMPTY = "Is Empty"
    IS_NOT_EMPTY = "Is Not Empty"
    MATCHES = "Matches"
    NOT_MATCHES = "Not Matches"
    IS_NIL = "Is Nil"
    IS_NOT_NIL = "Is Not Nil"


class Selector(NamedTuple):
    """A path to a field, and the column (from 1) where it was written."""

    path: tuple[str, ...]
    column: int

    def __str__(self) -> str:
        return ".".join(self.path)


class Match(NamedTuple):
    """A field compared with a value (None for the operators that take none)."""

    selector: Selector
    operator: Operator
    value: str | None


class Not(NamedTuple):
    """True when the operand is not."""

    operand: Node


class And(NamedTuple):
    """True when all operands are; they are tried from left to right."""

    operands: tuple[Node, ...]


class Or(NamedTuple):
    """True when one of the operands is; they are tried from left to right."""

    operands: tuple[Node, ...]


class Loop(NamedTuple):
    """`any`/`all` of the items of a list or map satisfy `inner`.

    The names are those the expression gives to an item's key or index, to its value, and (`as x` alone) to whichever of
    the two a list (value) or a map (key) is iterated by; empty where not given.
    """

    all_of_them: bool
    selector: Selector
    key_name: str
    value_name: str
    item_name: str
    inner: Node


Node = Match | Not | And | Or | Loop

_SPACES = " \t\r\n"
_SPACE_LABEL = r"[ \t\r\n]"
_IDENTIFIER = re.compile(r"[a-zA-Z][a-zA-Z0-9_/]*")
_DIGITS = re.compile(r"[0-9]+")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?")
# A quoted string in a selector's place is a JSON pointer when it looks like one.
_POINTER = re.compile(r"(?:/[\w.~:|-]+)+")
_ESCAPE = re.compile(r"\\(?:([abfnrtv\\\"])|([0-7]{3})|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8}))")
_SHORT_ESCAPES = {"a": 7, "b": 8, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11, "\\": 92, '"': 34}


def parse_tree(text: str) -> Node:
    """The tree of an expression. Raises FilterError with line, column and what was expected there."""
    if len(text) > MAX_LENGTH:
        raise FilterError(f"the expression has {len(text)} characters, at most {MAX_LENGTH} are allowed")
    return _Parser(text).parse()


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.depth = 0
        self.loops = 0
        self.farthest = 0
        self.expected: set[str] = set()

    # -- errors ------------------------------------------------------------------------------------------------------

    def expect(self, *labels: str) -> None:
        """Note that one of `labels` would have fitted at the current place."""
        if self.at > self.farthest:
            self.farthest = self.at
            self.expected.clear()
        if self.at == self.farthest:
            self.expected.update(labels)

    def place(self, at: int) -> str:
        before = self.text[:at]
        column = at - (before.rfind("\n") + 1) + 1
        return f"{before.count(chr(10)) + 1}:{column} ({len(before.encode('utf-8', 'surrogatepass'))})"

    def hard(self, rule: str, reason: str, at: int | None = None) -> FilterError:
        return FilterError(f'{self.place(self.at if at is None else at)}: rule "{rule}": {reason}')

    def soft(self) -> FilterError:
        labels = sorted(self.expected - {"EOF"}) + ["EOF"] * ("EOF" in self.expected)
        listed = ", ".join(labels[:-1]) + " or " + labels[-1] if len(labels) > 1 else labels[0]
        return FilterError(f"{self.place(self.farthest)}: no match found, expected: {listed}")

    # -- characters --------------------------------------------------------------------------------------------------

    def spaces(self) -> bool:
        start = self.at
        while self.at < len(self.text) and self.text[self.at] in _SPACES:
            self.at += 1
        self.expect(_SPACE_LABEL)
        return self.at > start

    def literal(self, text: str) -> bool:
        if self.text.startswith(text, self.at):
            self.at += len(text)
            return True
        self.expect(f'"{text}"')
        return False

    def word(self, text: str) -> bool:
        """`text` and the white space that must follow it."""
        start = self.at
        if self.literal(text) and self.spaces():
            return True
        self.at = start
        return False

    # -- expressions -------------------------------------------------------------------------------------------------

    def parse(self) -> Node:
        self.spaces()
        node = self.either()
        if node is not None:
            self.spaces()
            if self.at == len(self.text):
                return node
            self.expect("EOF")
        raise self.soft()

    def either(self) -> Node | None:
        return self.joined("or", Or)

    def joined(self, word: str, build: type[Or] | type[And]) -> Node | None:
        """Operands with `word` between them. A joining word that no operand follows is left unread."""
        operands: list[Node] = []
        while True:
            operand = self.joined("and", And) if word == "or" else self.negation()
            if operand is None:
                break
            operands.append(operand)
            end = self.at
            if not (self.spaces() and self.word(word)):
                break
        if not operands:
            return None
        self.at = end
        return operands[0] if len(operands) == 1 else build(tuple(operands))

    def negation(self) -> Node | None:
        starts = []
        while True:
            start = self.at
            if not self.word("not"):
                break
            starts.append(start)
        node = self.primary()
        # `not` is also a name that a field might have: `not == 1`.
        while node is None and starts:
            self.at = starts.pop()
            node = self.match()
        return Not(node) if node is not None and len(starts) % 2 else node

    def primary(self) -> Node | None:
        if not self.literal("("):
            return self.loop() or self.match()
        self.deeper()
        self.spaces()
        node = self.either()
        if node is not None:
            self.spaces()
            if not self.literal(")"):
                raise self.hard("grouping", "Unmatched parentheses")
        self.depth -= 1
        return node

    def deeper(self) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise self.hard("grouping", f"more than {MAX_DEPTH} groups within each other")

    def loop(self) -> Node | None:
        """`any Checks as check { check.Status == "passing" }`, or None (nothing read) where something else stands."""
        start = self.at
        noted = self.farthest, set(self.expected)
        all_of_them = self.text.startswith("all", start)
        if (all_of_them or self.text.startswith("any", start)) and self.word("all" if all_of_them else "any"):
            selector = self.selector()
            if selector is not None and self.spaces() and self.word("as"):
                names = self.names()
                self.spaces()
                if not self.literal("{"):
                    raise self.soft()
                return self.loop_body(all_of_them, selector, *names)
        # `any` was the name of a field; what was expected after it as a loop would only confuse.
        self.at = start
        self.farthest, self.expected = noted
        return None

    def loop_body(self, all_of_them: bool, selector: Selector, key_name: str, value_name: str, item_name: str) -> Node:
        self.loops += 1
        if self.loops > MAX_LOOPS:
            raise self.hard("collection", f"more than {MAX_LOOPS} any/all within each other")
        self.deeper()
        self.spaces()
        inner = self.either()
        if inner is None:
            raise self.soft()
        self.spaces()
        if not self.literal("}"):
            raise self.hard("collection", "Unmatched braces")
        self.loops -= 1
        self.depth -= 1
        return Loop(all_of_them, selector, key_name, value_name, item_name, inner)

    def names(self) -> tuple[str, str, str]:
        """`key, value`, `key, _`, `_, value` or `item`, as (key, value, item)."""
        start = self.at
        first = self.name_or_blank()
        after_first = self.at
        self.spaces()
        if not self.literal(","):
            self.at = after_first
            if first == "_":
                raise self.hard("collection-identifiers", 'a name is needed: "as item", "as key, value"', start)
            return "", "", first
        self.spaces()
        second = self.name_or_blank()
        if first == second:
            reason = f'"{first}" cannot be used as a placeholder for both the index and the value'
            raise self.hard("collection-identifiers", reason, start)
        return first.replace("_", "") if first == "_" else first, "" if second == "_" else second, ""

    def name_or_blank(self) -> str:
        name = _IDENTIFIER.match(self.text, self.at)
        if name is not None:
            self.at = name.end()
            return name[0]
        if not self.literal("_"):
            self.expect("[a-zA-Z]")
            raise self.soft()
        return "_"

    # -- matches -----------------------------------------------------------------------------------------------------

    def match(self) -> Node | None:
        start = self.at
        selector = self.selector()
        if selector is not None:
            return self.selector_match(selector, str(selector))
        text = self.number()
        if text is not None:
            return self.value_match(text)
        text = self.string()
        if text is None:
            return None
        if _POINTER.fullmatch(text):
            path = tuple(part.replace("~1", "/").replace("~0", "~") for part in text[1:].split("/"))
            return self.selector_match(Selector(path, start + 1), text)
        return self.value_match(text)

    def selector_match(self, selector: Selector, text: str) -> Node | None:
        """What may follow a selector, which may after all turn out to be a bare value: `web in Tags`."""
        spaced = self.spaces()
        if self.literal("=="):
            return self.compared(selector, Operator.EQUAL)
        if self.literal("!="):
            return self.compared(selector, Operator.NOT_EQUAL)
        if not spaced:
            return None
        if self.word("contains"):
            return self.compared(selector, Operator.IN)
        if self.word("matches"):
            return self.compared(selector, Operator.MATCHES)
        if self.word("is"):
            negated = self.word("not")
            if self.literal("empty"):
                return Match(selector, Operator.IS_NOT_EMPTY if negated else Operator.IS_EMPTY, None)
            if self.literal("nil"):
                return Match(selector, Operator.IS_NOT_NIL if negated else Operator.IS_NIL, None)
            return None
        if self.word("in"):
            return self.contained(text, Operator.IN)
        if self.word("not"):
            if self.word("contains"):
                return self.compared(selector, Operator.NOT_IN)
            if self.word("matches"):
                return self.compared(selector, Operator.NOT_MATCHES)
            if self.word("in"):
                return self.contained(text, Operator.NOT_IN)
        return None

    def value_match(self, value: str) -> Node | None:
        """What may follow a number or a string: `5 in Meta`, `"a b" not in Tags`."""
        if self.spaces():
            if self.word("in"):
                return self.contained(value, Operator.IN)
            if self.word("not") and self.word("in"):
                return self.contained(value, Operator.NOT_IN)
        return None

    def compared(self, selector: Selector, operator: Operator) -> Node | None:
        self.spaces()
        value = self.value()
        return None if value is None else Match(selector, operator, value)

    def contained(self, value: str, operator: Operator) -> Node:
        start = self.at
        selector = self.selector()
        if selector is None:
            text = self.string()
            if text is None or not _POINTER.fullmatch(text):
                raise self.hard("match", "Invalid selector", start)
            path = tuple(part.replace("~1", "/").replace("~0", "~") for part in text[1:].split("/"))
            selector = Selector(path, start + 1)
        return Match(selector, operator, value)

    def selector(self) -> Selector | None:
        """`Meta.env`, `Meta["a b"]`, `Checks.0.Name`; None (nothing read) where something else stands."""
        start = self.at
        first = _IDENTIFIER.match(self.text, start)
        if first is None:
            self.expect("[a-zA-Z]")
            return None
        path = [first[0]]
        self.at = first.end()
        self.expect("[a-zA-Z0-9_]")
        while True:
            end = self.at
            if self.literal("."):
                part = _IDENTIFIER.match(self.text, self.at) or _DIGITS.match(self.text, self.at)
                if part is None:
                    self.expect("[a-zA-Z]")
                    self.at = end
                    break
                path.append(part[0])
                self.at = part.end()
                self.expect("[a-zA-Z0-9_]")
            elif self.literal("["):
                path.append(self.index())
            else:
                break
        return Selector(tuple(path), start + 1)

    def index(self) -> str:
        self.spaces()
        text = self.string()
        if text is None:
            raise self.hard("index", 'Invalid index: a key is written as a string, as in Meta["a b"]')
        self.spaces()
        if not self.literal("]"):
            raise self.hard("index", "Unclosed index expression")
        return text

    # -- values ------------------------------------------------------------------------------------------------------

    def value(self) -> str | None:
        selector = self.selector()
        if selector is not None:
            return str(selector)
        number = self.number()
        return self.string() if number is None else number

    def number(self) -> str | None:
        number = _NUMBER.match(self.text, self.at)
        if number is None:
            self.expect('"-"', '"0"', "[1-9]")
            if self.text.startswith("-", self.at):
                self.at += 1
                self.expect('"0"', "[1-9]")
                self.at -= 1
            return None
        self.at = number.end()
        if self.at < len(self.text) and self.text[self.at] not in _SPACES + ")}":
            raise self.hard("number", "Invalid number literal: write a value that is not a plain number in quotes")
        self.expect("EOF", '")"', _SPACE_LABEL)
        return number[0]

    def string(self) -> str | None:
        start = self.at
        quote = self.text[start : start + 1]
        if quote not in ("`", '"'):
            self.expect('"\\""', '"`"')
            return None
        end = self.text.find(quote, start + 1)
        if end < 0:
            raise self.hard("string", "Unterminated string literal", len(self.text))
        self.at = end + 1
        body = self.text[start + 1 : end]
        if quote == "`":
            return body.replace("\r", "")
        text = _unescaped(body)
        if text is None:
            reason = "invalid syntax: write \\\\ for a backslash, \\n for a line break, or use a `raw string`"
            raise self.hard("string", reason, start)
        return text


def _unescaped(body: str) -> str | None:
    """The text of a double-quoted string in Go's notation, or None where it is malformed."""
    if "\n" in body:
        return None
    if "\\" not in body:
        return body
    # Bytes, because \x and octal escapes are bytes of the UTF-8 text.
    out = bytearray()
    at = 0
    while at < len(body):
        escape = _ESCAPE.match(body, at) if body[at] == "\\" else None
        if escape is None:
            if body[at] == "\\":
                return None
            out += body[at].encode("utf-8", "surrogatepass")
            at += 1
            continue
        short, octal, byte, *wide = escape.groups()
        if short is not None:
            out.append(_SHORT_ESCAPES[short])
        elif octal is not None or byte is not None:
            code = int(octal, 8) if octal is not None else int(byte, 16)
            if code > 255:
                return None
            out.append(code)
        else:
            code = int(wide[0] or wide[1], 16)
            if code > 0x10FFFF or 0xD800 <= code < 0xE000:
                return None
            out += chr(code).encode()
        at = escape.end()
    return out.decode("utf-8", "replace")
