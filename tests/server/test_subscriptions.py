"""What a server tells agents that follow it, and what it takes from them."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

from lictor.agent.replica import PartialReplica
from lictor.model.command import Deregister, KVWrite, Register
from lictor.model.errors import LictorError, NoLeader, Refused, TooLarge
from lictor.model.node import Node
from lictor.model.service import NodeService
from lictor.rpc.network import Network
from lictor.server import subscriptions, subscriptions_session
from lictor.server.subscriptions import Subscriptions
from lictor.store import partial_messages as wire
from lictor.store.reads import health, kv
from lictor.store.store import Store
from tests.agent.replicas import Member, Place, World, answer_of, simulated, until
from tests.server.alone import in_memory
from tests.store.random_commands import READS

PATIENCE = 120.0  # seconds, on a machine that stalls


class Raw:
    """An agent that sends what it likes, and keeps the pieces that it took."""

    def __init__(self, world: World, place: Place, *known: tuple[tuple[str, ...], int], session: int = 7) -> None:
        self.transport = world.join(f"10.9.9.{session}:1")
        self.place = place
        self.session = session
        self.pieces: list[wire.Piece] = []
        self.ended: BaseException | None = None
        follow = wire.encode(wire.Follow(session, "dc1", place.consensus.cluster, 0, known))
        self.task = asyncio.create_task(self._take(self.transport.stream(place.address, wire.FOLLOW, follow)))

    async def _take(self, stream: AsyncIterator[bytes]) -> None:
        try:
            async with aclosing(stream) as pieces:  # type: ignore[type-var]
                async for piece in pieces:
                    self.pieces.append(wire.decode_piece(piece))
        except LictorError as error:
            self.ended = error

    @property
    def messages(self) -> list[wire.Message]:
        return [message for piece in self.pieces for message in piece.messages]

    async def call(self, method: str, body: Any) -> bytes:
        data = body if isinstance(body, bytes) else wire.encode(body)
        return await self.transport.call(self.place.address, method, data, 30.0)

    async def want(self, *add: tuple[str, ...], drop: tuple[tuple[str, ...], ...] = ()) -> None:
        await self.call(wire.WANT, wire.Want(self.session, add, drop))

    async def close(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


def test_what_cannot_be_read_is_refused() -> None:
    async def scenario(world: World) -> None:
        place = world.server()
        agent = Raw(world, place)
        await until(lambda: bool(agent.pieces))
        for method in (wire.WANT, wire.CONFIRM, wire.REACH):
            for body in (b"", b"\xc1", b"\x90", wire.encode([7]), wire.encode([-1, 2, 3]), wire.encode({"a": 1})):
                with pytest.raises(Refused):
                    await agent.call(method, body)
        for body in (b"", b"\xc1", wire.encode([1, "dc1", "", -1, []]), wire.encode([1, "dc1", "", 0, [[[], 0]]])):
            with pytest.raises(Refused):
                async for _ in agent.transport.stream(place.address, wire.FOLLOW, body):
                    pass
        assert place.subscriptions.sessions == 1
        await agent.close()

    simulated(scenario)


def test_who_is_not_followed_here_is_told_so() -> None:
    async def scenario(world: World) -> None:
        place = world.server()
        agent = Raw(world, place)
        await until(lambda: bool(agent.pieces))
        for method, body in (
            (wire.WANT, wire.Want(8, (("kv", "a"),), ())),
            (wire.CONFIRM, wire.Confirm(8, quorum=False)),
            (wire.REACH, wire.Reach(8, 1)),
        ):
            with pytest.raises(Refused):
                await agent.call(method, body)
        again = Raw(world, place, session=7)
        elsewhere = wire.encode(wire.Follow(9, "dc2", "", 0, ()))
        with pytest.raises(Refused, match="dc2"):
            async for _ in agent.transport.stream(place.address, wire.FOLLOW, elsewhere):
                pass
        await until(lambda: again.ended is not None)
        assert isinstance(again.ended, Refused)
        assert agent.ended is None
        await agent.close()
        await until(lambda: place.subscriptions.sessions == 0)

    simulated(scenario)


def test_topics_that_nobody_can_follow_are_refused_one_by_one() -> None:
    async def scenario(world: World) -> None:
        place = world.server()
        world.write(KVWrite("set", "a", b"1"))
        agent = Raw(world, place, (("agent", "members"), 0), (("kv", "a"), 0))
        await until(lambda: len(agent.messages) == 2)
        await agent.want(("no", "such"), ("kv/", ""))
        await until(lambda: len(agent.messages) == 4)
        refused = [m.topic for m in agent.messages if isinstance(m, wire.Refused)]
        assert refused == [("agent", "members"), ("no", "such")]
        assert {m.topic for m in agent.messages if isinstance(m, wire.Start)} == {("kv", "a"), ("kv/", "")}
        assert place.subscriptions.topics == 2
        await agent.close()
        await until(lambda: place.subscriptions.topics == 0)

    simulated(scenario)


def test_there_is_a_bound_on_topics_and_agents(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(world: World) -> None:
        place = world.server()
        agent = Raw(world, place)
        await until(lambda: bool(agent.pieces))
        many = tuple(("kv", f"k{number}") for number in range(wire.TOPICS_MOST))
        await agent.want(*many[:1000])
        with pytest.raises(TooLarge):
            await agent.want(*many[1000:], ("kv", "a"))
        with pytest.raises(Refused):
            await agent.want(*many, ("kv", "a"))
        monkeypatch.setattr(subscriptions, "TOPICS_MOST", 1500)
        with pytest.raises(TooLarge):
            await agent.want(*many[1000:2000])
        monkeypatch.setattr(subscriptions, "SESSIONS_MOST", 1)
        other = Raw(world, place, session=8)
        await until(lambda: other.ended is not None)
        await until(lambda: place.subscriptions.topics == 1000)
        await agent.close()
        await until(lambda: place.subscriptions.topics == 0)
        assert len(place.store.watches) == 0

    simulated(scenario)


def test_who_asks_and_takes_nothing_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscriptions, "QUEUE_BYTES", 1000)

    async def scenario(world: World) -> None:
        place = world.server()
        taking = asyncio.Event()
        transport = world.join("10.9.9.9:1")
        follow = wire.encode(wire.Follow(7, "dc1", "", 0, ()))

        async def take_one() -> None:
            async for _ in transport.stream(place.address, wire.FOLLOW, follow):
                await taking.wait()

        task = asyncio.create_task(take_one())
        await until(lambda: place.subscriptions.sessions == 1)
        with pytest.raises(Refused, match="takes nothing"):
            for number in range(1000):
                want = wire.encode(wire.Want(7, (), (("kv", f"k{number}"),)))
                await transport.call(place.address, wire.WANT, want, 30.0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await until(lambda: place.subscriptions.sessions == 0)

    simulated(scenario)


def test_without_a_leader_nothing_new_is_told_and_what_was_known_goes_on() -> None:
    async def scenario(world: World) -> None:
        place = world.server()
        world.write(KVWrite("set", "a", b"1"), KVWrite("set", "b", b"1"))
        place.consensus.leader = ""
        agent = Raw(world, place, (("kv", "a"), 1), (("kv", "b"), 0))
        await until(lambda: len(agent.messages) == 1)
        with pytest.raises(NoLeader):
            await agent.want(("kv", "c"))
        assert [m.topic for m in agent.messages if isinstance(m, wire.Start)] == [("kv", "a")]
        assert not agent.pieces[-1].state.leader
        place.consensus.leader = "10.0.0.1:8300"
        await until(lambda: len(agent.messages) == 2)
        assert {m.topic for m in agent.messages if isinstance(m, wire.Start)} == {("kv", "a"), ("kv", "b")}
        await agent.close()

    simulated(scenario)


def test_what_an_agent_has_already_is_not_told_again() -> None:
    async def scenario(world: World) -> None:
        place = world.server()
        world.write(KVWrite("set", "a", b"1"))
        first = Raw(world, place, (("kv", "a"), 0))
        await until(lambda: len(first.messages) == 1)
        (start,) = first.messages
        assert isinstance(start, wire.Start)
        second = Raw(world, place, (("kv", "a"), start.version), session=8)
        await until(lambda: len(second.messages) == 1)
        assert isinstance(second.messages[0], wire.Kept)
        world.write(KVWrite("set", "b", b"1"))
        third = Raw(world, place, (("kv", "a"), start.version), session=9)
        await until(lambda: len(third.messages) == 1)
        assert isinstance(third.messages[0], wire.Kept)
        await until(lambda: third.pieces[-1].state.whole)
        for agent in (first, second, third):
            await agent.close()

    simulated(scenario)


def test_who_comes_from_another_server_is_told_what_has_changed_and_no_more() -> None:
    async def scenario(world: World) -> None:
        here, there = world.server(), world.server()
        many = [
            Register(Node(node=f"n{n}", address="10.0.0.9"), NodeService(id="web", service="web", port=80))
            for n in range(1000)
        ]
        world.write(*many)
        topic = ("service", "web")
        first = Raw(world, here, (topic, 0))
        await until(lambda: any(piece.state.whole for piece in first.pieces))
        whole = sum(len(wire.encode(message)) for message in first.messages)
        start = first.messages[-1]
        assert isinstance(start, wire.Start) and start.last
        await first.close()
        changed = Register(Node(node="n7", address="10.0.0.9"), NodeService(id="web", service="web", port=81))
        world.write(changed, Deregister("n8"), KVWrite("set", "a", b"1"))
        second = Raw(world, there, (topic, start.version), session=8)
        await until(lambda: len(second.messages) == 1)
        (change,) = second.messages
        assert isinstance(change, wire.Change)
        assert [row.service.port for row in wire.rows(change.put)["services"]] == [81]
        assert wire.keys(change.gone) == {"nodes": ["n8"], "services": [("n8", "web")]}
        told = len(wire.encode(change))
        assert told * 100 < whole, f"{told} bytes of {whole}"
        assert second.pieces[-1].state.whole
        third = Raw(world, there, (topic, 1), session=9)
        await until(lambda: bool(third.messages))
        assert isinstance(third.messages[0], wire.Start), "the version is too old"
        world.write(many[7])
        await until(lambda: len(second.messages) == 2)
        assert isinstance(second.messages[1], wire.Change)
        for agent in (second, third):
            await agent.close()

    simulated(scenario)


def test_changes_of_one_turn_are_one_piece_and_great_ones_begin_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(world: World) -> None:
        place = world.server()
        agent = Raw(world, place, (("kv", "a"), 0), (("kv", "b"), 0), (("kv/", ""), 0))
        await until(lambda: len(agent.messages) == 3)
        world.write(KVWrite("set", "a", b"1"), KVWrite("set", "b", b"1"), KVWrite("set", "c", b"1"))
        await until(lambda: len(agent.messages) == 6)
        assert [len(piece.messages) for piece in agent.pieces if piece.messages][-1] == 3
        assert {type(m) for m in agent.messages[3:]} == {wire.Change}
        monkeypatch.setattr(subscriptions_session, "AT_ONCE", 1000)
        world.write(KVWrite("set", "a", bytes(2000)))
        await until(lambda: len(agent.messages) == 8)
        assert {type(m) for m in agent.messages[6:]} == {wire.Start}
        await until(lambda: agent.pieces[-1].state.whole)
        assert agent.pieces[-1].state.index == place.store.index
        await agent.close()

    simulated(scenario)


def test_nothing_is_said_to_be_whole_before_its_last_change_is_told() -> None:
    async def scenario(world: World) -> None:
        place = world.server()
        agent = Raw(world, place, (("kv", "a"), 0))
        await until(lambda: len(agent.messages) == 1)
        world.write(KVWrite("set", "a", b"1"))
        # In the same turn, before the change was looked at.
        session = place.subscriptions._agents[agent.session].session
        session.drop_wanted((("kv", "z"),))
        session.refuse(("kv", "y"))
        await until(lambda: agent.pieces[-1].state.whole and len(agent.messages) == 4)
        told = False
        for piece in agent.pieces[1:]:
            told = told or any(isinstance(message, wire.Change) for message in piece.messages)
            assert told or not piece.state.whole or piece.state.index < place.store.index
        await agent.close()

    simulated(scenario)


def test_what_was_said_between_changes_outlives_an_overflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscriptions_session, "QUEUE_BYTES", 500)

    async def scenario(world: World) -> None:
        place = world.server()
        agent = Raw(world, place, (("kv", "a"), 0), (("kv", "b"), 0))
        await until(lambda: len(agent.messages) == 2 and agent.pieces[-1].state.whole)
        before = len(agent.pieces)
        session = place.subscriptions._agents[agent.session].session
        for number in range(5):
            world.write(KVWrite("set", "a", bytes(200 + number)))
            place.subscriptions._look()
            session.drop_wanted((("kv", f"z{number}"),))
        assert session.overflows > 0
        await until(lambda: agent.pieces[-1].state.whole and len(agent.pieces) > before)
        later = [message for piece in agent.pieces[before:] for message in piece.messages]
        assert [m.topics[0][1] for m in later if isinstance(m, wire.Dropped)] == [f"z{n}" for n in range(5)]
        starts = [at for at, m in enumerate(later) if isinstance(m, wire.Start)]
        assert starts, "the topic begins anew"
        wholes = [piece for piece in agent.pieces[before:] if piece.state.whole]
        assert all(piece.state.index == place.store.index for piece in wholes)
        await agent.close()

    simulated(scenario)


def test_an_index_that_never_comes_is_not_waited_for_for_ever() -> None:
    async def scenario(world: World) -> None:
        place = world.server()
        agent = Raw(world, place)
        await until(lambda: bool(agent.pieces))
        with pytest.raises(LictorError, match="has not come to"):
            await agent.call(wire.REACH, wire.Reach(7, 10**9))
        await agent.close()

    simulated(scenario)


def test_a_server_that_stops_ends_its_streams() -> None:
    async def scenario(world: World) -> None:
        place = world.server()
        world.write(KVWrite("set", "a", b"1"))
        member = Member(world, "10.0.1.1:1")
        await member.replica.read(kv.entry, "a")
        await place.subscriptions.close()
        await until(lambda: not member.replica.ready)
        assert place.subscriptions.topics == 0
        assert len(place.store.watches) == 0
        assert member.store.read(kv.entry, "a").value == place.store.read(kv.entry, "a").value
        await member.replica.close()

    simulated(scenario)


def test_a_cluster_that_gets_its_name_is_followed_anew() -> None:
    async def scenario(world: World) -> None:
        place = world.server()
        place.consensus.cluster = ""
        world.write(Register(Node(node="n1", address="10.0.0.1")), KVWrite("set", "a", b"1"))
        member = Member(world, "10.0.1.1:1")
        for read in (READS["node n1"], READS["key a"]):
            await member.replica.read(read)
        streams = member.replica.streams
        place.consensus.cluster = "named"
        await until(lambda: member.replica.streams > streams and member.replica.index == place.store.index)
        for name in ("node n1", "key a"):
            assert answer_of(member.store, name) == answer_of(place.store, name)
        await member.replica.close()

    simulated(scenario)


async def test_over_real_connections_through_servers_that_come_and_go() -> None:
    """Two servers of one state, each at a port of its own; agents go on where they were."""
    store = Store()
    server = await in_memory(store)
    await server.apply(Register(Node(node="n1", address="10.0.0.1"), NodeService(id="web", service="web", port=80)))
    chance = random.Random(1)

    async def serve() -> tuple[Network, Subscriptions, str]:
        network = Network(chance)
        following = Subscriptions(server, network, "dc1", random.Random(5))
        return network, following, f"127.0.0.1:{await network.listen('127.0.0.1', 0)}"

    network, following, address = await serve()
    own = Network(chance)
    replica = PartialReplica(Store(), own, lambda: address, chance, patience=PATIENCE)
    try:
        answer = await replica.read(health.service, "web", (), {})
        assert [row.service.port for row in answer.value] == [80]
        port = 80
        for _ in range(3):
            port += 1
            await server.apply(
                Register(Node(node="n1", address="10.0.0.1"), NodeService(id="web", service="web", port=port))
            )
            await asyncio.wait_for(replica.reach(store.index), PATIENCE)
            await replica.confirm(False)
            answer = await replica.read(health.service, "web", (), {})
            assert [row.service.port for row in answer.value] == [port]
            await following.close()
            await network.close()
            network, following, address = await serve()
        await asyncio.wait_for(replica.reach(store.index), PATIENCE)
    finally:
        await replica.close()
        await own.close()
        await following.close()
        await network.close()
        await server.close()
