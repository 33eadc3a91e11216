"""What two built-in proxies say to each other within TLS, so that one connection serves several programs, one after the
other. Pure: it is handed what was read, and gives what is to be written.

    the handshake opens the first use:   DATA* END  <->  DATA* END
    and each that follows:               OPEN ->    <- OPENED, then as above; or <- REFUSED, and no more

A frame is a header of four bytes, its kind and the length of what follows, and that. DATA is a program's bytes, END the
end of one direction, REFUSED has a reason in words. A use is over when both directions have ended; only then may the
client say OPEN, and it sends a program's bytes only after OPENED. So bytes are never sent of which it is not known
whether somebody has had them, and nothing is ever queued behind another program's bytes.

What is not as it should be is `Garbage`, after which the connection is of no use.
"""

import enum
import struct
from collections.abc import Iterator
from typing import NamedTuple

PROTOCOL = "lictor-reuse/1"  # its name in ALPN
HEADER = 4  # bytes
MOST = 1 << 20  # bytes in a frame of data
REASON = 255  # bytes of a reason


class Kind(enum.IntEnum):
    """The first byte of a frame."""

    DATA = 0
    OPEN = 1
    OPENED = 2
    REFUSED = 3
    END = 4


class State(enum.IntEnum):
    """Where a use is."""

    IDLE = 0  # there is none
    OPENING = 1  # it is asked for
    OPEN = 2
    REFUSED = 3


class Garbage(Exception):
    """What the peer says means nothing, or nothing now."""


class Refusal(NamedTuple):
    """REFUSED, and why."""

    reason: str


Event = bytes | Kind | Refusal
OPEN, OPENED, END = (kind.to_bytes(1, "big") + bytes(HEADER - 1) for kind in (Kind.OPEN, Kind.OPENED, Kind.END))
_NUMBER = struct.Struct(">I")
header = _NUMBER.pack
"""The header of so many bytes of data, at most `MOST`. The kind of data is 0: its header is a length."""
_number = _NUMBER.unpack_from


class Line:
    """One side of a connection. `uses` counts those that there were, with the present one."""

    __slots__ = ("_left", "_part", "_ready", "heard_end", "is_client", "said_end", "state", "uses")

    def __init__(self, *, is_client: bool) -> None:
        self.is_client = is_client
        self.state = State.OPEN
        self.uses = 1
        self.said_end = False
        self.heard_end = False
        self._left = 0  # bytes of a frame of data that are still to come
        self._part = b""  # the beginning of a frame of any other kind, or of a header
        self._ready = True  # whether a frame may begin now, and be one of data

    # -- what is said: the bytes to write ----------------------------------------------------------------------------

    def ask(self) -> bytes:
        """Have a client begin another use."""
        assert self.is_client and self.state is State.IDLE
        self.state = State.OPENING
        self.uses += 1
        return OPEN

    def grant(self) -> bytes:
        """Have a server agree to the use that is asked for."""
        assert not self.is_client and self.state is State.OPENING
        self._begin()
        return OPENED

    def refuse(self, reason: str) -> bytes:
        """Have a server refuse it. Nothing is said after that."""
        assert not self.is_client and self.state is State.OPENING
        self.state = State.REFUSED
        told = reason.encode("utf-8", "replace")[:REASON]
        return Kind.REFUSED.to_bytes(1, "big") + len(told).to_bytes(HEADER - 1, "big") + told

    def end(self) -> bytes:
        """End the own direction; nothing where it has ended, or there is none."""
        if self.state is not State.OPEN or self.said_end:
            return b""
        self.said_end = True
        self._look_over()
        return END

    # -- what is heard -----------------------------------------------------------------------------------------------

    def data_alone(self, piece: bytes) -> bytes:
        """The bytes of data in what was read, where it is one frame of data or a part of one: the usual case. In any
        other case nothing is returned, and nothing has been heard: that is for `hear`.
        """
        size = len(piece)
        if self._ready:
            if size <= HEADER:
                return b""
            length: int = _number(piece)[0]
            left = length + HEADER - size
            if left:
                if left < 0 or length > MOST:
                    return b""
                self._left = left
                self._ready = False
            return piece[HEADER:]
        left = self._left
        if not left or size > left:
            return b""
        self._left = left - size
        self._ready = left == size
        return piece

    def hear(self, piece: bytes) -> Iterator[Event]:
        """What was read, in its order. What follows an event is looked at once that has been dealt with, for another
        use may follow the end of one. Raises `Garbage`.
        """
        if self._left:
            rest = piece[self._left :]
            data = piece[: self._left]
            self._left -= len(data)
            yield data
        else:
            rest = self._part + piece
            self._part = b""
        at = 0
        while len(rest) - at >= HEADER:
            kind, length = rest[at], int.from_bytes(rest[at + 1 : at + HEADER], "big")
            self._check(kind, length)
            start, end = at + HEADER, at + HEADER + length
            if kind == Kind.DATA:
                self._left = max(0, end - len(rest))
                at = min(end, len(rest))
                if at > start:
                    yield rest[start:at]
                continue
            if end > len(rest):
                break
            at = end
            yield self._take(Kind(kind), rest[start:end])
        self._part = rest[at:]
        self._look_ready()

    def _check(self, kind: int, length: int) -> None:
        """Whether a frame of this kind and length may come now."""
        state = self.state
        if kind == Kind.DATA:
            good = state is State.OPEN and not self.heard_end and 0 < length <= MOST
        elif kind == Kind.END:
            good = state is State.OPEN and not self.heard_end and length == 0
        elif kind == Kind.OPEN:
            good = state is State.IDLE and not self.is_client and length == 0
        elif kind == Kind.OPENED:
            good = state is State.OPENING and self.is_client and length == 0
        else:
            good = kind == Kind.REFUSED and state is State.OPENING and self.is_client and length <= REASON
        if not good:
            name = Kind(kind).name if kind in Kind.__members__.values() else f"a frame of kind {kind}"
            raise Garbage(f"the peer sent {name} with {length} bytes, which means nothing now")

    def _take(self, kind: Kind, body: bytes) -> Event:
        if kind is Kind.REFUSED:
            self.state = State.REFUSED
            return Refusal("".join(c if c.isprintable() else "?" for c in body.decode("utf-8", "replace")))
        if kind is Kind.OPEN:
            self.state = State.OPENING
            self.uses += 1
        elif kind is Kind.OPENED:
            self._begin()
        else:
            self.heard_end = True
            self._look_over()
        return kind

    def _begin(self) -> None:
        self.state = State.OPEN
        self.said_end = self.heard_end = False
        self._look_ready()

    def _look_ready(self) -> None:
        self._ready = self.state is State.OPEN and not self.heard_end and not self._left and not self._part

    def _look_over(self) -> None:
        if self.said_end and self.heard_end:
            self.state = State.IDLE
