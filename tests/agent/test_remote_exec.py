"""The agent's side of remote execution: what it runs, what it writes back, when it stops."""

from __future__ import annotations

import asyncio
import json
import os
import random
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from lictor.agent.remote_exec import EXIT_NOT_STARTED, MAX_RUNNING, PIECE_BYTES, LedgerError, RemoteExec
from tests.patience import PATIENCE, soon

EVENT = b'{"Prefix":"_rexec","Session":"s1"}'
NODE = "_rexec/s1/n1"


class Store:
    """A KV store with one session that can be ended."""

    def __init__(self) -> None:
        self.entries: dict[str, bytes] = {}
        self.ended = False
        self.unreachable = False

    def job(self, **fields: Any) -> None:
        """Write the job."""
        self.entries["_rexec/s1/job"] = json.dumps(fields).encode()

    async def get(self, key: str) -> bytes | None:
        """The value of a key."""
        if self.unreachable:
            raise LedgerError("No cluster leader")
        return self.entries.get(key)

    async def acquire(self, key: str, value: bytes, session: str) -> bool:
        """Write a key unless the session has ended."""
        assert session == "s1"
        if not self.ended:
            self.entries[key] = value
        return not self.ended

    def output(self) -> bytes:
        """All pieces, in order."""
        names = sorted(key for key in self.entries if key.startswith(f"{NODE}/out/"))
        return b"".join(self.entries[name] for name in names)


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
async def remote(store: Store) -> AsyncIterator[RemoteExec]:
    remote = RemoteExec("n1", store)
    yield remote
    await remote.close()


async def until(condition: Callable[[], bool]) -> None:
    await soon(condition, "what the test waits for")


async def finished(store: Store) -> str:
    await until(lambda: f"{NODE}/exit" in store.entries)
    return store.entries[f"{NODE}/exit"].decode()


@pytest.mark.parametrize(
    ("job", "output", "code"),
    [
        ({"Command": "echo a; echo b >&2; exit 3"}, b"a\nb\n", "3"),
        ({"Args": ["echo", "$HOME", "x y"]}, b"$HOME x y\n", "0"),
        ({"Script": b64encode(b"echo plain").decode()}, b"plain\n", "0"),
        ({"Script": b64encode(b"#!/bin/sh\necho marked").decode()}, b"marked\n", "0"),
        ({"Command": "kill -9 $$"}, b"", "137"),
    ],
)
async def test_a_job_is_acknowledged_run_and_reported(
    store: Store, remote: RemoteExec, job: dict[str, Any], output: bytes, code: str
) -> None:
    store.job(**job, Wait=2_000_000_000)
    remote.handle(EVENT)
    assert await finished(store) == code
    assert store.output() == output
    assert store.entries[f"{NODE}/ack"] == b""


async def test_a_program_that_cannot_start_says_why(store: Store, remote: RemoteExec) -> None:
    store.job(Args=["/nonexistent"])
    remote.handle(EVENT)
    assert await finished(store) == str(EXIT_NOT_STARTED)
    assert b"/nonexistent" in store.output()


async def test_much_output_comes_in_pieces(store: Store, remote: RemoteExec) -> None:
    store.job(Command="head -c 20000 /dev/zero | tr '\\0' x")
    remote.handle(EVENT)
    assert await finished(store) == "0"
    assert store.output() == b"x" * 20000
    assert max(len(value) for value in store.entries.values()) <= PIECE_BYTES


async def test_a_quiet_program_sends_heartbeats(store: Store, remote: RemoteExec) -> None:
    store.job(Command="sleep 600")
    remote.handle(EVENT)
    await until(lambda: store.entries.get(f"{NODE}/out/00001") == b"")


async def test_when_the_session_ends_so_does_the_program(store: Store, remote: RemoteExec, tmp_path: Path) -> None:
    store.job(Command=f"echo $$ > {tmp_path}/pid; sleep 600")
    remote.handle(EVENT)
    await until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().strip() != "")
    store.ended = True
    pid = int((tmp_path / "pid").read_text())
    await until(lambda: not _runs(pid))
    assert f"{NODE}/exit" not in store.entries


async def test_closing_ends_the_programs(store: Store, remote: RemoteExec, tmp_path: Path) -> None:
    store.job(Command=f"echo $$ > {tmp_path}/pid; sleep 600")
    remote.handle(EVENT)
    await until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().strip() != "")
    await remote.close()
    assert not _runs(int((tmp_path / "pid").read_text()))


def _runs(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except (OSError, IndexError):
        return False


async def test_a_job_may_arrive_after_its_event(store: Store, remote: RemoteExec) -> None:
    remote.handle(EVENT)
    await asyncio.sleep(0)
    store.job(Command="true")
    assert await finished(store) == "0"


async def test_no_more_than_some_at_the_same_time(store: Store, remote: RemoteExec) -> None:
    store.job(Command="sleep 600")
    for _ in range(MAX_RUNNING + 20):
        remote.handle(EVENT)
    running = [task for task in asyncio.all_tasks() if task.get_name().startswith("remote exec")]
    assert len(running) == MAX_RUNNING


async def test_whatever_the_event_or_the_job_holds_nothing_is_raised(store: Store, remote: RemoteExec) -> None:
    rng = random.Random(7)
    for payload in (b"", b"null", b"[]", b"{}", b'{"Session":"a/b"}', b'{"Session":1}', b"[" * 900, b"x" * 5000):
        remote.handle(payload)
    for value in (b"", b"null", b"[]", b'{"Script":"!"}', b'{"Args":"x"}', b"{}", os.urandom(50), rng.randbytes(500)):
        store.entries["_rexec/s1/job"] = value
        remote.handle(EVENT)
        tasks = [task for task in asyncio.all_tasks() if task.get_name().startswith("remote exec")]
        await asyncio.wait_for(asyncio.gather(*tasks), PATIENCE)
    store.unreachable = True
    remote.handle(EVENT)
    tasks = [task for task in asyncio.all_tasks() if task.get_name().startswith("remote exec")]
    await asyncio.wait_for(asyncio.gather(*tasks), PATIENCE)
