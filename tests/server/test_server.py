"""Writes through a server: batched, indexed one by one, answered each with its own result, durable before that."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lictor.model.command import Batch, KVWrite
from lictor.model.errors import LictorError, NoLeader, Refused
from lictor.server.server import Server
from lictor.store.store import Store
from lictor.store.watch import Dependent
from tests.raft.replicas import until
from tests.server.alone import SETTINGS, in_memory, on_disk


@pytest.fixture(params=["memory", "disk"])
async def server(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Server]:
    made = await (on_disk(Store(), tmp_path / "raft") if request.param == "disk" else in_memory(Store()))
    yield made
    await made.close()


class _Counter(Dependent):
    def __init__(self) -> None:
        self.seen = ()
        self.told = 0

    def changed(self) -> None:
        self.told += 1


def proposals(server: Server) -> list[Batch]:
    """Every batch that is proposed from now on."""
    seen: list[Batch] = []
    propose = server.consensus.propose

    async def noted(entry: bytes, timeout: float) -> Any:
        seen.append(msgspec.msgpack.decode(entry, type=Batch))
        return await propose(entry, timeout)

    server.consensus.propose = noted  # type: ignore[assignment, method-assign]
    return seen


async def test_writes_of_one_turn_are_one_entry_with_an_index_each(server: Server) -> None:
    seen, before = proposals(server), server.store.index
    await asyncio.gather(*(server.apply(KVWrite("set", "same", str(n).encode())) for n in range(50)))
    assert [len(batch.commands) for batch in seen] == [50]
    row = server.store.kv.get("same")
    assert row is not None
    assert (row.create_index, row.modify_index, row.value) == (before + 1, before + 50, b"49")


async def test_compare_and_set_tells_two_writes_of_one_batch_apart(server: Server) -> None:
    before = server.store.index
    results = await asyncio.gather(
        server.apply(KVWrite("set", "k", b"1")),
        server.apply(KVWrite("set", "k", b"2")),
        server.apply(KVWrite("cas", "k", b"3", index=before + 1)),
        server.apply(KVWrite("cas", "k", b"4", index=before + 2)),
    )
    assert list(results) == [True, True, False, True]


async def test_a_command_that_fails_fails_alone(server: Server) -> None:
    tasks = [
        asyncio.create_task(server.apply(command))
        for command in (
            KVWrite("set", "a", b"1"),
            KVWrite("lock", "a", b"2", session="nobody"),
            KVWrite("set", "b", b"3"),
        )
    ]
    await asyncio.wait(tasks)
    assert (tasks[0].result(), tasks[2].result()) == (True, True)
    with pytest.raises(Refused, match='^invalid session "nobody"$'):
        tasks[1].result()
    row = server.store.kv.get("a")
    assert row is not None and row.value == b"1"


@pytest.mark.parametrize(
    "proposal",
    [
        b"",
        b"\xc1",
        msgspec.msgpack.encode((0.0, [{"c": "no command"}])),
        msgspec.msgpack.encode((0.0, [{"c": "kv", "verb": "set", "key": "text"}])).replace(
            b"text", b"\xff\xff\xff\xff"
        ),
        b"\x92\xcb\x00\x00\x00\x00\x00\x00\x00\x00\x91\x84\xa1c\xa6config\xa4verb\xa6upsert\xa4kind\xa1k\xa4body\x81\xa1a"
        + b"\x91" * 5000
        + b"\x90",
    ],
    ids=["empty", "no message", "no command", "no text", "too deep"],
)
async def test_a_proposal_that_cannot_be_read_ends_no_server(server: Server, proposal: bytes) -> None:
    """It would end all of them, and again at every start."""
    refused = await server.consensus.propose(proposal, 30.0)
    assert isinstance(refused, LictorError)
    assert "a proposal cannot be read" in str(refused)
    assert await server.apply(KVWrite("set", "after"))


async def test_dependents_are_told_once_for_a_batch(server: Server) -> None:
    counter = _Counter()
    server.store.watches.add(counter, (("kv/", "x/"),))
    await asyncio.gather(*(server.apply(KVWrite("set", f"x/{n}", b"")) for n in range(30)))
    assert counter.told == 1


async def test_nothing_is_accepted_after_close(tmp_path: Path) -> None:
    server = await on_disk(Store(), tmp_path / "raft")
    await server.close()
    with pytest.raises(NoLeader):
        await server.apply(KVWrite("set", "a", b""))


async def test_a_restart_finds_everything_that_was_acknowledged(tmp_path: Path) -> None:
    first = await on_disk(Store(), tmp_path / "raft")
    await asyncio.gather(*(first.apply(KVWrite("set", f"k{n}", b"v")) for n in range(100)))
    await first.apply(KVWrite("delete", "k7"))
    before = (first.store.index, dict(first.store.kv.rows), dict(first.store.tombstones.rows))
    await first.close()
    second = await on_disk(Store(), tmp_path / "raft")
    await second.confirm(quorum=True)
    assert (second.store.index, dict(second.store.kv.rows), dict(second.store.tombstones.rows)) == before
    await second.close()


async def test_a_grown_log_becomes_a_snapshot_and_a_restart_reads_both(tmp_path: Path) -> None:
    settings = msgspec.structs.replace(SETTINGS, snapshot_threshold=50, snapshot_interval=0.02, trailing=5)
    first = await on_disk(Store(), tmp_path, settings)
    for n in range(200):
        await first.apply(KVWrite("set", f"k{n}", b"x" * 20))
    await until(lambda: int(first.consensus.stats()["last_snapshot_index"]) > 100, "a snapshot")
    await first.apply(KVWrite("set", "last", b"x"))
    await first.close()
    second = await on_disk(Store(), tmp_path, settings)
    await second.confirm(quorum=True)
    assert (second.store.kv.rows, second.store.index) == (first.store.kv.rows, first.store.index)
    await second.close()
