"""What strangers can do to servers over the real network, without TLS: not end them, nor fill them, nor their logs."""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import pytest

from lictor.model.errors import Refused
from lictor.raft import envelope
from lictor.raft.core.membership import Membership
from lictor.raft.core.message import Entry, EntryKind, Message, MessageKind, Snapshot
from lictor.raft.core.quorum import Quorum
from lictor.raft.envelope import Complete, Offered, Piece
from lictor.raft.opening import pack_state
from lictor.raft.post import STRANGERS
from lictor.raft.replica import Replica
from lictor.raft.roster import Roster
from lictor.raft.settings import World
from lictor.raft.shipping import LOG_ROOM
from lictor.raft.wal import Offer, SnapshotStore
from lictor.rpc.network import Network
from tests.patience import PATIENCE
from tests.raft.replicas import QUICK, Cluster, Lines, Place, fatal, soon, until, work

ABSURD = (1 << 62) - 1
ANY = Membership(Quorum(frozenset({1})))


class Connected(Place):
    """A server on a network of sockets."""

    network: Network

    async def connect(self) -> None:
        self.network = Network(random.Random(1))
        self.address = f"127.0.0.1:{await self.network.listen('127.0.0.1', 0)}"

    async def run(self) -> Replica:
        self.machine = Lines()
        world = World(log_work=work, snapshot_work=work, fatal=fatal, files=self.files, chance=random.Random())
        self.replica = Replica(self.machine, self.record, self.folder, self.network, self.settings, world)
        await self.replica.start()
        return self.replica

    async def stop(self) -> None:
        await self.replica.close()
        await self.network.close()


class Stranger:
    """Somebody who can connect, and knows what the servers tell anybody."""

    def __init__(self, cluster: Cluster) -> None:
        self.network = Network(random.Random(2))
        self.cluster = cluster

    def send(self, to: Place, *messages: Message, sender: int = 0, address: str = "127.0.0.1:1") -> None:
        number = to.replica.number
        addressed = [msgspec.structs.replace(message, to=number) for message in messages]
        sender = sender or messages[0].sender
        self.network.send(to.address, envelope.MESSAGES, envelope.pack(number, sender, address, 0.0, 0, 0.0, addressed))

    async def heard(self, to: Place) -> None:
        """Return once a server has taken all that was sent."""
        with pytest.raises(Refused):
            await self.network.call(to.address, envelope.OFFER, b"", PATIENCE)


@pytest.fixture
async def three(tmp_path: Path) -> AsyncIterator[Cluster]:
    cluster = Cluster(tmp_path)
    for name in ("a", "b", "c"):
        place = Connected(name, tmp_path, cluster.wire, QUICK)
        await place.connect()
        await place.run()
        cluster.places.append(place)
    records = [place.record() for place in cluster.places]
    await asyncio.gather(*(place.replica.form(records) for place in cluster.places))
    try:
        yield cluster
    finally:
        await cluster.stop()


@pytest.fixture
async def stranger(three: Cluster) -> AsyncIterator[Stranger]:
    made = Stranger(three)
    try:
        yield made
    finally:
        await made.network.close()


def impossible(place: Place, sender: int) -> Iterator[Message]:
    """What no server sends to another one, though it may be in the name of one."""
    node = place.replica.node
    term, end = node.term, node.last_index
    yield Message(MessageKind.HEARTBEAT, 0, sender, term, commit=end + 1)
    yield Message(MessageKind.HEARTBEAT, 0, sender, term + 1, commit=ABSURD)
    yield Message(MessageKind.HEARTBEAT, 0, sender, ABSURD)
    yield Message(MessageKind.VOTE, 0, sender, ABSURD, ABSURD, ABSURD, context=b"transfer")
    yield Message(MessageKind.APPEND, 0, sender, term + 1, term, end, (Entry(term, ABSURD),))
    yield Message(MessageKind.APPEND, 0, sender, term + 1, term, end, (Entry(term, end + 1), Entry(term, end + 3)))
    yield Message(MessageKind.APPEND, 0, sender, term + 1, term, end, (Entry(term, end + 1), Entry(1, end + 2)))
    yield Message(MessageKind.APPEND, 0, sender, term, term, end, (Entry(term + 1, end + 1),))
    yield Message(MessageKind.APPEND_RESPONSE, 0, sender, term, index=ABSURD)
    yield Message(MessageKind.SNAPSHOT, 0, sender, term + 1, snapshot=Snapshot(ABSURD, 1, ANY))
    yield Message(MessageKind.STORAGE_APPEND_RESPONSE, 0, (1 << 64) - 1, term, term, ABSURD)
    yield Message(MessageKind.TIMEOUT_NOW, 0, sender, term + 1)
    yield Message(MessageKind.PROPOSE, 0, sender, entries=(Entry(kind=EntryKind.CHANGE_V2, data=b"nothing"),))


def nested(to: Place, sender: int) -> bytes:
    """An envelope with a message in a message in a message, and so on."""
    message = envelope.encode(Message(MessageKind.HEARTBEAT, to.replica.number, sender, to.replica.term))
    assert message.endswith(b"\x90"), "it ends with the responses, of which there are none"
    head = envelope.pack(to.replica.number, sender, "127.0.0.1:1", 0.0, 0, 0.0, [])
    return head[:-1] + b"\x91" + (message[:-1] + b"\x91") * 5000 + message


async def test_what_no_server_sends_changes_nothing(
    three: Cluster, stranger: Stranger, caplog: pytest.LogCaptureFixture
) -> None:
    leader = await three.leader()
    await soon(leader.replica.propose(b"before", 30.0))
    await three.same(1)
    caplog.set_level(logging.INFO)
    terms = [place.replica.term for place in three.places]
    for place in three.places:
        others = [other.replica.number for other in three.places if other is not place]
        for sender in (*others, 4711):
            for message in impossible(place, sender):
                for _ in range(20):
                    stranger.send(place, message, sender=sender)
            stranger.network.send(place.address, envelope.MESSAGES, nested(place, sender))
        await stranger.heard(place)
    assert [place.replica.term for place in three.places] == terms
    assert await three.leader() is leader
    await soon(leader.replica.propose(b"after", 30.0))
    await three.same(2)
    lines = [record.getMessage() for record in caplog.records if "127.0.0.1" in record.getMessage()]
    assert any("a message was refused" in line for line in lines)
    assert len([line for line in lines if "refused" in line or "ignored" in line]) <= 6 * len(three.places)


def promises(body: bytes) -> bool:
    """Whether a message gives a vote, or acknowledges entries: true ones are all that agreement rests on."""
    promising = (MessageKind.VOTE_RESPONSE, MessageKind.PRE_VOTE_RESPONSE, MessageKind.APPEND_RESPONSE)
    try:
        return any(envelope.decode_message(raw).kind in promising for raw in envelope.decode_envelope(body).messages)
    except envelope.UNREADABLE:
        return False


async def test_mangled_messages_of_members_end_nobody(three: Cluster, stranger: Stranger) -> None:
    """What cannot be told from a true message is believed, and may cost an election; then the cluster goes on."""
    leader = await three.leader()
    for number in range(20):
        await soon(leader.replica.propose(b"%d" % number, 30.0))
    chance = random.Random(5)
    for place in three.places:
        others = [other.replica.number for other in three.places if other is not place]
        for _ in range(300):
            sender, node = chance.choice(others), place.replica.node
            near = (0, 1, node.term, node.committed, node.last_index, node.last_index + 1, ABSURD)
            body = bytearray(
                envelope.pack(
                    place.replica.number,
                    sender,
                    "127.0.0.1:1",
                    chance.choice((0.0, 1e300, float("nan"), float("inf"))),
                    node.term,
                    chance.choice((0.0, 1e300, float("nan"), float("inf"))),
                    [
                        Message(
                            chance.choice(
                                (MessageKind.HEARTBEAT_RESPONSE, MessageKind.PRE_VOTE, MessageKind.HEARTBEAT)
                            ),
                            place.replica.number,
                            sender,
                            chance.choice((1, node.term)),
                            chance.choice(near),
                            chance.choice(near),
                            commit=chance.choice(near),
                            reject=chance.random() < 0.2,
                            context=chance.randbytes(chance.choice((0, 8, 16))),
                        )
                    ],
                )
            )
            for _ in range(chance.choice((0, 0, 1, 2))):
                body[chance.randrange(40, len(body))] = chance.randrange(256)
            if not promises(bytes(body)):
                stranger.network.send(place.address, envelope.MESSAGES, bytes(body))
        await stranger.heard(place)
    assert all(place.replica.running for place in three.places)
    for place in three.places:
        await soon(place.replica.propose(b"still there", 60.0))


async def test_no_lease_comes_of_an_echo_from_the_future(three: Cluster, stranger: Stranger) -> None:
    leader = await three.leader()
    others = [place for place in three.places if place is not leader]
    term, clock = leader.replica.term, leader.replica._post._clock
    for place in others:
        for echo in (clock() + 1000.0, float("inf"), float("nan")):
            body = envelope.pack(leader.replica.number, place.replica.number, place.address, 0.0, term, echo, [])
            stranger.network.send(leader.address, envelope.MESSAGES, body)
    await stranger.heard(leader)
    assert leader.replica._post.lease.until(leader.replica.membership.quorum, clock()) < clock() + 10.0


async def test_who_is_not_in_the_configuration_waits_while_there_is_a_leader(
    three: Cluster, stranger: Stranger
) -> None:
    leader = await three.leader()
    follower = next(place for place in three.places if place is not leader)
    await until(lambda: follower.replica.node.leader == leader.replica.number, "a follower")
    term = leader.replica.term
    for place in (leader, follower):
        for kind in (MessageKind.HEARTBEAT, MessageKind.APPEND, MessageKind.VOTE, MessageKind.PRE_VOTE):
            stranger.send(place, Message(kind, 0, 4711, term + 1, term, 1 << 40, context=b"transfer"))
        await stranger.heard(place)
    assert (leader.replica.term, follower.replica.term) == (term, term)
    assert leader.replica.is_leader


async def test_a_new_leader_is_believed_by_who_does_not_know_it_yet(three: Cluster, stranger: Stranger) -> None:
    """Its configuration may be older than the one by which the other was elected."""
    leader = await three.leader()
    others = [place for place in three.places if place is not leader]
    for place in others:
        await place.stop()
    await until(lambda: not leader.replica.leader, "no leader")
    term = leader.replica.term

    def believed() -> bool:
        stranger.send(leader, Message(MessageKind.HEARTBEAT, 0, 4711, term + 50))
        return leader.replica.node.leader == 4711

    await until(believed, "a leader that is not in the configuration")
    for place in others:
        assert isinstance(place, Connected)
        await place.connect()
        await place.run()


async def test_any_number_of_strangers_takes_little_room(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    blank = Connected("a", tmp_path, cluster.wire, QUICK)
    await blank.connect()
    await blank.run()
    cluster.places.append(blank)
    stranger = Stranger(cluster)
    try:
        for number in range(1, 1000):
            stranger.send(blank, Message(MessageKind.PRE_VOTE, 0, number, 1), address=f"127.0.0.1:{number}")
        await stranger.heard(blank)
        known = [number for number in range(1, 1000) if blank.replica.address(number)]
        assert known == list(range(1000 - STRANGERS, 1000)), "those that spoke last are known"
        stranger.send(blank, Message(MessageKind.PRE_VOTE, 0, 1000, 1), address="no address:x")
        stranger.send(blank, Message(MessageKind.PRE_VOTE, 0, 1001, 1), address="x" * 1000)
        await stranger.heard(blank)
        assert [blank.replica.address(number) for number in (1000, 1001)] == ["", ""]
    finally:
        await stranger.network.close()
        await cluster.stop()


# Entries that nobody can read


async def test_entries_that_cannot_be_read_change_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A forged leader can put them into a log that has nobody else's; the server goes on, over a restart too."""
    cluster = Cluster(tmp_path)
    place = Connected("a", tmp_path, cluster.wire, QUICK)
    await place.connect()
    await place.run()
    cluster.places.append(place)
    stranger = Stranger(cluster)
    try:
        kinds = (EntryKind.NORMAL, EntryKind.CHANGE_V1, EntryKind.CHANGE_V2, EntryKind.CHANGE_V2)
        datas = (b"\xff no entry", b"\xc1", b"\x93\x91\x92\x00\x05\x00\xc4\x01\xff", b"\xff")
        entries = tuple(Entry(1, n, kind, data) for n, (kind, data) in enumerate(zip(kinds, datas, strict=True), 1))
        stranger.send(place, Message(MessageKind.APPEND, 0, 4711, 1, 0, 0, entries, commit=4))
        await until(lambda: place.replica.applied == 4, "the entries")
        assert caplog.text.count("changes nothing") == 4
        await place.stop()
        await place.connect()
        await place.run()
        stranger.send(place, Message(MessageKind.APPEND, 0, 4711, 1, 1, 4, (Entry(1, 5),), commit=5))
        await until(lambda: place.replica.applied == 5, "the entries again, and one more")
        assert place.machine.lines == []
    finally:
        await stranger.network.close()
        await cluster.stop()


# Snapshots


class Forged:
    """A snapshot as a file, and the offer of it."""

    def __init__(self, folder: Path, index: int, term: int, roster: Roster, lines: bytes) -> None:
        store = SnapshotStore(folder)
        assert store.open() is None
        members = Membership(Quorum(frozenset(roster.records)))
        store.write(Snapshot(index, term, members, roster.encode()), pack_state(b"\x90", [lines]))
        outgoing = store.send()
        assert outgoing is not None
        self.offer = outgoing.offer
        self.data = outgoing.read(0, self.offer.size)
        outgoing.close()


async def follows(three: Cluster) -> tuple[Place, Place]:
    leader = await three.leader()
    follower = next(place for place in three.places if place is not leader)
    await until(lambda: follower.replica.node.leader == leader.replica.number, "a follower")
    await soon(leader.replica.propose(b"line", 30.0))
    await three.same(1)
    return leader, follower


async def refused(stranger: Stranger, to: Place, method: str, body: object, words: str) -> None:
    with pytest.raises(Refused, match=words):
        await stranger.network.call(to.address, method, envelope.encode(body), PATIENCE)


async def test_a_snapshot_is_taken_only_from_the_leader(three: Cluster, stranger: Stranger, tmp_path: Path) -> None:
    leader, follower = await follows(three)
    to, term = follower.replica.number, follower.replica.term
    forged = Forged(tmp_path / "forged", 1000, term, follower.replica.roster, b"forged")
    other = next(place for place in three.places if place not in (leader, follower)).replica.number
    for sender, claimed in ((other, term), (4711, term), (leader.replica.number, term + 1), (to, term)):
        offered = Offered(to, sender, claimed, forged.offer)
        await refused(stranger, follower, envelope.OFFER, offered, "only from the leader that it follows")
    offered = Offered(leader.replica.number, other, term, forged.offer)
    await refused(stranger, leader, envelope.OFFER, offered, "only from the leader that it follows")
    await refused(stranger, follower, envelope.DATA, Piece(to, forged.offer.id, 0, forged.data), "offer it again")
    assert follower.machine.lines == [b"line"]


async def test_what_no_leader_offers_is_refused(three: Cluster, stranger: Stranger, tmp_path: Path) -> None:
    leader, follower = await follows(three)
    to, number, term = follower.replica.number, leader.replica.number, follower.replica.term
    good = Forged(tmp_path / "forged", 1000, term, follower.replica.roster, b"forged").offer
    snapshot = good.snapshot
    for offer, words in (
        (Offer(snapshot, 1, 0), "a snapshot of 0 bytes"),
        (Offer(snapshot, 1, QUICK.snapshot_most + 1), "at most 68719476736 are"),
        (Offer(msgspec.structs.replace(snapshot, index=0), 1, 100), "there can be no snapshot of entry 0"),
        (Offer(msgspec.structs.replace(snapshot, index=ABSURD), 1, 100), "there can be no snapshot of entry"),
        (Offer(msgspec.structs.replace(snapshot, term=term + 1), 1, 100), "there can be no snapshot of entry"),
        (Offer(msgspec.structs.replace(snapshot, membership=Membership()), 1, 100), "who is in the cluster"),
        (Offer(msgspec.structs.replace(snapshot, data=bytes(2 << 20)), 1, 100), "who is in the cluster"),
        (Offer(msgspec.structs.replace(snapshot, data=b"\xff"), 1, 100), "makes no sense"),
        (Offer(msgspec.structs.replace(snapshot, membership=Membership(ANY.quorum, frozenset({1}))), 1, 9), "no sense"),
    ):
        await refused(stranger, follower, envelope.OFFER, Offered(to, number, term, offer), words)
    follower.files.room = lambda folder: good.size + LOG_ROOM - 1  # type: ignore[method-assign]
    offered = Offered(to, number, term, good)
    await refused(stranger, follower, envelope.OFFER, offered, "no room for the snapshot")
    assert not list((follower.folder / "snapshots").glob("*part"))


async def test_what_is_here_already_is_not_sent(three: Cluster, stranger: Stranger, tmp_path: Path) -> None:
    leader, follower = await follows(three)
    to, number, term = follower.replica.number, leader.replica.number, follower.replica.term
    old = Forged(tmp_path / "forged", 2, 1, follower.replica.roster, b"old").offer
    answer = await soon(
        stranger.network.call(
            follower.address, envelope.OFFER, envelope.encode(Offered(to, number, term, old)), PATIENCE
        )
    )
    assert envelope.decode_index(answer) == old.size
    message = Message(MessageKind.SNAPSHOT, to, number, term, snapshot=old.snapshot)
    wrong = msgspec.structs.replace(message, term=term + 1)
    await refused(stranger, follower, envelope.DONE, Complete(to, old.id, wrong), "not about the snapshot")
    await soon(
        stranger.network.call(follower.address, envelope.DONE, envelope.encode(Complete(to, old.id, message)), PATIENCE)
    )
    assert follower.machine.lines == [b"line"]
    assert not list((follower.folder / "snapshots").glob("*part"))


async def test_a_snapshot_that_holds_no_state_is_refused_before_it_counts(
    three: Cluster, stranger: Stranger, tmp_path: Path
) -> None:
    leader, follower = await follows(three)
    to, number, term = follower.replica.number, leader.replica.number, follower.replica.term
    forged = Forged(tmp_path / "forged", 1000, term, follower.replica.roster, b"no state")
    offer, network = forged.offer, stranger.network
    await soon(
        network.call(follower.address, envelope.OFFER, envelope.encode(Offered(to, number, term, offer)), PATIENCE)
    )
    await soon(
        network.call(follower.address, envelope.DATA, envelope.encode(Piece(to, offer.id, 0, forged.data)), PATIENCE)
    )
    message = Message(MessageKind.SNAPSHOT, to, number, term, snapshot=offer.snapshot)
    await refused(stranger, follower, envelope.DONE, Complete(to, offer.id, message), "holds no state: no lines")
    before = {path.name for path in (follower.folder / "snapshots").iterdir()}
    assert not any(name.startswith(f"{1000:020d}") for name in before)
    await soon(leader.replica.propose(b"after", 30.0))
    await three.same(2)
