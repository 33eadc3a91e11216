"""Sessions with a TTL: ended by the leader, kept alive through any server, never shortened by another leader."""

import asyncio

import pytest

from lictor.model.command import Register, SessionCreate, SessionDestroy
from lictor.model.errors import NoLeader
from lictor.model.node import Node
from lictor.model.session import Session
from lictor.server.session_expiry import FOLLOW_PAUSE
from tests.agent.checks.virtual_time import run_virtually
from tests.server.group import Group, until


async def three() -> Group:
    """Three servers, led by `a`, with a node to have sessions on."""
    group = Group("a", "b", "c")
    group.lead("id-a")
    await group.places["a"].server.apply(Register(Node(node="n1", address="127.0.0.1")))
    return group


async def create(group: Group, session_id: str, ttl: str = "10s") -> None:
    await group.places["b"].server.apply(SessionCreate(Session(id=session_id, node="n1", ttl=ttl)))


def gone(group: Group, session_id: str) -> bool:
    return all(place.store.sessions.get(session_id) is None for place in group.places.values())


def test_a_session_ends_after_twice_its_ttl_and_one_without_does_not() -> None:
    async def scenario() -> None:
        group = await three()
        await create(group, "s1")
        await create(group, "s2", "")
        await asyncio.sleep(19.9)
        assert not gone(group, "s1")
        await until(lambda: gone(group, "s1"), "the session's end", FOLLOW_PAUSE + 0.5)
        await asyncio.sleep(100)
        assert not gone(group, "s2")
        await group.close()

    run_virtually(scenario())


@pytest.mark.parametrize("through", ["a", "c"])
def test_a_session_is_renewed_through_any_server(through: str) -> None:
    async def scenario() -> None:
        group = await three()
        await create(group, "s1")
        for _ in range(10):
            await asyncio.sleep(15)
            renewed = await group.places[through].leadership.renew_session("s1")
            assert renewed == group.places["a"].store.sessions.get("s1")
        await asyncio.sleep(30)
        assert gone(group, "s1")
        assert await group.places[through].leadership.renew_session("s1") is None
        await group.close()

    run_virtually(scenario())


def test_a_new_leader_counts_anew() -> None:
    async def scenario() -> None:
        group = await three()
        await create(group, "s1")
        await asyncio.sleep(19)
        group.lead("id-b")
        await asyncio.sleep(19)
        assert not gone(group, "s1")
        assert await group.places["c"].leadership.renew_session("s1") is not None
        await asyncio.sleep(19)
        assert not gone(group, "s1")
        group.lead("id-a")
        await asyncio.sleep(19)
        assert not gone(group, "s1")
        await until(lambda: gone(group, "s1"), "the session's end", 3)
        await group.close()

    run_virtually(scenario())


def test_nothing_ends_without_a_leader() -> None:
    async def scenario() -> None:
        group = await three()
        await create(group, "s1")
        group.lead("")
        await asyncio.sleep(1000)
        assert not gone(group, "s1")
        with pytest.raises(NoLeader):
            await group.places["b"].leadership.renew_session("s1")
        group.lead("id-b")
        await until(lambda: gone(group, "s1"), "the session's end", 30)
        await group.close()

    run_virtually(scenario())


def test_what_a_leader_decided_is_not_carried_out_by_the_next_one() -> None:
    async def scenario() -> None:
        group = await three()
        await create(group, "s1")
        # `a` finds the session's time over, and loses the leadership before that is written.
        propose = group.places["a"].consensus.propose_leading

        async def too_late(proposal: bytes) -> object:
            group.lead("id-b")
            return await propose(proposal)

        group.places["a"].consensus.propose_leading = too_late  # type: ignore[method-assign]
        await until(lambda: group.leader == "id-b", "the session's time to be over", 30)
        assert await group.places["c"].leadership.renew_session("s1") is not None
        await asyncio.sleep(19)
        assert not gone(group, "s1")
        await group.close()

    run_virtually(scenario())


def test_many_sessions_that_end_at_once_are_few_writes() -> None:
    async def scenario() -> None:
        group = await three()
        for number in range(600):
            await create(group, f"s{number}")
        await create(group, "ended by its owner")
        await group.places["a"].server.apply(SessionDestroy("ended by its owner"))
        await asyncio.sleep(15)
        before = group.index
        await until(lambda: not len(group.places["a"].store.sessions), "the sessions' end", 30)
        assert group.index - before < 20
        await group.close()

    run_virtually(scenario())
