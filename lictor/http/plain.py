"""Plain requests: those whose bytes can be taken apart without a parser of all that HTTP allows.

Whatever is not provably plain is left to the full parser: nothing here refuses a request.
"""

import re

import msgspec

MAX_PLAIN = 8192  # bytes of a head that the plain way reads; a longer one is aiohttp's
MAX_BODY = 64 * 1024  # bytes of a body that it holds
END = b"\r\n\r\n"
_TARGET = re.compile(rb"/[!-~]*")
_HEADER = re.compile(rb"([A-Za-z0-9!#$%&'*+.^_`|~-]+):[ \t]*([\t -~\x80-\xff]*)")
HEADS_KEPT = 256
# A request with one of these is more than its head and a body, or wants more than an answer.
_NOT_PLAIN = frozenset({"transfer-encoding", "expect", "upgrade"})


class Head(msgspec.Struct, frozen=True, gc=False):
    """What follows a request's target: its headers, whether the connection is kept, and the body's bytes, None where
    nothing is said of them. The headers are not to be changed by users.
    """

    headers: dict[str, str]
    keep: bool
    length: int | None


# What follows a target is the same for all requests of a client: heads by their bytes.
_HEADS: dict[bytes, Head | None] = {}


def parse_plain(data: bytes) -> tuple[str, dict[str, str], bool] | None:
    """The target, headers and wish to keep the connection of a plain GET; None for what is not provably one."""
    if len(data) > MAX_PLAIN or not data.startswith(b"GET /") or data.find(END) != len(data) - 4:
        return None
    found = _parse(data, 4, len(data) - 4)
    if found is None or found[1].length is not None:
        return None
    return found[0], found[1].headers, found[1].keep


class PlainWrite(msgspec.Struct, frozen=True, gc=False):
    """A plain PUT or DELETE, of which its bytes from `body` to `end` are the body. They need not all be there yet."""

    method: str
    target: str
    headers: dict[str, str]
    keep: bool
    body: int
    end: int


def parse_write(data: bytes) -> PlainWrite | None:
    """A plain PUT or DELETE, whose head at least is complete; None for what is not provably one and no more."""
    method = "PUT" if data.startswith(b"PUT /") else "DELETE" if data.startswith(b"DELETE /") else ""
    if not method:
        return None
    end = data.find(END)
    if not 0 < end <= MAX_PLAIN:
        return None
    found = _parse(data, len(method) + 1, end)
    if found is None:
        return None
    target, head = found
    length = head.length or 0
    if length > MAX_BODY or len(data) > end + 4 + length:
        return None
    return PlainWrite(method, target, head.headers, head.keep, end + 4, end + 4 + length)


def _parse(data: bytes, start: int, end: int) -> tuple[str, Head] | None:
    """The target, which begins at `start`, and what follows it up to the empty line, before which the head ends."""
    space = data.find(b" ", start, end)
    target, rest = data[start:space], data[space + 1 : end]
    if space < 0 or not _TARGET.fullmatch(target) or b"#" in target:
        return None
    try:
        head = _HEADS[rest]
    except KeyError:
        head = _parse_head(rest)
        if len(_HEADS) >= HEADS_KEPT:
            del _HEADS[next(iter(_HEADS))]
        _HEADS[rest] = head
    return (target.decode("ascii"), head) if head is not None else None


def _parse_head(rest: bytes) -> Head | None:
    lines = rest.split(b"\r\n")
    if lines[0] not in (b"HTTP/1.1", b"HTTP/1.0"):
        return None
    headers: dict[str, str] = {}
    for line in lines[1:]:
        found = _HEADER.fullmatch(line)
        if found is None:
            return None
        name = found[1].decode("ascii").lower()
        if name in headers or name in _NOT_PLAIN:
            return None
        headers[name] = found[2].rstrip(b" \t").decode("latin-1")
    old = lines[0] == b"HTTP/1.0"
    if not old and "host" not in headers:
        return None
    length = headers.get("content-length")
    if length is not None and not (length.isascii() and length.isdigit() and len(length) <= 15):
        return None
    connection = headers.get("connection", "").lower()
    keep = connection == "keep-alive" if old else connection != "close"
    return Head(headers, keep, int(length) if length is not None else None)
