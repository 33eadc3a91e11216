"""Replicas together: agreement, exactly once, changes of leader and of members, snapshots, restarts."""

import asyncio
import random
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import msgspec
import pytest

from lictor.model.errors import NoLeader, NotLeader, Refused
from lictor.model.transport import Caller, OnMessage
from lictor.raft.consensus import Peer, ServerChange
from lictor.raft.core.message import APPEND_THREAD, APPLY_THREAD, Entry, EntryKind, Message, MessageKind
from lictor.raft.envelope import MESSAGES, UNREADABLE, decode_envelope, encode, pack
from lictor.raft.settings import RaftSettings
from tests.raft.replicas import QUICK, Cluster, soon, until


@pytest.fixture
async def three(tmp_path: Path) -> AsyncIterator[Cluster]:
    cluster = Cluster(tmp_path)
    await cluster.form("a", "b", "c")
    yield cluster
    await cluster.stop()


async def test_what_is_proposed_anywhere_is_applied_everywhere_once(three: Cluster) -> None:
    await three.leader()
    results = await soon(
        asyncio.gather(*(three.places[n % 3].replica.propose(b"line %d" % n, 30.0) for n in range(300)))
    )
    assert sorted(results) == list(range(1, 301))
    await three.same(300)
    assert sorted(three.places[0].machine.lines) == sorted(b"line %d" % n for n in range(300))


async def test_a_single_server_forms_restarts_and_goes_on(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    await cluster.form("a")
    (place,) = cluster.places
    for n in range(20):
        await soon(place.replica.propose(b"%d" % n, 30.0))
    await place.stop()
    await place.start()
    await soon(place.replica.propose(b"more", 30.0))
    assert place.machine.lines == [b"%d" % n for n in range(20)] + [b"more"]
    await cluster.stop()


async def test_a_long_log_is_applied_to_its_end_after_a_restart(tmp_path: Path) -> None:
    """It takes many turns of the loop, in which nothing else comes that would have it go on."""
    cluster = Cluster(tmp_path)
    await cluster.form("a")
    (place,) = cluster.places
    for first in range(0, 3000, 300):
        await soon(asyncio.gather(*(place.replica.propose(b"%d" % n, 30.0) for n in range(first, first + 300))))
    await place.stop()
    await place.start()
    await until(lambda: place.replica.is_leader, "all of it is applied")
    assert len(place.machine.lines) == 3000
    await cluster.stop()


async def test_all_stop_and_start_again(three: Cluster) -> None:
    await three.leader()
    for n in range(30):
        await soon(three.places[n % 3].replica.propose(b"%d" % n, 30.0))
    for place in three.places:
        await place.stop()
    for place in three.places:
        await place.start()
    await three.same(30)
    await soon(three.places[0].replica.propose(b"more", 30.0))
    await three.same(31)


async def test_a_lost_leader_is_replaced_and_nothing_is_applied_twice(three: Cluster) -> None:
    first = await three.leader()
    rest = [place for place in three.places if place is not first]
    writing = [
        asyncio.create_task(place.replica.propose(b"%s %d" % (place.name.encode(), n), 30.0))
        for n in range(200)
        for place in rest
    ]
    await asyncio.sleep(0)
    three.wire.isolate(first.address)
    await soon(asyncio.gather(*writing))
    with pytest.raises(NoLeader):
        await soon(first.replica.propose(b"lost", 0.1))
    three.wire.cut.clear()
    await three.same(400)
    assert len(set(rest[0].machine.lines)) == len(rest[0].machine.lines)
    second = await three.leader()
    assert second is not first or second.replica.term > 1


async def test_what_a_leader_proposes_for_its_own_leadership_ends_with_it(three: Cluster) -> None:
    leader = await three.leader()
    assert await soon(leader.replica.propose_leading(b"first")) == 1
    three.wire.isolate(leader.address)
    late = asyncio.create_task(leader.replica.propose_leading(b"late"))
    others = [place for place in three.places if place is not leader]
    await until(lambda: any(place.replica.is_leader for place in others), "another leader")
    for place in others:
        if not place.replica.is_leader:
            with pytest.raises(NotLeader):
                await place.replica.propose_leading(b"not the leader's")
    await soon(others[0].replica.propose(b"second", 30.0))
    with pytest.raises(NotLeader):
        await soon(late)
    three.wire.cut.clear()
    await soon(leader.replica.propose(b"third", 30.0))
    await three.same(3)
    assert leader.machine.lines == [b"first", b"second", b"third"]


async def test_messages_that_no_server_sends_another_end_none(three: Cluster) -> None:
    leader = await three.leader()
    await soon(leader.replica.propose(b"before", 30.0))
    sender = next(place for place in three.places if place is not leader).replica.number
    term, last, far = leader.replica.term, leader.replica.node.last_index, 1 << 60
    stranger = three.wire.end("stranger:1")
    for place in three.places:
        to = place.replica.number
        forged = [
            Message(kind, to, thread, term, term, far, (Entry(term, far),))
            for kind in (MessageKind.STORAGE_APPEND_RESPONSE, MessageKind.STORAGE_APPLY_RESPONSE)
            for thread in (APPEND_THREAD, APPLY_THREAD)
        ]
        forged += [
            Message(MessageKind.PROPOSE, to, sender, entries=(Entry(data=b"no proposal"),)),
            Message(MessageKind.PROPOSE, to, sender, entries=(Entry(kind=EntryKind.CHANGE_V2, data=b"no change"),)),
            Message(MessageKind.VOTE_RESPONSE, to, sender, (1 << 64) - 1),
            Message(MessageKind.APPEND_RESPONSE, to, sender, term, index=far),
            Message(MessageKind.APPEND_RESPONSE, to, sender, term, index=last + 1),
        ]
        for message in forged:
            for address in ("stranger:1", "x" * 10_000):
                body = pack(to, message.sender, address, 0.0, 0, 0.0, (message,))
                stranger.send(place.address, MESSAGES, body)
    for place in three.places:
        await soon(place.replica.propose(b"after", 30.0))
    await three.same(4)
    assert all(place.replica.running for place in three.places)


async def test_a_minority_confirms_no_read_and_takes_no_write(three: Cluster) -> None:
    leader = await three.leader()
    await soon(leader.replica.propose(b"one", 30.0))
    follower = next(place for place in three.places if place is not leader)
    three.wire.isolate(follower.address)
    for quorum in (False, True):
        with pytest.raises(NoLeader):
            await soon(follower.replica.confirm(quorum=quorum, timeout=0.3))
    three.wire.cut.clear()
    await soon(follower.replica.confirm(quorum=True, timeout=30.0))


@pytest.mark.parametrize("quorum", [False, True])
async def test_a_confirmed_read_sees_what_was_acknowledged_elsewhere(three: Cluster, quorum: bool) -> None:
    await three.leader()
    for n in range(60):
        writer, reader = three.places[n % 3], three.places[(n + 1) % 3]
        await soon(writer.replica.propose(b"%d" % n, 30.0))
        await soon(reader.replica.confirm(quorum=quorum, timeout=30.0))
        assert b"%d" % n in reader.machine.lines


async def test_the_leader_has_a_lease_until_it_hands_over(three: Cluster) -> None:
    leader = await three.leader()
    await until(lambda: leader.replica.fresh_until > 0, "a lease")
    target = next(place for place in three.places if place is not leader)
    await soon(leader.replica.transfer(target.name, 30.0))
    assert leader.replica.fresh_until == 0.0
    assert await three.leader() is target
    with pytest.raises(NotLeader):
        await leader.replica.transfer("", 30.0)
    with pytest.raises(Refused, match="no other voter has the id 'x'"):
        await target.replica.transfer("x", 30.0)


async def test_a_leader_that_is_cut_off_loses_its_lease_before_another_leads(three: Cluster) -> None:
    leader = await three.leader()
    await until(lambda: leader.replica.fresh_until > 0, "a lease")
    three.wire.isolate(leader.address)
    others = [place for place in three.places if place is not leader]
    await until(lambda: any(place.replica.is_leader for place in others), "another leader")
    from lictor.model.clock import lease_clock

    assert leader.replica.fresh_until < lease_clock()


async def test_a_new_server_joins_as_a_learner_and_is_promoted(three: Cluster) -> None:
    leader = await three.leader()
    for n in range(50):
        await soon(leader.replica.propose(b"%d" % n, 30.0))
    late = three.place("d")
    await late.start()
    assert late.replica.blank
    await soon(leader.replica.change(ServerChange.ADD_LEARNER, late.record(), 30.0))
    await three.same(50)
    assert [peer.voter for peer in leader.replica.peers()] == [True, True, True, False]
    await soon(leader.replica.change(ServerChange.PROMOTE, late.record(), 30.0))
    await until(lambda: [peer.voter for peer in late.replica.peers()] == [True] * 4, "the promotion")
    await soon(late.replica.propose(b"from d", 30.0))
    assert not late.replica.blank


async def test_each_server_tells_the_index_of_the_latest_configuration(tmp_path: Path) -> None:
    settings = msgspec.structs.replace(QUICK, snapshot_threshold=20, snapshot_interval=0.05, trailing=1)
    cluster = Cluster(tmp_path, settings)
    await cluster.form("a", "b", "c")

    def indexes() -> set[int]:
        return {int(place.replica.stats()["latest_configuration_index"]) for place in cluster.places}

    assert indexes() == {1}
    leader = await cluster.leader()
    for n in range(5):
        await soon(leader.replica.propose(b"%d" % n, 30.0))
    late = cluster.place("d")
    await late.start()
    await soon(leader.replica.change(ServerChange.ADD_LEARNER, late.record(), 30.0))
    await until(lambda: len(indexes()) == 1, "all four to know of the change")
    (changed,) = indexes()
    assert 5 < changed <= leader.replica.applied
    for n in range(60):
        await soon(leader.replica.propose(b"%d" % n, 30.0))
    await cluster.same(65)

    def latest() -> int:
        return min(int(place.replica.stats()["last_snapshot_index"]) for place in cluster.places)

    await until(lambda: latest() > changed, "snapshots with the change in them")
    for place in cluster.places:
        await place.stop()
    for place in cluster.places:
        await place.start()
    assert indexes() == {changed}
    await cluster.stop()


async def test_a_server_that_lost_its_folder_takes_its_own_place(three: Cluster) -> None:
    leader = await three.leader()
    await soon(leader.replica.propose(b"x", 30.0))
    wiped = next(place for place in three.places if place is not leader)
    await wiped.stop()
    wiped.folder.rename(wiped.folder.with_suffix(".old"))
    await wiped.start()
    await soon(leader.replica.change(ServerChange.ADD_LEARNER, wiped.record(), 30.0))
    await three.same(1)
    assert sorted(peer.node for peer in leader.replica.peers()) == ["a", "b", "c"]
    await soon(leader.replica.change(ServerChange.PROMOTE, wiped.record(), 30.0))


async def test_a_removed_server_has_no_part_any_more(three: Cluster) -> None:
    leader = await three.leader()
    gone = next(place for place in three.places if place is not leader)
    await soon(leader.replica.change(ServerChange.REMOVE, gone.record(), 30.0))
    assert len(leader.replica.peers()) == 2
    await soon(leader.replica.propose(b"x", 30.0))
    with pytest.raises(Refused, match="was not found"):
        await leader.replica.change(ServerChange.REMOVE, gone.record(), 30.0)


async def test_a_leader_that_is_removed_steps_down(three: Cluster) -> None:
    leader = await three.leader()
    await soon(leader.replica.change(ServerChange.REMOVE, leader.record(), 30.0))
    await until(lambda: not leader.replica.is_leader, "the leader to step down")
    rest = [place for place in three.places if place is not leader]
    await until(lambda: any(place.replica.is_leader for place in rest), "another leader")
    await soon(rest[0].replica.propose(b"x", 30.0))


async def test_a_follower_that_is_far_behind_gets_a_snapshot(tmp_path: Path) -> None:
    settings = msgspec.structs.replace(QUICK, snapshot_threshold=50, snapshot_interval=0.05, trailing=10)
    cluster = Cluster(tmp_path, settings)
    await cluster.form("a", "b", "c")
    leader = await cluster.leader()
    behind = next(place for place in cluster.places if place is not leader)
    await behind.stop()
    for n in range(400):
        await soon(leader.replica.propose(b"line %d" % n * 50, 30.0))
    await until(lambda: int(leader.replica.stats()["last_snapshot_index"]) > 300, "a snapshot")
    await behind.start()
    await cluster.same(400)
    await soon(behind.replica.propose(b"after", 30.0))
    await cluster.same(401)
    for place in cluster.places:
        await place.stop()
    for place in cluster.places:
        await place.start()
    await cluster.same(401)
    await cluster.stop()


async def test_old_segments_go_when_a_snapshot_stands_for_them(tmp_path: Path) -> None:
    settings = RaftSettings(
        election_timeout=0.5, segment_bytes=1 << 14, snapshot_threshold=50, snapshot_interval=0.05, trailing=10
    )
    cluster = Cluster(tmp_path, settings)
    await cluster.form("a")
    (place,) = cluster.places
    for n in range(400):
        await soon(place.replica.propose(b"%d" % n * 200, 30.0))
    await until(lambda: len(list((place.folder / "log").iterdir())) < 6, "old segments to go")
    await cluster.stop()


async def test_a_lost_majority_is_recovered_with_those_that_are_left(three: Cluster) -> None:
    leader = await three.leader()
    for n in range(30):
        await soon(leader.replica.propose(b"%d" % n, 30.0))
    await three.same(30)
    survivor = three.places[0]
    for place in three.places:
        await place.stop()
    await survivor.start(recover=[Peer("a", "", "", leader=False, voter=True)])
    await soon(survivor.replica.propose(b"alone", 30.0))
    assert len(survivor.machine.lines) == 31
    assert [peer.node for peer in survivor.replica.peers()] == ["a"]
    three.places = [survivor]


async def test_a_slow_follower_does_not_slow_the_rest(three: Cluster) -> None:
    leader = await three.leader()
    slow = next(place for place in three.places if place is not leader)
    three.wire.isolate(slow.address)
    for n in range(100):
        await soon(leader.replica.propose(b"%d" % n, 30.0))
    three.wire.cut.clear()
    await three.same(100)


async def test_garbage_from_the_network_harms_nobody(three: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    """Cut and flipped bytes of real messages, to a server that goes on serving."""
    leader = await three.leader()
    follower = next(place for place in three.places if place is not leader)
    seen: list[tuple[str, bytes]] = []
    end = three.wire.ends[follower.address]
    handlers = dict(end._messages)
    for method, handler in handlers.items():
        end.on_message(method, partial(_record_and_pass, seen, method, handler))
    for n in range(30):
        await soon(leader.replica.propose(b"%d" % n, 30.0))
    chance = random.Random(7)
    for method, body in seen * 5:
        mangled = bytearray(body)
        for _ in range(chance.randint(1, 4)):
            mangled[chance.randrange(len(mangled))] = chance.randrange(256)
        if chance.random() < 0.3:
            del mangled[chance.randrange(len(mangled)) :]
        handlers[method](Caller("stranger:1"), _for_somebody_else(bytes(mangled)))
    assert "messages cannot be read: from=stranger:1" in caplog.text
    await soon(leader.replica.propose(b"still there", 30.0))
    await three.same(31)


def _record_and_pass(
    seen: list[tuple[str, bytes]], method: str, handler: OnMessage, caller: Caller, body: bytes
) -> None:
    seen.append((method, body))
    handler(caller, body)


def _for_somebody_else(body: bytes) -> bytes:
    """What is well formed would be believed, as from any server: it gets another receiver. The rest stays as it is."""
    try:
        found = decode_envelope(body)
    except UNREADABLE:
        return body
    return encode(msgspec.structs.replace(found, to=1))
