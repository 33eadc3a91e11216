"""A replica whose disk is full when its cluster is formed."""

import asyncio
import random
from pathlib import Path

import pytest

from lictor.raft.core.message import Message, MessageKind
from lictor.raft.wal import DiskFull
from tests.patience import PATIENCE
from tests.raft.replicas import Cluster, Place, until
from tests.raft.simdisk import SimDisk

STRANGER = 77


def ask_for_a_vote(place: Place, term: int) -> None:
    """As a server does that has formed the cluster already."""
    replica = place.replica
    replica.node.step(Message(MessageKind.VOTE, replica.number, STRANGER, term, log_term=1, index=9))
    replica.touch()


async def test_who_had_no_room_to_form_votes_and_leads_when_there_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Also where a vote was waiting to be written when it formed."""
    place = Cluster(tmp_path).place("a")
    place.files = disk = SimDisk(random.Random(1))
    replica = await place.start()
    disk.refuse = frozenset({"write", "truncate"})
    ask_for_a_vote(place, 5)
    await until(lambda: "the log cannot be written, waiting for room" in caplog.text, "the vote has no room")
    for _ in range(2):
        with pytest.raises(DiskFull, match="No space left on device"):
            await replica.form([place.record()])
        assert replica.blank
    disk.refuse = frozenset()
    ask_for_a_vote(place, 6)
    await until(lambda: replica._view.hard_state.term == 6, "the vote is written")
    await replica.form([place.record()])
    await until(lambda: replica.is_leader, "it leads")
    assert replica.term > 6, "no vote is forgotten"
    async with asyncio.timeout(PATIENCE):
        assert await replica.propose(b"line", 30.0) == 1
    await place.stop()
