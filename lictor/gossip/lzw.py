"""LZW as gossip compresses with it: 8-bit literals, codes of 9 to 12 bits, lowest bit first, clear and end codes.

The variant of GIF (GIF89a specification, appendix F) and of Go's `compress/lzw`; no library of Python's has it.
"""

from __future__ import annotations

from lictor.gossip.codec import WireError

CLEAR = 256
END = 257
FIRST_FREE = 258
FIRST_WIDTH = 9
LAST_WIDTH = 12
_LITERALS = tuple(bytes((n,)) for n in range(256)) + (b"", b"")


class _BitWriter:
    """Collects codes, the first in the lowest bits."""

    def __init__(self) -> None:
        self.out = bytearray()
        self.held = 0
        self.count = 0

    def put(self, code: int, width: int) -> None:
        self.held |= code << self.count
        self.count += width
        while self.count >= 8:
            self.out.append(self.held & 0xFF)
            self.held >>= 8
            self.count -= 8

    def finish(self) -> bytes:
        if self.count:
            self.out.append(self.held & 0xFF)
        return bytes(self.out)


def compress(data: bytes) -> bytes:
    """Data as LZW; it can come out longer than it went in."""
    bits = _BitWriter()
    width = FIRST_WIDTH
    bits.put(CLEAR, width)
    codes: dict[tuple[int, int], int] = {}
    highest = END
    current = -1
    for byte in data:
        if current < 0:
            current = byte
            continue
        longer = codes.get((current, byte))
        if longer is not None:
            current = longer
            continue
        bits.put(current, width)
        highest += 1
        if highest == 1 << width:
            width += 1
        if highest == (1 << LAST_WIDTH) - 1:
            bits.put(CLEAR, LAST_WIDTH)
            codes.clear()
            highest, width = END, FIRST_WIDTH
        else:
            codes[(current, byte)] = highest
        current = byte
    if current >= 0:
        bits.put(current, width)
        # The reader counts this code too, and reads the next one as wide as that makes it.
        if highest + 1 == 1 << width and width < LAST_WIDTH:
            width += 1
        elif highest + 1 == (1 << LAST_WIDTH) - 1:
            bits.put(CLEAR, LAST_WIDTH)
            width = FIRST_WIDTH
    bits.put(END, width)
    return bits.finish()


def decompress(data: bytes, limit: int) -> bytes:
    """The data behind LZW. Raises WireError when it is none, ends early or would be longer than `limit` bytes."""
    table: list[bytes] = list(_LITERALS)
    out: list[bytes] = []
    size = 0
    width = FIRST_WIDTH
    held = count = 0
    previous = b""
    at = 0
    while True:
        while count < width:
            if at == len(data):
                raise WireError("compressed data ends early")
            held |= data[at] << count
            at += 1
            count += 8
        code = held & ((1 << width) - 1)
        held >>= width
        count -= width
        if code == END:
            return b"".join(out)
        if code == CLEAR:
            del table[FIRST_FREE:]
            width = FIRST_WIDTH
            previous = b""
            continue
        if code < len(table):
            entry = table[code]
        elif code == len(table) and previous:
            entry = previous + previous[:1]
        else:
            raise WireError("compressed data has a code that stands for nothing")
        size += len(entry)
        if size > limit:
            raise WireError(f"compressed data is longer than {limit} bytes")
        out.append(entry)
        if previous and len(table) < 1 << LAST_WIDTH:
            table.append(previous + entry[:1])
        previous = entry
        # One code ahead of the table: the writer has entered what this code and the next one make together.
        if len(table) >= (1 << width) and width < LAST_WIDTH:
            width += 1
