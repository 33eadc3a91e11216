"""Turning what people write into a config entry's records.

Entries come from HCL and JSON files, from `PUT /v1/config` and from the store, written `MeshGateway`, `mesh_gateway` or
`meshgateway`, with `"80"` for 80 and one object where a list of one is meant. Consul accepts all that, so this decoder
does. It walks the record types themselves (msgspec's descriptions of them), so a kind is nothing but its records.

Every problem is collected and reported at once, in the words and the order in which Consul reports them: first values
that cannot be converted, then keys that nothing knows.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import inspect

from lictor.model.duration import format_nanoseconds, parse_nanoseconds
from lictor.model.errors import LictorError

__all__ = [
    "DurationText",
    "InvalidConfigEntry",
    "Nanoseconds",
    "UndecodableConfigEntry",
    "Unsigned",
    "decode_record",
    "go_kind",
    "several",
]

T = TypeVar("T")

Nanoseconds = Annotated[int, msgspec.Meta(extra={"duration": True})]
"""A duration that Consul's JSON shows as a number of nanoseconds; "10s" is accepted."""
DurationText = Annotated[str, msgspec.Meta(extra={"duration": True})]
"""A duration that Consul's JSON shows as text ("1m30s", empty for none); nanoseconds are accepted."""
Unsigned = Annotated[int, msgspec.Meta(ge=0)]

MAX_DEPTH = 64
"""Levels of a free-form value such as a proxy's `Config`."""

_BOOLEANS = {
    **dict.fromkeys(("1", "t", "T", "TRUE", "true", "True"), True),
    **dict.fromkeys(("", "0", "f", "F", "FALSE", "false", "False"), False),
}
_INTEGER = re.compile(r"([+-]?)(0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO]?[0-7]+|[0-9]{1,19})")
_FLOAT = re.compile(r"[+-]?(?:[0-9]{1,300}(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")


class InvalidConfigEntry(LictorError, ValueError):
    """An entry that was understood and cannot be accepted (status 500, as Consul gives it)."""


class UndecodableConfigEntry(InvalidConfigEntry):
    """An entry that could not be understood: an unknown kind or key, a value of the wrong type."""

    status = 400


def several(problems: list[str]) -> str:
    """Problems as Consul lists several of them: a count, and each on a line of its own."""
    count = "1 error" if len(problems) == 1 else f"{len(problems)} errors"
    return f"{count} occurred:\n" + "".join(f"\t* {problem}\n" for problem in problems) + "\n"


def decode_record(kind: type[T], data: Mapping[str, Any], ignored: frozenset[str] = frozenset()) -> T:
    """The record of type `kind` that `data` describes.

    `ignored` names top-level keys that are passed over. Raises UndecodableConfigEntry naming every value that cannot be
    converted, or every key that is not known.
    """
    decoder = _Decoder(ignored)
    record = decoder.record(kind, data, "")
    if decoder.problems:
        problems = sorted(decoder.problems)
        listed = "\n".join(f"* {problem}" for problem in problems)
        raise UndecodableConfigEntry(f"{len(problems)} error(s) decoding:\n\n{listed}")
    if decoder.unknown:
        raise UndecodableConfigEntry(several(decoder.unknown))
    assert isinstance(record, kind)
    return record


@functools.cache
def _fields(kind: type) -> dict[str, inspect.Field]:
    """A record's fields by their JSON names, lower case and without underscores."""
    described = inspect.type_info(kind)
    assert isinstance(described, inspect.StructType)
    return {_plain(field.encode_name): field for field in described.fields}


def _plain(key: str) -> str:
    return key.replace("_", "").lower()


def go_kind(data: object) -> str:
    """What Consul's messages call the type of a decoded JSON value."""
    if isinstance(data, bool):
        return "bool"
    if isinstance(data, int | float):
        return "float64"
    if isinstance(data, str):
        return "string"
    if data is None:
        return "invalid"
    return "slice" if isinstance(data, list | tuple) else "map"


class _Decoder:
    """Collects what is wrong; where a value is wrong, it stands in an empty one and goes on."""

    def __init__(self, ignored: frozenset[str]) -> None:
        self.ignored = ignored
        self.problems: list[str] = []
        self.unknown: list[str] = []

    def value(self, kind: inspect.Type, data: Any, path: str) -> Any:
        duration = False
        while isinstance(kind, inspect.Metadata):
            duration = duration or bool(kind.extra and kind.extra.get("duration"))
            kind = kind.type
        if isinstance(kind, inspect.UnionType):
            if data is None:
                return None
            return self.value(next(part for part in kind.types if not isinstance(part, inspect.NoneType)), data, path)
        if duration:
            nanoseconds = self.duration(data, path)
            if isinstance(kind, inspect.StrType):
                return format_nanoseconds(nanoseconds) if nanoseconds else ""
            return nanoseconds
        if isinstance(kind, inspect.StructType):
            return self.record(kind.cls, data, path)
        if isinstance(kind, inspect.DictType):
            return self.map(kind, data, path)
        if isinstance(kind, inspect.VarTupleType):
            return self.list(kind.item_type, data, path)
        return self.scalar(kind, data, path)

    def record(self, kind: type, data: Any, path: str) -> Any:
        if isinstance(data, list | tuple) and len(data) == 1 and isinstance(data[0], Mapping):
            data = data[0]  # a block of HCL
        if data is None:
            return kind()
        if not isinstance(data, Mapping):
            self.problems.append(f"'{path}' expected a map, got '{go_kind(data)}'")
            return kind()
        fields = _fields(kind)
        values: dict[str, Any] = {}
        for key, item in data.items():
            field = fields.get(_plain(key))
            if field is None or field.name in values:
                self.unknown_key(key, item, path)
            elif item is not None:
                values[field.name] = self.value(field.type, item, f"{path}.{field.encode_name}".lstrip("."))
        return kind(**values)

    def unknown_key(self, key: str, item: Any, path: str) -> None:
        if not path and key in self.ignored:
            return
        enterprise = _plain(key) in ("namespace", "partition")
        if enterprise and item in ("", "default", None):
            return
        where = f"{path}.{key}".lstrip(".")
        note = f", {_plain(key)}s are a consul enterprise feature" if enterprise else ""
        self.unknown.append(f'invalid config key "{where}"{note}')

    def map(self, kind: inspect.DictType, data: Any, path: str) -> dict[str, Any]:
        if isinstance(data, list | tuple) and all(isinstance(part, Mapping) for part in data):
            merged: dict[str, Any] = {}
            for part in data:
                merged.update(part)
            data = merged
        if not isinstance(data, Mapping):
            self.problems.append(f"'{path}' expected a map, got '{go_kind(data)}'")
            return {}
        if isinstance(kind.value_type, inspect.AnyType):
            return {str(key): self.free(item, f"{path}[{key}]", 1) for key, item in data.items()}
        return {str(key): self.value(kind.value_type, item, f"{path}[{key}]") for key, item in data.items()}

    def free(self, data: Any, path: str, depth: int) -> Any:
        """A copy of a free-form value."""
        if depth > MAX_DEPTH:
            self.problems.append(f"'{path}' is nested more than {MAX_DEPTH} levels deep")
            return None
        if isinstance(data, Mapping):
            return {str(key): self.free(item, f"{path}[{key}]", depth + 1) for key, item in data.items()}
        if isinstance(data, list | tuple):
            return [self.free(item, f"{path}[{at}]", depth + 1) for at, item in enumerate(data)]
        if data is None or isinstance(data, bool | int | float | str):
            return data
        self.problems.append(f"'{path}' expected a JSON value, got '{type(data).__name__}'")
        return None

    def list(self, kind: inspect.Type, data: Any, path: str) -> tuple[Any, ...]:
        if isinstance(data, list | tuple):
            items = data
        elif data == "" or data == {}:
            items = ()
        else:
            items = (data,)
        return tuple(self.value(kind, item, f"{path}[{at}]") for at, item in enumerate(items))

    def scalar(self, kind: inspect.Type, data: Any, path: str) -> Any:
        convert, empty, go_name = _SCALARS[type(kind)]
        if isinstance(data, list | tuple) and len(data) == 1:
            data = data[0]
        if data is None:
            return empty
        if isinstance(data, list | tuple | Mapping):
            got = "map[string]interface {}" if isinstance(data, Mapping) else "[]interface {}"
            self.problems.append(f"'{path}' expected type '{go_name}', got unconvertible type '{got}'")
            return empty
        try:
            converted = convert(data)
        except ValueError as error:
            self.problems.append(f"cannot parse '{path}' as {go_name}: {error}")
            return empty
        if isinstance(kind, inspect.IntType) and kind.ge == 0 and converted < 0:
            self.problems.append(f"cannot parse '{path}', {converted} overflows uint")
            return empty
        return converted

    def duration(self, data: Any, path: str) -> int:
        if isinstance(data, str):
            try:
                return parse_nanoseconds(data) if data else 0
            except ValueError as error:
                self.problems.append(f"error decoding '{path}': {error}")
                return 0
        nanoseconds = self.scalar(inspect.IntType(), data, path)
        return int(nanoseconds)


def _to_text(data: Any) -> str:
    if isinstance(data, bool):
        return "1" if data else "0"
    if isinstance(data, float) and data.is_integer() and abs(data) < 1e21:
        return str(int(data))
    return str(data)


def _to_integer(data: Any) -> int:
    if isinstance(data, str):
        text = data or "0"
        found = _INTEGER.fullmatch(text) if len(text) <= 70 else None
        if found is None:
            raise ValueError(f'strconv.ParseInt: parsing "{data}": invalid syntax')
        digits = found[2].lower()
        if digits[:2] in ("0x", "0b", "0o"):
            number = int(digits, 0)
        else:
            number = int(digits, 8 if len(digits) > 1 and digits[0] == "0" else 10)
        number = -number if found[1] == "-" else number
    elif isinstance(data, float) and not abs(data) < 2**63:
        number = 2**63
    else:
        number = int(data)
    if not -(2**63) <= number < 2**63:
        raise ValueError(f'strconv.ParseInt: parsing "{data}": value out of range')
    return number


def _to_float(data: Any) -> float:
    if isinstance(data, str):
        if not _FLOAT.fullmatch(data):
            raise ValueError(f'strconv.ParseFloat: parsing "{data}": invalid syntax')
        return float(data)
    try:
        return float(data)
    except OverflowError:
        raise ValueError("the number is too large") from None


def _to_boolean(data: Any) -> bool:
    if isinstance(data, str):
        if data not in _BOOLEANS:
            raise ValueError(f'strconv.ParseBool: parsing "{data}": invalid syntax')
        return _BOOLEANS[data]
    return bool(data)


_SCALARS: dict[type[inspect.Type], tuple[Callable[[Any], Any], Any, str]] = {
    inspect.StrType: (_to_text, "", "string"),
    inspect.IntType: (_to_integer, 0, "int"),
    inspect.FloatType: (_to_float, 0.0, "float"),
    inspect.BoolType: (_to_boolean, False, "bool"),
}
