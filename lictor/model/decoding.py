"""From a document's plain values (JSON, HCL, YAML) to a record, driven by the record's own annotations.

A record class is the only table of its keys: their names, types and defaults are read from it here, so that the HTTP
API's bodies, configuration files, the documentation and the effective configuration cannot disagree. What differs
between the doors is the *dialect*: how a key may be spelled, how a duration is written and how a mistake is worded.

    reader = Reader(ApiDialect())
    tree = reader.read_record(CheckDefinition, {"Name": "web", "TTL": "10s"}, ())
    reader.mistakes                      # [] or one Mistake for each thing that is wrong
    build(CheckDefinition, tree)         # the record

A tree is a dict from attribute name to value with only the keys that were given, so trees can be merged before a
record is built from them.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Protocol, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from lictor.model.duration import parse_duration

Path = tuple[str | int, ...]
Record = TypeVar("Record", bound=msgspec.Struct)

MAX_DEPTH = 64
"""Levels of nesting beyond which a document is refused."""


class DurationMark:
    """Marks a float as a duration in seconds, written as Go's duration notation in documents."""


Duration = Annotated[float, DurationMark]


class Computed:
    """Marks a field of a record that is worked out, and cannot be written in a document."""


class Absent:
    """The value of a key that was not given, or whose value was wrong and is already reported."""


ABSENT = Absent()


class Mistake(msgspec.Struct, frozen=True):
    """One thing wrong in a document: where (keys as written, list positions) and what."""

    path: Path
    text: str


class Key(msgspec.Struct, frozen=True):
    """One key of a record: `name` is the attribute and the snake-case key, `type` its annotation without extras."""

    name: str
    type: Any
    optional: bool
    extras: tuple[Any, ...]
    default: Any


class Dialect(Protocol):
    """What differs between the doors that hand documents in."""

    def spelling(self, written: str) -> str:
        """The form under which a written key is compared with the `spelling` of the known ones."""

    def unknown_key(self, record: type[msgspec.Struct], path: Path, keys: Mapping[str, Key]) -> str:
        """The text for a key that the record does not have."""

    def wrong_type(self, path: Path, type_: Any, value: Any) -> str:
        """The text for a value that is not of the key's type."""

    def duration(self, value: Any) -> float | Absent:
        """Seconds for a duration as the door writes it, ABSENT for "not given". Raises ValueError, TypeError."""

    def renamed(self, record: type[msgspec.Struct], spelled: str) -> str | None:
        """The attribute for a spelling that is an alias, else None."""


@cache
def keys_of(record: type[msgspec.Struct]) -> dict[str, Key]:
    """The keys of a record class in order of definition, by attribute name."""
    hints = get_type_hints(record, include_extras=True)
    keys: dict[str, Key] = {}
    for field in msgspec.structs.fields(record):
        annotation, extras = _unwrap(hints[field.name])
        optional = False
        if get_origin(annotation) in (Union, types.UnionType):
            members = [member for member in get_args(annotation) if member is not type(None)]
            optional = True
            annotation, more = _unwrap(members[0])
            extras += more
        default = field.default
        if default is msgspec.NODEFAULT and field.default_factory is not msgspec.NODEFAULT:
            default = field.default_factory()
        keys[field.name] = Key(field.name, annotation, optional, extras, default)
    return keys


def _unwrap(annotation: Any) -> tuple[Any, tuple[Any, ...]]:
    """The annotation without its extras; a duration stays recognizable."""
    if get_origin(annotation) is not Annotated:
        return annotation, ()
    inner, *extras = get_args(annotation)
    if DurationMark in extras:
        return Duration, tuple(extra for extra in extras if extra is not DurationMark)
    return inner, tuple(extras)


def is_record(type_: Any) -> bool:
    """Whether an annotation is a record class."""
    return isinstance(type_, type) and issubclass(type_, msgspec.Struct)


class Reader:
    """Reads documents in one dialect and gathers every mistake in `mistakes`; it never raises for bad input."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self.mistakes: list[Mistake] = []

    def read_record(self, record: type[msgspec.Struct], value: Any, path: Path) -> dict[str, Any]:
        """The tree of the keys given in `value`; wrong and unknown ones are left out and reported."""
        tree: dict[str, Any] = {}
        if not isinstance(value, Mapping):
            self._wrong(path, record, value)
            return tree
        if len(path) > MAX_DEPTH:
            self.mistakes.append(Mistake(path, "is nested too deeply"))
            return tree
        keys = keys_of(record)
        spelled = {self.dialect.spelling(name): name for name, key in keys.items() if Computed not in key.extras}
        for written, inner in value.items():
            here = (*path, str(written))
            spelling = self.dialect.spelling(str(written))
            name = spelled.get(spelling) or self.dialect.renamed(record, spelling)
            if name is None:
                self.mistakes.append(Mistake(here, self.dialect.unknown_key(record, here, keys)))
                continue
            if inner is None:
                continue
            read = self.read(keys[name].type, inner, here)
            if read is not ABSENT:
                tree[name] = read
        return tree

    def read(self, type_: Any, value: Any, path: Path) -> Any:
        """`value` as `type_`, ABSENT after reporting a mistake. Records and lists of records come as trees."""
        type_, _ = _unwrap(type_) if type_ is not Duration else (type_, ())
        if type_ is Duration:
            return self._duration(value, path)
        if is_record(type_):
            return self.read_record(type_, value, path)
        origin = get_origin(type_)
        if origin is tuple:
            return self._sequence(get_args(type_)[0], type_, value, path)
        if origin is dict:
            return self._mapping(get_args(type_)[1], type_, value, path)
        if type_ is Any:
            return self._plain(value, path)
        if type_ is bool:
            return value if isinstance(value, bool) else self._wrong(path, type_, value)
        if type_ is str:
            return value if isinstance(value, str) else self._wrong(path, type_, value)
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 2**1023:
            return self._wrong(path, type_, value)
        if type_ is float:
            return float(value)
        if value != int(value) or not -(2**63) <= value < 2**64:
            return self._wrong(path, type_, value)
        return int(value)

    def _wrong(self, path: Path, type_: Any, value: Any) -> Absent:
        self.mistakes.append(Mistake(path, self.dialect.wrong_type(path, type_, value)))
        return ABSENT

    def _duration(self, value: Any, path: Path) -> Any:
        try:
            return self.dialect.duration(value)
        except ValueError as error:
            self.mistakes.append(Mistake(path, str(error)))
        except TypeError:
            return self._wrong(path, Duration, value)
        return ABSENT

    def _sequence(self, inner: Any, whole: Any, value: Any, path: Path) -> Any:
        if not isinstance(value, list | tuple):
            return self._wrong(path, whole, value)
        read = [self.read(inner, item, (*path, position)) for position, item in enumerate(value)]
        return tuple(item for item in read if item is not ABSENT)

    def _mapping(self, inner: Any, whole: Any, value: Any, path: Path) -> Any:
        if not isinstance(value, Mapping):
            return self._wrong(path, whole, value)
        read = {str(key): self.read(inner, item, (*path, str(key))) for key, item in value.items()}
        return {key: item for key, item in read.items() if item is not ABSENT}

    def _plain(self, value: Any, path: Path) -> Any:
        if len(path) > MAX_DEPTH:
            self.mistakes.append(Mistake(path, "is nested too deeply"))
            return ABSENT
        if isinstance(value, Mapping):
            return {str(key): self._plain(item, (*path, str(key))) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._plain(item, (*path, position)) for position, item in enumerate(value)]
        if isinstance(value, int | float) and not -(2**63) <= value < 2**64:
            # As in Go, a number that is no integer of 64 bits is a float: nothing else could be written down.
            return float(value) if abs(value) < 2**1023 else self._wrong(path, Any, value)
        if value is None or isinstance(value, str | bool | int | float):
            return value
        return self._wrong(path, Any, value)


def build(record: type[Record], tree: Mapping[str, Any]) -> Record:
    """The record that a tree describes; keys that the tree lacks have their defaults."""
    keys = keys_of(record)
    return record(**{name: _build_value(keys[name].type, value) for name, value in tree.items()})


def _build_value(type_: Any, value: Any) -> Any:
    if type_ is not Duration:
        type_, _ = _unwrap(type_)
    if is_record(type_):
        return build(type_, value)
    if get_origin(type_) is tuple:
        return tuple(_build_value(get_args(type_)[0], item) for item in value)
    if get_origin(type_) is dict:
        return {key: _build_value(get_args(type_)[1], item) for key, item in value.items()}
    return value


def duration_text(value: Any) -> float:
    """A duration that must be written as text. Raises TypeError for another type, ValueError for a bad text."""
    if not isinstance(value, str):
        raise TypeError
    return parse_duration(value)
