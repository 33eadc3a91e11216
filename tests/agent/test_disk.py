"""An agent whose disk is damaged or full: it says where and what to do, and loses nothing."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.agent.processes import Process
from tests.agent.small_disk import small_disk
from tests.patience import PATIENCE, eventually

VALUE = 500_000  # bytes


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Process]:
    """An agent of the test's own, not started."""
    process = Process(tmp_path)
    yield process
    process.close()


def flip(path: Path, offset: int) -> None:
    """Change one bit of a file."""
    content = bytearray(path.read_bytes())
    content[offset] ^= 4
    path.write_bytes(bytes(content))


def first(folder: Path, pattern: str) -> Path:
    """The first file of a kind."""
    return min(folder.glob(pattern))


DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "a snapshot's state": (lambda raft: flip(first(raft, "snapshots/*"), -20), "snapshot: damaged at offset"),
    "a snapshot's header": (lambda raft: flip(first(raft, "snapshots/*"), 15), "snapshot: damaged at offset 0: the ch"),
    "no snapshot": (lambda raft: first(raft, "snapshots/*").unlink(), "the log has a gap: it begins after entry"),
    "a segment's header": (lambda raft: flip(first(raft, "log/*"), 20), "0001.wal: damaged at offset 0: the checksum"),
    "a frame": (lambda raft: flip(first(raft, "log/*"), 60), "0001.wal: damaged at offset 32: frame 1 cannot be read"),
    "a newer log": (lambda raft: flip(first(raft, "log/*"), 7), "it has format 5, and this version of the program"),
    "no log": (lambda raft: first(raft, "log/*").unlink(), "raft/log: there is no log in it, though the server was"),
    "no number": (lambda raft: (raft / "identity.json").unlink(), "raft/identity.json: missing, though there is a log"),
}


def test_damage_stops_the_start_with_what_to_do_and_is_left_as_it_is(agent: Process, tmp_path: Path) -> None:
    agent.start()
    agent.put("/v1/kv/a", b"1")
    agent.kill()
    raft, whole = agent.data / "raft", tmp_path / "whole"
    shutil.copytree(raft, whole)

    def content() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in raft.rglob("*") if path.is_file()}

    for what, (damage, told) in DAMAGE.items():
        damage(raft)
        damaged, before = content(), agent.log()
        assert agent.spawn().wait(PATIENCE) == 1, what
        said = agent.log()[len(before) :]
        (line,) = [line for line in said.splitlines() if told in line]
        assert str(raft) in line, what
        assert "backup" in line, what
        assert "Traceback" not in said, what
        assert content() == damaged, what
        shutil.rmtree(raft)
        shutil.copytree(whole, raft)
    agent.start()
    assert agent.ask("GET", "/v1/kv/a?raw") == (200, b"1")


def test_a_full_disk_ends_no_server_and_loses_nothing(tmp_path: Path) -> None:
    """It takes no writes, answers stale reads, says why, and goes on when there is room again."""
    with small_disk(tmp_path / "disk", 80) as disk:
        agent = Process(disk.folder)
        agent.flags = ("-hcl", 'performance { rpc_hold_timeout = "1s" }')
        try:
            agent.start()
            acknowledged = 0

            def full() -> bool:
                """After one more write; it is not acknowledged in time also where the machine stands still."""
                nonlocal acknowledged
                written = agent.ask("PUT", f"/v1/kv/k{acknowledged}", b"%d " % acknowledged * (VALUE // 5))
                acknowledged += written == (200, b"true")
                return "the log cannot be written, waiting for room" in agent.log()

            eventually(full, "the disk is full")
            assert acknowledged > 20
            assert "free some space on its file system" in agent.log()
            status, body = agent.ask("PUT", "/v1/kv/more", b"x")
            assert (status, body) == (500, b"No cluster leader")
            assert agent.ask("GET", "/v1/kv/k0?raw&stale")[0] == 200
            assert agent.process is not None
            assert agent.process.poll() is None
            disk.resize(400)
            eventually(lambda: agent.ask("PUT", "/v1/kv/later", b"y") == (200, b"true"), "writes are taken again")
            assert "there is room for the log again" in agent.log()
            agent.kill()
            agent.start()
            keys = set(agent.get("/v1/kv/?keys"))
            assert {f"k{number}" for number in range(acknowledged)} | {"later"} <= keys
            assert "Traceback" not in agent.log()
        finally:
            agent.close()
