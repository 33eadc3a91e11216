"""The answer to a request: status, headers, body, and how they become bytes."""

import math
import re
import time
import zlib
from collections.abc import AsyncIterator, Sequence
from http import HTTPStatus
from typing import Any

import msgspec

from lictor.http.freshness import ANY

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"
GZIP_FROM = 1400  # bytes: a body under one network packet gains nothing

_STATUS = {s.value: f"HTTP/1.1 {s.value} {s.phrase}\r\n".encode() for s in HTTPStatus}
_encoder = msgspec.json.Encoder()

Headers = Sequence[tuple[str, str]]


class Reply(msgspec.Struct, frozen=True):
    """A finished answer. An empty `content_type` sends none, as Consul does with an empty body."""

    status: int = 200
    body: bytes = b""
    content_type: str = ""
    headers: Headers = ()


class Stream(msgspec.Struct, frozen=True):
    """An answer sent a piece at a time, for as long as `pieces` gives any."""

    pieces: AsyncIterator[bytes]
    content_type: str = TEXT
    headers: Headers = ()


def json_bytes(value: Any) -> bytes:
    """A value as compact JSON."""
    return _encoder.encode(value)


def json_reply(value: Any, *, pretty: bool = False, status: int = 200, headers: Headers = ()) -> Reply:
    """A value as JSON; `pretty` indents it by four, with a newline at the end."""
    body = _encoder.encode(value)
    if pretty:
        body = msgspec.json.format(body, indent=4) + b"\n"
    return Reply(status, body, JSON, headers)


def text_reply(text: str, status: int = 200, headers: Headers = ()) -> Reply:
    """A plain text, such as an error's."""
    return Reply(status, text.encode(), TEXT, headers)


class Date:
    """The `Date` header's value, formatted at most once a second."""

    def __init__(self) -> None:
        self._second = -1
        self._text = b""

    def bytes(self) -> bytes:
        """Now, in HTTP's form."""
        now = int(time.time())
        if now != self._second:
            self._second = now
            t = time.gmtime(now)
            day = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")[t.tm_wday]
            month = time.strftime("%m", t)
            name = "JanFebMarAprMayJunJulAugSepOctNovDec"[(int(month) - 1) * 3 : int(month) * 3]
            self._text = time.strftime(f"{day}, %d {name} %Y %H:%M:%S GMT", t).encode()
        return self._text


class Encoded(msgspec.Struct, frozen=True, gc=False):
    """An answer as bytes, but for what goes between its two parts when it is written: the date and, behind the gate
    AGE, the store's age (see `freshness`). `max_stale` is the age that its caller allows, in seconds.
    """

    before: bytes
    after: bytes
    gate: int = ANY
    max_stale: float = math.inf

    @property
    def size(self) -> int:
        """Bytes of both parts."""
        return len(self.before) + len(self.after)


# A value that came from a caller, such as a service's name, must not end its header: it would begin another.
_CONTROLS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


def header_bytes(headers: Headers) -> bytes:
    """Header lines as bytes; a control character in a value becomes a space."""
    return b"".join(
        [f"{name}: {_CONTROLS.sub(' ', value)}\r\n".encode("latin-1", "replace") for name, value in headers]
    )


def encode(
    reply: Reply,
    extra: bytes,
    *,
    gzip: bool = False,
    head_only: bool = False,
    close: bool = False,
    gate: int = ANY,
    max_stale: float = math.inf,
) -> Encoded:
    """The bytes of an answer with `Content-Length`. `extra` are further header lines, as bytes; for `gate` and
    `max_stale` see `Encoded`.
    """
    body = reply.body
    packed = b""
    if gzip and len(body) >= GZIP_FROM:
        packer = zlib.compressobj(1, zlib.DEFLATED, 31)
        body = packer.compress(body) + packer.flush()
        packed = b"Content-Encoding: gzip\r\n"
    before = b"%b%b%bVary: Accept-Encoding\r\n%b%b%bDate: " % (
        _STATUS.get(reply.status) or b"HTTP/1.1 %d Status\r\n" % reply.status,
        _content_type(reply.content_type),
        packed,
        header_bytes(reply.headers) if reply.headers else b"",
        extra,
        b"Connection: close\r\n" if close else b"",
    )
    if reply.status in (204, 304):
        return Encoded(before, b"\r\n\r\n", gate, max_stale)
    if head_only:
        return Encoded(before, b"\r\nContent-Length: %d\r\n\r\n" % len(body), gate, max_stale)
    return Encoded(before, b"\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body), gate, max_stale)


_CONTENT_TYPES = {"": b"", JSON: b"Content-Type: application/json\r\n"}


def _content_type(text: str) -> bytes:
    known = _CONTENT_TYPES.get(text)
    return known if known is not None else f"Content-Type: {text}\r\n".encode("latin-1", "replace")
