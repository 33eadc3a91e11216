"""The whole state as bytes, and back.

Format 1: a sequence of MessagePack objects, each preceded by its length in 4 bytes, big endian. First a `Header`;
then, table by table, `Chunk`s of at most `CHUNK_ROWS` rows. A reader that finds anything else refuses it whole.
"""

import struct
import types
from collections.abc import Iterator
from typing import Any

import msgspec

from lictor.model.check import Check
from lictor.model.coordinate_entry import CoordinateEntry
from lictor.model.errors import InvalidRequest, Refused
from lictor.model.kv import KVEntry
from lictor.model.node import Node
from lictor.model.prepared_query import PreparedQuery
from lictor.model.service import Instance
from lictor.model.session import Session
from lictor.store.store import ConfigRow, Setting, Store

FORMAT = 1
CHUNK_ROWS = 2000

_ROW_TYPES: dict[str, Any] = {
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
    "lock_delays": tuple[str, float],
    "restoring": tuple[str, int, bytes],
}
_DECODERS = {name: msgspec.msgpack.Decoder(types.GenericAlias(list, (row,))) for name, row in _ROW_TYPES.items()}


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


class Image:
    """The state at one moment. Rows are immutable, so holding their lists is enough; encoding can take its time."""

    def __init__(self, store: Store) -> None:
        self.index = store.index
        self.rows: dict[str, list[Any]] = {name: list(table) for name, table in store.tables.items()}
        self.header = Header(
            FORMAT,
            store.index,
            store.floor,
            store.base,
            store.now,
            tuple(store.touched.items()),
            tuple(store.departed.items()),
            {name: len(rows) for name, rows in self.rows.items()},
        )

    def encode(self) -> Iterator[bytes]:
        """The snapshot's bytes, a piece at a time."""
        encoder = msgspec.msgpack.Encoder()
        yield _framed(encoder.encode(self.header))
        for name, rows in self.rows.items():
            for start in range(0, len(rows), CHUNK_ROWS):
                encoded = encoder.encode(rows[start : start + CHUNK_ROWS])
                yield _framed(encoder.encode(Chunk(name, msgspec.Raw(encoded))))


def _framed(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


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


def decode(state: bytes) -> tuple[Header, dict[str, list[Any]]]:
    """The header and every table's rows. Raises `InvalidRequest` for anything that is not a whole snapshot."""
    pieces = _pieces(state)
    try:
        header = msgspec.msgpack.decode(next(pieces, b""), type=Header)
        if header.format != FORMAT:
            raise InvalidRequest(f"snapshot state has format {header.format}; this version reads format {FORMAT}")
        rows: dict[str, list[Any]] = {name: [] for name in _ROW_TYPES}
        for piece in pieces:
            chunk = msgspec.msgpack.decode(piece, type=Chunk)
            if chunk.table not in rows:
                raise InvalidRequest(f"snapshot state names an unknown table {chunk.table!r}")
            rows[chunk.table].extend(_DECODERS[chunk.table].decode(chunk.rows))
    except (msgspec.MsgspecError, ValueError) as e:
        raise InvalidRequest(f"snapshot state cannot be read: {e}") from None
    for name, found in rows.items():
        if len(found) != header.rows.get(name, 0):
            raise InvalidRequest(
                f"snapshot state holds {len(found)} rows of {name}; its header says {header.rows.get(name, 0)}"
            )
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
    "lock_delays": "LockDelay",
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
        chunk = msgspec.msgpack.decode(piece, type=Chunk)
        sizes[chunk.table] = sizes.get(chunk.table, 0) + len(bytes(chunk.rows))
    listed = [(TYPES[name], header.rows[name], size) for name, size in sizes.items()]
    return sorted(listed, key=lambda row: (-row[2], row[0]))


def load(store: Store, state: bytes) -> None:
    """Fill an empty store with a snapshot: it then stands exactly where the snapshot was taken."""
    header, rows = decode(state)
    _take(store, header, rows)
    store.index = header.index
    store.floor = header.floor
    store.base = header.base
    store.now = header.now


def restore(store: Store, state: bytes) -> None:
    """Replace a live store's state as a command: the index goes on from where it is, and everybody is told.

    Rows keep their indexes; base and floor rise to this command's index, so that no answer's index goes backwards and
    every waiting query returns.
    """
    header, rows = decode(state)
    index = max(store.index, header.index + 1)
    _take(store, header, rows)
    store.index = store.floor = store.base = index
    store.touched = dict.fromkeys(store.touched, index)
    store.departed = dict.fromkeys(store.departed, index)
    store.replaced()


def keep_part(store: Store, token: str, number: int, data: bytes) -> None:
    """Keep a part of a state that is to be restored. Part 0 drops what was kept under other tokens."""
    if number == 0:
        for other, at, _ in list(store.restoring):
            if other != token:
                store.restoring.delete((other, at))
    store.restoring.put((token, number, data))


def restore_parts(store: Store, token: str, count: int) -> None:
    """Restore the state whose parts were kept under a token. Raises `Refused` where some are missing."""
    found = [store.restoring.get((token, number)) for number in range(count)]
    parts = [part[2] for part in found if part is not None]
    if len(parts) < count:
        raise Refused("another snapshot was being restored at the same time: nothing was changed; try again")
    restore(store, b"".join(parts))


def _take(store: Store, header: Header, rows: dict[str, list[Any]]) -> None:
    for name, table in store.tables.items():
        table.replace_all(rows[name])
    store.journal.clear()
    store.touched = {tuple(topic): index for topic, index in header.touched}
    store.departed = {tuple(topic): index for topic, index in header.departed}
