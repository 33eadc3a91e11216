"""The log: appends batches, each with one sync; finds at start what was durable; drops what a snapshot stands for.

A new segment is written aside with its first frame, which repeats the hard state, the configuration and the position
where the log ends; it is synced, then renamed. So a segment is whole from the moment it has its name, and the older
ones can go as soon as a snapshot covers the position that it begins at.

The room of a whole segment is taken beforehand. Where the disk has not so much, the segment grows by small pieces, so
that a server goes on for as long as there is any room, and takes no more of it than it needs.

At start the last frame is written again and synced before anything in it is used: it may be in the system's memory
only, because the process was killed before its sync, or because the sync failed.
"""

import contextlib
import random
import re
from pathlib import Path
from typing import Final

import msgspec

from lictor.raft.core.message import BLANK_STATE, Entry, HardState
from lictor.raft.wal.errors import NO_ROOM, DiskFailed, DiskFull, damaged, naming, syncing, syncing_aside
from lictor.raft.wal.files import File, Files, OsFiles
from lictor.raft.wal.frame import (
    SEGMENT_HEADER,
    Batch,
    Configuration,
    Position,
    SegmentHeader,
    encode_batch,
    frame,
    segment_header,
)
from lictor.raft.wal.segment import Segment

SEGMENT_BYTES: Final = 64 * 1024 * 1024
PIECE_BYTES: Final = 1024 * 1024  # what a segment grows by where there is no room for the whole of it
_SUFFIX: Final = ".wal"
_ASIDE: Final = ".wal-new"
_NAME: Final = re.compile(r"([0-9]{16})\.wal")


class Recovered(msgspec.Struct, frozen=True):
    """What a start finds. The entries follow `before`, which is not after the snapshot."""

    state: HardState
    configuration: Configuration | None
    before: Position
    entries: list[Entry]


class Log:
    """The log in a folder of its own. One thread at a time; `recover` first, once. `chance` makes the salts."""

    def __init__(
        self,
        folder: Path,
        files: Files | None = None,
        *,
        segment_bytes: int = SEGMENT_BYTES,
        piece_bytes: int = PIECE_BYTES,
        chance: random.Random | None = None,
    ) -> None:
        self.folder = folder
        self._files: Files = files or OsFiles()
        self._segment_bytes = segment_bytes
        self._piece_bytes = piece_bytes
        self._chance = chance or random.SystemRandom()
        self._file: File | None = None
        self._path = folder
        self._salt = 0
        self._at = 0  # where the next frame goes
        self._allocated = 0
        self._grows = False  # whether the segment grows by pieces
        self._number = 0  # of the segment
        self._next_frame = 1
        self._stained = False  # whether remains of a write that was not finished may follow the last frame
        self._failed: DiskFailed | None = None
        self._starts: dict[int, int] = {}  # the index at which the log ended when a segment began
        self._state = BLANK_STATE
        self._configuration: Configuration | None = None
        self._first = 1  # the lowest index that may still be written
        self._end = Position()

    @property
    def end(self) -> Position:
        """Where the durable log ends."""
        return self._end

    def exists(self) -> bool:
        """Whether the folder holds a log. Raises `DiskFailed`."""
        with naming(self.folder):
            self._files.make_folder(self.folder)
            return any(_NAME.fullmatch(name) for name in self._files.names(self.folder))

    def recover(self, snapshot: Position = Position()) -> Recovered:  # noqa: B008 - frozen
        """Read all that is durable, given the position of the snapshot that is there, and open the log for appending.

        Raises `DamagedLog`, `DiskFull`, `DiskFailed`.
        """
        with naming(self.folder):
            self._files.make_folder(self.folder)
            numbers = self._segments()
        if not numbers and snapshot.index:
            raise damaged(self.folder, 0, f"there is a snapshot of entry {snapshot.index}, but the log is gone")
        if not numbers:
            self._begin_segment(0)
            return Recovered(BLANK_STATE, None, snapshot, [])
        replay = self._read(numbers)
        self._end = replay.end
        found = replay.found(snapshot, self._segment_path(numbers[0]))
        self._first = found.before.index + 1
        if self._end != _end(found.before, found.entries):
            # The log held less than the snapshot, or entries that contradict it: it begins anew after it.
            self.append(Batch(state=found.state, restored=snapshot))
        return found

    def append(self, batch: Batch) -> None:
        """Make a batch durable. Only when this returns may anybody be told of it.

        Raises `DiskFull` when nothing of it was taken, though a start after a crash may find it before there is room
        again; `DiskFailed` when the log can be used no more; and `ValueError` for entries that leave a gap or reach
        below what a snapshot stands for.
        """
        self._check(batch)
        if self._stained:
            self._wash()
        payload = encode_batch(batch)
        data = frame(self._next_frame, payload, self._salt)
        if self._at + len(data) > max(self._allocated, self._segment_bytes):
            self._begin_segment(len(data))
            data = frame(self._next_frame, payload, self._salt)
        elif self._at + len(data) > self._allocated:
            self._allocate(self._at + len(data))
        file = self._open_file()
        self._stained = True
        try:
            with naming(self._path):
                file.write(self._at, data)
        except DiskFull:
            self._wash()
            raise
        except DiskFailed as error:
            raise self._fail(error) from error
        self._sync(file)
        self._stained = False
        self._at += len(data)
        self._next_frame += 1
        self._take(batch)

    def compact(self, index: int) -> None:
        """Remove the segments whose entries are all at or below an index, for which there is a durable snapshot."""
        self._open_file()
        numbers = sorted(self._starts)
        for number, following in zip(numbers, numbers[1:], strict=False):
            if self._starts[following] > index:
                break
            path = self._segment_path(number)
            try:
                with naming(path):
                    self._files.remove(path)
            except DiskFailed as error:
                raise self._fail(error) from error
            # One after the other, durably: a hole in the row of segments would be taken for damage.
            self._sync_folder()
            del self._starts[number]
            self._first = max(self._first, self._starts[following] + 1)

    def close(self) -> None:
        """Close the log in order: an empty frame shows that the one before it was durable."""
        if self._file is None:
            return
        try:
            if self._failed is None:
                self.append(Batch())
        except (DiskFull, DiskFailed):
            pass  # all that was acknowledged is durable; only the proof of it is missing
        finally:
            self._file.close()
            self._file = None

    def abandon(self) -> None:
        """Close the file and leave everything as it is, as the end of the process does."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _check(self, batch: Batch) -> None:
        self._open_file()
        end = batch.restored or self._end
        first = end.index + 1 if batch.restored else self._first
        for number, entry in enumerate(batch.entries):
            if entry.index != batch.entries[0].index + number:
                raise ValueError(f"entry {entry.index} does not follow the one before it")
        if batch.entries and not first <= batch.entries[0].index <= end.index + 1:
            raise ValueError(
                f"entries from {batch.entries[0].index} on do not fit: the next may be from {first} to {end.index + 1}"
            )

    def _take(self, batch: Batch) -> None:
        """What a durable batch changes."""
        if batch.restored is not None:
            self._end = batch.restored
            self._first = batch.restored.index + 1
        if batch.entries:
            self._end = Position(batch.entries[-1].index, batch.entries[-1].term)
        self._state = batch.state or self._state
        self._configuration = batch.configuration or self._configuration

    def _open_file(self) -> File:
        if self._failed is not None:
            raise self._failed
        if self._file is None:
            raise RuntimeError("the log is not open: recover it first")
        return self._file

    def _fail(self, error: DiskFailed) -> DiskFailed:
        self._failed = error
        return error

    def _sync(self, file: File) -> None:
        try:
            with syncing(self._path):
                file.sync()
        except DiskFailed as error:
            raise self._fail(error) from error

    def _sync_folder(self) -> None:
        try:
            with syncing(self.folder):
                self._files.sync_folder(self.folder)
        except DiskFailed as error:
            raise self._fail(error) from error

    def _wash(self) -> None:
        """Remove what an unfinished write left behind, so that it can never be taken for damage."""
        file = self._open_file()
        try:
            with naming(self._path):
                file.truncate(self._at)
        except DiskFailed as error:
            raise self._fail(error) from error
        self._allocated = self._at
        self._sync(file)
        self._stained = False

    def _allocate(self, needed: int) -> None:
        """Have room in the segment for so many bytes at least. Raises `DiskFull`."""
        try:
            with naming(self._path):
                self._allocated = self._reserve(self._open_file(), self._allocated, needed, whole=not self._grows)
        except DiskFailed as error:
            raise self._fail(error) from error
        self._grows = self._allocated < self._segment_bytes

    def _reserve(self, file: File, former: int, needed: int, *, whole: bool) -> int:
        """Have room in a file of a former length for so many bytes at least: for a `whole` segment if it fits, or else
        for another piece, or else for no more than these. Returns its length. Raises `OSError`.
        """
        segment = max(needed, self._segment_bytes)
        piece = min(needed + self._piece_bytes, segment)
        for size in (segment, piece) if whole else (piece,):
            try:
                file.allocate(size)
                return size
            except OSError as error:
                if error.errno not in NO_ROOM:
                    raise
                file.truncate(former)  # it may have taken a part, which would be missing for less
        file.allocate(needed)
        return needed

    def _segment_path(self, number: int) -> Path:
        return self.folder / f"{number:016d}{_SUFFIX}"

    def _segments(self) -> list[int]:
        """The numbers of the segments that are there; what was never finished is removed."""
        numbers = []
        for name in self._files.names(self.folder):
            if name.endswith(_ASIDE):
                self._files.remove(self.folder / name)
            elif (found := _NAME.fullmatch(name)) is not None:
                numbers.append(int(found[1]))
        return sorted(numbers)

    def _begin_segment(self, needed: int) -> None:
        """Make the next segment, with room for a frame of so many bytes, and go on in it."""
        number = self._number + 1
        path, aside = self._segment_path(number), self.folder / f"{number:016d}{_ASIDE}"
        salt = self._chance.getrandbits(32)
        first = Batch(state=self._state, configuration=self._configuration, end=self._end)
        data = segment_header(SegmentHeader(number, self._next_frame, salt))
        data += frame(self._next_frame, encode_batch(first), salt)
        file, size = self._publish(aside, path, data, len(data) + needed)
        if self._file is not None:
            self._file.close()
        self._file, self._path, self._salt, self._number = file, path, salt, number
        self._at, self._allocated = len(data), size
        self._grows = size < self._segment_bytes
        self._next_frame += 1
        self._starts[number] = self._end.index
        self._sync_folder()

    def _publish(self, aside: Path, path: Path, data: bytes, needed: int) -> tuple[File, int]:
        """Write a segment aside, with room for so many bytes at least, sync it and give it its name. Returns it and its
        length. Raises `DiskFull` when nothing was changed.
        """
        file: File | None = None
        try:
            with naming(aside):
                file = self._files.create(aside)
                size = self._reserve(file, 0, needed, whole=True)
                file.write(0, data)
            with syncing_aside(aside):
                file.sync()
            with naming(path):
                self._files.replace(aside, path)
        except (DiskFull, DiskFailed) as error:
            if file is not None:
                file.close()
                with contextlib.suppress(OSError):  # what stays is removed by the next start, or written over
                    self._files.remove(aside)
            if isinstance(error, DiskFull):
                raise
            raise self._fail(error) from error
        return file, size

    def _read(self, numbers: list[int]) -> "_Replay":
        """Replay all segments, and go on in the last."""
        replay = _Replay()
        former: Segment | None = None
        for number in numbers:
            path = self._segment_path(number)
            with naming(path):
                file = self._files.open(path)
            try:
                with naming(path):
                    segment = Segment(path, file.read(0, file.size()), number)
                if former is not None:
                    _follow(former, segment)
                self._replay(segment, replay, last=number == numbers[-1])
                if number == numbers[-1]:
                    self._reopen(file, segment)
            finally:
                if self._file is not file:
                    file.close()
            former = segment
        self._state, self._configuration = replay.state, replay.configuration
        return replay

    def _replay(self, segment: Segment, replay: "_Replay", *, last: bool) -> None:
        number = segment.header.number
        for at, batch in segment.read(last=last):
            if at == SEGMENT_HEADER and batch.end is not None:
                self._starts[number] = batch.end.index
            replay.take(batch, segment.path, at)
        if number not in self._starts:
            raise damaged(segment.path, SEGMENT_HEADER, "its first frame cannot be read")

    def _reopen(self, file: File, segment: Segment) -> None:
        """Go on in the last segment: remove what was cut off, and make sure of its last frame."""
        self._file, self._path, self._salt, self._at = file, segment.path, segment.header.salt, segment.end
        self._number, self._next_frame = segment.header.number, segment.next_frame
        self._allocated = file.size()
        with naming(self._path):
            if segment.cut_off:
                file.truncate(self._at)
                self._allocated = self._at
            file.write(segment.last_frame_at, segment.last_frame())
        self._sync(file)
        self._sync_folder()
        try:
            self._allocate(self._allocated)
        except DiskFull:
            pass  # reading needs no room; the first append tells if there is still none


class _Replay:
    """The log as the batches make it, one after the other."""

    def __init__(self) -> None:
        self.state = BLANK_STATE
        self.configuration: Configuration | None = None
        self._before: Position | None = None
        self._entries: list[Entry] = []
        self._cut_short = True  # whether there may have been segments before the first

    def take(self, batch: Batch, path: Path, at: int) -> None:
        """Raises `DamagedLog` for what cannot follow what was there."""
        if batch.end is not None:
            if self._before is None:
                self._before = batch.end
            elif self.end != batch.end:
                what = f"the log should end at entry {batch.end.index} where this segment begins, not {self.end.index}"
                raise damaged(path, at, what)
        if self._before is None:
            raise damaged(path, at, "the first frame does not tell where the log ended")
        if batch.restored is not None:
            self._before, self._entries = batch.restored, []
            self._cut_short = False
        if batch.entries:
            first = batch.entries[0]
            place = first.index - self._before.index - 1
            if place < 0 and self._cut_short:
                # They replaced entries that were in segments which are gone; a snapshot must stand for the first.
                self._before, self._entries = Position(first.index, first.term), []
                batch = msgspec.structs.replace(batch, entries=batch.entries[1:])
                place = 0
            if not 0 <= place <= len(self._entries):
                what = f"entry {first.index} does not fit a log from {self._before.index + 1}"
                raise damaged(path, at, f"{what} to {self._before.index + len(self._entries)}")
            del self._entries[place:]
            self._entries.extend(batch.entries)
        self.state = batch.state or self.state
        self.configuration = batch.configuration or self.configuration

    @property
    def end(self) -> Position:
        """Where the log ends."""
        return _end(self._before or Position(), self._entries)

    def found(self, snapshot: Position, path: Path) -> Recovered:
        """The log beside a snapshot. Raises `DamagedLog` if there is a gap between the two, or they contradict each
        other in what is committed.
        """
        before = self._before or Position()
        if before.index > snapshot.index:
            what = f"it begins after entry {before.index}, but the latest snapshot is of entry {snapshot.index}"
            raise damaged(path, 0, f"the log has a gap: {what}")
        place = snapshot.index - before.index
        term = before.term if place == 0 else self._entries[place - 1].term if place <= len(self._entries) else None
        if term == snapshot.term:
            return Recovered(self.state, self.configuration, before, self._entries)
        state = self.state
        if snapshot.index <= state.commit:
            what = f"the log has term {term} at entry {snapshot.index}, which was committed, the snapshot has"
            raise damaged(path, 0, f"{what} term {snapshot.term}")
        if snapshot.term > state.term:
            state = HardState(snapshot.term)
        state = HardState(state.term, state.vote, snapshot.index)
        return Recovered(state, self.configuration, snapshot, [])


def _follow(former: Segment, segment: Segment) -> None:
    """A segment must be the one that comes after the former, and the former must have its end."""
    number = former.header.number + 1
    if segment.header.number != number:
        raise damaged(segment.path, 0, f"segment {number} should be before it and is missing")
    first = segment.header.first_frame
    if first != former.next_frame:
        what = f"its end is missing, frames {former.next_frame} to {first - 1}, for {segment.path.name} follows it"
        raise damaged(former.path, former.end, what)


def _end(before: Position, entries: list[Entry]) -> Position:
    return Position(entries[-1].index, entries[-1].term) if entries else before
