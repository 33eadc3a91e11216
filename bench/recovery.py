"""A server's log and snapshots: how long a start takes with a long log, or with a large snapshot; how long a snapshot
takes; and the longest time for which each of them holds up the event loop.

There is no peer for it. The goals: a log of a million entries, each a proposal of one KV write, is recovered in less
than 20 s, and a snapshot of a million KV entries holds up the loop for 50 ms at most. Other work on the machine holds
it up as well: the last column is the processor time that this process itself used in its worst stall.
"""

import asyncio
import gc
import os
import random
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from bench.harness import Options
from lictor.cli.agent_process import GC_THRESHOLDS
from lictor.model.command import Batch as Commands
from lictor.model.command import KVWrite
from lictor.raft import envelope
from lictor.raft.consensus import Consensus, Machine, ServerRecord
from lictor.raft.core.message import Entry, HardState
from lictor.raft.once import Proposal
from lictor.raft.opening import unpack_state
from lictor.raft.replica import Replica
from lictor.raft.settings import RaftSettings, World
from lictor.raft.wal import Batch, Log, OsFiles, Position, SnapshotStore
from lictor.raft.wal.files import OsFile
from lictor.rpc.network import Network
from lictor.server.server import Server, StoreMachine
from lictor.store.store import Store

MANY = 1_000_000  # entries, with `--seconds 1` or more
RECORD = ServerRecord("bench", "bench", "127.0.0.1:1")
LOOK = 0.001  # seconds between two looks at whether the loop turns
NEVER = 1 << 60


def run(options: Options) -> None:
    """Measure and print."""
    many = max(1000, int(MANY * min(1.0, options.seconds)))
    folder = Path(tempfile.mkdtemp(prefix="bench-recovery-"))
    try:
        print(f"\n## A log of {many:,} entries, a snapshot of {many:,} KV entries\n")
        print("| what | seconds | CPU seconds | MB on disk | longest stall of the loop, ms | its own CPU, ms |")
        print("| --- | --- | --- | --- | --- | --- |")
        for size in (100, 1):
            _log(folder / f"log-{size}", many, size)
        uvloop.run(_form(folder / "raft"))
        _fill(folder / "raft", many)
        uvloop.run(_whole(folder / "raft", many))
        gc.unfreeze()
        uvloop.run(_from_snapshot(folder / "raft", many))
    finally:
        gc.unfreeze()
        shutil.rmtree(folder)


class _UnsyncedFile(OsFile):
    """A file that leaves syncing to the system: filling a log is not what is measured."""

    def sync(self) -> None:
        pass


class _UnsyncedFiles(OsFiles):
    """Files of that kind."""

    def create(self, path: Path) -> OsFile:
        return _UnsyncedFile(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600))

    def open(self, path: Path) -> OsFile:
        return _UnsyncedFile(os.open(path, os.O_RDWR))


class _Watch:
    """Looks whether the loop turns, from `begin` on; prints a row of the table at `end`."""

    def __init__(self, what: str, folder: Path) -> None:
        self._what = what
        self._folder = folder
        self._wall, self._cpu = time.perf_counter(), time.process_time()
        self._worst = self._own = 0.0
        self._task = asyncio.get_running_loop().create_task(self._look())

    async def _look(self) -> None:
        wall, cpu = time.perf_counter(), time.process_time()
        while True:
            await asyncio.sleep(LOOK)
            now, used = time.perf_counter(), time.process_time()
            stall = now - wall - LOOK
            self._worst = max(self._worst, stall)
            self._own = max(self._own, min(stall, used - cpu))
            wall, cpu = now, used

    def end(self) -> None:
        seconds, cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu
        self._task.cancel()
        stalls = f"{self._worst * 1e3:.0f} | {self._own * 1e3:.0f}"
        print(f"| {self._what} | {seconds:.1f} | {cpu:.1f} | {_megabytes(self._folder):.0f} | {stalls} |", flush=True)


def _megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def _proposal(number: int, many: int) -> bytes:
    """An entry as it is in the log: a proposal of one KV write."""
    key = f"app/{number * 7919 % many:07d}/key"
    write = KVWrite("set", key, b"value of %07d " % number + b"." * 80)
    body = msgspec.msgpack.encode(Commands(1.7e9 + number / 1000, (write,)))
    return envelope.encode([Proposal(1, number, number, body)])


def _log(folder: Path, many: int, size: int) -> None:
    """The log alone, written in batches of `size` entries."""
    log = Log(folder, _UnsyncedFiles())
    log.recover()
    for first in range(1, many + 1, size):
        entries = [Entry(1, number, data=_proposal(number, many)) for number in range(first, first + size)]
        log.append(Batch(tuple(entries), HardState(1, 1, first)))
    log.abandon()
    cpu, started = time.process_time(), time.perf_counter()
    log = Log(folder)
    found = log.recover()
    seconds, used = time.perf_counter() - started, time.process_time() - cpu
    assert len(found.entries) >= many
    log.abandon()
    what = f"the log alone, written in batches of {size}"
    print(f"| {what} | {seconds:.1f} | {used:.1f} | {_megabytes(folder):.0f} | | |", flush=True)
    shutil.rmtree(folder)


def _server(folder: Path, settings: RaftSettings) -> tuple[Server, list[Replica], Network]:
    """A server of its own on a folder, as an agent makes it."""
    replicas: list[Replica] = []
    network = Network(random.Random())

    def agreement(machine: Machine) -> Consensus:
        world = World(log_work=_worker(), snapshot_work=_worker(), fatal=_fatal)
        replicas.append(Replica(machine, lambda: RECORD, folder, network, settings, world))
        return replicas[0]

    return Server(Store(), agreement), replicas, network


def _worker() -> Callable[..., Awaitable[Any]]:
    threads = ThreadPoolExecutor(1)

    def work(function: Callable[..., Any], /, *args: Any) -> Awaitable[Any]:
        return asyncio.get_running_loop().run_in_executor(threads, function, *args)

    return work


def _fatal(error: BaseException) -> None:
    raise SystemExit(f"the disk failed: {error}")


async def _form(folder: Path) -> None:
    """Have a server that is its whole cluster."""
    server, _, network = _server(folder, RaftSettings())
    await server.start()
    await server.consensus.form([ServerRecord(RECORD.id, RECORD.node, RECORD.address, server.consensus.number)])
    await _until(lambda: server.consensus.is_leader)
    await server.close()
    await network.close()


def _fill(folder: Path, many: int) -> None:
    """Have entries in its log, as it would have written them one by one."""
    snapshot = SnapshotStore(folder / "snapshots").open()
    assert snapshot is not None
    log = Log(folder / "log", _UnsyncedFiles())
    state = log.recover(Position(snapshot.index, snapshot.term)).state
    first = log.end.index + 1
    for number in range(1, many + 1):
        entry = Entry(state.term, first + number - 1, data=_proposal(number, many))
        log.append(Batch((entry,), HardState(state.term, state.vote, entry.index - 1)))
    log.close()


async def _whole(folder: Path, many: int) -> None:
    """A start with nothing but the log, then a snapshot under a trickle of writes."""
    settings = RaftSettings(snapshot_threshold=NEVER, snapshot_bytes=NEVER, snapshot_interval=0.0)
    server, (replica,), network = _server(folder, settings)
    watch = _Watch("start of a server with that log", folder)
    await server.start()
    _as_an_agent_does()
    await _until(lambda: server.consensus.is_leader)
    assert len(server.store.kv) == many
    watch.end()
    watch = _Watch("taking a snapshot", folder)
    replica.settings = RaftSettings(snapshot_threshold=1, snapshot_interval=3600.0)
    number = 0
    while int(server.consensus.stats()["last_snapshot_index"]) < many:
        for _ in range(50):
            await server.apply(KVWrite("set", f"app/{random.randrange(many):07d}/key", b"later %d" % number))
            number += 1
    watch.end()
    await server.close()
    await network.close()


async def _from_snapshot(folder: Path, many: int) -> None:
    """A start with a snapshot, then taking over another snapshot while it runs."""
    server, _, network = _server(folder, RaftSettings(snapshot_threshold=NEVER, snapshot_bytes=NEVER))
    watch = _Watch("start of a server with that snapshot", folder)
    await server.start()
    _as_an_agent_does()
    await _until(lambda: server.consensus.is_leader)
    assert len(server.store.kv) == many
    watch.end()
    watch = _Watch("taking over a snapshot while it runs", folder)
    await StoreMachine(server.store).load(_state(folder))
    watch.end()
    await server.close()
    await network.close()


def _state(folder: Path) -> Any:
    """The machine's part of the latest snapshot."""
    return unpack_state(SnapshotStore(folder / "snapshots").read())[1]


def _as_an_agent_does() -> None:
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.01)
