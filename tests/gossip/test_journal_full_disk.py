"""The journal of peers on a full disk: the pool goes on without it, and it is whole again when there is room."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lictor.gossip.journal_file import JournalFile
from lictor.gossip.pool_events import EventReceived
from lictor.gossip.serf_messages import UserEvent
from tests.agent.small_disk import small_disk


def fill(folder: Path) -> Path:
    """Take all room of a file system; returns what takes it."""
    ballast = folder / "ballast"
    with ballast.open("wb") as file:
        while free := os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize:
            os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), free)
    return ballast


def recorder(journal: JournalFile) -> Callable[[int], None]:
    """Records an event of a Lamport time."""
    return lambda time: journal.record(EventReceived(UserEvent(time)), time)


def test_a_full_disk_costs_the_journal_and_nothing_else(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with small_disk(tmp_path / "disk", 1) as disk:
        path = disk.folder / "local.snapshot"
        journal = JournalFile(path, rejoin_after_leave=False)
        record = recorder(journal)
        record(1)
        ballast = fill(disk.folder)
        for time in range(2, 500):
            record(time)
        (told,) = caplog.messages
        assert told.startswith(f"the journal of peers cannot be written: {path}: No space left on device; free some")
        journal.close()
        again = JournalFile(path, rejoin_after_leave=False)
        assert 1 <= again.found.event_clock < 499, "what was written while there was room"
        record = recorder(again)
        record(500)
        ballast.unlink()
        record(501)
        again.close()
        assert JournalFile(path, rejoin_after_leave=False).found.event_clock == 501
        assert f"the journal of peers is written again: {path}" in caplog.messages[-1]


def test_a_journal_that_may_not_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "local.snapshot.tmp").mkdir()
    with pytest.raises(IsADirectoryError):
        JournalFile(tmp_path / "local.snapshot", rejoin_after_leave=False)
