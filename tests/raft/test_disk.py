"""The log on disk: what was synced is there, what was cut off is removed, what is damaged is refused."""

import random
from pathlib import Path

import pytest

from lictor.raft.disk import LOG_MAGIC, DamagedLog, Disk


def filled(folder: Path, *payloads: bytes) -> None:
    """A log with these entries, from index 1 on."""
    disk = Disk(folder)
    disk.open()
    disk.append(list(enumerate(payloads, 1)))
    disk.close()


def entries(folder: Path) -> list[tuple[int, bytes]]:
    """What a start finds after the snapshot."""
    disk = Disk(folder)
    _, _, found = disk.open()
    disk.close()
    return found


def test_an_empty_folder_is_an_empty_log(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "deep" / "raft")
    assert disk.open() == (0, None, [])
    disk.close()
    assert (tmp_path / "deep" / "raft" / "log").stat().st_mode & 0o777 == 0o600


def test_entries_are_there_after_a_start(tmp_path: Path) -> None:
    filled(tmp_path, b"one", b"", b"three" * 1000)
    assert entries(tmp_path) == [(1, b"one"), (2, b""), (3, b"three" * 1000)]


def test_entries_can_be_added_after_a_start(tmp_path: Path) -> None:
    filled(tmp_path, b"one")
    disk = Disk(tmp_path)
    disk.open()
    disk.append([(2, b"two"), (3, b"three")])
    disk.append([(4, b"four")])
    disk.close()
    assert [index for index, _ in entries(tmp_path)] == [1, 2, 3, 4]


def test_a_write_cut_off_anywhere_loses_only_itself(tmp_path: Path) -> None:
    """For every length that a crash can leave of the last record: the others are there, and the log goes on."""
    filled(tmp_path, b"first", b"second")
    log = tmp_path / "log"
    whole = log.read_bytes()
    filled_with_third = Disk(tmp_path)
    filled_with_third.open()
    filled_with_third.append([(3, b"third entry")])
    filled_with_third.close()
    longer = log.read_bytes()
    for length in range(len(whole), len(longer)):
        log.write_bytes(longer[:length])
        assert entries(tmp_path) == [(1, b"first"), (2, b"second")], length
        assert log.read_bytes() == whole, length
        disk = Disk(tmp_path)
        disk.open()
        disk.append([(3, b"again")])
        disk.close()
        assert entries(tmp_path)[-1] == (3, b"again"), length


def test_zeros_at_the_end_are_an_unfinished_write(tmp_path: Path) -> None:
    filled(tmp_path, b"first")
    log = tmp_path / "log"
    whole = log.read_bytes()
    log.write_bytes(whole + bytes(4096))
    assert entries(tmp_path) == [(1, b"first")]
    assert log.read_bytes() == whole


def test_a_damaged_byte_is_refused_wherever_something_follows(tmp_path: Path) -> None:
    """A flipped bit in any byte before the last record stops the start and names file and offset; nothing is lost."""
    filled(tmp_path, b"first", b"second", b"third")
    log = tmp_path / "log"
    whole = log.read_bytes()
    last = len(whole) - len(b"third") - 20
    second = len(LOG_MAGIC) + 20 + len(b"first")
    for at in range(len(LOG_MAGIC), last):
        damaged = bytearray(whole)
        damaged[at] ^= 0x40
        log.write_bytes(bytes(damaged))
        offset = len(LOG_MAGIC) if at < second else second
        with pytest.raises(
            DamagedLog, match=rf"{log}: damaged at offset {offset}\b.*truncate the file to {offset} bytes"
        ):
            Disk(tmp_path).open()
        assert log.read_bytes() == bytes(damaged)


def test_another_file_is_not_taken_for_a_log(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"something else entirely")
    with pytest.raises(DamagedLog, match="not a log of this program"):
        Disk(tmp_path).open()


def test_a_log_that_was_cut_off_at_its_birth_begins_anew(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(LOG_MAGIC[:3])
    assert entries(tmp_path) == []
    assert (tmp_path / "log").read_bytes() == LOG_MAGIC


def test_a_snapshot_with_the_log_after_it(tmp_path: Path) -> None:
    filled(tmp_path, b"one", b"two")
    disk = Disk(tmp_path)
    disk.open()
    disk.save_snapshot(2, iter([b"state ", b"at two"]))
    disk.begin_anew([])
    disk.append([(3, b"three")])
    disk.close()
    again = Disk(tmp_path)
    assert again.open() == (2, b"state at two", [(3, b"three")])
    again.close()
    assert (tmp_path / "snapshot").stat().st_mode & 0o777 == 0o600


def test_a_crash_between_snapshot_and_new_log_is_harmless(tmp_path: Path) -> None:
    """The old log is still there: what the snapshot covers is passed over."""
    filled(tmp_path, b"one", b"two", b"three")
    disk = Disk(tmp_path)
    disk.open()
    disk.save_snapshot(2, iter([b"state"]))
    disk.close()
    assert Disk(tmp_path).open() == (2, b"state", [(3, b"three")])


def test_a_snapshot_that_was_not_finished_is_not_looked_at(tmp_path: Path) -> None:
    filled(tmp_path, b"one")
    (tmp_path / "snapshot.new").write_bytes(b"half a snap")
    assert entries(tmp_path) == [(1, b"one")]


@pytest.mark.parametrize("at", [0, 9, 17, 25])
def test_a_damaged_snapshot_is_refused(tmp_path: Path, at: int) -> None:
    disk = Disk(tmp_path)
    disk.open()
    disk.save_snapshot(7, iter([b"the state"]))
    disk.close()
    snapshot = tmp_path / "snapshot"
    damaged = bytearray(snapshot.read_bytes())
    damaged[at] ^= 1
    snapshot.write_bytes(bytes(damaged))
    with pytest.raises(DamagedLog, match="snapshot: .*backup"):
        Disk(tmp_path).open()


def test_a_gap_in_the_log_is_refused(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    disk.open()
    disk.append([(1, b"one"), (3, b"three")])
    disk.close()
    with pytest.raises(DamagedLog, match="entry 2 is missing"):
        Disk(tmp_path).open()


def test_noise_never_raises_anything_else(tmp_path: Path) -> None:
    """Whatever stands in the file, a start gives entries or says that the log is damaged."""
    random_ = random.Random(20261120)
    filled(tmp_path, *(random_.randbytes(random_.randrange(200)) for _ in range(10)))
    whole = (tmp_path / "log").read_bytes()
    for _ in range(300):
        noisy = bytearray(whole[: random_.randrange(len(whole) + 1)])
        for _ in range(random_.randrange(4)):
            if noisy:
                noisy[random_.randrange(len(noisy))] = random_.randrange(256)
        (tmp_path / "log").write_bytes(bytes(noisy))
        disk = Disk(tmp_path)
        try:
            _, _, found = disk.open()
        except DamagedLog:
            continue
        finally:
            disk.close()
        assert [index for index, _ in found] == list(range(1, len(found) + 1))
