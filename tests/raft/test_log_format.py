"""The bytes on disk, as docs/log-format.md has them: what older programs wrote must stay readable."""

import struct
import zlib
from pathlib import Path
from typing import Any

import msgspec

from lictor.raft.core.membership import Membership
from lictor.raft.core.message import Entry, EntryKind, HardState, Snapshot
from lictor.raft.core.quorum import Quorum
from lictor.raft.wal import Batch, Configuration, Log, Position, SnapshotStore

SALT = 0x1234ABCD
MEMBERS = Membership(Quorum(frozenset({1, 2}), frozenset({3})), frozenset({4}), frozenset({3}), auto_leave=True)


def packed(value: Any) -> bytes:
    """Plain values in MessagePack."""
    return msgspec.msgpack.encode(value)


def segment(number: int, first_frame: int, *batches: Any) -> bytes:
    """A segment, made by hand."""
    header = b"LICTWAL\1" + struct.pack(">QQI", number, first_frame, SALT)
    data = header + struct.pack(">I", zlib.crc32(header))
    for frame, batch in enumerate(batches, first_frame):
        payload = packed(batch)
        fields = b"\xf5LFR" + struct.pack(">IQI", len(payload), frame, zlib.crc32(payload, SALT))
        data += fields + struct.pack(">I", zlib.crc32(fields, SALT)) + payload
    return data + bytes(10_000)


def test_a_log_is_read_as_documented(tmp_path: Path) -> None:
    members = [[[1, 2], [3]], [4], [3], True]
    first = segment(
        7,
        100,
        [[], [3, 1, 10], None, None, [10, 2]],
        [[[3, 11, 0, b"eleven"], [3, 12, 2, b"change"]], None, [12, members], None, None],
        [[[4, 12, 0, b"twelve"]], [4, 0, 11], None, None, None],
    )
    second = segment(8, 103, [[], [4, 0, 11], [12, members], None, [12, 4]], [[], [5, 2, 12], None, [20, 4], None])
    (tmp_path / "0000000000000007.wal").write_bytes(first)
    (tmp_path / "0000000000000008.wal").write_bytes(second.rstrip(b"\0"))
    log = Log(tmp_path)
    found = log.recover(Position(20, 4))
    assert (found.before, found.entries, found.state) == (Position(20, 4), [], HardState(5, 2, 12))
    assert found.configuration == Configuration(12, MEMBERS)
    log.abandon()
    (tmp_path / "0000000000000008.wal").unlink()
    log = Log(tmp_path)
    found = log.recover(Position(10, 2))
    assert found.entries == [Entry(3, 11, data=b"eleven"), Entry(4, 12, data=b"twelve")]
    assert found.state == HardState(4, 0, 11)
    log.abandon()


def test_a_log_is_written_as_documented(tmp_path: Path) -> None:
    log = Log(tmp_path, segment_bytes=4096)
    log.recover()
    log.append(Batch((Entry(1, 1, EntryKind.CHANGE_V2, b"x"),), HardState(1, 2, 0), Configuration(1, MEMBERS)))
    log.abandon()
    (file,) = tmp_path.iterdir()
    data = file.read_bytes()
    (salt,) = struct.unpack_from(">I", data, 24)
    assert data[:24] == b"LICTWAL\1" + struct.pack(">QQ", 1, 1)
    batches: list[Any] = []
    at = 32
    while data[at : at + 4] == b"\xf5LFR":
        length, number, checksum = struct.unpack_from(">IQI", data, at + 4)
        payload = data[at + 24 : at + 24 + length]
        assert (number, checksum) == (len(batches) + 1, zlib.crc32(payload, salt))
        batches.append(msgspec.msgpack.decode(payload))
        at += 24 + length
    assert batches == [
        [[], [0, 0, 0], None, None, [0, 0]],
        [[[1, 1, 2, b"x"]], [1, 2, 0], [1, [[[1, 2], [3]], [4], [3], True]], None, None],
    ]
    assert not data[at:].strip(b"\0")


def test_a_snapshot_is_as_documented(tmp_path: Path) -> None:
    description = packed([9, 2, [[[1, 2], [3]], [4], [3], True], b"servers"])
    fields = b"LICTSNAP" + struct.pack(">IQI", 1, 77, len(description))
    checksum = zlib.crc32(fields + description)
    data = fields + struct.pack(">I", checksum) + description
    for chunk in (b"one", b"and two", b""):
        checksum = zlib.crc32(chunk, checksum ^ len(chunk))
        data += struct.pack(">II", len(chunk), checksum) + chunk
    (tmp_path / f"{9:020}-{2:020}.snapshot").write_bytes(data)
    store = SnapshotStore(tmp_path)
    snapshot = Snapshot(9, 2, MEMBERS, b"servers")
    assert store.open() == snapshot
    assert b"".join(store.read()) == b"oneand two"
    outgoing = store.send()
    assert outgoing is not None
    assert (outgoing.offer.id, outgoing.offer.size) == (77, len(data))
    outgoing.close()
    store.write(snapshot, [b"oneand two"])
    (file,) = tmp_path.iterdir()
    written = file.read_bytes()
    assert (written[:12], written[20:24]) == (data[:12], data[20:24])
    assert written[28 : 28 + len(description)] == description
