"""The format of the log: frames in segments. Bytes in, records out; nothing here touches a file.

A *frame* holds one `Batch`, and a batch is what was made durable with one sync: all of it is there or nothing. A
segment is a header and frames, then zeros. Frames are numbered without a gap from one segment to the next, and a frame
is written only when all before it are durable. So only the last one may be what a crash left of a write; one that
cannot be read and has a higher number after it was durable once, and is damaged. The last one itself is damaged, too,
if all of it was written: a crash leaves of each sector the zeros that were there before, or some first part of what was
to be written, and zeros after it.

All checksums of a segment begin with its salt, a random number. Bytes that look like a frame but are of another
segment, or are somebody's data, are therefore not taken for one.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import Final

import msgspec

from lictor.raft.core.membership import Membership
from lictor.raft.core.message import Entry, HardState

MAGIC: Final = b"LICTWAL"
VERSION: Final = 1
MARK: Final = b"\xf5LFR"

_SEGMENT: Final = struct.Struct(">7sBQQI")  # magic, version, segment number, number of its first frame, salt
_FRAME: Final = struct.Struct(">4sIQI")  # mark, payload length, number, checksum of the payload
_WHOLE_FRAME: Final = struct.Struct(">4sIQII")  # the same, and the checksum of these fields
_CHECKSUM: Final = struct.Struct(">I")
SEGMENT_HEADER: Final = _SEGMENT.size + _CHECKSUM.size
FRAME_HEADER: Final = _WHOLE_FRAME.size
SECTOR: Final = 512  # bytes, the least that a disk writes as one


class Position(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A place in the log: an entry's index and its term."""

    index: int = 0
    term: int = 0


class Configuration(msgspec.Struct, frozen=True, array_like=True):
    """The membership that an entry led to."""

    index: int
    membership: Membership


class Batch(msgspec.Struct, frozen=True, array_like=True):
    """What becomes durable together. Its parts count in this order:

    - `restored`: the log is emptied and goes on after this position, whose state is in a snapshot;
    - `entries`: consecutive; they replace everything that was at and after the index of the first;
    - `state` and `configuration`: in place of the former ones;
    - `end`: only in the first frame of a segment, where the log ended when the segment began.
    """

    entries: tuple[Entry, ...] = ()
    state: HardState | None = None
    configuration: Configuration | None = None
    restored: Position | None = None
    end: Position | None = None


class SegmentHeader(msgspec.Struct, frozen=True):
    """What a segment begins with."""

    number: int
    first_frame: int
    salt: int


class FrameHeader(msgspec.Struct, frozen=True):
    """What a frame begins with; `length` and `checksum` are the payload's."""

    number: int
    length: int
    checksum: int


class NotASegment(ValueError):
    """Bytes that are no segment header; the message says why."""


encode_batch: Final = msgspec.msgpack.Encoder().encode
decode_batch: Final = msgspec.msgpack.Decoder(Batch).decode


def segment_header(header: SegmentHeader) -> bytes:
    """The first bytes of a segment."""
    fields = _SEGMENT.pack(MAGIC, VERSION, header.number, header.first_frame, header.salt)
    return fields + _CHECKSUM.pack(zlib.crc32(fields))


def read_segment_header(data: bytes) -> SegmentHeader:
    """The header of a segment. Raises `NotASegment`."""
    if len(data) < SEGMENT_HEADER or not data.startswith(MAGIC):
        raise NotASegment("it does not begin as a log segment does")
    _, version, number, first_frame, salt = _SEGMENT.unpack_from(data)
    if version != VERSION:
        raise NotASegment(f"it has format {version}, and this version of the program reads format {VERSION}")
    if _CHECKSUM.unpack_from(data, _SEGMENT.size)[0] != zlib.crc32(data[: _SEGMENT.size]):
        raise NotASegment("the checksum of its header does not match")
    return SegmentHeader(number, first_frame, salt)


def frame(number: int, payload: bytes, salt: int) -> bytes:
    """A frame. Raises `ValueError` for a payload of 4 GiB or more."""
    if len(payload) >= 1 << 32:
        raise ValueError(f"a batch of {len(payload)} bytes does not fit into a frame; split it")
    fields = _FRAME.pack(MARK, len(payload), number, zlib.crc32(payload, salt))
    return b"".join((fields, _CHECKSUM.pack(zlib.crc32(fields, salt)), payload))


def read_frame_header(data: bytes, at: int, salt: int) -> FrameHeader | None:
    """The frame header at an offset; None if there is none that can be believed."""
    if at + FRAME_HEADER > len(data):
        return None
    mark, length, number, checksum, own = _WHOLE_FRAME.unpack_from(data, at)
    if mark != MARK or zlib.crc32(data[at : at + _FRAME.size], salt) != own:
        return None
    return FrameHeader(number, length, checksum)


def frames(data: bytes, at: int, salt: int) -> Iterator[tuple[int, bytes]]:
    """The number and the payload of every frame from an offset on, up to one that cannot be read."""
    unpack, crc32, fields, header, size = _WHOLE_FRAME.unpack_from, zlib.crc32, _FRAME.size, FRAME_HEADER, len(data)
    while at + header <= size:
        mark, length, number, checksum, own = unpack(data, at)
        if mark != MARK or crc32(data[at : at + fields], salt) != own:
            return
        end = at + header + length
        payload = data[at + header : end]
        if end > size or crc32(payload, salt) != checksum:
            return
        yield number, payload
        at = end


def later_frame(data: bytes, at: int, number: int, salt: int) -> int | None:
    """The offset of a frame header after `at` with a number above `number`; None if there is none."""
    found = data.find(MARK, at + 1)
    while found >= 0:
        header = read_frame_header(data, found, salt)
        if header is not None and header.number > number:
            return found
        found = data.find(MARK, found + 1)
    return None


def was_written(data: bytes, begin: int, end: int) -> bool:
    """Whether all of a stretch was written once, whatever it holds now: no crash has left it so.

    What has a byte other than zero after it in its own sector was written. A stretch that ends in zeros may be taken
    for one that was not.
    """
    while begin < end:
        sector = (begin // SECTOR + 1) * SECTOR
        if not any(data[min(end, sector) - 1 : sector]):
            return False
        begin = sector
    return True
