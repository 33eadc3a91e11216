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
from lictor.raft.wal.snapshots import CHUNK, SYNC_BYTES
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
    for other in (*(whole[:length] for length in range(len(whole))), whole + b"\0"):
        file.write_bytes(other)
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


def test_a_full_disk_at_any_step_is_no_failure(tmp_path: Path) -> None:
    """Nothing counts on what is written aside, so that even its sync may find no room."""
    disk = SimDisk(random.Random(1))
    store = SnapshotStore(tmp_path, disk)
    store.open()
    store.write(described(1), [b"first"])
    source = SnapshotStore(tmp_path, SimDisk(random.Random(1)))
    source.open()
    source.write(described(3), [b"third"])
    offer, data = sent(source)
    for step in ("create", "write", "sync", "replace"):
        disk.refuse = frozenset({step})
        with pytest.raises(DiskFull, match="No space left on device; free some space"):
            store.write(described(2), [b"second"])
        with pytest.raises(DiskFull, match="No space left on device; free some space"):
            incoming = store.receive(offer)
            incoming.write(0, data)
            incoming.finish()
        disk.refuse = frozenset()
        assert store.open() == described(1)
    incoming = store.receive(offer)
    incoming.write(incoming.offset, data[incoming.offset :])
    incoming.finish()
    disk.lose_power()
    assert store.open() == described(3)
    assert b"".join(store.read()) == b"third"
    assert b"".join(store.read(described(1))) == b"first", "any that is there can be read"


def test_a_large_one_is_synced_as_it_grows(tmp_path: Path) -> None:
    """What is written and waits for the disk would hold up the log, whose syncs wait for it, too."""
    disk = SimDisk(random.Random(1))
    store = SnapshotStore(tmp_path, disk)
    store.open()
    before = disk.syncs
    store.write(described(1), [bytes(SYNC_BYTES)] * 4)
    assert disk.syncs - before > 4
    offer, data = sent(store)
    target = SnapshotStore(tmp_path, other := SimDisk(random.Random(2)))
    target.open()
    before = other.syncs
    incoming = target.receive(offer)
    while incoming.offset < offer.size:
        incoming.write(incoming.offset, data[incoming.offset :][:CHUNK])
    incoming.finish()
    assert other.syncs - before > 4


def test_one_that_finds_no_room_while_it_arrives_goes_on_from_where_it_says() -> None:
    source = SnapshotStore(Path("/other"), SimDisk(random.Random(0)))
    source.open()
    source.write(described(4), [bytes(3 * SYNC_BYTES)])
    offer, data = sent(source)
    for step in ("write", "sync"):
        disk = SimDisk(random.Random(1))
        store = SnapshotStore(Path("/snapshots"), disk)
        store.open()
        incoming = store.receive(offer)
        incoming.write(0, data[:SYNC_BYTES])
        disk.refuse = frozenset({step})
        with pytest.raises(DiskFull):
            incoming.write(incoming.offset, data[incoming.offset : 2 * SYNC_BYTES])
        disk.refuse = frozenset()
        incoming.write(incoming.offset, data[incoming.offset :])
        incoming.finish()
        disk.lose_power()
        assert store.open() == described(4)
        assert b"".join(store.read()) == bytes(3 * SYNC_BYTES)


def test_what_arrived_before_a_failed_sync_is_not_believed_to_be_on_disk() -> None:
    """The process ends right after the failure, and a later sync writes only what was written since."""
    folder = Path("/snapshots")
    source = SnapshotStore(Path("/other"), SimDisk(random.Random(0)))
    source.open()
    source.write(described(4), [state(3 * CHUNK)])
    offer, data = sent(source)
    for fuse in range(5):
        disk = SimDisk(random.Random(fuse))
        store = SnapshotStore(folder, disk)
        store.open()
        incoming = store.receive(offer)
        incoming.write(0, data)
        disk.fuse, disk.fail_syncs = fuse, 1
        with pytest.raises((Crash, DiskFailed)):
            incoming.finish()
        disk.reopen()
        assert store.open() is None
        incoming = store.receive(offer)
        incoming.write(incoming.offset, data[incoming.offset :])
        incoming.finish()
        disk.lose_power()
        assert store.open() == described(4)
        assert b"".join(store.read()) == state(3 * CHUNK)


def test_what_arrived_of_an_old_one_goes_at_the_next_start(tmp_path: Path) -> None:
    source, target = SnapshotStore(tmp_path / "a"), SnapshotStore(tmp_path / "b")
    source.open()
    target.open()
    source.write(described(9), [state(1000)])
    offer, data = sent(source)
    incoming = target.receive(offer)
    incoming.write(0, data[:500])
    incoming.pause()
    target.write(described(8), [b"eight"])
    target.open()
    assert len(list((tmp_path / "b").iterdir())) == 2, "it may still be wanted"
    target.write(described(9), [b"nine"])
    target.open()
    target.remove_older()
    assert [path.suffix for path in (tmp_path / "b").iterdir()] == [".snapshot"]


def test_files_are_for_their_owner_and_others_files_are_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "snapshots"
    store = SnapshotStore(folder)
    store.open()
    store.write(described(1), [b"one"])
    (file,) = folder.iterdir()
    assert (file.stat().st_mode & 0o777, folder.stat().st_mode & 0o777) == (0o600, 0o700)
    (folder / "copy.snapshot").write_text("somebody's own")
    assert store.open() == described(1)
    store.remove_older()
    assert (folder / "copy.snapshot").exists()
    file.rename(folder / file.name.replace("1-", "2-", 1))
    with pytest.raises(DamagedLog, match="it is the snapshot of entry 1 under another's name"):
        store.open()


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
