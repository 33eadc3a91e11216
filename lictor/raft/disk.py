"""The log of a single voter on disk: one append-only file, and a snapshot that lets it begin anew.

Log file, format 1: the 8 bytes `LICTLOG1`, then records. A record is a header of 20 bytes, big endian: payload length
(4), CRC-32 of the payload (4), index (8), CRC-32 of these 16 bytes (4); then the payload. The header has a checksum of
its own so that its length can be believed: only then does a record that reaches past the end of the file prove that
its write was cut off. Such a record was never acknowledged and is removed at start, as are zeros at the end, which
some file systems leave of an unfinished write; damage anywhere else stops the server. Snapshot file: `LICTSNP1`,
index (8), CRC-32 of index and state (4), the state.

Only bytes are handled here; the calls block and are made from a thread.
"""

import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

LOG_MAGIC = b"LICTLOG1"
SNAPSHOT_MAGIC = b"LICTSNP1"

_FIELDS = struct.Struct(">IIQ")
_CHECKSUM = struct.Struct(">I")
_HEADER_SIZE = _FIELDS.size + _CHECKSUM.size
_SNAPSHOT = struct.Struct(">QI")


class DamagedLog(Exception):
    """The log or the snapshot cannot be trusted; the message names the file, the offset and what to do."""


def _record(index: int, payload: bytes) -> bytes:
    fields = _FIELDS.pack(len(payload), zlib.crc32(payload), index)
    return fields + _CHECKSUM.pack(zlib.crc32(fields)) + payload


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class Disk:
    """The folder of one server's log. Not safe for use from two threads at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log_path = folder / "log"
        self.snapshot_path = folder / "snapshot"
        self._fd = -1
        self.log_bytes = 0

    def open(self) -> tuple[int, bytes | None, list[tuple[int, bytes]]]:
        """Read all there is: the snapshot's index and state (0 and None where there is none) and the entries after it.

        Raises `DamagedLog`, and `OSError` where the folder cannot be used.
        """
        if not self.folder.is_dir():
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            _sync_folder(self.folder.parent)
        index, state = self._read_snapshot()
        entries = [(i, payload) for i, payload in self._read_log() if i > index]
        expected = index + 1
        for i, _ in entries:
            if i != expected:
                raise DamagedLog(
                    f"{self.log_path}: entry {expected} is missing (found {i}); restore the data directory from a "
                    "backup, or move it away to start empty"
                )
            expected += 1
        return index, state, entries

    def append(self, records: Iterable[tuple[int, bytes]]) -> None:
        """Write records and sync them, all with one call; they are durable when it returns."""
        data = b"".join(_record(index, payload) for index, payload in records)
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]
        os.fdatasync(self._fd)
        self.log_bytes += len(data)

    def save_snapshot(self, index: int, pieces: Iterator[bytes]) -> None:
        """Write a snapshot aside, sync it, and put it in place of the former one."""
        aside = self.snapshot_path.with_suffix(".new")
        fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(fd, "wb") as file:
            file.write(SNAPSHOT_MAGIC + _SNAPSHOT.pack(index, 0))
            crc = zlib.crc32(index.to_bytes(8, "big"))
            for piece in pieces:
                crc = zlib.crc32(piece, crc)
                file.write(piece)
            file.seek(len(SNAPSHOT_MAGIC))
            file.write(_SNAPSHOT.pack(index, crc))
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, self.snapshot_path)
        _sync_folder(self.folder)

    def begin_anew(self, records: Iterable[tuple[int, bytes]]) -> None:
        """Replace the log by one that holds just these records: those that came after the snapshot."""
        aside = self.log_path.with_suffix(".new")
        old = self._fd
        self._fd = os.open(aside, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        os.write(self._fd, LOG_MAGIC)
        self.log_bytes = len(LOG_MAGIC)
        self.append(records)
        os.replace(aside, self.log_path)
        _sync_folder(self.folder)
        if old >= 0:
            os.close(old)

    def close(self) -> None:
        """Close the log; harmless where it is closed."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _read_snapshot(self) -> tuple[int, bytes | None]:
        try:
            data = self.snapshot_path.read_bytes()
        except FileNotFoundError:
            return 0, None
        start = len(SNAPSHOT_MAGIC) + _SNAPSHOT.size
        if len(data) < start or data[: len(SNAPSHOT_MAGIC)] != SNAPSHOT_MAGIC:
            raise DamagedLog(f"{self.snapshot_path}: not a snapshot of this program; restore it from a backup")
        index, crc = _SNAPSHOT.unpack_from(data, len(SNAPSHOT_MAGIC))
        state = data[start:]
        if zlib.crc32(state, zlib.crc32(index.to_bytes(8, "big"))) != crc:
            raise DamagedLog(f"{self.snapshot_path}: checksum does not match; restore it from a backup")
        return index, state

    def _read_log(self) -> list[tuple[int, bytes]]:
        self._fd = os.open(self.log_path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        with open(os.dup(self._fd), "rb") as file:
            data = file.read()
        if len(data) < len(LOG_MAGIC):
            os.ftruncate(self._fd, 0)
            os.write(self._fd, LOG_MAGIC)
            os.fsync(self._fd)
            _sync_folder(self.folder)
            self.log_bytes = len(LOG_MAGIC)
            return []
        if data[: len(LOG_MAGIC)] != LOG_MAGIC:
            raise DamagedLog(f"{self.log_path}: not a log of this program; move the data directory away to start empty")
        records, good = _parse(data, self.log_path)
        if good < len(data):
            os.ftruncate(self._fd, good)
            os.fsync(self._fd)
        self.log_bytes = good
        return records


def _parse(data: bytes, path: Path) -> tuple[list[tuple[int, bytes]], int]:
    """The records of a log file, and where its last whole record ends."""
    records: list[tuple[int, bytes]] = []
    at = len(LOG_MAGIC)
    while at < len(data):
        if at + _HEADER_SIZE > len(data):
            break
        fields = data[at : at + _FIELDS.size]
        (own,) = _CHECKSUM.unpack_from(data, at + _FIELDS.size)
        length, crc, index = _FIELDS.unpack(fields)
        if zlib.crc32(fields) != own:
            if not any(data[at:]):
                break
            raise _damaged(path, at)
        end = at + _HEADER_SIZE + length
        if end > len(data):
            break
        payload = data[at + _HEADER_SIZE : end]
        if zlib.crc32(payload) != crc:
            if end == len(data):
                break
            raise _damaged(path, at)
        records.append((index, payload))
        at = end
    return records, at


def _damaged(path: Path, at: int) -> DamagedLog:
    return DamagedLog(
        f"{path}: damaged at offset {at}, where acknowledged entries may have been; restore the data directory from a "
        f"backup, or truncate the file to {at} bytes to give up everything after that point"
    )
