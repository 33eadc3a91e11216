"""Reading one segment: its batches, and where the last whole frame ends.

Only the last segment may end in a write that was cut off, and only its last frame may be one. Everything else that
cannot be read is damage, and refused.
"""

from collections.abc import Iterator
from pathlib import Path

import msgspec

from lictor.raft.wal.errors import damaged
from lictor.raft.wal.frame import (
    FRAME_HEADER,
    SEGMENT_HEADER,
    Batch,
    NotASegment,
    SegmentHeader,
    decode_batch,
    frames,
    later_frame,
    read_frame_header,
    read_segment_header,
    was_written,
)


class Segment:
    """The content of one segment file. `read` it to the end, then `end` and `next_frame` hold."""

    def __init__(self, path: Path, data: bytes, number: int) -> None:
        """Raises `DamagedLog` if the header is not that of the segment with this number."""
        self.path = path
        self._data = data
        try:
            self.header: SegmentHeader = read_segment_header(data)
        except NotASegment as error:
            raise damaged(path, 0, str(error)) from None
        if self.header.number != number:
            raise damaged(path, 0, f"it is segment {self.header.number} under the name of segment {number}")
        self.next_frame = self.header.first_frame
        self.last_frame_at = SEGMENT_HEADER
        self.end = SEGMENT_HEADER

    def read(self, *, last: bool) -> Iterator[tuple[int, Batch]]:
        """Every batch with its offset. In the last segment, stops before a write that was cut off.

        Raises `DamagedLog`.
        """
        at = self.end
        for number, payload in frames(self._data, at, self.header.salt):
            if number != self.next_frame:
                raise damaged(self.path, at, f"frame {number} where frame {self.next_frame} should be")
            try:
                batch = decode_batch(payload)
            except msgspec.DecodeError as error:
                raise damaged(self.path, at, f"the content of frame {number} is not a batch: {error}") from None
            self.next_frame = number + 1
            self.last_frame_at = at
            self.end = at + FRAME_HEADER + len(payload)
            yield at, batch
            at = self.end
        if self.cut_off:
            self._check_end(last)

    def last_frame(self) -> bytes:
        """The bytes of the last whole frame."""
        return self._data[self.last_frame_at : self.end]

    @property
    def cut_off(self) -> bool:
        """Whether anything but zeros follows the last whole frame."""
        return _used(self._data) > self.end

    def _check_end(self, last: bool) -> None:
        """Refuse what cannot be the remains of one write that a crash cut off."""
        data, salt, at, frame = self._data, self.header.salt, self.end, self.next_frame
        if not last:
            raise damaged(self.path, at, f"frame {frame} cannot be read, and there are later segments")
        later = later_frame(data, at, frame, salt)
        if later is not None:
            what = f"frame {frame} cannot be read, and was durable, for a later one follows at offset {later}"
            raise damaged(self.path, at, what)
        header = read_frame_header(data, at, salt)
        size = FRAME_HEADER + (header.length if header is not None else 0)
        if at + size <= len(data) and was_written(data, at, at + size):
            what = f"frame {frame} cannot be read, though it was written whole, which no crash makes of it"
            raise damaged(self.path, at, what)


_ZEROS = bytes(65536)


def _used(data: bytes) -> int:
    """The length without the zeros at the end."""
    end = len(data)
    while end >= len(_ZEROS) and data.endswith(_ZEROS, 0, end):
        end -= len(_ZEROS)
    start = max(0, end - len(_ZEROS))
    return start + len(data[start:end].rstrip(b"\0"))
