"""A server whose disk has no room for a snapshot: it asks for it now and then, not all the time."""

import asyncio

import msgspec
import pytest

from lictor.raft.snapshotting import AGAIN
from tests.cluster import simulated
from tests.cluster.simulated import Cluster, Process
from tests.cluster.test_forming_full_disk import NO_ROOM
from tests.cluster.test_forming_simulated import simulate

SMALL = msgspec.structs.replace(simulated.SETTINGS, snapshot_bytes=2000, trailing_bytes=1000)


async def _write(process: Process) -> None:
    for _ in range(20):
        await process.replica.propose(b"x" * 500, 20.0)


def test_a_snapshot_without_room_is_tried_again_after_a_while(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(cluster: Cluster) -> None:
        host = cluster.add("a", [], alone=True, expect=0)
        host.start()
        await cluster.until(lambda: cluster.leader() is host, "it leads")
        disk = host.drive.disk
        disk.refuse, disk.refuse_in = NO_ROOM, "snapshots"
        await host.ask(_write)
        await asyncio.sleep(10 * AGAIN)
        assert 5 <= caplog.text.count("no room for a snapshot") <= 11
        assert "took a snapshot" not in caplog.text
        disk.refuse = frozenset()
        await cluster.until(lambda: "took a snapshot" in caplog.text, "there is one", 2 * AGAIN)

    monkeypatch.setattr(simulated, "SETTINGS", SMALL)
    with caplog.at_level("INFO", logger="lictor"):
        simulate(story)
