"""The write-ahead log: entries made durable, by the size of a batch.

There is no peer for it: `fdatasync` of a block of 4 KiB in the same folder, in the same run, is the measure of what
the disk itself allows. A single thread appends, as a server's does.
"""

import os
import shutil
import tempfile
import time
from pathlib import Path

from bench.harness import Options
from lictor.raft.core.message import Entry, HardState
from lictor.raft.wal import Batch, Log

BATCHES = (1, 10, 100, 1000)
PAYLOAD = bytes(range(100))


def run(options: Options) -> None:
    """Measure and print."""
    folder = Path(tempfile.mkdtemp(prefix="bench-wal-"))
    try:
        print(f"\n## Write-ahead log, entries of {len(PAYLOAD)} bytes\n")
        print("| entries a batch | entries/s, best | us/entry of CPU, min | ms/batch, median |")
        print("| --- | --- | --- | --- |")
        for size in BATCHES:
            rounds = [_appending(folder / f"{size}-{n}", size, options.seconds) for n in range(options.rounds)]
            rate, cpu, median = max(r[0] for r in rounds), min(r[1] for r in rounds), min(r[2] for r in rounds)
            print(f"| {size} | {rate:.0f} | {cpu * 1e6:.1f} | {median * 1e3:.2f} |")
        print(f"| fdatasync of 4 KiB alone | | | {_sync_alone(folder, options.seconds) * 1e3:.2f} |")
    finally:
        shutil.rmtree(folder)


def _appending(folder: Path, size: int, seconds: float) -> tuple[float, float, float]:
    """Entries per second, CPU seconds per entry, median seconds per batch."""
    log = Log(folder)
    log.recover()
    index = 0
    times: list[float] = []
    cpu, started = time.process_time(), time.perf_counter()
    before = started
    while before - started < seconds:
        batch = tuple([Entry(1, index + n, data=PAYLOAD) for n in range(1, size + 1)])
        index += size
        log.append(Batch(batch, HardState(1, 1, index)))
        now = time.perf_counter()
        times.append(now - before)
        before = now
    rate, used = index / (before - started), (time.process_time() - cpu) / index
    log.close()
    return rate, used, sorted(times)[len(times) // 2]


def _sync_alone(folder: Path, seconds: float) -> float:
    """Median seconds of writing and syncing a block, in a file that has its room."""
    fd = os.open(folder / "alone", os.O_RDWR | os.O_CREAT, 0o600)
    os.posix_fallocate(fd, 0, 64 << 20)
    times: list[float] = []
    started = time.perf_counter()
    while (before := time.perf_counter()) - started < seconds:
        os.pwrite(fd, bytes(4096), 4096 * (len(times) % 16384))
        os.fdatasync(fd)
        times.append(time.perf_counter() - before)
    os.close(fd)
    return sorted(times)[len(times) // 2]
