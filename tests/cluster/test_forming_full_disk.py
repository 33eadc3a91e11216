"""A cluster is formed while a disk is full: whoever has no room waits for it, and keeps its promise meanwhile."""

import asyncio
import random
from collections.abc import Callable
from itertools import permutations

import pytest

from lictor.model.errors import LictorError
from tests.cluster.simulated import Cluster, Host, Process
from tests.cluster.test_forming_simulated import ALL, simulate, three
from tests.raft.simdisk import SimDisk

NO_ROOM = frozenset({"create", "allocate", "write", "truncate", "replace"})


class FillingDisk(SimDisk):
    """Is full after so many operations, until `full_from` is None."""

    def __init__(self, full_from: int | None) -> None:
        super().__init__(random.Random(1))
        self.full_from = full_from

    def step(self, half: Callable[[], None]) -> None:
        super().step(half)
        full = self.full_from is not None and self.steps > self.full_from
        self.refuse = NO_ROOM if full else frozenset()


def filling(host: Host, operations: int) -> FillingDisk:
    """Give a machine such a disk."""
    disk = FillingDisk(operations)
    host.drive.disk = disk
    return disk


async def _lead(cluster: Cluster, host: Host) -> None:
    """Have a server lead and take a write."""
    leader = cluster.leader()
    while leader is not host:
        if leader is not None:
            with_leader = leader.ask(lambda process: _hand_over(process, host))
            await asyncio.wait([with_leader], timeout=20.0)
            with_leader.exception()
        await asyncio.sleep(0.5)
        leader = cluster.leader()
    await host.ask(_write)


async def _hand_over(process: Process, host: Host) -> None:
    try:
        await process.replica.transfer(f"id-{host.name}", 10.0)
    except LictorError:
        pass  # tried again


async def _write(process: Process) -> None:
    await process.replica.propose(b"line", 20.0)


def _formed(cluster: Cluster) -> bool:
    """Whether any server has formed the cluster."""
    found = [host.process for host in cluster.hosts.values() if host.process is not None and host.process.up]
    return any(process.replica.cluster for process in found)


@pytest.mark.parametrize("part", ["snapshots", "log"])
@pytest.mark.parametrize("full", ["a", "b", "abc"])
def test_whoever_has_promised_and_has_no_room_to_form_waits_for_it(full: str, part: str) -> None:
    """The founder, too: what all have promised is never let go of, for one of them may have formed it."""

    async def story(cluster: Cluster) -> None:
        for name in ALL:
            cluster.add(name, ALL)
            cluster.hosts[name].start()
        hosts = list(cluster.hosts.values())
        cluster.network.cut = set(permutations([host.address for host in hosts], 2))
        await cluster.until(lambda: all(host.process and host.process.up for host in hosts), "all have started")
        for name in full:
            disk = cluster.hosts[name].drive.disk
            disk.refuse, disk.refuse_in = NO_ROOM, part
        cluster.network.cut.clear()
        await cluster.until(lambda: all(host.promise for host in hosts), "all have promised")
        promised = {host.promise for host in hosts}
        for _ in range(300):
            await asyncio.sleep(0.1)
            assert {host.promise for host in hosts} == promised, "nobody lets go of it"
        for name in full:
            assert cluster.hosts[name].process.replica.blank  # type: ignore[union-attr]
            cluster.hosts[name].drive.disk.refuse = frozenset()
        await cluster.until(lambda: cluster.agree(*ALL), "a cluster of three", 60.0)
        assert {host.promise for host in hosts} == promised
        for name in full:
            await _lead(cluster, cluster.hosts[name])

    simulate(story)


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("full", ["a", "b", "abc"])
@pytest.mark.parametrize("operations", range(4, 40, 4))
def test_a_disk_that_is_full_from_any_moment_on_keeps_nobody_from_forming_later(
    operations: int, full: str, again: bool
) -> None:
    async def story(cluster: Cluster) -> None:
        for name in ALL:
            cluster.add(name, ALL)
        disks = [filling(cluster.hosts[name], operations) for name in full]
        for host in cluster.hosts.values():
            host.start()
        for _ in range(200):
            await asyncio.sleep(0.1)
            if _formed(cluster) and not again:
                assert all(host.promise for host in cluster.hosts.values()), "the promise is the proof of it"
        if again:
            for name in full:
                cluster.hosts[name].kill()
                cluster.hosts[name].start()
            await asyncio.sleep(10)
        for disk in disks:
            disk.full_from = None
        for host in cluster.hosts.values():
            host.start()  # where there was not even room to start
        await cluster.until(lambda: cluster.agree(*ALL), "a cluster of three", 60.0)
        for name in full:
            await _lead(cluster, cluster.hosts[name])

    simulate(story)


def test_a_single_server_without_room_waits_for_it() -> None:
    async def story(cluster: Cluster, operations: int) -> None:
        host = cluster.add("a", [], alone=True, expect=0)
        disk = filling(host, operations)
        host.start()
        await asyncio.sleep(20)
        disk.full_from = None
        host.start()
        await cluster.until(lambda: cluster.leader() is host, "it leads", 30.0)
        await host.ask(_write)

    for operations in range(30):
        simulate(lambda cluster, operations=operations: story(cluster, operations))  # type: ignore[misc]


def test_a_server_leaves_though_it_has_no_room_to_note_it(caplog: pytest.LogCaptureFixture) -> None:
    async def story(cluster: Cluster) -> None:
        await three(cluster)
        host = cluster.hosts["c"]
        host.drive.disk.refuse, host.drive.disk.refuse_in = NO_ROOM, "standing.json"
        assert await host.ask(lambda process: process.leave())
        await cluster.until(lambda: cluster.agree("a", "b"), "two are left")
        assert "no room to note that this server leaves" in caplog.text
        host.drive.disk.refuse = frozenset()
        host.start()
        await cluster.until(lambda: cluster.members("a") == list(ALL), "it has joined again")

    simulate(story)
