"""The log on a disk with less room than a whole segment needs: it goes on for as long as there is any."""

import random
from pathlib import Path

import pytest

from lictor.raft.core.message import Entry, HardState
from lictor.raft.wal import Batch, DiskFull, Log
from tests.raft.simdisk import SimDisk

FOLDER = Path("/raft/log")
SEGMENT, PIECE = 65536, 2048
ENTRY = 1000  # bytes


def disk_of(room: int) -> SimDisk:
    """A disk with so much room."""
    return SimDisk(random.Random(1), room)


def opened(disk: SimDisk) -> Log:
    """A log on it, recovered."""
    log = Log(FOLDER, disk, segment_bytes=SEGMENT, piece_bytes=PIECE)
    log.recover()
    return log


def entry(index: int) -> Batch:
    """One entry."""
    return Batch((Entry(1, index, data=b"x" * ENTRY),), HardState(1, 1, index - 1))


def fill(log: Log) -> int:
    """Append until there is no room. Returns the last index that was acknowledged."""
    while True:
        try:
            log.append(entry(log.end.index + 1))
        except DiskFull:
            return log.end.index


def kept(disk: SimDisk) -> list[int]:
    """What the machine's next start finds."""
    disk.lose_power()
    log = Log(FOLDER, disk, segment_bytes=SEGMENT, piece_bytes=PIECE)
    return [entry.index for entry in log.recover().entries]


def test_a_new_log_needs_no_room_for_a_whole_segment() -> None:
    disk = disk_of(SEGMENT // 2)
    log = opened(disk)
    assert disk.used() < 2 * PIECE, "it takes no more than it needs"
    last = fill(log)
    assert last * ENTRY > SEGMENT // 2 - 2 * ENTRY, "all room is used"
    assert kept(disk) == list(range(1, last + 1))


@pytest.mark.parametrize("segments", [0.2, 0.9, 1.0, 1.3, 2.5])
def test_all_room_is_used_and_what_comes_later_too(segments: float) -> None:
    disk = disk_of(int(segments * SEGMENT))
    log = opened(disk)
    last = fill(log)
    assert last * ENTRY > segments * SEGMENT * 0.9 - 2 * ENTRY
    for more in (1, 2, 10, 50):
        assert disk.capacity is not None
        disk.capacity += more * (ENTRY + 200)
        former, last = last, fill(log)
        assert last >= former + more - 1, "what was freed is used"
        assert kept(disk) == list(range(1, last + 1))
        log = opened(disk)
    disk.capacity = None
    for index in range(last + 1, last + 150):
        log.append(entry(index))
    assert len(disk.content(max(disk.paths()))) == SEGMENT, "the next segment is whole again"
    assert kept(disk) == list(range(1, last + 150))


def test_a_start_on_a_full_disk_waits_for_room_with_what_it_has() -> None:
    disk = disk_of(SEGMENT + SEGMENT // 2)
    last = fill(opened(disk))
    assert disk.capacity is not None
    disk.capacity = disk.used()
    assert kept(disk) == list(range(1, last + 1))
    log = opened(disk)
    with pytest.raises(DiskFull, match="No space left on device; free some space"):
        log.append(Batch((Entry(1, last + 1, data=b"x" * SEGMENT),)))
    disk.capacity += 2 * ENTRY
    log.append(entry(last + 1))
    assert kept(disk) == list(range(1, last + 2))


def test_what_an_allocation_took_before_it_failed_is_given_back() -> None:
    """Or else the room that a piece needs would be held by what was too much."""
    disk = disk_of(SEGMENT // 2)
    log = opened(disk)
    held = disk.used()
    disk.refuse = frozenset({"allocate"})
    for _ in range(20):
        with pytest.raises(DiskFull):
            log.append(Batch(tuple(Entry(1, index, data=b"x" * ENTRY) for index in range(1, 5))))
        assert disk.used() <= held + 5 * (ENTRY + 200), "no more than what the log will need itself"
    disk.refuse = frozenset()
    log.append(entry(1))
    assert kept(disk) == [1]
