"""What is kept of a replica: who goes on from it is where it would be without the restart, however old it is."""

import asyncio
import contextlib
import hashlib

import msgspec
import pytest

from lictor.agent import replica_image
from lictor.agent.replica_image import MAGIC, Found, Moment, read_image
from lictor.model.command import KVWrite, QuerySet, Register, Restore, RestorePart, SessionCreate
from lictor.model.errors import NoLeader
from lictor.model.node import Node
from lictor.model.prepared_query import PreparedQuery, ServiceQuery
from lictor.model.service import NodeService
from lictor.model.session import Session
from lictor.store import snapshot
from lictor.store.reads import catalog, health, kv, prepared_queries, sessions
from lictor.store.store import Store
from lictor.store.watch import Topic
from tests.agent.replicas import Member, World, answer_of, simulated, until
from tests.store.random_commands import READS, Dice

THEN = Moment(1000.0, "boot", 50.0)
LATER = Moment(1100.0, "boot", 150.0)
SESSION = "aaaaaaaa-0000-0000-0000-000000000001"
QUERY = "bbbbbbbb-0000-0000-0000-000000000001"


def web(node: str = "n1", port: int = 80) -> Register:
    return Register(Node(node=node, address="10.0.0.9"), NodeService(id="web", service="web", port=port))


def everything(topic: Topic) -> bool:
    return True


def kept(member: Member) -> bytes:
    return member.replica.image("dc1", THEN).encode()


def resumed(world: World, data: bytes, at: Moment) -> Member:
    member = Member(world, "10.0.1.2:1")
    member.replica.resume(read_image(data, "dc1"), at)
    return member


@pytest.mark.parametrize("seed", range(8))
def test_a_replica_that_goes_on_from_any_earlier_image_is_as_if_it_had_never_ended(seed: int) -> None:
    """Random writes, restored snapshots among them, at servers that are behind each other and sometimes of a short
    memory; agents that crash and go on from what they had kept at any time before.
    """

    async def scenario(world: World) -> None:
        chance, dice = world.chance, Dice(seed)
        keeps = chance.choice((everything, replica_image.may_be_kept))
        for _ in range(2):
            place = world.server()
            place.subscriptions._topics._changes._most = chance.choice((0, 60))
        member = Member(world, "10.0.1.0:1")
        images: list[bytes] = []
        restarts = 0
        for name in chance.sample(list(READS), 20):
            await member.replica.read(READS[name])
        for step in range(120):
            for _ in range(chance.randrange(4)):
                world.log.append(dice.command())
            if chance.random() < 0.01:
                state = b"".join(snapshot.Image(world.places[0].store).encode())
                world.log += [RestorePart(f"t{step}", 0, state), Restore(f"t{step}", 1)]
            for place in world.places:
                if chance.random() < 0.6:
                    place.advance(chance.randint(place.applied, len(world.log)))
            roll = chance.random()
            if roll < 0.4:
                with contextlib.suppress(NoLeader):
                    await member.replica.read(READS[chance.choice(list(READS))])
            elif roll < 0.6:
                images.append(member.replica.image("dc1", THEN, keeps).encode())
            elif roll < 0.7 and images:
                await member.replica.close()
                member = Member(world, f"10.0.1.{step + 1}:1")
                member.replica.resume(read_image(chance.choice(images), "dc1", keeps), THEN)
                restarts += 1
            await asyncio.sleep(chance.choice((0.0, 0.05, 0.5, 5.0)))
        assert restarts > 3
        world.catch_up()
        index = world.places[0].store.index
        await until(lambda: not member.replica.active or member.replica.index == index)
        checked = 0
        for name in READS:
            found = answer_of(member.store, name)
            if member.replica.covers(found.seen):
                checked += 1
                expected = answer_of(world.places[0].store, name)
                assert (found.value, found.index) == (expected.value, expected.index), name
        assert checked > 3
        await member.replica.close()

    simulated(scenario, seed)


def test_without_servers_it_is_answered_from_with_its_age_and_its_indexes() -> None:
    async def scenario(world: World) -> None:
        place = world.server()
        world.write(web(), web("n2", 81))
        member = Member(world, "10.0.1.1:1")
        before = await member.replica.read(health.service, "web", (), {})
        data = kept(member)
        await member.replica.close()
        await place.vanish()

        again = resumed(world, data, Moment(9999.0, "boot", 80.0))
        answer = await again.replica.read(health.service, "web", (), {})
        assert (answer.value, answer.index) == (before.value, before.index)
        assert 30.0 <= again.replica.age < 32.0
        await until(lambda: again.replica.age > 100.0)
        with pytest.raises(NoLeader):
            await again.replica.read(health.service, "db", (), {})

        # What has changed meanwhile is told, and nothing else.
        world.write(web("n2", 82))
        place.return_()
        pieces = place.subscriptions.pieces
        await until(lambda: again.replica.index == place.store.index)
        assert sorted(r.service.port for r in again.store.read(health.service, "web", (), {}).value) == [80, 82]
        assert again.replica.age < 2.0
        assert again.replica.changes == 1 and place.subscriptions.pieces >= pieces
        await again.replica.close()

    simulated(scenario)


def test_what_is_of_another_cluster_is_replaced_whole() -> None:
    async def scenario(world: World) -> None:
        place = world.server()
        world.write(*(web(f"n{number}") for number in range(5)))
        member = Member(world, "10.0.1.1:1")
        await member.replica.read(health.service, "web", (), {})
        await member.replica.read(catalog.node_services, "n1")
        data = kept(member)
        await member.replica.close()

        # The other one has got as far, by other commands.
        await place.vanish()
        place.consensus.cluster = "another"
        place.store, place.applied = Store(), 0
        world.log = [web("m1", 99), *(KVWrite("set", "k", b"v") for _ in range(20))]
        place.return_()
        world.catch_up()
        again = resumed(world, data, LATER)
        assert len(again.store.read(health.service, "web", (), {}).value) == 5
        await until(lambda: again.replica.age < 2.0)
        found = again.store.read(health.service, "web", (), {})
        assert [row.service.port for row in found.value] == [99]
        assert found.index == place.store.read(health.service, "web", (), {}).index
        assert len(again.store.nodes) == 1, "nothing is left of the former"
        assert again.replica.index == place.store.index
        await again.replica.close()

    simulated(scenario)


def test_another_release_is_answered_from_and_told_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(world: World) -> None:
        place = world.server()
        world.write(web())
        member = Member(world, "10.0.1.1:1")
        await member.replica.read(health.service, "web", (), {})
        with monkeypatch.context() as patch:
            patch.setattr(replica_image, "__version__", "0.0.1")
            data = kept(member)
        assert read_image(data, "dc1").cluster == ""
        await member.replica.close()
        again = resumed(world, data, LATER)
        assert len((await again.replica.read(health.service, "web", (), {})).value) == 1
        await until(lambda: again.replica.age < 2.0)
        assert again.replica.changes == 1, "the topic came whole"
        assert again.replica.index == place.store.index
        await again.replica.close()

    simulated(scenario)


def test_what_may_be_secret_is_not_in_it() -> None:
    async def scenario(world: World) -> None:
        world.server()
        query = PreparedQuery(id=QUERY, name="q", service=ServiceQuery(service="web"), token="query-token")
        world.write(
            web(),
            KVWrite("set", "key-name", b"kv-value"),
            SessionCreate(Session(id=SESSION, node="n1", name="session-name")),
            QuerySet(query),
        )
        member = Member(world, "10.0.1.1:1")
        await member.replica.read(kv.entry, "key-name")
        await member.replica.read(kv.tree, "")
        await member.replica.read(sessions.session, SESSION)
        await member.replica.read(sessions.sessions)
        await member.replica.read(sessions.sessions_of_node, "n1")
        await member.replica.read(prepared_queries.query, QUERY)
        await member.replica.read(health.service, "web", (), {})
        data = kept(member)
        await member.replica.close()
        for secret in (b"kv-value", b"key-name", b"session-name", SESSION.encode(), b"query-token"):
            assert secret not in data
        assert QUERY.encode() in data

        # The query is whole again as soon as a server answers.
        again = resumed(world, data, LATER)
        found = await again.replica.read(prepared_queries.query, QUERY)
        assert found.value == msgspec.structs.replace(query, token="", **_indexes(found.value))
        await until(lambda: again.replica.age < 2.0)
        found = await again.replica.read(prepared_queries.query, QUERY)
        assert found.value is not None and found.value.token == "query-token"
        await again.replica.close()

    simulated(scenario)


def _indexes(query: PreparedQuery | None) -> dict[str, int]:
    assert query is not None
    return {"create_index": query.create_index, "modify_index": query.modify_index}


def test_what_nobody_had_looked_at_for_its_time_is_let_go_of() -> None:
    async def scenario(world: World) -> None:
        world.server()
        world.write(web())
        member = Member(world, "10.0.1.1:1")
        await member.replica.read(health.service, "web", (), {})
        await member.replica.read(catalog.node_services, "n1")
        await asyncio.sleep(100.0)
        member.replica.covers((("service", "web"),))
        data = kept(member)
        await member.replica.close()
        again = Member(world, "10.0.1.2:1", ttl=60.0)
        again.replica.resume(read_image(data, "dc1"), THEN)
        assert again.replica.covers((("service", "web"),))
        assert again.replica.topics == 1
        await again.replica.close()

    simulated(scenario)


def test_where_not_all_has_room_who_may_talk_to_whom_comes_first() -> None:
    async def scenario(world: World) -> None:
        world.server()
        world.write(web(), *(web(f"n{number}") for number in range(100)))
        member = Member(world, "10.0.1.1:1")
        await member.replica.read(health.service, "web", (), {})
        await member.replica.read(READS["intentions to web"])
        image = member.replica.image("dc1", THEN)
        assert {one.topic[0] for one in read_image(image.encode(), "dc1").topics} >= {"service", "config"}
        assert {one.topic[0] for one in read_image(image.encode(2000), "dc1").topics} == {"config"}
        await member.replica.close()

    simulated(scenario)


def test_what_is_torn_damaged_or_of_others_says_so() -> None:
    async def scenario(world: World) -> None:
        world.server()
        world.write(web())
        member = Member(world, "10.0.1.1:1")
        await member.replica.read(health.service, "web", (), {})
        data = kept(member)
        await member.replica.close()
        assert isinstance(read_image(data, "dc1"), Found)
        start = len(MAGIC) + 32
        for length in range(len(data)):
            with pytest.raises(ValueError, match="format|checksum"):
                read_image(data[:length], "dc1")
        for at in range(len(data)):
            with pytest.raises(ValueError, match="format|checksum"):
                read_image(data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :], "dc1")
        with pytest.raises(ValueError, match='it is of datacenter "dc1", this agent of "dc2"'):
            read_image(data, "dc2")
        # What has a checksum and is nonsense all the same.
        refused = 0
        for at in range(start, len(data)):
            body = data[start:at] + bytes([data[at] ^ 0x15]) + data[at + 1 :]
            try:
                read_image(MAGIC + hashlib.sha256(body).digest() + body, "dc1")
            except ValueError:
                refused += 1
        assert refused > len(data) // 10

    simulated(scenario)


@pytest.mark.parametrize(
    ("now", "seconds"),
    [
        (Moment(1010.0, "boot", 60.0), 10.0),
        (Moment(5.0, "boot", 60.0), 10.0),  # the clock was set back meanwhile
        (Moment(10.0**9, "boot", 60.0), 10.0),
        (Moment(1010.0, "another", 3.0), 10.0),
        (Moment(5.0, "another", 3.0), 0.0),
        (Moment(1010.0), 10.0),
    ],
)
def test_the_time_from_one_run_to_the_next(now: Moment, seconds: float) -> None:
    assert THEN.until(now) == seconds
