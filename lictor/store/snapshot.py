"""The whole state as bytes, and back.

Format 1: a sequence of MessagePack objects, each preceded by its length in 4 bytes, big endian. First a `Header`;
then, table by table, `Chunk`s of some rows. A reader that finds anything else refuses it whole.

No step of taking a state or of loading one holds the event loop for long, however many rows there are: an `Image` is of
one moment without copying anything, it is encoded in a thread a chunk at a time, and loading fills another store in
between, which takes the place of the former at the end.
"""

import asyncio
import struct
import types
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from lictor.model.check import Check
from lictor.model.connect_ca import CAConfiguration, CARoot, RevokedLeaf
from lictor.model.coordinate_entry import CoordinateEntry
from lictor.model.errors import InvalidRequest, Refused
from lictor.model.kv import KVEntry
from lictor.model.node import Node
from lictor.model.prepared_query import PreparedQuery
from lictor.model.service import Instance
from lictor.model.session import Session
from lictor.model.virtual_ip import VirtualIP
from lictor.store import virtual_ips
from lictor.store.rows import Parts
from lictor.store.store import ConfigRow, NumberedAnswer, NumberedOrigin, Setting, Store

FORMAT = 1
CHUNK_ROWS = 2000  # at most
CHUNK_BYTES = 128 * 1024  # a chunk that has so many is not added to
# What stays through a restore: which commands were carried out is no part of what is put back.
_LASTING = ("numbered_answers", "numbered_origins")
_ARRAY = struct.Struct(">BI")  # how MessagePack begins an array: its longest form, and how many there are

ROW_TYPES: dict[str, Any] = {
    "nodes": Node,
    "services": Instance,
    "checks": Check,
    "kv": KVEntry,
    "tombstones": tuple[str, int],
    "sessions": Session,
    "queries": PreparedQuery,
    "coordinates": CoordinateEntry,
    "config": ConfigRow,
    "settings": Setting,
    "ca_roots": CARoot,
    "ca_revoked": RevokedLeaf,
    "authority": CAConfiguration,
    "virtual_ips": VirtualIP,
    "lock_delays": tuple[str, float],
    "numbered_answers": NumberedAnswer,
    "numbered_origins": NumberedOrigin,
    "restoring": tuple[str, int, bytes],
}
_DECODERS = {name: msgspec.msgpack.Decoder(types.GenericAlias(list, (row,))) for name, row in ROW_TYPES.items()}


class Header(msgspec.Struct, frozen=True):
    """What a snapshot begins with: its format, the index it stands at, and what is not in a table."""

    format: int
    index: int
    floor: int
    base: int
    now: float
    touched: tuple[tuple[tuple[str, ...], int], ...]
    departed: tuple[tuple[tuple[str, ...], int], ...]
    rows: dict[str, int]


class Chunk(msgspec.Struct, frozen=True):
    """Rows of one table, encoded."""

    table: str
    rows: msgspec.Raw


_decode_header = msgspec.msgpack.Decoder(Header).decode
_decode_chunk = msgspec.msgpack.Decoder(Chunk).decode


class Image:
    """The state at one moment; encoding it can take its time."""

    def __init__(self, store: Store) -> None:
        self.index = store.index
        tables = store.tables
        self._parts = {name: table.rows.picture() for name, table in tables.items()}
        self.header = Header(
            FORMAT,
            store.index,
            store.floor,
            store.base,
            store.now,
            tuple(store.touched.items()),
            tuple(store.departed.items()),
            {name: len(table) for name, table in tables.items()},
        )

    def encode(self) -> Iterator[bytes]:
        """The snapshot's bytes, a piece at a time; once, since the rows are let go of on the way."""
        encoder = msgspec.msgpack.Encoder()
        yield _framed(encoder.encode(self.header))
        for name, parts in self._parts.items():
            for rows in _arrays(parts):
                yield _framed(encoder.encode(Chunk(name, msgspec.Raw(rows))))


def _arrays(parts: Parts[Any, Any]) -> Iterator[bytearray]:
    """The rows of a table in order, encoded as lists of some; the parts are let go of on the way."""
    encode_into = msgspec.msgpack.Encoder().encode_into
    rows, count = bytearray(_ARRAY.size), 0
    parts.reverse()
    while parts:
        part = parts.pop()
        for key in sorted(part):
            encode_into(part[key], rows, -1)
            count += 1
            if count == CHUNK_ROWS or len(rows) >= CHUNK_BYTES:
                _ARRAY.pack_into(rows, 0, 0xDD, count)
                yield rows
                rows, count = bytearray(_ARRAY.size), 0
    if count:
        _ARRAY.pack_into(rows, 0, 0xDD, count)
        yield rows


def _framed(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


class _Reading:
    """Reads a state into a store of its own. Raises `InvalidRequest` for what is no snapshot."""

    def __init__(self) -> None:
        self.store = Store()
        self._tables = self.store.tables
        self._header: Header | None = None
        self._held = bytearray()

    def take(self, piece: bytes) -> Iterator[None]:
        """Read on; a piece may be cut off anywhere. Yields wherever a pause is welcome."""
        held, start = self._held, 0
        held += piece
        while len(held) >= start + 4:
            end = start + 4 + int.from_bytes(held[start : start + 4], "big")
            if len(held) < end:
                break
            self._frame(bytes(held[start + 4 : end]))
            start = end
            yield
        del held[:start]

    def _frame(self, frame: bytes) -> None:
        try:
            if self._header is None:
                self._header = _header(frame)
                return
            name, rows = _chunk(frame)
            self._tables[name].fill(_DECODERS[name].decode(rows))
        except (msgspec.MsgspecError, ValueError) as error:
            raise _unreadable(error) from None

    def end(self) -> Header:
        """The header, once all has been read."""
        if self._header is None or self._held:
            raise InvalidRequest("snapshot state is cut off at its end")
        _check_counts(self._header, {name: len(table) for name, table in self._tables.items()})
        return self._header


class _Ahead:
    """What was read of a state while its parts came."""

    def __init__(self, token: str) -> None:
        self.token = token
        self.count = 0
        self.reading = _Reading()

    def take(self, data: bytes) -> None:
        self.count += 1
        for _ in self.reading.take(data):
            pass


def _pieces(state: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(state):
        if at + 4 > len(state):
            raise InvalidRequest(f"snapshot state is cut off at byte {at}")
        (length,) = struct.unpack_from(">I", state, at)
        at += 4
        if at + length > len(state):
            raise InvalidRequest(f"snapshot state is cut off at byte {at}")
        yield state[at : at + length]
        at += length


def _header(frame: bytes) -> Header:
    header = _decode_header(frame)
    if header.format != FORMAT:
        raise InvalidRequest(f"snapshot state has format {header.format}; this version reads format {FORMAT}")
    return header


def _chunk(frame: bytes) -> tuple[str, msgspec.Raw]:
    chunk = _decode_chunk(frame)
    if chunk.table not in _DECODERS:
        raise InvalidRequest(f"snapshot state names an unknown table {chunk.table!r}")
    return chunk.table, chunk.rows


def _check_counts(header: Header, found: dict[str, int]) -> None:
    for name, count in found.items():
        if count != header.rows.get(name, 0):
            raise InvalidRequest(
                f"snapshot state holds {count} rows of {name}; its header says {header.rows.get(name, 0)}"
            )


def _unreadable(error: Exception) -> InvalidRequest:
    return InvalidRequest(f"snapshot state cannot be read: {error}")


def decode(state: bytes) -> tuple[Header, dict[str, list[Any]]]:
    """The header and every table's rows. Raises `InvalidRequest` for anything that is not a whole snapshot."""
    pieces = _pieces(state)
    try:
        header = _header(next(pieces, b""))
        rows: dict[str, list[Any]] = {name: [] for name in ROW_TYPES}
        for piece in pieces:
            name, encoded = _chunk(piece)
            rows[name].extend(_DECODERS[name].decode(encoded))
    except (msgspec.MsgspecError, ValueError) as error:
        raise _unreadable(error) from None
    _check_counts(header, {name: len(found) for name, found in rows.items()})
    return header, rows


TYPES = {
    "nodes": "Node",
    "services": "Service",
    "checks": "Check",
    "kv": "KVS",
    "tombstones": "Tombstone",
    "sessions": "Session",
    "queries": "PreparedQuery",
    "coordinates": "Coordinate",
    "config": "ConfigEntry",
    "settings": "Setting",
    "ca_roots": "ConnectCA",
    "ca_revoked": "ConnectCARevoked",
    "authority": "ConnectCAConfig",
    "virtual_ips": "ServiceVirtualIP",
    "lock_delays": "LockDelay",
    "numbered_answers": "NumberedAnswer",
    "numbered_origins": "NumberedOrigin",
    "restoring": "Restoring",
}
"""What a table's rows are called in listings."""


def describe(state: bytes) -> list[tuple[str, int, int]]:
    """What a state holds: type, number of rows and their bytes, the largest first; types without rows are left out.

    Raises `InvalidRequest` for anything that is not a whole snapshot.
    """
    header, _ = decode(state)
    sizes: dict[str, int] = {}
    pieces = _pieces(state)
    next(pieces)
    for piece in pieces:
        name, encoded = _chunk(piece)
        sizes[name] = sizes.get(name, 0) + len(bytes(encoded))
    listed = [(TYPES[name], header.rows[name], size) for name, size in sizes.items()]
    return sorted(listed, key=lambda row: (-row[2], row[0]))


async def load_pieces(store: Store, pieces: Iterable[bytes]) -> None:
    """Have a store stand exactly where a snapshot was taken, and tell everybody who depends on it. The pieces of the
    snapshot may be cut anywhere. Nothing has changed before all of it has been read. The loop turns meanwhile.

    Raises `InvalidRequest` for anything that is not a whole snapshot.
    """
    reading = _Reading()
    for piece in pieces:
        for _ in reading.take(piece):
            await asyncio.sleep(0)
    header = reading.end()
    for _ in _completed(header, reading.store):
        await asyncio.sleep(0)
    _take(store, header, reading.store)
    store.index, store.floor, store.base, store.now = header.index, header.floor, header.base, header.now
    store.replaced()
    store.flush()
    for table in reading.store.tables.values():
        for _ in table.dismantle():
            await asyncio.sleep(0)


def check_pieces(pieces: Iterable[bytes]) -> None:
    """See that the pieces of a snapshot, cut anywhere, can be loaded. Blocks: it is for a thread. Raises
    `InvalidRequest`.
    """
    reading = _Reading()
    try:
        for piece in pieces:
            for _ in reading.take(piece):
                pass
        reading.end()
    finally:
        for table in reading.store.tables.values():
            for _ in table.dismantle():
                pass


def keep_part(store: Store, token: str, number: int, data: bytes) -> None:
    """Keep a part of a state that is to be restored. Part 0 drops what was kept under other tokens.

    It is read at once, so that restoring has little left to do. A store that was loaded in between has the parts, and
    has not read them: it does so in the end, with the same outcome.
    """
    if number == 0:
        for other, at, _ in list(store.restoring):
            if other != token:
                store.restoring.delete((other, at))
        store.ahead = _Ahead(token)
    store.restoring.put((token, number, data))
    ahead = store.ahead
    if isinstance(ahead, _Ahead) and ahead.token == token and ahead.count == number:
        try:
            ahead.take(data)
        except InvalidRequest:
            store.ahead = None


def restore_parts(store: Store, token: str, count: int) -> None:
    """Replace a live store's state, as a command, by the one whose parts were kept under a token: the index goes on
    from where it is, and everybody is told. Raises `Refused` where parts are missing, `InvalidRequest` for what is no
    snapshot.

    Rows keep their indexes; base and floor rise to this command's index, so that no answer's index goes backwards and
    every waiting query returns.
    """
    numbers = range(min(count, len(store.restoring)))  # a request may claim any count
    parts = [part[2] for part in map(store.restoring.get, ((token, number) for number in numbers)) if part is not None]
    if len(parts) < count:
        raise Refused("another snapshot was being restored at the same time: nothing was changed; try again")
    ahead, store.ahead = store.ahead, None
    if not isinstance(ahead, _Ahead) or (ahead.token, ahead.count) != (token, count):
        ahead = _Ahead(token)
        for part in parts:
            ahead.take(part)
    header = ahead.reading.end()
    for _ in _completed(header, ahead.reading.store):
        pass
    index = max(store.index, header.index + 1)
    for name in _LASTING:
        ahead.reading.store.tables[name].exchange(store.tables[name])
    # What was revoked since the snapshot was taken is not to be believed again.
    ahead.reading.store.ca_revoked.fill(store.ca_revoked)
    _take(store, header, ahead.reading.store)
    store.index = store.floor = store.base = index
    store.touched = dict.fromkeys(store.touched, index)
    store.departed = dict.fromkeys(store.departed, index)
    store.replaced()


def _completed(header: Header, fresh: Store) -> Iterator[None]:
    """Make what a state of an earlier version does not have, a little at a time."""
    if "virtual_ips" not in header.rows:
        yield from virtual_ips.derive(fresh)


def _take(store: Store, header: Header, fresh: Store) -> None:
    """Exchange a store's rows for those of another that was filled from a snapshot."""
    tables = fresh.tables
    for name, table in store.tables.items():
        table.exchange(tables[name])
    store.journal.clear()
    store.touched = {tuple(topic): index for topic, index in header.touched}
    store.departed = {tuple(topic): index for topic, index in header.departed}
