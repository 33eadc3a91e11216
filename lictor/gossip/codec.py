"""MessagePack as gossip writes it: records as maps with Go's field names, in the format's old revision.

The old revision knows one raw type for text and bytes and has no 8-bit length for it, and an absent slice is nil. So a
record's field types decide how a value is read, and that is a table made once a class. Kept apart from the records, so
that these are nothing but their fields.
"""

from __future__ import annotations

import functools
import math
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeVar

import msgpack  # type: ignore[import-untyped]
import msgspec

U8 = Annotated[int, msgspec.Meta(ge=0, le=0xFF)]
U16 = Annotated[int, msgspec.Meta(ge=0, le=0xFFFF)]
U32 = Annotated[int, msgspec.Meta(ge=0, le=0xFFFF_FFFF)]
U64 = Annotated[int, msgspec.Meta(ge=0, le=0xFFFF_FFFF_FFFF_FFFF)]
I64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]

R = TypeVar("R", bound="Record")
Reader = Callable[[object], Any]


class WireError(ValueError):
    """Bytes from the network that are not what the protocol allows; the text says what was wrong."""


class Record(msgspec.Struct, frozen=True, rename="pascal"):
    """A message's fields. `omitted_when_empty` names the attributes that are left out while they hold nothing."""

    omitted_when_empty: typing.ClassVar[frozenset[str]] = frozenset()


class Written(msgspec.Struct, frozen=True):
    """How one attribute is written: its name on the wire, its own, and whether emptiness is nil or leaves it out."""

    wire_name: str
    attribute: str
    empty_is_nil: bool
    omit_empty: bool


@functools.cache
def _written(kind: type[Record]) -> tuple[Written, ...]:
    """The fields in the order that they are written: by name, as Go's encoder sorts a struct's."""
    fields = [
        Written(
            f.encode_name,
            f.name,
            f.default_factory is msgspec.NODEFAULT and f.default in (b"", ()),
            f.name in kind.omitted_when_empty,
        )
        for f in msgspec.structs.fields(kind)
    ]
    return tuple(sorted(fields, key=lambda f: f.wire_name))


def plain(value: object) -> object:
    """A record as the maps, lists and scalars that are packed; anything else but tuples of records as it is."""
    if isinstance(value, Record):
        fields: dict[str, object] = {}
        for field in _written(type(value)):
            held = getattr(value, field.attribute)
            if not held and field.omit_empty:
                continue
            fields[field.wire_name] = None if field.empty_is_nil and len(held) == 0 else plain(held)
        return fields
    if isinstance(value, tuple):
        return [plain(v) for v in value]
    return value


def pack(value: object) -> bytes:
    """A record (or a plain map or list) in MessagePack's old revision."""
    packed: bytes = msgpack.packb(plain(value), use_bin_type=False)
    return packed


def _integer(low: int, high: int) -> Reader:
    def read(value: object) -> int:
        if value is None:
            return 0
        if type(value) is not int or not low <= value <= high:
            raise WireError(f"expected a number from {low} to {high}, got {value!r:.40}")
        return value

    return read


def _text(value: object) -> str:
    if value is None:
        return ""
    if type(value) is not bytes:
        raise WireError(f"expected text, got {type(value).__name__}")
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise WireError("text is not UTF-8") from None


def _bytes(value: object) -> bytes:
    if value is None:
        return b""
    if type(value) is bytes:
        return value
    if isinstance(value, list):
        # Go writes a slice of a named byte type as an array of numbers.
        try:
            return bytes(value)
        except (ValueError, TypeError):
            raise WireError("expected bytes, got a list of other things") from None
    raise WireError(f"expected bytes, got {type(value).__name__}")


def _truth(value: object) -> bool:
    if value is None:
        return False
    if type(value) is not bool:
        raise WireError(f"expected true or false, got {value!r:.40}")
    return value


def _number(value: object) -> float:
    if value is None:
        return 0.0
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise WireError(f"expected a number, got {value!r:.40}")
    try:
        number = float(value)
    except OverflowError:
        raise WireError("number out of range") from None
    if not math.isfinite(number):
        raise WireError("number is not finite")
    return number


def _list(item: Reader) -> Reader:
    def read(value: object) -> tuple[Any, ...]:
        if value is None:
            return ()
        if type(value) is bytes:
            value = list(value)
        if not isinstance(value, list):
            raise WireError(f"expected a list, got {type(value).__name__}")
        return tuple(item(v) for v in value if v is not None)

    return read


def _map(item: Reader) -> Reader:
    def read(value: object) -> dict[str, Any]:
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise WireError(f"expected a map, got {type(value).__name__}")
        return {_text(k): item(v) for k, v in value.items()}

    return read


def _record(kind: type[R]) -> Reader:
    fields = msgspec.structs.fields(kind)
    hints = typing.get_type_hints(kind, include_extras=True)
    readers = {f.encode_name.encode(): (f.name, _reader(hints[f.name])) for f in fields}
    needed = [f for f in fields if f.default is msgspec.NODEFAULT and f.default_factory is msgspec.NODEFAULT]
    zeros = {f.name: _reader(hints[f.name])(None) for f in needed}

    def read(value: object) -> R:
        if not isinstance(value, dict):
            raise WireError(f"expected the map of {kind.__name__}, got {type(value).__name__}")
        held = dict(zeros)
        for key, item in value.items():
            known = readers.get(key)
            if known is not None:
                held[known[0]] = known[1](item)
        return kind(**held)

    return read


@functools.cache
def _reader(hint: Any) -> Reader:
    """What reads a value of one type; every type that a record uses has to be known here."""
    origin = typing.get_origin(hint)
    if origin is Annotated:
        meta = typing.get_args(hint)[1]
        return _integer(meta.ge, meta.le)
    if origin is tuple:
        return _list(_reader(typing.get_args(hint)[0]))
    if origin is dict or origin is Mapping:
        return _map(_reader(typing.get_args(hint)[1]))
    if isinstance(hint, type) and issubclass(hint, Record):
        return _record(hint)
    simple: dict[Any, Reader] = {str: _text, bytes: _bytes, bool: _truth, float: _number}
    return simple[hint]


def read(hint: Callable[..., R], value: object) -> R:
    """An unpacked value as a record of this kind. Raises WireError."""
    record: R = _reader(hint)(value)
    return record


def unpack_plain(data: bytes | memoryview) -> object:
    """The first value in `data` (what follows it is ignored, as the other implementation does). Raises WireError."""
    try:
        return msgpack.unpackb(data, raw=True, strict_map_key=False)
    except msgpack.ExtraData as extra:
        return extra.unpacked
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise WireError(f"not MessagePack: {error}") from None


def unpack(kind: type[R], data: bytes | memoryview) -> R:
    """A record out of its bytes. Raises WireError."""
    return read(kind, unpack_plain(data))


def unpack_first(kind: type[R], data: bytes) -> tuple[R, int]:
    """A record and the offset behind it. Raises WireError."""
    unpacker = msgpack.Unpacker(raw=True, strict_map_key=False, max_buffer_size=max(len(data), 1))
    unpacker.feed(data)
    try:
        value = unpacker.unpack()
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise WireError(f"not MessagePack: {error}") from None
    return read(kind, value), unpacker.tell()


def unpack_tags(data: bytes) -> dict[str, str]:
    """A map of text to text. Raises WireError."""
    tags: dict[str, str] = _map(_text)(unpack_plain(data))
    return tags


def unpack_names(data: bytes) -> tuple[str, ...]:
    """A list of text. Raises WireError."""
    names: tuple[str, ...] = _list(_text)(unpack_plain(data))
    return names
