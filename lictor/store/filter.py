"""Filters: `?filter=` expressions, bound to a record type and run over its records.

    keep = parse('Service.Meta.env == prod and "a b" in Service.Tags').bind(HealthEntry)
    [entry for entry in entries if keep(entry)]

`parse` reads the text (lictor.model.filter_syntax). `bind` checks it against a type, once per query, and turns it into
closures: a selector becomes attribute look-ups, a value is converted to the field's type, a pattern is compiled.
Running the filter then costs a fraction of a microsecond a record.

Types and operators (go-bexpr as Consul uses it; others are refused before anything is filtered):

    text                      ==  !=  in  not in (substring)  matches  not matches
    whole number, number,
    boolean                   ==  !=
    list of any of those      in  not in  is empty  is not empty  is nil  is not nil
    map with text keys        in  not in (keys)  is empty  is not empty  is nil  is not nil
    other list                is empty  is not empty  is nil  is not nil
    record                    is nil  is not nil

A selector names JSON fields (`Service.Meta.env`, `Service.Meta["a b"]`, `"/Service/Meta/a:b"`). Through a list of
records it means "any of them" (`Checks.Status == "passing"`); a number picks one (`Checks.0.Status`). What is absent:

- a missing record, list, map or text (None) counts as empty: `Connect.Native == false` holds without a `Connect`;
- a key that a map does not have (or a list's index past its end) makes `!=`, `not in`, `is empty`, `is nil` true, and
  `matches` and `not matches` as well, which is Consul's behaviour; everything else is false.

Patterns are RE2's and run in linear time (lictor.model.regex). `CreateIndex` and `ModifyIndex` are never selectable,
nor are fields of free form (a proxy's `Config`).
"""

from __future__ import annotations

import difflib
import functools
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from msgspec import inspect

from lictor.model.filter_syntax import (
    And,
    FilterError,
    Loop,
    Match,
    Node,
    Not,
    Operator,
    Selector,
    parse_tree,
)
from lictor.model.regex import Regex, RegexError

__all__ = ["Expression", "FilterError", "parse"]

_Test = Callable[[Any], bool]

_UNSELECTABLE = frozenset(("CreateIndex", "ModifyIndex"))

_MISSING = object()

# What a match says about a key that its map does not have.
_IF_MISSING = {
    Operator.EQUAL: False,
    Operator.NOT_EQUAL: True,
    Operator.IN: False,
    Operator.NOT_IN: True,
    Operator.IS_EMPTY: True,
    Operator.IS_NOT_EMPTY: False,
    Operator.MATCHES: True,
    Operator.NOT_MATCHES: True,
    Operator.IS_NIL: True,
    Operator.IS_NOT_NIL: False,
}

# The negative operators as the negation of positive ones.
_NEGATIONS = {
    Operator.NOT_EQUAL: Operator.EQUAL,
    Operator.NOT_IN: Operator.IN,
    Operator.IS_NOT_EMPTY: Operator.IS_EMPTY,
    Operator.NOT_MATCHES: Operator.MATCHES,
    Operator.IS_NOT_NIL: Operator.IS_NIL,
}


class Expression:
    """A parsed expression, ready to be bound to any number of record types."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tree: Node = parse_tree(text) if text else And(())

    def bind(self, fields: type) -> Callable[[object], bool]:
        """A function that tells whether a record of type `fields` satisfies the expression.

        `fields` is a msgspec.Struct, or any type msgspec can describe (a dict with text keys). Raises FilterError for a
        selector that the type does not have, an operator that does not suit the field, a value that cannot be converted
        to the field's type, or a bad pattern.
        """
        return _Binder(_described(fields)).bind(self.tree)


@functools.lru_cache(maxsize=256)
def parse(text: str) -> Expression:
    """The expression written in `text`; an empty one keeps everything. Raises FilterError saying where it is wrong."""
    return Expression(text)


@functools.cache
def _described(fields: type) -> inspect.Type:
    return inspect.type_info(fields)


class _Variable(NamedTuple):
    """A name given by `any`/`all`: where its value is in the frame, and what type it has."""

    name: str
    slot: int
    type: inspect.Type


class _Binder:
    """Turns nodes into functions.

    Outside of loops these take the record. Within a loop they take a frame: the record, then the key and value of every
    loop around, outermost first.
    """

    def __init__(self, root: inspect.Type) -> None:
        self.root = root
        self.variables: tuple[_Variable, ...] = ()
        self.loops = 0

    def bind(self, node: Node) -> _Test:
        if isinstance(node, Match):
            return self.match(node)
        if isinstance(node, Loop):
            return self.loop(node)
        if isinstance(node, Not):
            operand = self.bind(node.operand)
            return lambda item: not operand(item)
        operands = [self.bind(operand) for operand in node.operands]
        return _every(operands) if isinstance(node, And) else _some(operands)

    def origin(self, selector: Selector) -> tuple[inspect.Type, int | None, Selector]:
        """Where a selector starts: its type, its slot of the frame (None outside loops), and the rest of the path."""
        for variable in reversed(self.variables):
            if variable.name == selector.path[0]:
                return variable.type, variable.slot, selector._replace(path=selector.path[1:])
        return self.root, 0 if self.loops else None, selector

    def match(self, node: Match) -> _Test:
        start, slot, rest = self.origin(node.selector)
        test, _ = _bound(start, rest.path, node)
        if slot is None:
            return test
        position = slot
        return lambda frame: test(frame[position])

    def loop(self, node: Loop) -> _Test:
        start, slot, rest = self.origin(node.selector)
        reach, kind = _reached(start, rest.path, node.selector)
        key_type: inspect.Type
        item_type: inspect.Type
        if isinstance(kind, inspect.DictType) and isinstance(_plain(kind.key_type), inspect.StrType):
            key_type, value_type = inspect.StrType(), kind.value_type
            item_type, item_offset = key_type, 0
        elif (element := _element(kind)) is not None:
            key_type, value_type = inspect.IntType(), element
            item_type, item_offset = value_type, 1
        else:
            raise FilterError(f"{node.selector} is not a list or a map{_column(node.selector)}")
        is_map = isinstance(kind, inspect.DictType)
        key_slot = 1 + 2 * self.loops
        named = ((node.key_name, key_slot, key_type), (node.value_name, key_slot + 1, value_type))
        item = (node.item_name, key_slot + item_offset, item_type)
        outer, in_loop = self.variables, self.loops > 0
        self.variables += tuple(_Variable(*each) for each in (*named, item) if each[0])
        self.loops += 1
        inner = self.bind(node.inner)
        self.loops -= 1
        self.variables = outer
        combine = all if node.all_of_them else any

        def run(item: Any) -> bool:
            frame: tuple[Any, ...] = item if in_loop else (item,)
            items = reach(frame[slot or 0])
            if items is None:
                return node.all_of_them
            pairs = items.items() if is_map else enumerate(items)
            return combine(inner((*frame, key, value)) for key, value in pairs)

        return run


def _every(tests: list[_Test]) -> _Test:
    if len(tests) == 2:
        first, second = tests
        return lambda item: first(item) and second(item)
    return lambda item: all(test(item) for test in tests)


def _some(tests: list[_Test]) -> _Test:
    if len(tests) == 2:
        first, second = tests
        return lambda item: first(item) or second(item)
    return lambda item: any(test(item) for test in tests)


# -- types -------------------------------------------------------------------------------------------------------------


def _plain(kind: inspect.Type) -> inspect.Type:
    """A type without annotations and without "or nothing"; a Literal of texts is text."""
    while isinstance(kind, inspect.Metadata):
        kind = kind.type
    if isinstance(kind, inspect.UnionType):
        present = [part for part in map(_plain, kind.types) if not isinstance(part, inspect.NoneType)]
        return present[0] if len(present) == 1 else inspect.AnyType()
    if isinstance(kind, inspect.LiteralType):
        return inspect.StrType() if all(isinstance(value, str) for value in kind.values) else inspect.AnyType()
    return kind


def _optional(kind: inspect.Type) -> bool:
    while isinstance(kind, inspect.Metadata):
        kind = kind.type
    return isinstance(kind, inspect.UnionType) and kind.includes_none


def _may_be_unset(field: inspect.Field) -> bool:
    """Whether a field defaults to UNSET, which msgspec describes as being neither required nor having a default."""
    return not field.required and field.default is field.default_factory is msgspec.NODEFAULT


def _element(kind: inspect.Type) -> inspect.Type | None:
    """The type of a list's elements; None for what is no list."""
    if isinstance(kind, inspect.ListType | inspect.VarTupleType | inspect.SetType | inspect.FrozenSetType):
        return kind.item_type
    return None


def _is_record(kind: inspect.Type) -> bool:
    return isinstance(kind, inspect.StructType)


def _column(selector: Selector) -> str:
    return f" (column {selector.column})"


def _field(kind: inspect.StructType, path: tuple[str, ...], selector: Selector) -> inspect.Field:
    """The field of a record that the first part of `path` names."""
    names = {}
    for field in kind.fields:
        if field.encode_name not in _UNSELECTABLE and not isinstance(_plain(field.type), inspect.AnyType):
            if field.encode_name == path[0] and not _free_form(_plain(field.type)):
                return field
            names[field.encode_name] = field
    raise _invalid(selector, len(selector.path) - len(path), list(names))


def _free_form(kind: inspect.Type) -> bool:
    return isinstance(kind, inspect.DictType) and isinstance(_plain(kind.value_type), inspect.AnyType)


def _invalid(selector: Selector, position: int, known: Sequence[str] = ()) -> FilterError:
    """The error for a selector that goes wrong at the part with index `position`."""
    shown = ".".join(selector.path[: position + 1])
    lowered = {name.lower(): name for name in known}
    nearest = difflib.get_close_matches(selector.path[position].lower(), lowered, n=1, cutoff=0.6)
    hint = f', did you mean "{lowered[nearest[0]]}"?' if nearest else ""
    return FilterError(f'Selector "{shown}" is not valid{_column(selector)}{hint}')


# -- selectors ---------------------------------------------------------------------------------------------------------


def _bound(kind: inspect.Type, path: tuple[str, ...], match: Match) -> tuple[_Test, bool]:
    """The test of a value of type `kind` that follows the rest of the path, and its answer where there is no value."""
    test, if_absent = _bound_present(_plain(kind), path, match)
    return (_unless_absent(test, if_absent) if _optional(kind) else test), if_absent


def _bound_present(kind: inspect.Type, path: tuple[str, ...], match: Match) -> tuple[_Test, bool]:
    if not path:
        return _leaf(kind, match)
    missing = _IF_MISSING[match.operator]
    element = _element(kind)
    if isinstance(kind, inspect.StructType):
        return _through_record(kind, path, match)
    if isinstance(kind, inspect.DictType) and isinstance(_plain(kind.key_type), inspect.StrType):
        key = path[0]
        inner, _ = _bound(kind.value_type, path[1:], match)

        def at_key(value: Mapping[str, Any]) -> bool:
            found = value.get(key, _MISSING)
            return missing if found is _MISSING else inner(found)

        return at_key, missing
    if element is not None and path[0].isascii() and path[0].isdigit() and len(path[0]) < 10:
        at = int(path[0])
        inner, _ = _bound(element, path[1:], match)
        return (lambda value: inner(value[at]) if at < len(value) else missing), missing
    if element is not None and _is_record(_plain(element)):
        inner, _ = _bound(element, path, match)
        return (lambda value: any(map(inner, value))), False
    raise _invalid(match.selector, len(match.selector.path) - len(path))


def _through_record(kind: inspect.StructType, path: tuple[str, ...], match: Match) -> tuple[_Test, bool]:
    """Follows as many fields as there are records one in the other, with a single attribute look-up."""
    attributes = []
    while True:
        field = _field(kind, path, match.selector)
        attributes.append(field.name)
        path = path[1:]
        if not path or not isinstance(field.type, inspect.StructType) or _may_be_unset(field):
            break
        kind = field.type
    inner, if_absent = _bound(field.type, path, match)
    if _may_be_unset(field):
        inner = _unless_absent(inner, if_absent)
    get = operator.attrgetter(".".join(attributes))
    return (lambda value: inner(get(value))), if_absent


def _unless_absent(test: _Test, if_absent: bool) -> _Test:
    return lambda value: if_absent if value is None or value is msgspec.UNSET else test(value)


def _reached(
    kind: inspect.Type, path: tuple[str, ...], selector: Selector
) -> tuple[Callable[[Any], Any], inspect.Type]:
    """The function from a value to what lies at the end of the path (None where that is absent), and its type."""
    steps: list[Callable[[Any], Any]] = []
    kind = _plain(kind)
    for position, part in enumerate(path, len(selector.path) - len(path)):
        element = _element(kind)
        if isinstance(kind, inspect.StructType):
            field = _field(kind, path[position - len(selector.path) :], selector)
            steps.append(operator.attrgetter(field.name))
            kind = _plain(field.type)
        elif isinstance(kind, inspect.DictType):
            steps.append(functools.partial(_at_key, part))
            kind = _plain(kind.value_type)
        elif element is not None and part.isascii() and part.isdigit() and len(part) < 10:
            steps.append(functools.partial(_at_index, int(part)))
            kind = _plain(element)
        else:
            raise _invalid(selector, position)

    def reach(value: Any) -> Any:
        for step in steps:
            if value is None or value is msgspec.UNSET:
                return None
            value = step(value)
        return None if value is msgspec.UNSET else value

    return reach, kind


def _at_key(key: str, value: Mapping[str, Any]) -> Any:
    return value.get(key)


def _at_index(index: int, value: Sequence[Any]) -> Any:
    return value[index] if index < len(value) else None


# -- operators and values ----------------------------------------------------------------------------------------------


def _leaf(kind: inspect.Type, match: Match) -> tuple[_Test, bool]:
    """The test of the selected value itself, and its answer for the empty value of the type."""
    positive = _NEGATIONS.get(match.operator, match.operator)
    test, empty = _positive(kind, positive, match)
    if positive is match.operator:
        return test, test(empty)
    return (lambda value: not test(value)), not test(empty)


def _positive(kind: inspect.Type, positive: Operator, match: Match) -> tuple[_Test, Any]:
    element = _element(kind)
    is_map = isinstance(kind, inspect.DictType)
    has_text_keys = isinstance(kind, inspect.DictType) and isinstance(_plain(kind.key_type), inspect.StrType)
    if positive is Operator.IS_NIL and (is_map or element is not None or _is_record(kind)):
        return (lambda value: value is None), None
    if positive is Operator.IS_EMPTY and (is_map or element is not None):
        return (lambda value: not value), ()
    text = match.value or ""
    if isinstance(kind, inspect.StrType):
        return _text_test(positive, text, match), ""
    scalar = _SCALARS.get(type(kind))
    if positive is Operator.EQUAL and scalar is not None:
        wanted = _converted(kind, text, match)
        return (lambda value: bool(value == wanted)), scalar
    if positive is Operator.IN and has_text_keys:
        return (lambda value: text in value), ()
    if positive is Operator.IN and element is not None and type(_plain(element)) in (*_SCALARS, inspect.StrType):
        wanted = _converted(_plain(element), text, match)
        return (lambda value: wanted in value), ()
    raise FilterError(
        f'Invalid match operator "{match.operator.value}" for selector "{match.selector}"{_column(match.selector)}'
    )


def _text_test(positive: Operator, text: str, match: Match) -> _Test:
    if positive is Operator.EQUAL:
        return lambda value: bool(value == text)
    if positive is Operator.IN:
        return lambda value: text in value
    if positive is Operator.MATCHES:
        try:
            return Regex(text).search
        except RegexError as error:
            reason = f"error parsing regexp: {error}"
            raise FilterError(f'Failed to compile regular expression "{text}": {reason}') from None
    raise FilterError(
        f'Invalid match operator "{match.operator.value}" for selector "{match.selector}"{_column(match.selector)}'
    )


# Empty values of the types that are compared after conversion.
_SCALARS: dict[type[inspect.Type], Any] = {inspect.IntType: 0, inspect.BoolType: False, inspect.FloatType: 0.0}

_INTEGER = re.compile(
    r"(?P<sign>[+-]?)(?:0[xX](?P<hex>(?:_?[0-9a-fA-F])+)|0[bB](?P<bin>(?:_?[01])+)|0[oO]?(?P<oct>(?:_?[0-7])+)"
    r"|(?P<dec>0|[1-9](?:_?[0-9])*))"
)
_BASES = {"hex": 16, "bin": 2, "oct": 8, "dec": 10}
_FLOAT = re.compile(r"[+-]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|inf(?:inity)?|nan)", re.IGNORECASE)
_BOOLEANS = {
    **dict.fromkeys(("1", "t", "T", "TRUE", "true", "True"), True),
    **dict.fromkeys(("0", "f", "F", "FALSE", "false", "False"), False),
}


def _converted(kind: inspect.Type, text: str, match: Match) -> str | int | float | bool:
    """The value of an expression as its field's type, by the rules of Go's strconv (`0x50`, `1_000`, `T`)."""
    try:
        if isinstance(kind, inspect.IntType):
            return _integer(text)
        if isinstance(kind, inspect.BoolType):
            if text not in _BOOLEANS:
                raise ValueError(f'strconv.ParseBool: parsing "{text}": invalid syntax')
            return _BOOLEANS[text]
        if isinstance(kind, inspect.FloatType):
            if not _FLOAT.fullmatch(text):
                raise ValueError(f'strconv.ParseFloat: parsing "{text}": invalid syntax')
            return float(text)
    except ValueError as error:
        raise FilterError(f'Failed to coerce value "{text}" for selector "{match.selector}": {error}') from None
    return text


def _integer(text: str) -> int:
    shown = f'strconv.ParseInt: parsing "{text}"'
    found = _INTEGER.fullmatch(text)
    if found is None:
        raise ValueError(f"{shown}: invalid syntax")
    # The size is checked first: converting a very long decimal takes quadratic time.
    base, digits = next((base, found[name]) for name, base in _BASES.items() if found[name] is not None)
    digits = digits.replace("_", "").lstrip("0") or "0"
    number = int(found["sign"] + digits, base) if len(digits) <= 64 else 2**64
    if not -(2**63) <= number < 2**63:
        raise ValueError(f"{shown}: value out of range")
    return number
