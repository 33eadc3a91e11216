"""One run: servers, clients, faults, and a last look when all is well again. Its outcome is a history file."""

import asyncio
import contextlib
import random
import time
from pathlib import Path
from typing import Final

import msgspec

from jepsen import faults, programs
from jepsen.cluster import Cluster, NeverHappened
from jepsen.journal import SECOND, Head, Journal
from jepsen.nemesis import Nemesis
from jepsen.network import Lan, Loopback
from jepsen.programs import Program
from jepsen.worker import Settings, Worker
from jepsen.workload import Workload
from jepsen.workloads import WORKLOADS

HISTORY: Final = "history.jsonl"


class Plan(msgspec.Struct, frozen=True):
    """What is to be run. `snapshot_entries` is the number of log entries between two snapshots, 0 for the program's
    own. `cuts` tells whether the network and the disks are the run's own.
    """

    workload: str
    nemesis: str
    kinds: dict[str, faults.Kind]
    program: Program
    servers: int
    seconds: float
    seed: int
    multiplier: int
    snapshot_entries: int
    settings: Settings
    folder: Path
    cuts: bool


async def run(plan: Plan) -> Path:
    """Do it all, and end every process. Returns the history's file. Raises `NeverHappened` and `CommandFailed` where
    the servers cannot be brought up; what goes wrong later is in the history.
    """
    chance = random.Random(plan.seed)
    loop = asyncio.get_running_loop()
    start = loop.time()
    head = Head(
        workload=plan.workload,
        program=plan.program.name,
        nemesis=plan.nemesis,
        servers=plan.servers,
        seconds=plan.seconds,
        seed=plan.seed,
        began=time.time(),
        clients=plan.settings.clients,
        multiplier=plan.multiplier,
    )
    path = plan.folder / HISTORY
    journal = Journal(path, head, lambda: int((loop.time() - start) * SECOND))
    network = Lan(plan.servers) if plan.cuts else Loopback(chance)
    own_disks = plan.cuts and any(kind.disk for kind in plan.kinds.values())
    cluster = Cluster(plan.program, network, plan.folder, plan.servers, journal.remark, own_disks=own_disks)
    try:
        await cluster.start(programs.configuration(plan.multiplier, plan.snapshot_entries))
        await _Run(plan, cluster, journal, chance).run()
    except NeverHappened:
        await cluster.save_disks()
        raise
    finally:
        await cluster.close()
        journal.close()
    return path


class _Run:
    def __init__(self, plan: Plan, cluster: Cluster, journal: Journal, chance: random.Random) -> None:
        self._plan = plan
        self._cluster = cluster
        self._journal = journal
        self._chance = chance
        self._stopping = asyncio.Event()
        self._workload: Workload = WORKLOADS[plan.workload](plan.workload)
        self._workers = [self._worker(number) for number in range(plan.settings.clients)]

    def _worker(self, number: int) -> Worker:
        chance = random.Random(self._chance.random())
        plan, servers = self._plan, self._cluster.servers
        return Worker(number, servers, self._journal, plan.settings, self._stopping, chance)

    async def run(self) -> None:
        watching = asyncio.create_task(self._cluster.watch())
        try:
            await self._workload.prepare(self._workers[0])
            self._journal.remark("phase", "load")
            async with asyncio.TaskGroup() as tasks:
                for worker in self._workers:
                    tasks.create_task(self._workload.work(worker))
                try:
                    await self._trouble()
                finally:
                    self._stopping.set()
            self._journal.remark("phase", "finish")
            await self._workload.finish(self._workers[0], self._cluster.servers)
            self._cluster.confess()
        finally:
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching
            for worker in self._workers:
                worker.close()

    async def _trouble(self) -> None:
        """Faults while clients work, then a while to recover from them."""
        until = asyncio.Event()
        asyncio.get_running_loop().call_later(self._plan.seconds, until.set)
        nemesis = Nemesis(self._cluster, self._journal, self._plan.kinds, self._chance)
        try:
            await nemesis.run(until)
            self._journal.remark("phase", "healed")
            await self._cluster.settle()
            self._journal.remark("phase", "settled")
        except NeverHappened as failure:
            self._journal.remark("accident", str(failure))
            await self._cluster.save_disks()
