"""The format of a connection between agents, and the reader that turns bytes into frames. Pure: no socket, no loop.

Each side begins with a *preamble* of eight bytes: the magic and the version. Then come frames, each a length of four
bytes (big endian) and a MessagePack array of four: kind, number, method, body.

    who sends     kind      number      method             body
    initiator     MESSAGE   0           the method         what is sent
    initiator     CALL      a new one   the method         the question
    acceptor      ANSWER    the call's                     the answer
    initiator     STREAM    a new one   the method         the question
    acceptor      ITEM      the stream's                   a piece
    acceptor      END       the stream's
    initiator     CREDIT    the stream's                   a count of bytes, big endian
    acceptor      ERROR     either's    the error's class  its text
    initiator     CANCEL    either's
    both          ALIVE     0

The initiator of a connection numbers calls and streams from 1 up and uses no number twice. Items flow while the
stream has credit, see `lictor.rpc.credit`. The initiator sends ALIVE when it has sent nothing else for a while; the
acceptor, when something has come and it has nothing else to send. So what the initiator sends is always followed by a
sign of life, and silence means that the other side, or the way to it, is dead; a connection on which nothing is said
costs the acceptor little.

Whatever does not look like this comes from a stranger: the reader stops for good and says why in `problem`.
"""

import struct
from enum import IntEnum
from typing import Annotated

import msgspec

MAGIC = b"Lictor\n"
VERSION = 1
PREAMBLE = MAGIC + bytes((VERSION,))

MAX_FRAME = 64 * 1024 * 1024  # bytes after the length
MAX_METHOD = 128  # characters
OVERHEAD = 32  # a bound on the bytes that a frame has beside its method and body

SPEAKS_TLS = "it speaks TLS where a plain connection was expected"

_SHORT = 4096  # bytes of a body below which copying it costs less than another piece
_TLS_RECORDS = (0x15, 0x16)  # alert, handshake (RFC 8446, section 5.1)


class Kind(IntEnum):
    """What a frame is."""

    MESSAGE = 1
    CALL = 2
    ANSWER = 3
    STREAM = 4
    ITEM = 5
    END = 6
    CREDIT = 7
    ERROR = 8
    CANCEL = 9
    ALIVE = 10


# Plain integers: an attribute of an enumeration costs more to find and to encode.
MESSAGE, CALL, ANSWER, STREAM, ITEM, END, CREDIT, ERROR, CANCEL, ALIVE = (int(kind) for kind in Kind)

Frame = tuple[int, int, str, bytes]
_Frame = tuple[
    Annotated[int, msgspec.Meta(ge=MESSAGE, le=ALIVE)],
    Annotated[int, msgspec.Meta(ge=0)],
    Annotated[str, msgspec.Meta(max_length=MAX_METHOD)],
    bytes,
]
_decode = msgspec.msgpack.Decoder(_Frame).decode
_encode = msgspec.msgpack.Encoder().encode
_length = struct.Struct(">I")
_count = struct.Struct(">Q")


def encode(kind: int, number: int = 0, method: str = "", body: bytes = b"") -> tuple[bytes, bytes]:
    """A frame's bytes in two pieces, the second of which, where the body is long, is the body itself."""
    if len(body) < _SHORT:
        content = _encode((kind, number, method, body))
        return len(content).to_bytes(4, "big"), content
    # What the encoder would make, but for the body: its bytes need not be copied.
    size = len(body)
    head = b"\x94" + _encode(kind) + _encode(number) + _encode(method) + b"\xc6" + size.to_bytes(4, "big")
    return (len(head) + size).to_bytes(4, "big") + head, body


def longest_body(limit: int) -> int:
    """The longest body, in bytes, that surely fits a frame of this limit."""
    return limit - 4 * MAX_METHOD - OVERHEAD


def encode_count(count: int) -> bytes:
    """The body of a CREDIT frame."""
    return _count.pack(count)


def decode_count(body: bytes) -> int:
    """What a CREDIT frame grants. Raises ValueError."""
    if len(body) != _count.size:
        raise ValueError(f"a credit of {len(body)} bytes")
    count: int = _count.unpack(body)[0]
    return count


class Reader:
    """Collects bytes and gives the frames in them. `limit` is the longest frame, in bytes.

    `greeted` tells whether the preamble has come; `problem` says, once it is not empty, why nothing more is read.
    """

    __slots__ = ("_limit", "_needed", "_partial", "greeted", "problem")

    def __init__(self, limit: int = MAX_FRAME) -> None:
        self.greeted = False
        self.problem = ""
        self._limit = limit
        self._partial = bytearray()
        self._needed = 0  # bytes until there is something to look at

    @property
    def held(self) -> int:
        """Bytes of what is not whole yet."""
        return len(self._partial)

    def stop(self, problem: str) -> None:
        """Read nothing more, and hold nothing."""
        self.problem = self.problem or problem
        self._partial = bytearray()

    def feed(self, data: bytes | bytearray) -> list[Frame]:
        """The frames that these bytes complete; those before a problem too."""
        if self.problem:
            return []
        if self._partial:
            self._partial += data
            if len(self._partial) < self._needed:
                return []
            data, self._partial = self._partial, bytearray()
        if self.greeted:
            return self._frames(data, 0)
        return self._frames(data, len(PREAMBLE)) if self._greet(data) else []

    def _greet(self, data: bytes | bytearray) -> bool:
        """Whether the data begin with the preamble."""
        start = bytes(data[: len(PREAMBLE)])
        if start[: len(MAGIC)] != MAGIC[: len(start)]:
            if start[0] in _TLS_RECORDS:
                self.problem = SPEAKS_TLS
            else:
                self.problem = f"it does not speak this protocol: it began with {start!r}"
        elif len(start) < len(PREAMBLE):
            self._partial, self._needed = bytearray(start), len(PREAMBLE)
        elif start[-1] != VERSION:
            self.problem = f"it speaks version {start[-1]} of the protocol, and this side version {VERSION}"
        else:
            self.greeted = True
        return self.greeted

    def _frames(self, data: bytes | bytearray, offset: int) -> list[Frame]:
        frames: list[Frame] = []
        end = len(data)
        self._needed = 4
        with memoryview(data) as view:
            while end - offset >= 4:
                (length,) = _length.unpack_from(data, offset)
                if length > self._limit:
                    self.problem = f"a frame of {length} bytes: at most {self._limit} are allowed"
                    return frames
                stop = offset + 4 + length
                if stop > end:
                    self._needed = 4 + length
                    break
                try:
                    frames.append(_decode(view[offset + 4 : stop]))
                except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                    self.problem = f"a frame that cannot be read: {error}"
                    return frames
                offset = stop
            if offset < end:
                self._partial = bytearray(view[offset:])
        return frames
