"""Proposals on their way: what a leader has no room for now comes again."""

import asyncio
from pathlib import Path

from lictor.raft.settings import RaftSettings
from tests.raft.replicas import Cluster, soon


async def test_what_a_leader_has_no_room_for_is_applied_later(tmp_path: Path) -> None:
    """Its own proposals as well: nobody else sends them again."""
    cluster = Cluster(tmp_path, RaftSettings(election_timeout=0.5, segment_bytes=1 << 16, queued_bytes=1))
    await cluster.form("a")
    await cluster.leader()
    (place,) = cluster.places
    results = await soon(asyncio.gather(*(place.replica.propose(b"line %d" % n, 60.0) for n in range(4))))
    assert sorted(results) == [1, 2, 3, 4]
    await cluster.stop()
