"""Consensus of one: durable before it is acknowledged, many writers to one sync, a snapshot in place of a long log."""

import asyncio
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from lictor.model.errors import NoLeader
from lictor.raft.consensus import Peer
from lictor.raft.disk import Disk
from lictor.raft.single import SingleVoter

PEER = Peer("id", "n1", "127.0.0.1:8300", leader=True, voter=True)


class Lines:
    """A state machine that keeps every entry."""

    def __init__(self) -> None:
        self.entries: list[bytes] = []

    def apply(self, entry: bytes) -> int:
        self.entries.append(entry)
        return len(self.entries)

    def image(self) -> "Lines":
        copy = Lines()
        copy.entries = list(self.entries)
        return copy

    def encode(self) -> Iterator[bytes]:
        yield b"\n".join(self.entries)

    def load(self, state: bytes) -> None:
        self.entries = state.split(b"\n")


def voter(machine: Lines, folder: Path | None, snapshot_bytes: int = 1 << 20) -> SingleVoter:
    return SingleVoter(machine, lambda: PEER, folder, snapshot_bytes=snapshot_bytes)


async def test_what_was_acknowledged_is_there_after_a_start(tmp_path: Path) -> None:
    first = voter(Lines(), tmp_path)
    await first.start()
    assert [await first.propose(b"a"), await first.propose(b"b")] == [1, 2]
    # No close: a crash. What is on disk now is all there is.
    machine = Lines()
    second = voter(machine, tmp_path)
    await second.start()
    assert machine.entries == [b"a", b"b"]
    assert second.last_index == 2
    await second.close()
    await first.close()


async def test_many_writers_share_a_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[int] = []
    append = Disk.append

    def counted(self: Disk, records: Iterable[tuple[int, bytes]]) -> None:
        held = list(records)
        batches.append(len(held))
        append(self, held)

    monkeypatch.setattr(Disk, "append", counted)
    machine = Lines()
    consensus = voter(machine, tmp_path)
    await consensus.start()
    results = await asyncio.gather(*(consensus.propose(b"%d" % n) for n in range(200)))
    await consensus.close()
    assert results == list(range(1, 201))
    assert machine.entries == [b"%d" % n for n in range(200)]
    assert sum(batches) == 200
    assert len(batches) < 20


async def test_a_long_log_becomes_a_snapshot(tmp_path: Path) -> None:
    consensus = voter(Lines(), tmp_path, snapshot_bytes=2000)
    await consensus.start()
    for n in range(100):
        await consensus.propose(b"%d" % n + b"x" * 100)
    assert consensus.snapshot_index > 0
    await consensus.close()
    assert (tmp_path / "log").stat().st_size < 5000
    machine = Lines()
    again = voter(machine, tmp_path)
    await again.start()
    assert machine.entries == [b"%d" % n + b"x" * 100 for n in range(100)]
    assert again.last_index == 100
    await again.close()


async def test_close_writes_what_was_accepted(tmp_path: Path) -> None:
    consensus = voter(Lines(), tmp_path)
    await consensus.start()
    waiting = [asyncio.create_task(consensus.propose(b"%d" % n)) for n in range(10)]
    await asyncio.sleep(0)
    await consensus.close()
    assert await asyncio.gather(*waiting) == list(range(1, 11))
    with pytest.raises(NoLeader):
        await consensus.propose(b"late")
    with pytest.raises(NoLeader):
        await consensus.confirm_leadership()


async def test_a_disk_that_fails_is_fatal_and_nothing_is_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Disk, records: Iterable[tuple[int, bytes]]) -> None:
        raise OSError(28, "No space left on device")

    failures: list[BaseException] = []
    machine = Lines()
    consensus = SingleVoter(machine, lambda: PEER, tmp_path, fatal=failures.append)
    await consensus.start()
    monkeypatch.setattr(Disk, "append", full)
    with pytest.raises(NoLeader):
        await consensus.propose(b"lost")
    assert machine.entries == []
    assert [str(failure) for failure in failures] == ["[Errno 28] No space left on device"]
    await consensus.close()


async def test_memory_only_is_a_cluster_too() -> None:
    consensus = voter(Lines(), None)
    with pytest.raises(NoLeader):
        await consensus.propose(b"early")
    await consensus.start()
    assert await consensus.propose(b"a") == 1
    assert consensus.is_leader
    assert consensus.stats()["last_log_index"] == "1"
    await consensus.close()
