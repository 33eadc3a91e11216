"""The partial replica: what it holds is answered as a server answers it, whatever happens to servers and network."""

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest

from lictor.agent.replica import NotCoverable
from lictor.model.command import Deregister, KVWrite, Reap, Register, Restore, RestorePart
from lictor.model.errors import NoLeader
from lictor.model.node import Node
from lictor.model.service import NodeService
from lictor.model.transport import Caller
from lictor.server import subscriptions, subscriptions_session
from lictor.store import partial, snapshot
from lictor.store import partial_messages as wire
from lictor.store.reads import catalog, health, kv
from lictor.store.store import Store
from lictor.store.watch import Dependent
from tests.agent.replicas import Member, Place, World, answer_of, simulated, until
from tests.store.random_commands import READS, Dice


def web(node: str = "n1", port: int = 80) -> Register:
    return Register(Node(node=node, address="10.0.0.9"), NodeService(id="web", service="web", port=port))


class Told(Dependent):
    """Counts how often it was told; looks again with `look`."""

    def __init__(self, store: Store, *seen: tuple[str, ...]) -> None:
        self.seen = ()
        self.count = 0
        self.indexes: list[int] = []
        self._store, self._topics = store, seen
        store.watches.add(self, seen)

    def changed(self) -> None:
        self.count += 1
        self.indexes.append(self._store.index)
        self._store.watches.add(self, self._topics)


@pytest.mark.parametrize("seed", [*range(4), 1003, 1005])
def test_every_read_is_answered_as_a_server_does(seed: int) -> None:
    """Random writes at servers that are behind each other, replicas that look at more and more, forget, and change
    their server; connections that break.
    """

    async def scenario(world: World) -> None:
        chance, dice = world.chance, Dice(seed)
        for _ in range(3):
            world.server()
        members = [Member(world, f"10.0.1.{n}:1", ttl=chance.choice((3.0, 3600.0))) for n in range(4)]
        newest: dict[tuple[int, str], int] = {}
        tasks: list[asyncio.Task[object]] = []

        def look(number: int, member: Member) -> None:
            for name in READS:
                answer = answer_of(member.store, name)
                holdings = member.replica._held.topics
                if all(topic in holdings and holdings[topic].covered for topic in answer.seen):
                    assert answer.index >= newest.get((number, name), 0), f"{name} goes back"
                    newest[number, name] = answer.index

        for _ in range(150):
            for _ in range(chance.randrange(4)):
                world.log.append(dice.command())
            for place in world.places:
                if chance.random() < 0.6:
                    place.advance(chance.randint(place.applied, len(world.log)))
            member = chance.choice(members)
            roll = chance.random()
            if roll < 0.3:
                tasks.append(asyncio.create_task(_try(member, chance.choice(list(READS)))))
            elif roll < 0.36:
                member.move()
            elif roll < 0.4:
                world.network.break_some(0.3)
            for number, one in enumerate(members):
                look(number, one)
            await asyncio.sleep(chance.choice((0.0, 0.001, 0.05, 0.5)))
        world.catch_up()
        await asyncio.gather(*tasks)
        index = world.places[0].store.index
        for number, member in enumerate(members):
            await until(lambda m=member: not m.replica.active or m.replica.index == index, f"member {number}")  # type: ignore[misc]
            look(number, member)
            for name in READS:
                await member.replica.read(READS[name])
                expected, found = answer_of(world.places[0].store, name), answer_of(member.store, name)
                assert member.replica.covers(found.seen), name
                assert found.seen == expected.seen, name
                assert (found.value, found.index) == (expected.value, expected.index), name
        for member in members:
            await member.replica.close()
        await until(lambda: all(place.subscriptions.sessions == 0 for place in world.places))
        for place in world.places:
            assert place.subscriptions.topics == 0
            assert len(place.store.watches) == 0
            await place.subscriptions.close()

    simulated(scenario, seed)


async def _try(member: Member, name: str) -> None:
    try:
        await member.replica.read(READS[name])
    except (NoLeader, NotCoverable):
        return


def test_a_change_is_looked_at_and_encoded_once_for_a_thousand_agents() -> None:
    async def scenario(world: World) -> None:
        place = world.server()
        world.write(web())
        members = [Member(world, f"10.1.{n // 250}.{n % 250}:1") for n in range(1000)]
        await asyncio.gather(*(m.replica.read(health.service, "web", (), {}) for m in members))
        assert place.subscriptions.sessions == 1000
        assert place.subscriptions.topics == 1
        looks, changes = place.subscriptions.looks, place.subscriptions.changes
        world.write(web(port=81))
        index = place.store.index
        await until(lambda: all(m.replica.index >= index for m in members))
        assert place.subscriptions.looks == looks + 1
        assert place.subscriptions.changes == changes + 1
        for member in members:
            rows = member.store.read(health.service, "web", (), {}).value
            assert [row.service.port for row in rows] == [81]
            await member.replica.close()

    simulated(scenario)


def test_a_flush_takes_effect_at_once_and_is_told_once() -> None:
    async def scenario(world: World) -> None:
        place = world.server()
        member = Member(world, "10.0.1.1:1")
        world.write(web("n1"), web("n2"))
        await member.replica.read(health.service, "web", (), {})
        await member.replica.read(catalog.node_services, "n1")
        told = Told(member.store, ("service", "web"), ("node", "n1"))
        world.write(web("n1", 1), web("n2", 2), Deregister("n1"))
        await until(lambda: member.replica.index == place.store.index)
        assert told.count == 1
        assert told.indexes == [place.store.index]
        assert [r.service.port for r in member.store.read(health.service, "web", (), {}).value] == [2]
        await member.replica.close()

    simulated(scenario)


def test_what_is_held_is_answered_while_the_servers_are_away_and_its_age_grows() -> None:
    async def scenario(world: World) -> None:
        place = world.server()
        world.write(web())
        member = Member(world, "10.0.1.1:1", ttl=5.0)
        assert member.replica.age == float("inf")
        await member.replica.read(health.service, "web", (), {})
        await asyncio.sleep(4.0)
        assert member.replica.age < 2.0, "the server is heard of all the time"
        told = Told(member.store, ("service", "web"))
        await place.vanish()
        await asyncio.sleep(600.0)
        assert not member.replica.ready
        assert 590.0 < member.replica.age < 610.0
        answer = member.store.read(health.service, "web", (), {})
        assert len(answer.value) == 1
        assert told.count == 0, "nothing is forgotten that could not be had again"
        with pytest.raises(NoLeader):
            await member.replica.read(health.service, "db", (), {})
        with pytest.raises(NoLeader):
            await member.replica.confirm(False)
        assert member.replica.topics == 1, "what could not be had is not held"
        world.write(web(port=99))
        place.return_()
        await until(lambda: member.replica.index == place.store.index)
        assert [r.service.port for r in member.store.read(health.service, "web", (), {}).value] == [99]
        assert member.replica.age < 2.0
        await member.replica.close()

    simulated(scenario)


def test_a_server_without_a_leader_goes_on_telling_what_it_has_with_its_age() -> None:
    async def scenario(world: World) -> None:
        place = world.server()
        world.write(web())
        member = Member(world, "10.0.1.1:1")
        await member.replica.read(health.service, "web", (), {})
        place.consensus.leader, place.consensus.last_contact = "", 30.0
        await until(lambda: not member.replica.knows_leader)
        assert member.replica.age < 2.5, "it was the newest a moment ago"
        await asyncio.sleep(5.0)
        place.consensus.last_contact = 35.0
        assert member.replica.ready
        with pytest.raises(NoLeader):
            await member.replica.read(health.service, "db", (), {})
        assert member.replica.topics == 1
        place.consensus.leader, place.consensus.last_contact = "10.0.0.1:8300", 0.0
        assert (await member.replica.read(health.service, "db", (), {})).value == []
        await member.replica.close()

    simulated(scenario)


def test_a_first_answer_has_all_that_was_acknowledged() -> None:
    """The server that is followed is behind: it is waited for."""

    async def scenario(world: World) -> None:
        place = world.server()
        member = Member(world, "10.0.1.1:1")
        world.log.append(web())
        asyncio.get_running_loop().call_later(1.0, world.catch_up)
        answer = await member.replica.read(health.service, "web", (), {})
        assert len(answer.value) == 1
        world.log.append(web(port=81))
        asyncio.get_running_loop().call_later(1.0, world.catch_up)
        await member.replica.confirm(False)
        assert [r.service.port for r in member.store.read(health.service, "web", (), {}).value] == [81]
        assert place.confirmed == 2
        world.log.append(web(port=82))
        asyncio.get_running_loop().call_later(1.0, world.catch_up)
        await member.replica.reach(place.store.index + 1)
        assert [r.service.port for r in member.store.read(health.service, "web", (), {}).value] == [82]
        await member.replica.close()

    simulated(scenario)


def test_a_server_that_is_behind_is_waited_for_and_then_left() -> None:
    async def scenario(world: World) -> None:
        first, second, third = world.server(), world.server(), world.server()
        world.write(web())
        member = Member(world, "10.0.1.1:1")
        member.server = first.address
        await member.replica.read(health.service, "web", (), {})
        world.log.append(web(port=81))
        first.advance(2)
        await until(lambda: member.replica.index == first.store.index)
        told = Told(member.store, ("service", "web"))
        member.server = second.address
        await until(lambda: member.replica.server == second.address)
        await asyncio.sleep(1.0)
        assert member.replica.index == first.store.index
        assert [r.service.port for r in member.store.read(health.service, "web", (), {}).value] == [81]
        second.advance(2)
        await until(lambda: member.replica.age < 1.0)
        assert told.count == 0, "nothing has changed"
        member.server = third.address
        await until(lambda: member.failures > 0)
        assert member.store.read(health.service, "web", (), {}).index == first.store.index
        await member.replica.close()

    simulated(scenario)


def test_who_comes_back_is_told_what_has_changed_and_of_the_rest_nothing() -> None:
    async def scenario(world: World) -> None:
        place = world.server()
        world.write(web(), KVWrite("set", "a", b"1"), KVWrite("set", "b", b"1"))
        member = Member(world, "10.0.1.1:1")
        for key in ("a", "b"):
            await member.replica.read(kv.entry, key)
        await member.replica.read(health.service, "web", (), {})
        told = {topic: Told(member.store, topic) for topic in (("kv", "a"), ("kv", "b"), ("service", "web"))}
        await place.vanish()
        await until(lambda: not member.replica.ready)
        world.write(KVWrite("delete", "a"), Reap(10))
        place.return_()
        await until(lambda: member.replica.index == place.store.index)
        assert told["service", "web"].count == 0
        assert told["kv", "a"].count > 0
        for key in ("a", "b"):
            assert member.store.read(kv.entry, key) == place.store.read(kv.entry, key)
        await member.replica.close()

    simulated(scenario)


def test_an_agent_that_takes_nothing_begins_anew_and_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscriptions_session, "QUEUE_BYTES", 2000)

    async def scenario(world: World) -> None:
        place = world.server()
        members = [Member(world, f"10.0.1.{n}:1") for n in (1, 2)]
        slow, quick = members
        for member in members:
            await member.replica.read(kv.tree, "a/")
            await member.replica.read(kv.entry, "b")
        world.network.cut.add((place.address, "10.0.1.1:1"))
        session = next(iter(place.subscriptions._agents.values())).session
        for number in range(200):
            world.write(KVWrite("set", f"a/{number % 7}", b"%d" % number * 50))
            await asyncio.sleep(0.002)
            assert all(agent.session.queued < 4000 for agent in place.subscriptions._agents.values())
        await until(lambda: quick.replica.index == place.store.index)
        assert slow.replica.index < place.store.index
        assert session.overflows > 0
        world.network.cut.clear()
        await until(lambda: slow.replica.index == place.store.index)
        for member in members:
            assert member.store.read(kv.tree, "a/") == place.store.read(kv.tree, "a/")
            await member.replica.close()

    simulated(scenario)


def test_what_nobody_looks_at_goes() -> None:
    async def scenario(world: World) -> None:
        place = world.server()
        world.write(web(), KVWrite("set", "a", b"1"))
        member = Member(world, "10.0.1.1:1", ttl=100.0)
        await member.replica.read(health.service, "web", (), {})
        await member.replica.read(kv.entry, "a")
        forgotten = Told(member.store, ("kv", "a"))
        looked = 0

        class Cached(Dependent):
            """An answer that is asked for again whenever it has gone."""

            def changed(self) -> None:
                nonlocal looked
                looked += 1
                member.store.watches.add(self, (("service", "web"),))
                assert member.replica.covers((("service", "web"),))

        member.store.watches.add(Cached(), (("service", "web"),))
        await asyncio.sleep(99.0)
        assert member.replica.topics == 2, "nothing goes before its time"
        await asyncio.sleep(900.0)
        assert member.replica.topics == 1
        assert member.replica.dropped == 1
        assert 35 <= looked <= 80
        assert forgotten.count == 2, "it is told when the topic grows old, and when it goes"
        assert len(member.store.kv) == 0
        assert member.replica.rows == 2
        await until(lambda: place.subscriptions.topics == 1)
        await member.replica.close()

    simulated(scenario)


def test_too_many_topics_are_not_held() -> None:
    async def scenario(world: World) -> None:
        place = world.server()
        member = Member(world, "10.0.1.1:1", topics_most=20)
        world.write(*(KVWrite("set", f"k{number}", b"1") for number in range(20)))
        for number in range(20):
            await member.replica.read(kv.entry, f"k{number}")
        with pytest.raises(NotCoverable):
            await member.replica.read(kv.entry, "one more")
        await asyncio.sleep(15.0)
        await member.replica.read(kv.entry, "k0")
        await member.replica.read(kv.entry, "one more")
        assert member.replica.topics == 20
        assert member.replica.covers((("kv", "k0"), ("kv", "one more")))
        assert not member.replica.covers((("kv", "k1"),))
        await until(lambda: place.subscriptions.topics == 20)
        await member.replica.close()

    simulated(scenario)


def test_what_does_not_exist_takes_no_room_from_what_does() -> None:
    async def scenario(world: World) -> None:
        place = world.server()
        member = Member(world, "10.0.1.1:1", topics_most=160)
        world.write(*(KVWrite("set", f"k{number}", b"1") for number in range(130)))
        for number in range(130):
            await member.replica.read(kv.entry, f"k{number}")
        await member.replica.read(kv.entry, "wanted")
        for number in range(500):
            await member.replica.read(kv.entry, f"made up {number}")
            assert member.replica.covers((("kv", "wanted"),)), "it is looked at all the time"
        assert member.replica.topics == 160
        assert member.replica.covers([("kv", f"k{number}") for number in range(130)])
        assert member.replica.covers((("kv", "made up 499"),))
        world.write(KVWrite("set", "wanted", b"1"), KVWrite("set", "made up 499", b"1"))
        await until(lambda: len(member.store.kv) == 132)
        for number in range(500, 600):
            await member.replica.read(kv.entry, f"made up {number}")
        assert member.replica.covers((("kv", "wanted"), ("kv", "made up 499"))), "they exist now"
        await until(lambda: place.subscriptions.topics == 160)
        await member.replica.close()

    simulated(scenario)


def test_nothing_goes_while_the_servers_are_away_however_long() -> None:
    async def scenario(world: World) -> None:
        place = world.server()
        world.write(web())
        member = Member(world, "10.0.1.1:1", ttl=100.0)
        await member.replica.read(health.service, "web", (), {})
        await place.vanish()
        await until(lambda: not member.replica.ready)
        await asyncio.sleep(10_000.0)
        assert member.replica.covers((("service", "web"),))
        place.return_()
        await until(lambda: member.replica.ready)
        assert member.replica.covers((("service", "web"),))
        await until(lambda: member.replica.topics == 0, seconds=300.0)
        assert member.replica.dropped == 1
        await member.replica.close()

    simulated(scenario)


def test_another_limit_holds_at_once() -> None:
    async def scenario(world: World) -> None:
        world.server()
        world.write(web())
        member = Member(world, "10.0.1.1:1", ttl=100_000.0)
        await member.replica.read(health.service, "web", (), {})
        await asyncio.sleep(1000.0)
        assert member.replica.topics == 1
        member.replica.configure(10.0, 1.0, 1)
        await until(lambda: member.replica.topics == 0, seconds=30.0)
        await member.replica.close()

    simulated(scenario)


def test_one_topic_is_asked_for_no_more_often_than_allowed() -> None:
    async def scenario(world: World) -> None:
        world.server()
        member = Member(world, "10.0.1.1:1", topics_most=4, rate=0.5, burst=2)
        loop = asyncio.get_running_loop()
        for number in range(40):  # two topics that push each other out
            await member.replica.read(kv.entry, f"k{number % 2}")
            took = loop.time()
        assert 30.0 < took < 45.0, "twenty times each, two of them at once, one each 2 s"
        await member.replica.close()

    simulated(scenario)


def test_what_is_too_large_is_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(world: World) -> None:
        world.server()
        many = [KVWrite("set", f"a/{n}", b"v") for n in range(partial.SOME - 10)]
        world.write(*many)
        member = Member(world, "10.0.1.1:1")
        with pytest.raises(NotCoverable):
            await member.replica.want([("agent", "members"), ("no", "such")])
        assert not member.replica.active
        assert len((await member.replica.read(kv.tree, "a/")).value) == len(many)
        told = Told(member.store, ("kv/", "a/"))
        world.write(*(KVWrite("set", f"a/more{n}", b"v") for n in range(20)))
        await until(lambda: not member.replica.covers((("kv/", "a/"),)))
        assert told.count > 0
        with pytest.raises(NotCoverable):
            await member.replica.read(kv.tree, "a/")
        with pytest.raises(NotCoverable):
            member.replica.check([("kv", "b"), ("kv/", "a/")])
        assert len(member.store.kv) == 0
        with pytest.raises(NotCoverable):
            await member.replica.read(kv.tree, "")
        await member.replica.close()

    simulated(scenario)


def test_long_topics_come_in_pieces() -> None:
    async def scenario(world: World) -> None:
        place = world.server()
        world.write(*(web(f"n{number}") for number in range(2000)))
        member = Member(world, "10.0.1.1:1")
        reading = asyncio.create_task(member.replica.read(health.service, "web", (), {}))
        while not reading.done():
            await asyncio.sleep(0.001)
            if place.subscriptions.pieces % 3 == 1:
                world.write(web(f"n{len(world.log) % 2000}", len(world.log)))
        assert place.subscriptions.pieces > 5
        await until(lambda: member.replica.index == place.store.index)
        assert member.store.read(health.service, "web", (), {}) == place.store.read(health.service, "web", (), {})
        await member.replica.close()

    simulated(scenario)


def test_what_a_recovery_has_lost_is_not_held_on() -> None:
    async def scenario(world: World) -> None:
        place = world.server()
        world.write(web(port=1))
        place.advance(1)
        member = Member(world, "10.0.1.1:1")
        await member.replica.read(health.service, "web", (), {})
        world.write(KVWrite("set", "k", b"1"), web(port=2))  # only servers that are lost for good had this
        await until(lambda: member.replica.index == place.store.index)
        await place.vanish()
        place.store, place.applied = Store(), 0
        world.log[1:] = [KVWrite("set", "other", b"%d" % number) for number in range(5)]
        place.return_()
        world.catch_up()
        await until(lambda: member.replica.index == place.store.index)
        assert [row.service.port for row in member.store.read(health.service, "web", (), {}).value] == [1]
        await member.replica.close()

    simulated(scenario)


def test_another_cluster_takes_the_place_of_the_former() -> None:
    async def scenario(world: World) -> None:
        place = world.server()
        world.write(web("n1"), web("n2"), KVWrite("set", "a", b"1"))
        member = Member(world, "10.0.1.1:1")
        await member.replica.read(health.service, "web", (), {})
        await member.replica.read(kv.entry, "a")
        await place.vanish()
        await until(lambda: not member.replica.ready)
        world.log.clear()
        place.store, place.applied = Store(), 0
        place.consensus.cluster = "another"
        world.write(web("n3"))
        place.return_()
        await until(lambda: member.replica.ready and member.replica.index == place.store.index)
        for read in (READS["health web"], READS["key a"]):
            assert msgspec.json.encode(member.store.read(read)) == msgspec.json.encode(place.store.read(read))
        assert len(member.store.nodes) == 1
        await member.replica.close()

    simulated(scenario)


def test_a_state_that_takes_the_place_of_the_servers_reaches_the_replicas() -> None:
    """By a restore, which everybody applies, and by a snapshot that a server which was far behind is sent."""

    async def scenario(world: World) -> None:
        place = world.server()
        world.write(*Dice(1).script(60))
        state = b"".join(snapshot.Image(place.store).encode())
        world.write(*Dice(2).script(60))
        member = Member(world, "10.0.1.1:1")
        for read in READS.values():
            await member.replica.read(read)
        world.write(RestorePart("t", 0, state), Restore("t", 1))
        await _alike(member, place)
        world.write(*Dice(3).script(60))
        other = world.server()
        other.advance(len(world.log))
        await snapshot.load_pieces(place.store, snapshot.Image(other.store).encode())
        await _alike(member, place)
        assert place.store.index == other.store.index
        await member.replica.close()

    async def _alike(member: Member, place: Place) -> None:
        await until(lambda: member.replica.index == place.store.index)
        for name, read in READS.items():
            await member.replica.read(read)
            assert answer_of(member.store, name) == answer_of(place.store, name), name

    simulated(scenario)


def test_topics_that_come_and_go_quickly_are_held_in_the_end() -> None:
    async def scenario(world: World) -> None:
        place = world.server()
        member = Member(world, "10.0.1.1:1")
        world.write(web())
        await member.replica.read(kv.entry, "keep")
        for number in range(50):
            reading = asyncio.create_task(member.replica.read(health.service, "web", (), {}))
            await asyncio.sleep(world.chance.choice((0.0, 0.001, 0.003, 0.01)))
            world.write(web(port=number))
            if number % 2:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
            else:
                await reading
            holding = member.replica._held.topics.get(("service", "web"))
            if holding is not None and holding.covered:
                member.replica._forget(holding)
        answer = await member.replica.read(health.service, "web", (), {})
        await until(lambda: member.replica.index == place.store.index)
        assert member.store.read(health.service, "web", (), {}) == place.store.read(health.service, "web", (), {})
        assert answer.value
        assert member.replica._held.leaving == {}
        await member.replica.close()

    simulated(scenario)


def test_news_that_cannot_be_read_change_nothing() -> None:
    async def scenario(world: World) -> None:
        place = world.server()
        world.write(web())
        member = Member(world, "10.0.1.1:1")
        member.server = place.address
        answer = await member.replica.read(health.service, "web", (), {})
        state = wire.State(10**9, 0, 0, 0.0, True, True, "cluster")
        topic, nothing = ("service", "web"), wire.packed({})
        unknown, odd = wire.packed({"no such": []}), {"nodes": msgspec.Raw(b"\xc1")}
        gone = wire.packed({"nodes": ["n1"], "services": [("n1", "web")]})
        bad: list[object] = [
            wire.Change(topic, 9, 9, unknown, nothing, gone),
            wire.Change(topic, 9, 9, nothing, unknown, gone),
            wire.Change(topic, 9, 9, nothing, nothing, gone | unknown),
            wire.Change(topic, 9, 9, odd, nothing, gone),
            wire.Change(topic, 9, 9, nothing, nothing, odd),
            ["change", topic, -1, "x"],
            ["what", 1],
        ]
        pieces = [b"", b"\xc1", *(wire.encode((state, [message])) for message in bad)]
        served = 0

        async def follow(caller: Caller, body: bytes) -> AsyncIterator[bytes]:
            nonlocal served
            served += 1
            yield pieces[served % len(pieces)]

        world.join("10.0.0.66:8300").on_stream(wire.FOLLOW, follow)
        member.server = "10.0.0.66:8300"
        await until(lambda: served > len(pieces), seconds=600.0)
        assert member.store.read(health.service, "web", (), {}) == answer
        assert member.replica.index == place.store.index
        member.server = place.address
        world.write(web(port=81))
        await until(lambda: member.replica.index == place.store.index)
        assert [r.service.port for r in member.store.read(health.service, "web", (), {}).value] == [81]
        await member.replica.close()

    simulated(scenario)


def test_sessions_that_take_nothing_for_long_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(world: World) -> None:
        place = world.server()
        member = Member(world, "10.0.1.1:1")
        await member.replica.read(kv.entry, "a")
        monkeypatch.setattr(world.network, "patience", lambda: 10_000.0)
        world.network.cut |= {(place.address, "10.0.1.1:1"), ("10.0.1.1:1", place.address)}
        await asyncio.sleep(2 * subscriptions.IDLE)
        assert place.subscriptions.sessions == 0
        assert len(place.store.watches) == 0
        await member.replica.close()

    simulated(scenario)
