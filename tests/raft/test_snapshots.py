"""Snapshots on disk: whole or not there, checked when read, received in pieces that survive a restart."""

import random
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from lictor.raft.core.membership import Membership
from lictor.raft.core.message import Snapshot
from lictor.raft.core.quorum import Quorum
from lictor.raft.wal import DamagedLog, DiskFailed, DiskFull, Mangled, Offer, SnapshotStore
from lictor.raft.wal.snapshots import CHUNK
from tests.raft.simdisk import Crash, SimDisk

MEMBERS = Membership(Quorum(frozenset({1, 2, 3})))


def described(index: int, term: int = 1) -> Snapshot:
    """A snapshot's description."""
    return Snapshot(index, term, MEMBERS)


def state(size: int, seed: int = 1) -> bytes:
    """A state of a size."""
    return random.Random(seed).randbytes(size)


def sent(source: SnapshotStore) -> tuple[Offer, bytes]:
    """The offer of the latest snapshot, and its bytes."""
    outgoing = source.send()
    assert outgoing is not None
    data = b""
    while part := outgoing.read(len(data), 100_000):
        data += part
    outgoing.close()
    assert len(data) == outgoing.offer.size
    return outgoing.offer, data


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 7])
def test_a_state_is_read_as_it_was_written(tmp_path: Path, size: int) -> None:
    store = SnapshotStore(tmp_path / "snapshots")
    assert store.open() is None
    assert list(store.read()) == []
    assert store.send() is None
    whole = state(size)
    store.write(described(7), [whole[at : at + 1000] for at in range(0, size, 1000)])
    assert store.open() == described(7)
    pieces = list(store.read())
    assert b"".join(pieces) == whole
    assert max(map(len, pieces), default=0) <= CHUNK


def test_the_latest_counts_and_older_ones_go_when_told(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path)
    for index, term in ((5, 1), (100, 2), (20, 9)):
        store.write(described(index, term), [b"%d" % index])
    assert store.open() == described(100, 2)
    store.remove_older()
    assert [path.name.lstrip("0").split("-")[0] for path in tmp_path.iterdir()] == ["100"]
    assert b"".join(store.read()) == b"100"


def test_a_state_that_fails_midway_leaves_the_former(tmp_path: Path) -> None:
    def pieces() -> Iterator[bytes]:
        yield bytes(CHUNK)
        raise RuntimeError("no more")

    store = SnapshotStore(tmp_path)
    store.write(described(1), [b"first"])
    with pytest.raises(RuntimeError, match="no more"):
        store.write(described(2), pieces())
    assert store.open() == described(1)
    assert len(list(tmp_path.iterdir())) == 1


def test_every_damaged_byte_is_found_and_named(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path)
    store.write(described(3), [b"some state"])
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    for at in range(len(whole)):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        with pytest.raises(DamagedLog, match=rf"{file}: damaged at offset \d+.*backup"):
            list(store.read())
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        with pytest.raises(DamagedLog):
            list(store.read())


def test_it_is_received_in_pieces_in_any_number_of_runs(tmp_path: Path) -> None:
    source, target = SnapshotStore(tmp_path / "a"), SnapshotStore(tmp_path / "b")
    source.open()
    target.open()
    whole = state(5 * CHUNK + 100)
    source.write(described(9, 2), [whole])
    offer, data = sent(source)
    rng = random.Random(2)
    incoming = target.receive(offer)
    assert incoming.offset == 0
    restarts = 0
    while incoming.offset < offer.size:
        begin = max(0, incoming.offset - rng.choice([0, 0, 1000]))  # some of it comes twice
        incoming.write(begin, data[begin : begin + rng.randrange(1, 100_000)])
        if rng.random() < 0.2:
            former = incoming.offset
            incoming.pause()
            incoming = target.receive(offer)
            assert former - CHUNK - 8 <= incoming.offset <= former, "it goes on after the last whole chunk"
            restarts += 1
    assert restarts > 2
    assert target.open() is None, "it does not count before it is whole"
    assert incoming.finish() == described(9, 2)
    assert target.open() == described(9, 2)
    assert b"".join(target.read()) == whole
    assert sent(target) == (offer, data), "and can be sent on"


def test_what_is_not_what_was_offered_is_dropped(tmp_path: Path) -> None:
    source, target = SnapshotStore(tmp_path / "a"), SnapshotStore(tmp_path / "b")
    source.open()
    target.open()
    source.write(described(9), [state(1000)])
    offer, data = sent(source)
    broken = bytearray(data)
    broken[500] ^= 1
    for received, told in (
        (bytes(broken), "damaged at offset"),
        (data[:-1], "damaged at offset"),
    ):
        incoming = target.receive(offer)
        incoming.write(incoming.offset, received[incoming.offset :])
        with pytest.raises(Mangled, match=told):
            incoming.finish()
    other = msgspec.structs.replace(offer, snapshot=described(10))
    incoming = target.receive(other)
    incoming.write(0, data)
    with pytest.raises(Mangled, match="not the one that was offered"):
        incoming.finish()
    incoming = target.receive(offer)
    with pytest.raises(ValueError, match="leave a gap"):
        incoming.write(5, b"x")
    with pytest.raises(Mangled, match="was to have"):
        incoming.write(0, data + b"x")
    assert list((tmp_path / "b").iterdir()) == []


def test_another_snapshot_takes_the_place_of_one_half_received(tmp_path: Path) -> None:
    source, target = SnapshotStore(tmp_path / "a"), SnapshotStore(tmp_path / "b")
    source.open()
    target.open()
    source.write(described(9), [state(1000)])
    first, data = sent(source)
    half = target.receive(first)
    half.write(0, data[:300])
    half.pause()
    source.write(described(9), [state(1000, seed=2)])
    second, data = sent(source)
    assert second.id != first.id
    incoming = target.receive(second)
    assert incoming.offset == 0
    incoming.write(0, data)
    incoming.finish()
    assert len(list((tmp_path / "b").iterdir())) == 1


def test_a_full_disk_changes_nothing(tmp_path: Path) -> None:
    disk = SimDisk(random.Random(1))
    store = SnapshotStore(tmp_path, disk)
    store.open()
    store.write(described(1), [b"first"])
    disk.capacity = disk.used() + 1000
    with pytest.raises(DiskFull, match="free some space"):
        store.write(described(2), [state(2000)])
    assert store.open() == described(1)
    assert len(disk.paths()) == 1
    disk.capacity = None
    store.write(described(2), [state(2000)])
    assert store.open() == described(2)


def test_a_failed_sync_publishes_nothing(tmp_path: Path) -> None:
    disk = SimDisk(random.Random(1))
    store = SnapshotStore(tmp_path, disk)
    store.open()
    disk.fail_syncs = 1
    with pytest.raises(DiskFailed, match="cannot sync"):
        store.write(described(1), [b"first"])
    assert store.open() is None


def test_receiving_survives_a_crash_at_every_point() -> None:
    """A snapshot is there whole or not at all, and receiving goes on until it is."""
    folder = Path("/snapshots")
    source = SnapshotStore(Path("/other"), SimDisk(random.Random(0)))
    source.open()
    source.write(described(4), [state(2 * CHUNK + 50)])
    offer, data = sent(source)
    for seed in range(40):
        rng = random.Random(seed)
        disk = SimDisk(rng)
        for fuse in (rng.randrange(12), rng.randrange(12), None):
            disk.lose_power()
            disk.fuse = fuse
            try:
                store = SnapshotStore(folder, disk)
                if store.open() is None:
                    incoming = store.receive(offer)
                    while incoming.offset < offer.size:
                        incoming.write(incoming.offset, data[incoming.offset :][:100_000])
                    incoming.finish()
            except Crash:
                continue
        disk.lose_power()
        assert store.open() == described(4)
        assert b"".join(store.read()) == state(2 * CHUNK + 50)
