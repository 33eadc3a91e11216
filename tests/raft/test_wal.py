"""The segmented log on real files: what it keeps, what it refuses, what it says."""

import errno
import os
import random
import re
from pathlib import Path

import pytest

from lictor.raft.core.membership import Membership
from lictor.raft.core.message import Entry, HardState
from lictor.raft.core.quorum import Quorum
from lictor.raft.wal import Batch, Configuration, DamagedLog, DiskFailed, DiskFull, Log, OsFiles, Position, Recovered
from lictor.raft.wal.frame import (
    FRAME_HEADER,
    SECTOR,
    SEGMENT_HEADER,
    VERSION,
    encode_batch,
    frame,
    read_segment_header,
)
from tests.raft.simdisk import SimDisk

START = Position()


def entries(first: int, last: int, term: int = 1, size: int = 10) -> tuple[Entry, ...]:
    """Entries with a payload each."""
    return tuple(Entry(term, index, data=(b"%d " % index * size)[:size]) for index in range(first, last + 1))


def opened(folder: Path, snapshot: Position = START, segment_bytes: int = 4096) -> tuple[Log, Recovered]:
    """A log, and what it found."""
    log = Log(folder, segment_bytes=segment_bytes)
    return log, log.recover(snapshot)


def found(folder: Path, snapshot: Position = START) -> Recovered:
    """What a start finds."""
    log, recovered = opened(folder, snapshot)
    log.abandon()
    return recovered


def segments(folder: Path) -> list[Path]:
    """The segments' files."""
    return sorted(folder.glob("*.wal"))


def test_an_empty_folder_is_an_empty_log(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "wal"
    assert found(folder) == Recovered(HardState(), None, START, [])
    assert found(folder) == Recovered(HardState(), None, START, [])
    (file,) = segments(folder)
    assert file.stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700
    assert file.stat().st_size == 4096, "its room is taken beforehand"


def test_its_folder_is_made_durable_at_every_start(tmp_path: Path) -> None:
    """A former run may have made it, and ended before it was synced."""
    synced: list[Path] = []

    class Files(OsFiles):
        def sync_folder(self, folder: Path) -> None:
            synced.append(folder)
            super().sync_folder(folder)

    folder = tmp_path / "raft" / "log"
    log = Log(folder, Files())
    assert not log.exists()
    log.recover()
    assert synced[:2] == [tmp_path, folder.parent]
    log.abandon()
    synced.clear()
    log = Log(folder, Files())
    assert log.exists()
    log.recover()
    assert synced[0] == folder.parent
    log.abandon()


def test_what_was_appended_is_found_whether_or_not_the_log_was_closed(tmp_path: Path) -> None:
    members = Membership(Quorum(frozenset({1, 2, 3})))
    for how in ("close", "abandon"):
        log, before = opened(tmp_path / how)
        log.append(Batch(entries(1, 3), HardState(1, 2, 0)))
        log.append(Batch(entries(4, 4, 2), HardState(2, 1, 3), Configuration(4, members)))
        log.append(Batch(state=HardState(2, 1, 4)))
        assert log.end == Position(4, 2)
        getattr(log, how)()
        recovered = found(tmp_path / how)
        assert recovered.entries == [*entries(1, 3), *entries(4, 4, 2)]
        assert recovered.state == HardState(2, 1, 4)
        assert recovered.configuration == Configuration(4, members)


def test_a_conflicting_end_is_replaced(tmp_path: Path) -> None:
    log, _ = opened(tmp_path)
    log.append(Batch(entries(1, 9, 1)))
    log.append(Batch(entries(4, 5, 2)))
    assert log.end == Position(5, 2)
    log.append(Batch(entries(6, 6, 2)))
    log.abandon()
    assert found(tmp_path).entries == [*entries(1, 3, 1), *entries(4, 6, 2)]


def test_entries_that_do_not_fit_are_refused_and_nothing_happens(tmp_path: Path) -> None:
    log, _ = opened(tmp_path)
    log.append(Batch(entries(1, 3)))
    for wrong in (entries(5, 6), entries(0, 1), (*entries(4, 4), *entries(6, 6))):
        with pytest.raises(ValueError, match="entr"):
            log.append(Batch(wrong))
    log.abandon()
    assert found(tmp_path).entries == list(entries(1, 3))


def test_segments_follow_each_other_and_go_when_a_snapshot_stands_for_them(tmp_path: Path) -> None:
    log, _ = opened(tmp_path)
    for index in range(1, 201):
        log.append(Batch(entries(index, index, size=100), HardState(1, 1, index)))
    many = len(segments(tmp_path))
    assert many > 5
    log.compact(0)
    assert len(segments(tmp_path)) == many
    log.compact(150)
    assert 1 < len(segments(tmp_path)) < many / 2
    log.append(Batch(entries(201, 201)))
    log.abandon()
    recovered = found(tmp_path, Position(150, 1))
    assert recovered.before.index <= 150
    assert [entry.index for entry in recovered.entries] == list(range(recovered.before.index + 1, 202))
    assert recovered.state == HardState(1, 1, 200)
    with pytest.raises(DamagedLog, match=r"begins after entry \d+, but the latest snapshot is of entry 100"):
        found(tmp_path, Position(100, 1))


def test_a_batch_larger_than_a_segment_has_one_of_its_own(tmp_path: Path) -> None:
    log, _ = opened(tmp_path)
    log.append(Batch(entries(1, 1)))
    log.append(Batch(entries(2, 3, size=50_000)))
    log.append(Batch(entries(4, 4)))
    log.abandon()
    assert found(tmp_path).entries == [*entries(1, 1), *entries(2, 3, size=50_000), *entries(4, 4)]


def test_a_received_snapshot_empties_the_log(tmp_path: Path) -> None:
    log, _ = opened(tmp_path)
    log.append(Batch(entries(1, 9)))
    log.append(Batch(restored=Position(100, 3), state=HardState(3, 0, 100)))
    log.append(Batch(entries(101, 102, 3)))
    log.abandon()
    assert found(tmp_path, Position(100, 3)).entries == list(entries(101, 102, 3))
    with pytest.raises(DamagedLog, match="the log has a gap"):
        found(tmp_path)


def test_entries_below_where_the_log_began_anew_are_damage(tmp_path: Path) -> None:
    log, _ = opened(tmp_path)
    log.append(Batch(restored=Position(100, 3)))
    log.abandon()
    (file,) = segments(tmp_path)
    whole = file.read_bytes()
    end = len(whole.rstrip(b"\0"))
    file.write_bytes(whole[:end] + frame(3, encode_batch(Batch(entries(50, 51))), read_segment_header(whole).salt))
    with pytest.raises(DamagedLog, match=f"offset {end}: entry 50 does not fit a log from 101 to 100"):
        found(tmp_path, Position(100, 3))


@pytest.mark.parametrize(
    ("snapshot", "state"),
    [
        (Position(50, 2), HardState(2, 1, 50)),
        (Position(5, 2), HardState(2, 1, 5)),
        (Position(50, 3), HardState(3, 0, 50)),
    ],
)
def test_a_snapshot_that_the_log_does_not_lead_to_counts_more(
    tmp_path: Path, snapshot: Position, state: HardState
) -> None:
    """As after a crash between the snapshot's rename and the batch that empties the log. No term of the log is above
    the server's own.
    """
    log, _ = opened(tmp_path)
    log.append(Batch(entries(1, 9, 1), HardState(2, 1, 3)))
    log.abandon()
    log, recovered = opened(tmp_path, snapshot)
    assert (recovered.before, recovered.entries, recovered.state) == (snapshot, [], state)
    log.append(Batch(entries(snapshot.index + 1, snapshot.index + 1, 3)))
    log.abandon()
    recovered = found(tmp_path, snapshot)
    assert recovered.entries == list(entries(snapshot.index + 1, snapshot.index + 1, 3))
    assert recovered.state == state


def test_a_snapshot_that_contradicts_what_is_committed_is_refused(tmp_path: Path) -> None:
    """As one of another server, put in its place."""
    log, _ = opened(tmp_path)
    log.append(Batch(entries(1, 9, 1), HardState(2, 1, 5)))
    log.abandon()
    with pytest.raises(DamagedLog, match="term 1 at entry 5, which was committed, the snapshot has term 2"):
        found(tmp_path, Position(5, 2))
    assert len(found(tmp_path).entries) == 9, "nothing was changed"


def test_a_write_cut_off_anywhere_loses_only_itself(tmp_path: Path) -> None:
    log, _ = opened(tmp_path)
    log.append(Batch(entries(1, 2)))
    (file,) = segments(tmp_path)
    former = file.read_bytes()
    log.append(Batch(entries(3, 4)))
    log.abandon()
    whole = file.read_bytes()
    end = len(whole.rstrip(b"\0"))
    begin = len(former.rstrip(b"\0"))
    for length in range(begin, end):
        for rest in (bytes(4096 - length), b""):
            file.write_bytes(whole[:length] + rest)
            assert found(tmp_path).entries == list(entries(1, 2)), length
            assert file.read_bytes() == former, length


def torn(rng: random.Random, whole: bytes, begin: int, end: int) -> bytes:
    """A file whose last write, between two offsets, a crash cut off: of each sector all came, nothing, or a part."""
    left = bytearray(whole)
    at = begin
    while at < end:
        sector = min(end, (at // SECTOR + 1) * SECTOR)
        came = rng.choice((at, sector, rng.randrange(at, sector + 1)))
        left[came:sector] = bytes(sector - came)
        at = sector
    return bytes(left)


@pytest.mark.parametrize("size", [100, 3000])
def test_a_write_whose_sectors_came_in_any_order_loses_only_itself(tmp_path: Path, size: int) -> None:
    log, _ = opened(tmp_path, segment_bytes=1 << 16)
    log.append(Batch(entries(1, 2)))
    (file,) = segments(tmp_path)
    begin = len(file.read_bytes().rstrip(b"\0"))
    log.append(Batch(entries(3, 4, size=size)))
    log.abandon()
    whole = file.read_bytes()
    end = len(whole.rstrip(b"\0"))
    rng = random.Random(size)
    lost = 0
    for _ in range(200):
        left = torn(rng, whole, begin, end)
        file.write_bytes(left)
        expected = [*entries(1, 2), *(entries(3, 4, size=size) if left == whole else ())]
        assert found(tmp_path).entries == expected
        lost += left != whole
    assert lost > 100


@pytest.mark.parametrize("size", [10, 3000])
def test_a_damaged_last_frame_is_no_write_that_was_cut_off(tmp_path: Path, size: int) -> None:
    """All of it was written, so it may have been acknowledged: no bit that changed since makes the log drop it."""
    log, _ = opened(tmp_path, segment_bytes=1 << 16)
    log.append(Batch(entries(1, 2)))
    (file,) = segments(tmp_path)
    begin = len(file.read_bytes().rstrip(b"\0"))
    log.append(Batch(entries(3, 4, size=size)))
    log.abandon()
    whole = file.read_bytes()
    end = len(whole.rstrip(b"\0"))
    for at in range(begin, end, 1 + size // 100):
        broken = bytearray(whole)
        broken[at] ^= 0x02
        file.write_bytes(bytes(broken))
        with pytest.raises(DamagedLog, match=rf"damaged at offset {begin}: frame 3 cannot be read, though it was writ"):
            found(tmp_path)
        assert file.read_bytes() == bytes(broken)


def test_a_damaged_byte_before_the_last_frame_is_refused_and_nothing_is_changed(tmp_path: Path) -> None:
    """Every byte of every durable frame; the message names the file, the offset and what to do."""
    log, _ = opened(tmp_path)
    ends = []
    for index in range(1, 4):
        log.append(Batch(entries(index, index), HardState(1, 1, index)))
        ends.append(len(segments(tmp_path)[0].read_bytes().rstrip(b"\0")))
    log.close()
    (file,) = segments(tmp_path)
    whole = file.read_bytes()
    for at in range(ends[-1]):
        damaged = bytearray(whole)
        damaged[at] ^= 0x20
        file.write_bytes(bytes(damaged))
        with pytest.raises(DamagedLog) as error:
            found(tmp_path)
        told = re.match(rf"{re.escape(str(file))}: damaged at offset (\d+): .*backup$", str(error.value))
        assert told is not None, str(error.value)
        assert 0 <= at - int(told[1]) < 200
        assert file.read_bytes() == bytes(damaged), "it is left as it was"


def test_damage_in_an_older_segment_is_refused_also_at_its_end(tmp_path: Path) -> None:
    log, _ = opened(tmp_path)
    for index in range(1, 101):
        log.append(Batch(entries(index, index, size=100)))
    log.abandon()
    file = segments(tmp_path)[1]
    whole = file.read_bytes()
    end = len(whole.rstrip(b"\0"))
    for broken in (whole[: end - 1] + bytes(9), whole[: end - 1], whole[:end] + b"x", whole[:20], b""):
        file.write_bytes(broken)
        with pytest.raises(DamagedLog, match=rf"{file}: damaged at offset \d+"):
            found(tmp_path)
    last_frame = whole.rindex(b"\xf5LFR")
    file.write_bytes(whole[:last_frame] + bytes(len(whole) - last_frame))
    with pytest.raises(DamagedLog, match=rf"{file}: damaged at offset {last_frame}: its end is missing, frames"):
        found(tmp_path)
    file.unlink()
    with pytest.raises(DamagedLog, match="segment 2 should be before it and is missing"):
        found(tmp_path)


def test_a_log_that_is_gone_beside_a_snapshot_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DamagedLog, match="there is a snapshot of entry 7, but the log is gone"):
        found(tmp_path, Position(7, 1))


def test_another_version_and_another_file_are_told_apart(tmp_path: Path) -> None:
    found(tmp_path)
    (file,) = segments(tmp_path)
    whole = file.read_bytes()
    file.write_bytes(whole[:7] + bytes([VERSION + 1]) + whole[8:])
    with pytest.raises(DamagedLog, match=f"it has format {VERSION + 1}, and this version of the program reads format"):
        found(tmp_path)
    file.write_bytes(b"something else entirely" * 100)
    with pytest.raises(DamagedLog, match="does not begin as a log segment does"):
        found(tmp_path)
    file.write_bytes(whole)
    file.rename(file.with_name("0000000000000009.wal"))
    with pytest.raises(DamagedLog, match="it is segment 1 under the name of segment 9"):
        found(tmp_path)


def test_data_that_looks_like_a_frame_is_not_taken_for_one(tmp_path: Path) -> None:
    """A write that was cut off, whose payload holds a later frame in the format of this very log but for its salt."""
    log, _ = opened(tmp_path)
    log.append(Batch(entries(1, 1)))
    (file,) = segments(tmp_path)
    begin = len(file.read_bytes().rstrip(b"\0"))
    salt = read_segment_header(file.read_bytes()).salt
    log.append(Batch((Entry(1, 2, data=frame(99, b"\x90", salt ^ 1) + bytes(600) + b"end"),)))
    log.abandon()
    content = file.read_bytes()
    file.write_bytes(content[: begin + 600] + bytes(len(content) - begin - 600))
    assert found(tmp_path).entries == list(entries(1, 1))


def test_random_bytes_never_start_nor_crash_it(tmp_path: Path) -> None:
    log, _ = opened(tmp_path)
    for index in range(1, 20):
        log.append(Batch(entries(index, index)))
    log.close()
    (file,) = segments(tmp_path)
    whole = file.read_bytes()
    rng = random.Random(5)
    for _ in range(300):
        broken = bytearray(whole)
        begin = rng.randrange(len(whole.rstrip(b"\0")) - FRAME_HEADER - 10)
        end = min(begin + rng.randrange(1, 300), len(whole))
        broken[begin:end] = rng.randbytes(end - begin)
        if rng.random() < 0.3:
            del broken[rng.randrange(len(broken)) :]
        file.write_bytes(bytes(broken))
        try:
            recovered = found(tmp_path)
        except DamagedLog:
            continue
        assert recovered.entries == list(entries(1, len(recovered.entries))), "what is there was written"


def test_a_valid_frame_with_foreign_content_is_refused(tmp_path: Path) -> None:
    log, _ = opened(tmp_path)
    log.append(Batch(entries(1, 1)))
    log.abandon()
    (file,) = segments(tmp_path)
    whole = file.read_bytes()
    end = len(whole.rstrip(b"\0"))
    header = read_segment_header(whole)
    assert header.first_frame == 1 and end > SEGMENT_HEADER
    file.write_bytes(whole[:end] + frame(3, b"\xc1", header.salt))
    with pytest.raises(DamagedLog, match=rf"offset {end}: the content of frame 3 is not a batch"):
        found(tmp_path)


def test_what_was_begun_and_never_finished_is_removed(tmp_path: Path) -> None:
    found(tmp_path)
    (tmp_path / "0000000000000002.wal-new").write_bytes(b"half")
    others = {"notes.txt", "7.wal", "0000000000000001.wal.bak", "\u00b2.wal", "000000000000000\u0662.wal"}
    for name in others:
        (tmp_path / name).write_text("somebody's own")
    found(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"0000000000000001.wal", *others}


def test_a_full_disk_takes_nothing_and_passes(tmp_path: Path) -> None:
    disk = SimDisk(random.Random(1))
    log = Log(tmp_path, disk, segment_bytes=4096)
    log.recover()
    log.append(Batch(entries(1, 10, size=300), HardState(1, 1, 0)))
    disk.capacity = disk.used() + 100
    for _ in range(3):
        with pytest.raises(DiskFull, match=r"wal-new: No space left on device; free some space"):
            log.append(Batch(entries(11, 20, size=300), HardState(2, 2, 0)))
    log.append(Batch(state=HardState(2, 1, 5)))
    assert log.end == Position(10, 1)
    disk.capacity = None
    log.append(Batch(entries(11, 20, size=300)))
    disk.lose_power()
    recovered = Log(tmp_path, disk, segment_bytes=4096).recover()
    assert recovered.entries == list(entries(1, 20, size=300))
    assert recovered.state == HardState(2, 1, 5)


@pytest.mark.parametrize("step", ["create", "allocate", "write", "sync", "replace"])
def test_a_full_disk_at_any_step_of_a_new_segment_takes_nothing(tmp_path: Path, step: str) -> None:
    disk = SimDisk(random.Random(1))
    log = Log(tmp_path, disk, segment_bytes=4096)
    log.recover()
    log.append(Batch(entries(1, 10, size=300)))
    disk.refuse = frozenset({step})
    for _ in range(3):
        with pytest.raises(DiskFull, match="No space left on device; free some space on its file system"):
            log.append(Batch(entries(11, 20, size=300)))
        assert len(disk.paths()) == 1
    disk.refuse = frozenset()
    log.append(Batch(entries(11, 20, size=300)))
    disk.lose_power()
    assert Log(tmp_path, disk, segment_bytes=4096).recover().entries == list(entries(1, 20, size=300))


def test_what_a_full_disk_took_of_a_write_is_removed_before_the_next(tmp_path: Path) -> None:
    """Also where there was not even room to remove it: it must not follow what is durable, and be taken for damage."""
    disk = SimDisk(random.Random(1))
    log = Log(tmp_path, disk, segment_bytes=1 << 16)
    log.recover()
    disk.refuse = frozenset({"write", "truncate"})
    for _ in range(2):
        with pytest.raises(DiskFull):
            log.append(Batch(entries(1, 10, size=3000)))
    (file,) = disk.paths()
    assert len(disk.content(file).rstrip(b"\0")) > 1000, "a part of it was written"
    disk.refuse = frozenset()
    log.append(Batch(entries(1, 1)))
    disk.reopen()
    assert Log(tmp_path, disk, segment_bytes=1 << 16).recover().entries == list(entries(1, 1))


def test_a_sync_of_the_log_itself_that_finds_no_room_is_the_end(tmp_path: Path) -> None:
    """What the system could not write may be gone from its memory, too."""
    disk = SimDisk(random.Random(1))
    log = Log(tmp_path, disk, segment_bytes=4096)
    log.recover()
    disk.refuse = frozenset({"sync"})
    with pytest.raises(DiskFailed, match="cannot sync: No space left on device"):
        log.append(Batch(entries(1, 1)))


@pytest.mark.parametrize(
    ("number", "error", "remedy"),
    [
        (errno.EMFILE, DiskFull, "raise the limit of open files of this process"),
        (errno.EDQUOT, DiskFull, "free some space"),
        (errno.EACCES, DiskFailed, "give this program's user access to it"),
        (errno.EIO, DiskFailed, "check the disk"),
    ],
)
def test_what_the_system_refuses_is_told_with_its_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, error: type[Exception], remedy: str
) -> None:
    log, _ = opened(tmp_path)
    log.append(Batch(entries(1, 3)))

    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", refuse)
        with pytest.raises(error, match=f"0000000000000002.wal-new: {os.strerror(number)}; {remedy}"):
            log.append(Batch(entries(4, 4, size=9000)))


def test_a_failed_sync_is_the_end(tmp_path: Path) -> None:
    disk = SimDisk(random.Random(1))
    log = Log(tmp_path, disk, segment_bytes=4096)
    log.recover()
    disk.fail_syncs = 1
    with pytest.raises(DiskFailed, match="cannot sync: Input/output error; check the disk"):
        log.append(Batch(entries(1, 1)))
    with pytest.raises(DiskFailed):
        log.append(Batch(entries(1, 1)))
    with pytest.raises(DiskFailed):
        log.compact(1)
    log.close()


def test_one_sync_a_batch(tmp_path: Path) -> None:
    disk = SimDisk(random.Random(1))
    log = Log(tmp_path, disk, segment_bytes=1 << 20)
    log.recover()
    before = disk.syncs
    for index in range(1, 101, 10):
        log.append(Batch(entries(index, index + 9), HardState(1, 1, index)))
    assert disk.syncs - before == 10


def test_a_closed_file_reaches_no_other(tmp_path: Path) -> None:
    """The system gives its number to the next file that is opened."""
    file = OsFiles().create(tmp_path / "one")
    file.close()
    other = OsFiles().create(tmp_path / "two")
    with pytest.raises(OSError, match="Bad file descriptor"):
        file.write(0, b"x")
    file.close()
    assert other.size() == 0
    other.close()


def test_it_is_used_only_after_recovery(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="recover it first"):
        Log(tmp_path).append(Batch())


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskFailed, match=re.escape(str(tmp_path / "file"))):
        Log(tmp_path / "file" / "wal").recover()


def test_a_system_that_has_no_room_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Allocation fails before anything is written."""
    log, _ = opened(tmp_path, segment_bytes=4096)
    log.append(Batch(entries(1, 3)))

    def refuse(*_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "posix_fallocate", refuse)
        with pytest.raises(DiskFull):
            log.append(Batch(entries(4, 4, size=9000)))
    assert len(list(tmp_path.iterdir())) == 1
    log.append(Batch(entries(4, 4, size=9000)))
    log.close()
    assert len(found(tmp_path).entries) == 4
