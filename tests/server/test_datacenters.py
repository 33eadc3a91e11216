"""Calls between datacenters: who answers, who may ask, and what becomes of them where nobody answers."""

import asyncio
import random
from collections.abc import AsyncIterator

import msgspec
import pytest

from lictor.model.errors import Forbidden, InvalidRequest, LictorError, NoPath, Refused, Unsupported
from lictor.model.transport import Caller, Unreachable
from lictor.server import datacenters
from lictor.server.datacenters import CALL, CUT_PAUSE, STREAM, Datacenters, Envelope, Origin, Place
from lictor.server.leader_calls import LeaderCalls
from tests.agent.checks.virtual_time import run_virtually
from tests.raft.wire import Wire
from tests.server.group import Group

ONE = Place("dc1", "id-one", "one:1")
TWO = [Place("dc2", f"id-{name}", f"{name}:1") for name in ("a", "b", "c")]


class World:
    """A server of dc1, and three of dc2 that answer with their names."""

    def __init__(self) -> None:
        self.wire = Wire()
        self.places = [ONE, *TWO]
        self.asked: list[tuple[str, Origin]] = []
        self.certified = True
        self.one = self.server(ONE)
        for place in TWO:
            self.server(place).on_call("name", self.answering(place))

    def server(self, place: Place) -> Datacenters:
        """A server, which answers."""
        end = self.wire.end(place.address)
        made = Datacenters(
            place.datacenter,
            place.id,
            lambda: self.places,
            lambda datacenter: end,
            random.Random(1),
            lambda caller, datacenter: self.certified,
            ("passed on",),
        )
        made.serve(end)
        made.on_stream("count", _count)
        return made

    def answering(self, place: Place):  # type: ignore[no-untyped-def]
        """A handler."""

        async def answer(origin: Origin, body: bytes) -> bytes:
            self.asked.append((place.id, origin))
            return place.id.encode() + body

        return answer

    async def forged(self, envelope: Envelope) -> bytes:
        """What a server of dc2 answers to a call that says of itself what it likes."""
        return await self.wire.ends[ONE.address].call("a:1", CALL, msgspec.msgpack.encode(envelope), 1.0)


async def _count(origin: Origin, body: bytes) -> AsyncIterator[bytes]:
    for number in range(3):
        yield b"%d" % number


def test_any_server_of_the_other_datacenter_answers_and_the_next_one_where_it_is_away() -> None:
    async def scenario() -> None:
        world = World()
        first = await world.one.call("dc2", "name", b"!", 5.0)
        assert await world.one.call("dc2", "name", b"!", 5.0) == first, "it stays with the one that answers"
        assert {origin for _, origin in world.asked} == {Origin("dc1", "id-one")}
        answered = first.removesuffix(b"!").decode()
        world.wire.isolate(f"{answered.removeprefix('id-')}:1")
        assert await world.one.call("dc2", "name", b"!", 5.0) != first
        assert world.one.known() == ["dc1", "dc2"]

    run_virtually(scenario())


def test_a_stream_comes_from_any_server_that_answers() -> None:
    async def scenario() -> None:
        world = World()
        world.wire.isolate("a:1")
        world.wire.isolate("b:1")
        assert [piece async for piece in world.one.stream("dc2", "count", b"")] == [b"0", b"1", b"2"]

    run_virtually(scenario())


def test_a_datacenter_of_which_no_server_is_known_has_no_path() -> None:
    async def scenario() -> None:
        world = World()
        for datacenter in ("dc3", "dc1", ""):
            with pytest.raises(NoPath, match="^No path to datacenter$"):
                await world.one.call(datacenter, "name", b"", 5.0)

    run_virtually(scenario())


def test_a_datacenter_that_is_cut_off_is_told_of_at_once_and_asked_again_soon() -> None:
    async def scenario() -> None:
        world, loop = World(), asyncio.get_running_loop()
        for place in TWO:
            world.wire.isolate(place.address)
        began = loop.time()
        for _ in range(100):
            with pytest.raises(Refused, match="^rpc error making call: "):
                await world.one.call("dc2", "name", b"", 5.0)
        assert loop.time() == began
        world.wire.cut.clear()
        world.places = [ONE, *(msgspec.structs.replace(place, alive=False) for place in TWO)]
        with pytest.raises(Refused):
            await world.one.call("dc2", "name", b"", 5.0)
        await asyncio.sleep(CUT_PAUSE)
        world.wire.isolate("one:1")
        for reason in ("^rpc error making call: ", "^Remote DC has no server currently reachable$"):
            with pytest.raises(Refused, match=reason):
                await world.one.call("dc2", "name", b"", 5.0)
            await asyncio.sleep(0.1)
        world.wire.cut.clear()
        await asyncio.sleep(CUT_PAUSE)
        with pytest.raises(Refused):
            await world.one.call("dc2", "name", b"", 5.0)
        await asyncio.sleep(0.1)
        assert await world.one.call("dc2", "name", b"", 5.0), "it was looked for, and found"

    run_virtually(scenario())


def test_a_datacenter_that_gossip_has_found_again_is_asked_at_once() -> None:
    async def scenario() -> None:
        world = World()
        world.places = [ONE, *(msgspec.structs.replace(place, alive=False) for place in TWO)]
        world.wire.isolate("one:1")
        with pytest.raises(Refused):
            await world.one.call("dc2", "name", b"", 5.0)
        world.wire.cut.clear()
        world.places = [ONE, *TWO[:1], *world.places[2:]]
        assert await world.one.call("dc2", "name", b"", 5.0)

    run_virtually(scenario())


def test_whoever_is_silent_holds_nobody_up() -> None:
    """A server that takes calls and answers none costs the first callers their time, and no others."""

    async def scenario() -> None:
        world, loop = World(), asyncio.get_running_loop()

        async def silent(caller: Caller, body: bytes) -> bytes:
            await asyncio.sleep(3.0)
            raise Unreachable("nothing was heard of it")

        for place in TWO:
            world.wire.ends[place.address].on_call(CALL, silent)
        start = loop.time()
        with pytest.raises(Refused):
            await world.one.call("dc2", "name", b"", 60.0)
        assert loop.time() - start == pytest.approx(9.0, abs=0.1)
        waited = 0.0
        for _ in range(100):
            began = loop.time()
            with pytest.raises(Refused):
                await world.one.call("dc2", "name", b"", 60.0)
            waited += loop.time() - began
            await asyncio.sleep(0.1)
        assert waited == pytest.approx(0.0, abs=0.01)
        await world.one.close()

    run_virtually(scenario())


def test_what_takes_its_answerer_too_long_says_nothing_of_the_datacenter() -> None:
    async def scenario() -> None:
        world = World()

        async def slow(origin: Origin, body: bytes) -> bytes:
            await asyncio.sleep(60)
            return b""

        for place in TWO:
            server = world.server(place)
            server.on_call("slow", slow)
            server.on_call("name", world.answering(place))
        with pytest.raises(Refused, match="no answer"):
            await world.one.call("dc2", "slow", b"", 1.0)
        assert await world.one.call("dc2", "name", b"", 1.0)

    run_virtually(scenario())


def test_a_server_that_has_moved_is_asked_where_it_is_now() -> None:
    async def scenario() -> None:
        world = World()
        moved = Place("dc2", "id-a", "elsewhere:1")
        world.server(moved).on_call("name", world.answering(moved))
        for place in TWO:
            world.wire.isolate(place.address)
        # Somebody else has one of the old addresses.
        world.server(Place("dc3", "id-z", "b:1"))
        world.wire.cut -= {("one:1", "b:1"), ("b:1", "one:1")}
        world.places = [ONE, moved, Place("dc2", "id-b", "b:1")]
        assert await world.one.call("dc2", "name", b"", 5.0) == b"id-a"

    run_virtually(scenario())


def test_only_servers_of_the_pool_call_and_only_what_is_for_them() -> None:
    async def scenario() -> None:
        world = World()
        with pytest.raises(Unsupported, match="does not answer 'other'"):
            await world.one.call("dc2", "other", b"", 5.0)
        for origin, origin_id in (("dc1", "nobody"), ("dc9", "id-one"), ("dc2", "id-b"), ("", "")):
            with pytest.raises(Forbidden):
                await world.forged(Envelope(origin, origin_id, "dc2", "name", b""))
        with pytest.raises(InvalidRequest):
            await world.wire.ends[ONE.address].call("a:1", CALL, b"\xc1", 1.0)
        with pytest.raises(InvalidRequest):
            async for _ in world.wire.ends[ONE.address].stream("a:1", STREAM, b""):
                pass
        world.certified = False
        with pytest.raises(Forbidden, match="certificate"):
            await world.one.call("dc2", "name", b"", 5.0)

    run_virtually(scenario())


def test_what_is_for_the_leader_is_passed_on_to_it() -> None:
    async def scenario() -> None:
        world, group = World(), Group("a", "b")

        async def handle(body: bytes) -> bytes:
            return group.leader.encode() + body

        for name, place in zip(("a", "b"), TWO, strict=False):
            calls = LeaderCalls(group.places[name].consensus, group.places[name].transport, 7.0)
            calls.register("sign", handle, repeatable=True)
            world.server(place).on_leader_call("sign", calls)
        world.places.remove(TWO[2])
        for leader in ("id-a", "id-b"):
            group.lead(leader)
            assert await world.one.call("dc2", "sign", b"!", 5.0) == leader.encode() + b"!"

    run_virtually(scenario())


@pytest.mark.parametrize("bound", ["MOST_CALLS", "MOST_ANSWERED"])
def test_requests_of_programs_leave_room_for_what_servers_ask(bound: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datacenters, bound, 5)
    monkeypatch.setattr(datacenters, "SPARE", 2)

    async def scenario() -> None:
        world = World()
        world.places = [ONE, TWO[0]]
        answer = asyncio.Event()

        async def wait(origin: Origin, body: bytes) -> bytes:
            await answer.wait()
            return b"answered"

        two = world.server(TWO[0])
        two.on_call("passed on", wait)
        two.on_call("own", wait)
        names = ["passed on"] * 3 + ["own"] * 2
        waiting = [asyncio.create_task(world.one.call("dc2", name, b"", 5.0)) for name in names[:3]]
        await asyncio.sleep(0.1)
        with pytest.raises(LictorError, match="calls"):
            await world.one.call("dc2", "passed on", b"", 5.0)
        waiting += [asyncio.create_task(world.one.call("dc2", name, b"", 5.0)) for name in names[3:]]
        await asyncio.sleep(0.1)
        with pytest.raises(LictorError, match="calls"):
            await world.one.call("dc2", "own", b"", 5.0)
        answer.set()
        assert await asyncio.gather(*waiting) == [b"answered"] * 5
        assert await world.one.call("dc2", "passed on", b"", 5.0)

    run_virtually(scenario())
