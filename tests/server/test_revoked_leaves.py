"""Revoked leaves are forgotten by the leader, and agents revoke what is of one node."""

import asyncio
from typing import Any, cast

import pytest

from lictor.model.command import LeavesRevoke, Register, RevokedForget
from lictor.model.connect_ca import RevokedLeaf
from lictor.model.errors import Forbidden
from lictor.model.node import Node
from lictor.model.transport import Caller, Transport
from lictor.server.for_agents import APPLY, encode_command, serve_agents
from lictor.server.revoked_leaves import INTERVAL
from lictor.store.revoked import GRACE
from lictor.store.store import Store
from tests.agent.checks.virtual_time import run_virtually
from tests.server.alone import in_memory
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


class Calls:
    """What a server answers to agents."""

    def __init__(self) -> None:
        self.handlers: dict[str, Any] = {}

    def on_call(self, method: str, handler: Any, *, agents: bool = False) -> None:
        assert agents
        self.handlers[method] = handler

    async def apply(self, *nodes: str) -> Any:
        leaves = tuple(RevokedLeaf(f"0{number}", node=node, until=4e9) for number, node in enumerate(nodes, 1))
        return await self.handlers[APPLY](Caller("127.0.0.1:1"), encode_command(LeavesRevoke(leaves)))


async def test_an_agent_revokes_what_is_of_one_node_that_the_catalog_knows() -> None:
    store, calls = Store(), Calls()
    server = await in_memory(store)
    await server.apply(Register(Node(node="n1", address="127.0.0.1")))
    await server.apply(Register(Node(node="n2", address="127.0.0.2")))
    serve_agents(cast(Transport, calls), store, server.apply)
    for nodes in (("n1", "n2"), ("n3",), ("",)):
        with pytest.raises(Forbidden, match="its own node"):
            await calls.apply(*nodes)
    with pytest.raises(Forbidden, match="agents send no"):
        await calls.handlers[APPLY](Caller("127.0.0.1:1"), encode_command(RevokedForget(1e12)))
    assert not len(store.ca_revoked)
    await calls.apply("n1", "N1")
    assert {leaf.serial for leaf in store.ca_revoked} == {"01", "02"}
    await server.close()
