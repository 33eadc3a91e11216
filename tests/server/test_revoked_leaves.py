"""Revoked leaves are forgotten by the leader, and agents revoke what is theirs."""

import asyncio

from lictor.model.command import LeavesRevoke
from lictor.model.connect_ca import RevokedLeaf
from lictor.server.revoked_leaves import INTERVAL
from lictor.store.revoked import GRACE
from tests.agent.checks.virtual_time import run_virtually
from tests.server.group import Group, until


def test_the_leader_forgets_what_has_ended_by_itself() -> None:
    async def scenario() -> None:
        group = Group("a", "b", "c")
        group.lead("id-a")
        now = asyncio.get_running_loop().time()
        leaves = (RevokedLeaf("01", until=now + 1000.0), RevokedLeaf("02", until=now + 100_000.0))
        assert await group.places["b"].server.apply(LeavesRevoke(leaves)) == 2

        def known() -> list[set[str]]:
            return [{leaf.serial for leaf in place.store.ca_revoked} for place in group.places.values()]

        await until(lambda: known() == [{"01", "02"}] * 3, "all servers know", 5.0)
        await asyncio.sleep(1000.0 + GRACE - 1.0)
        assert known() == [{"01", "02"}] * 3
        await until(lambda: known() == [{"02"}] * 3, "the one that has ended is forgotten", INTERVAL + 5.0)

    run_virtually(scenario())
