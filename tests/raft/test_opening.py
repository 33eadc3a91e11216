"""A raft folder as a start finds it: new, used before, or with something missing."""

import random
import shutil
from pathlib import Path

import pytest

from lictor.raft.core.membership import Membership
from lictor.raft.core.message import HardState, Snapshot
from lictor.raft.opening import IDENTITY, beginning, open_folder
from lictor.raft.wal import Batch, DamagedLog, OsFiles


def number_in(folder: Path) -> int:
    """The number of the server whose folder it is."""
    opened = open_folder(folder, OsFiles(), 1 << 16, random.Random(1))
    opened.wal.close()
    return opened.number


def test_a_number_is_made_once(tmp_path: Path) -> None:
    folder = tmp_path / "raft"
    number = number_in(folder)
    assert number_in(folder) == number
    assert (folder / IDENTITY).stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700


def test_votes_are_not_forgotten_with_the_number_or_the_log(tmp_path: Path) -> None:
    """One without the other would be the same server with another memory."""
    folder = tmp_path / "raft"
    opened = open_folder(folder, OsFiles(), 1 << 16, random.Random(1))
    opened.wal.append(Batch(state=HardState(3, 7, 0)))
    opened.wal.close()
    shutil.move(folder / IDENTITY, tmp_path)
    with pytest.raises(DamagedLog, match=rf"{folder / IDENTITY}: missing, though there is a log beside it"):
        number_in(folder)
    shutil.move(tmp_path / IDENTITY, folder)
    shutil.move(folder / "log", tmp_path)
    for _ in range(2):
        with pytest.raises(DamagedLog, match=rf"{folder / 'log'}: there is no log in it, though the server was here"):
            number_in(folder)
    (folder / "log").rmdir()
    shutil.move(tmp_path / "log", folder)
    assert number_in(folder) == opened.number


def test_a_snapshot_without_its_log_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "raft"
    opened = open_folder(folder, OsFiles(), 1 << 16, random.Random(1))
    snapshot = Snapshot(1, 1, Membership())
    opened.store.write(snapshot, [b"state"])
    opened.wal.append(beginning(snapshot))
    opened.wal.close()
    shutil.rmtree(folder / "log")
    with pytest.raises(DamagedLog, match="there is no log in it"):
        number_in(folder)
    (folder / IDENTITY).unlink()
    with pytest.raises(DamagedLog, match="there is a snapshot of entry 1, but the log is gone"):
        number_in(folder)
