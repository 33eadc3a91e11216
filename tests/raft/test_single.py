"""Consensus of one, in memory."""

import pytest

from lictor.model.errors import NoLeader, Refused
from lictor.raft.consensus import ServerChange, ServerRecord
from lictor.raft.single import SingleVoter
from tests.raft.replicas import Lines

RECORD = ServerRecord("id", "n1", "127.0.0.1:8300")


async def test_it_leads_from_start_to_close() -> None:
    consensus = SingleVoter(Lines(), lambda: RECORD)
    told: list[bool] = []
    consensus.on_leadership(told.append)
    with pytest.raises(NoLeader):
        await consensus.propose(b"early", 1.0)
    await consensus.start()
    assert await consensus.propose(b"a", 1.0) == 1
    assert consensus.is_leader and consensus.leader == RECORD.address and consensus.leader_id == "id"
    assert consensus.stats()["last_log_index"] == "1"
    await consensus.confirm(quorum=True, timeout=1.0)
    await consensus.close()
    assert told == [True, False]
    for attempt in (consensus.propose(b"late", 1.0), consensus.confirm(quorum=False, timeout=1.0)):
        with pytest.raises(NoLeader):
            await attempt


async def test_it_stays_alone() -> None:
    consensus = SingleVoter(Lines(), lambda: RECORD)
    await consensus.start()
    other = ServerRecord("other", "n2", "127.0.0.1:8301", 7)
    with pytest.raises(Refused, match="start servers with a data_dir"):
        await consensus.change(ServerChange.ADD_LEARNER, other, 1.0)
    with pytest.raises(Refused, match="need at least one voter"):
        await consensus.change(ServerChange.REMOVE, RECORD, 1.0)
    with pytest.raises(Refused, match="cannot find peer"):
        await consensus.transfer("", 1.0)
    with pytest.raises(Refused):
        await consensus.form([RECORD])
