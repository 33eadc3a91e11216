"""Calls that only the leader answers, made from any server."""

import asyncio

import pytest

from lictor.model.errors import NoLeader, NotLeader, Refused
from lictor.server.leader_calls import LeaderCalls
from tests.agent.checks.virtual_time import run_virtually
from tests.server.group import Group

HOLD = 7.0


class Calls:
    """The calls of a group's servers, each answering with its own name."""

    def __init__(self, group: Group) -> None:
        self.group = group
        self.handled: list[str] = []
        self.failure: Exception | None = None
        self.of = {name: self._calls(name) for name in group.places}

    def _calls(self, name: str) -> LeaderCalls:
        place = self.group.places[name]
        calls = LeaderCalls(place.consensus, place.transport, HOLD)

        async def handle(body: bytes) -> bytes:
            self.handled.append(name)
            if self.failure is not None:
                raise self.failure
            return name.encode() + body

        async def handle_and_lose_the_answer(body: bytes) -> bytes:
            answer = await handle(body)
            self.group.wire.isolate(place.record.address)
            return answer

        calls.register("again", handle, repeatable=True)
        calls.register("once", handle, repeatable=False)
        calls.register("again, lost", handle_and_lose_the_answer, repeatable=True)
        calls.register("once, lost", handle_and_lose_the_answer, repeatable=False)
        return calls


def test_the_leader_answers_itself_and_whoever_asks() -> None:
    async def scenario() -> None:
        group = Group("a", "b")
        calls = Calls(group)
        group.lead("id-a")
        assert await calls.of["a"].call("once", b"1") == b"a1"
        assert await calls.of["b"].call("once", b"2") == b"a2"
        group.lead("id-b")
        assert await calls.of["a"].call("once", b"3") == b"b3"

    run_virtually(scenario())


def test_a_call_waits_for_a_leader_and_goes_to_the_next_one() -> None:
    async def scenario() -> None:
        group = Group("a", "b", "c")
        calls, loop = Calls(group), asyncio.get_running_loop()
        began = loop.time()
        loop.call_later(3.0, group.lead, "id-b")
        assert await calls.of["a"].call("once", b"") == b"b"
        assert loop.time() - began == pytest.approx(3.0, abs=0.01)
        assert calls.handled == ["b"]

    run_virtually(scenario())


def test_without_a_leader_a_call_fails_in_the_end() -> None:
    async def scenario() -> None:
        calls, loop = Calls(Group("a", "b")), asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(NoLeader, match="^No cluster leader$"):
            await calls.of["a"].call("again", b"")
        assert loop.time() - began == pytest.approx(HOLD, abs=0.01)

    run_virtually(scenario())


def test_a_call_whose_answer_is_lost_is_made_again_only_if_that_does_no_harm() -> None:
    async def scenario() -> None:
        group = Group("a", "b", "c")
        calls = Calls(group)
        group.lead("id-b")
        with pytest.raises(Refused, match="^rpc error making call: "):
            await calls.of["a"].call("once, lost", b"")
        assert calls.handled == ["b"]
        group.places["b"].revive()
        asyncio.get_running_loop().call_later(1.0, group.lead, "id-a")
        assert await calls.of["a"].call("again, lost", b"") == b"a"
        assert calls.handled == ["b", "b", "a"]

    run_virtually(scenario())


def test_what_the_leader_refuses_is_told_as_the_reference_words_it() -> None:
    async def scenario() -> None:
        group = Group("a", "b")
        calls = Calls(group)
        calls.failure = Refused("so not")
        group.lead("id-a")
        with pytest.raises(Refused, match="^so not$"):
            await calls.of["a"].call("once", b"")
        with pytest.raises(Refused, match="^rpc error making call: so not$"):
            await calls.of["b"].call("once", b"")

    run_virtually(scenario())


def test_a_leadership_that_ends_within_a_call_leaves_open_what_came_of_it() -> None:
    async def scenario() -> None:
        group = Group("a", "b")
        calls = Calls(group)
        calls.failure = NotLeader()
        group.lead("id-a")
        for name in "ab":
            with pytest.raises(Refused, match="leadership lost while committing log$"):
                await calls.of[name].call("once", b"")
        assert calls.handled == ["a", "a"]
        with pytest.raises(NoLeader):
            await calls.of["b"].call("again", b"")
        assert len(calls.handled) > 5

    run_virtually(scenario())


def test_a_call_that_cannot_be_read_is_refused() -> None:
    async def scenario() -> None:
        group = Group("a", "b")
        group.lead("id-a")
        for body in (b"\xc1", b"\xa2\xff\xff"):  # no MessagePack; no UTF-8
            with pytest.raises(Refused, match="the call cannot be read"):
                await group.places["b"].transport.call("10.0.0.1:8300", "leader.session.renew", body, 1.0)

    run_virtually(scenario())
