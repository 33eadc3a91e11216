"""Snapshots on disk: the state after an entry, in checksummed chunks, written aside and renamed when it is whole.

A snapshot travels to another server as the bytes of its file. What arrived of it is kept over a restart: it is checked
chunk by chunk, and goes on where the last whole chunk ends. It counts only when all of it is there and checked.

Header: magic, version, id, length of what follows, checksum; then MessagePack of `Snapshot`. A chunk is
its length, its checksum and its bytes; each checksum begins with the one before it, so that none can be missing or
elsewhere. A chunk of length 0 ends the file. The id is random: it tells two snapshots of one entry apart.
"""

import contextlib
import random
import re
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Annotated, Final

import msgspec

from lictor.raft.core.message import Snapshot
from lictor.raft.wal.errors import DiskFailed, DiskFull, damaged, naming, syncing, syncing_aside
from lictor.raft.wal.files import File, Files, OsFiles

CHUNK: Final = 256 * 1024
_MAX_CHUNK: Final = 64 * 1024 * 1024
_MAX_HEADER: Final = 16 * 1024 * 1024
_MAGIC: Final = b"LICTSNAP"
_VERSION: Final = 1
_FIELDS: Final = struct.Struct(">8sIQI")
_CHECKSUM: Final = struct.Struct(">I")
_CHUNK_HEADER: Final = struct.Struct(">II")
_FIXED: Final = _FIELDS.size + _CHECKSUM.size
_SUFFIX, _ASIDE, _PART = ".snapshot", ".snapshot-new", ".snapshot-part"
_NAME: Final = re.compile(r"([0-9]{20})-[0-9]{20}\.snapshot")
_PART_NAME: Final = re.compile(r"([0-9]{20})-[0-9]{20}-[0-9a-f]{16}\.snapshot-part")
SYNC_BYTES: Final = 8 * 1024 * 1024
"""How much is written at most before it is synced: what waits for the disk delays the log's next sync, too."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Snapshot).decode


class Mangled(ValueError):
    """What was received is no snapshot, or not the one that was offered. It was dropped; receive it anew."""


class Offer(msgspec.Struct, frozen=True, array_like=True):
    """A snapshot that a server can send: what it is of, which one it is, the length of its file in bytes."""

    snapshot: Snapshot
    id: Annotated[int, msgspec.Meta(ge=0)]
    size: Annotated[int, msgspec.Meta(ge=0)]


class _Broken(Exception):
    """A file cannot be read as a snapshot from an offset on."""

    def __init__(self, offset: int, what: str) -> None:
        super().__init__(what)
        self.offset = offset
        self.what = what


def _header(snapshot: Snapshot, identity: int) -> bytes:
    content = _encode(snapshot)
    fields = _FIELDS.pack(_MAGIC, _VERSION, identity, len(content))
    return fields + _CHECKSUM.pack(zlib.crc32(content, zlib.crc32(fields))) + content


def _chunk(data: bytes, former: int) -> tuple[bytes, int]:
    """A chunk, and the checksum to begin the next one with."""
    checksum = zlib.crc32(data, former ^ len(data))
    return _CHUNK_HEADER.pack(len(data), checksum) + data, checksum


class _Reader:
    """Reads a snapshot's file from its beginning; `at` is where the next chunk begins. Raises `_Broken`."""

    def __init__(self, file: File) -> None:
        self._file = file
        fields = file.read(0, _FIXED)
        if len(fields) < _FIXED:
            raise _Broken(0, "its header is not whole")
        magic, version, self.id, length = _FIELDS.unpack_from(fields)
        if magic != _MAGIC:
            raise _Broken(0, "it does not begin as a snapshot does")
        if version != _VERSION:
            raise _Broken(0, f"it has format {version}, and this version of the program reads format {_VERSION}")
        if length > _MAX_HEADER:
            raise _Broken(0, "its header is too long")
        content = file.read(_FIXED, length)
        (checksum,) = _CHECKSUM.unpack_from(fields, _FIELDS.size)
        if zlib.crc32(content, zlib.crc32(fields[: _FIELDS.size])) != checksum:
            raise _Broken(0, "the checksum of its header does not match")
        try:
            self.snapshot = _decode(content)
        except msgspec.DecodeError as error:
            raise _Broken(0, f"its header is not readable: {error}") from None
        self.at = _FIXED + length
        self._checksum = checksum

    def chunks(self) -> Iterator[bytes]:
        """Every chunk but the one that ends the file."""
        while True:
            header = self._file.read(self.at, _CHUNK_HEADER.size)
            if len(header) < _CHUNK_HEADER.size:
                raise _Broken(self.at, "it is cut off")
            length, checksum = _CHUNK_HEADER.unpack(header)
            if length > _MAX_CHUNK:
                raise _Broken(self.at, "a chunk is too long")
            data = self._file.read(self.at + _CHUNK_HEADER.size, length)
            if len(data) < length or zlib.crc32(data, self._checksum ^ length) != checksum:
                raise _Broken(self.at, "the checksum of a chunk does not match")
            self.at += _CHUNK_HEADER.size + length
            self._checksum = checksum
            if not length:
                if self._file.size() != self.at:
                    raise _Broken(self.at, "something follows its end")
                return
            yield data


def _chunks_of(pieces: Iterable[bytes], chunk: int) -> Iterator[bytes]:
    """Pieces joined and cut to the size of chunks."""
    held: list[bytes] = []
    size = 0
    for piece in pieces:
        held.append(piece)
        size += len(piece)
        if size >= chunk:
            joined = b"".join(held)
            whole = size - size % chunk
            for start in range(0, whole, chunk):
                yield joined[start : start + chunk]
            held, size = [joined[whole:]], size - whole
    if size:
        yield b"".join(held)


class Outgoing:
    """A snapshot that is being sent; it can be read also after a later one took its place."""

    def __init__(self, file: File, path: Path, offer: Offer) -> None:
        self._file = file
        self._path = path
        self.offer = offer

    def read(self, offset: int, limit: int) -> bytes:
        """Bytes of the file; none at its end."""
        with naming(self._path):
            return self._file.read(offset, limit)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Incoming:
    """A snapshot that is being received; `offset` is where it goes on."""

    def __init__(self, store: "SnapshotStore", file: File, path: Path, offer: Offer, offset: int) -> None:
        self._store = store
        self._file = file
        self._path = path
        self.offer = offer
        self.offset = offset
        self._unsynced = 0

    def write(self, offset: int, data: bytes) -> None:
        """Take the bytes at an offset; what is there already is passed over.

        Raises `ValueError` for a gap, `Mangled` for more than was offered, `DiskFull`, `DiskFailed`. After `DiskFull`
        it goes on at `offset`, which may be less than before.
        """
        if offset > self.offset:
            raise ValueError(f"bytes from {offset} on leave a gap after {self.offset}")
        if offset + len(data) > self.offer.size:
            self.drop()
            raise Mangled(f"{offset + len(data)} bytes of a snapshot that was to have {self.offer.size}")
        data = data[self.offset - offset :]
        with naming(self._path):
            self._file.write(self.offset, data)
        self.offset += len(data)
        self._unsynced += len(data)
        if self._unsynced >= SYNC_BYTES:
            self._sync()

    def _sync(self) -> None:
        try:
            with syncing_aside(self._path):
                self._file.sync()
        except DiskFull:
            # The system may have dropped what it could not write, and a later sync would not tell.
            self.offset = 0
            with naming(self._path):
                self._file.truncate(0)
            raise
        finally:
            self._unsynced = 0

    def finish(self, content: Callable[[Iterator[bytes]], None] | None = None) -> Snapshot:
        """Check all of it and let it take its place. `content` is given the state's pieces, and raises `Mangled` where
        they are none. Raises `Mangled`, `DiskFull`, `DiskFailed`, and has dropped it then.
        """
        try:
            self._check(content)
            with syncing_aside(self._path):
                self._file.sync()
        except BaseException:
            self.drop()
            raise
        self._file.close()
        self._store._publish(self._path, self.offer.snapshot)
        return self.offer.snapshot

    def _check(self, content: Callable[[Iterator[bytes]], None] | None) -> None:
        try:
            with naming(self._path):
                reader = _Reader(self._file)
                chunks = reader.chunks()
                if content is not None:
                    content(chunks)
                for _ in chunks:
                    pass
        except _Broken as error:
            raise Mangled(f"the snapshot that was received is damaged at offset {error.offset}: {error.what}") from None
        found = Offer(reader.snapshot, reader.id, reader.at)
        if found != self.offer or self.offset != self.offer.size:
            raise Mangled("the snapshot that was received is not the one that was offered")

    def drop(self) -> None:
        """Give it up and remove what arrived."""
        self._file.close()
        self._store._discard(self._path)

    def pause(self) -> None:
        """Close the file and keep what arrived."""
        self._file.close()


class SnapshotStore:
    """The snapshots in a folder of their own. One thread at a time, but for `read`. `chance` makes the ids."""

    def __init__(
        self,
        folder: Path,
        files: Files | None = None,
        *,
        chunk_bytes: int = CHUNK,
        chance: random.Random | None = None,
    ) -> None:
        self.folder = folder
        self._files: Files = files or OsFiles()
        self._chunk_bytes = chunk_bytes
        self._chance = chance or random.SystemRandom()

    def open(self) -> Snapshot | None:
        """The latest snapshot's description, None if there is none. Removes what was never finished here, and what
        arrived of a snapshot that is no later than the latest.

        Raises `DamagedLog` if its header cannot be read, `DiskFailed`.
        """
        with naming(self.folder):
            self._files.make_folder(self.folder)
            found = self._files.names(self.folder)
            latest = max((int(name[1]) for name in map(_NAME.fullmatch, found) if name), default=0)
            for name in found:
                part = _PART_NAME.fullmatch(name)
                if name.endswith(_ASIDE) or (part is not None and int(part[1]) <= latest):
                    self._files.remove(self.folder / name)
        with syncing(self.folder):
            self._files.sync_folder(self.folder)
        names = self._names()
        if not names:
            return None
        _, file, reader = self._read(names[-1])
        file.close()
        return reader.snapshot

    def write(self, snapshot: Snapshot, pieces: Iterable[bytes]) -> None:
        """Write a snapshot aside, sync it, and let it take its place; then it is durable.

        Raises `DiskFull` when nothing was changed, and `DiskFailed`.
        """
        aside = self.folder / (self._name(snapshot).removesuffix(_SUFFIX) + _ASIDE)
        with naming(aside):
            file = self._files.create(aside)
        try:
            unsynced = 0
            chunks = _chunks_of(pieces, self._chunk_bytes)
            for at, data in _encoded(snapshot, self._chance.getrandbits(64), chunks):
                with naming(aside):
                    file.write(at, data)
                unsynced += len(data)
                if unsynced >= SYNC_BYTES:
                    with syncing_aside(aside):
                        file.sync()
                    unsynced = 0
            with syncing_aside(aside):
                file.sync()
        except BaseException:
            file.close()
            self._discard(aside)
            raise
        file.close()
        self._publish(aside, snapshot)

    def read(self, snapshot: Snapshot | None = None) -> Iterator[bytes]:
        """The state of a snapshot, or of the latest, piece by piece, each checked; nothing if there is none.

        Raises `DamagedLog`, `DiskFailed`.
        """
        names = self._names() if snapshot is None else [self._name(snapshot)]
        if not names:
            return
        path, file, reader = self._read(names[-1])
        try:
            with naming(path):
                yield from reader.chunks()
        except _Broken as error:
            raise damaged(path, error.offset, error.what) from None
        finally:
            file.close()

    def send(self) -> Outgoing | None:
        """Open the latest snapshot for sending; None if there is none. Raises `DamagedLog`, `DiskFailed`."""
        names = self._names()
        if not names:
            return None
        path, file, reader = self._read(names[-1])
        return Outgoing(file, path, Offer(reader.snapshot, reader.id, file.size()))

    def room(self) -> int:
        """How many bytes more there is room for. Raises `DiskFailed`."""
        with naming(self.folder):
            return self._files.room(self.folder)

    def receive(self, offer: Offer) -> Incoming:
        """Begin to receive a snapshot, or go on with it where it was left. Anything else half received is dropped."""
        stem = self._name(offer.snapshot).removesuffix(_SUFFIX)
        part = self.folder / f"{stem}-{offer.id:016x}{_PART}"
        with naming(self.folder):
            names = self._files.names(self.folder)
        for name in names:
            if name.endswith(_PART) and name != part.name:
                self._remove(self.folder / name)
        with naming(part):
            if part.name not in names:
                return Incoming(self, self._files.create(part), part, offer, 0)
            file = self._files.open(part)
            try:
                offset = _believed(file)
            except BaseException:
                file.close()
                raise
        return Incoming(self, file, part, offer, offset)

    def remove_older(self) -> None:
        """Remove all snapshots but the latest."""
        for name in self._names()[:-1]:
            self._remove(self.folder / name)

    def _names(self) -> list[str]:
        """The names of whole snapshots, the latest last."""
        with naming(self.folder):
            return sorted(name for name in self._files.names(self.folder) if _NAME.fullmatch(name))

    def _name(self, snapshot: Snapshot) -> str:
        return f"{snapshot.index:020d}-{snapshot.term:020d}{_SUFFIX}"

    def _read(self, name: str) -> tuple[Path, File, _Reader]:
        path = self.folder / name
        with naming(path):
            file = self._files.open(path)
            try:
                reader = _Reader(file)
            except BaseException as error:
                file.close()
                if isinstance(error, _Broken):
                    raise damaged(path, error.offset, error.what) from None
                raise
        if self._name(reader.snapshot) != name:
            file.close()
            raise damaged(path, 0, f"it is the snapshot of entry {reader.snapshot.index} under another's name")
        return path, file, reader

    def _publish(self, aside: Path, snapshot: Snapshot) -> None:
        """Let a file that is whole and synced take its place."""
        path = self.folder / self._name(snapshot)
        try:
            with naming(path):
                self._files.replace(aside, path)
        except (DiskFull, DiskFailed):
            self._discard(aside)
            raise
        with syncing(self.folder):
            self._files.sync_folder(self.folder)

    def _remove(self, path: Path) -> None:
        with naming(path):
            self._files.remove(path)

    def _discard(self, path: Path) -> None:
        """Remove what nobody counts on; what stays is removed by the next start, or written over."""
        with contextlib.suppress(OSError):
            self._files.remove(path)


def _encoded(snapshot: Snapshot, identity: int, chunks: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """What a snapshot's file holds, with the offset of each part."""
    header = _header(snapshot, identity)
    yield 0, header
    at = len(header)
    checksum = _CHECKSUM.unpack_from(header, _FIELDS.size)[0]
    for data in chain(chunks, (b"",)):
        encoded, checksum = _chunk(data, checksum)
        yield at, encoded
        at += len(encoded)


def _believed(file: File) -> int:
    """Cut what arrived of a snapshot off after its last whole chunk, and return its length.

    It is written anew, for it may be in the system's memory only: a sync that failed in an earlier run has dropped it
    from what the next sync writes.
    """
    reader: _Reader | None = None
    try:
        reader = _Reader(file)
        for _ in reader.chunks():
            pass
    except _Broken:
        pass
    length = reader.at if reader is not None else 0
    file.truncate(length)
    for at in range(0, length, CHUNK):
        file.write(at, file.read(at, min(CHUNK, length - at)))
    return length
