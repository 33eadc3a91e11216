"""Request bodies made into records, with each endpoint's own beginning of the text for what cannot be read."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import msgspec

from lictor.http.request import Request
from lictor.model.errors import InvalidRequest, Refused
from lictor.model.json_text import JsonError, decode_json
from lictor.model.service_definition import decode_body

Record = TypeVar("Record", bound=msgspec.Struct)

DECODE_FAILED = "Request decode failed: "
UINT_LIMIT = 1 << 64


def read_json(request: Request, beginning: str = DECODE_FAILED) -> Any:
    """The body as JSON. Raises `InvalidRequest`: `beginning`, then what is wrong with it; an empty body is `EOF`."""
    try:
        return decode_json(request.body)
    except JsonError as error:
        raise InvalidRequest(f"{beginning}{error}") from None


def read_record(request: Request, record: type[Record], beginning: str = DECODE_FAILED) -> Record:
    """The body as a record. Raises `InvalidRequest`: `beginning`, then what is wrong with it."""
    body = read_json(request, beginning)
    with reworded(beginning):
        return decode_body(record, {} if body is None else body)


def named_in(body: bytes) -> str:
    """The datacenter that a body names; empty where it names none, or cannot be read."""
    try:
        found = decode_json(body)
    except JsonError:
        return ""
    if not isinstance(found, dict):
        return ""
    named = next((value for key, value in found.items() if key.lower() == "datacenter"), "")
    return named if isinstance(named, str) else ""


@contextmanager
def reworded(beginning: str) -> Iterator[None]:
    """Give the texts of `decode_body` another beginning."""
    try:
        yield
    except InvalidRequest as error:
        raise InvalidRequest(beginning + str(error).removeprefix(DECODE_FAILED)) from None


def unsigned(text: str) -> int:
    """A parameter that is a whole number below 2**64. Raises `Refused` with Go's text, as Consul answers it."""
    return _unsigned(text, Refused)


def unsigned_parameter(text: str, beginning: str) -> int:
    """The same for endpoints that answer with status 400: `beginning`, then Go's text."""
    return _unsigned(text, lambda problem: InvalidRequest(beginning + problem))


def _unsigned(text: str, error: Any) -> int:
    if not (text.isascii() and text.isdigit()):
        raise error(f'strconv.ParseUint: parsing "{text}": invalid syntax')
    if len(text) > 30 or int(text) >= UINT_LIMIT:
        raise error(f'strconv.ParseUint: parsing "{text}": value out of range')
    return int(text)


def boolean(text: str) -> bool:
    """A truth value as Go reads one. Raises ValueError with Go's text."""
    if text in ("1", "t", "T", "true", "TRUE", "True"):
        return True
    if text in ("0", "f", "F", "false", "FALSE", "False"):
        return False
    raise ValueError(f'strconv.ParseBool: parsing "{text}": invalid syntax')


def whole(text: str) -> int:
    """A whole number of 64 bits as Go reads one. Raises ValueError with Go's text."""
    digits = text[1:] if text[:1] in ("-", "+") else text
    if not (digits.isascii() and digits.isdigit()):
        raise ValueError(f'strconv.Atoi: parsing "{text}": invalid syntax')
    if len(digits) > 30 or not -(1 << 63) <= int(text) < 1 << 63:
        raise ValueError(f'strconv.Atoi: parsing "{text}": value out of range')
    return int(text)
