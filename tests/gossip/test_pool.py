"""The shell: pools on real sockets."""

from __future__ import annotations

import asyncio
import base64
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import uvloop

from lictor.gossip.keyring import Keyring
from lictor.gossip.messages import Address
from lictor.gossip.pool import JoinFailed, Pool, PoolConfig
from lictor.gossip.pool_events import Change, EventReceived, MemberChanged, PoolEvent, QueryReceived
from lictor.gossip.roster import Status
from lictor.gossip.serf import Admission
from lictor.gossip.settings import LOCAL
from lictor.gossip.sockets import bind
from tests.patience import soon

# The published local profile, five times as fast.
QUICK = msgspec.structs.replace(LOCAL, probe_interval=0.2, probe_timeout=0.1, gossip_interval=0.02)
KEY = base64.b64decode("cg8StVXbQJ0gPvMd9o7yrg==")


class Pools:
    """The pools of one test and what they told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.running: list[Pool] = []
        self.events: dict[str, list[PoolEvent]] = {}

    async def start(self, name: str, **fields: object) -> Pool:
        """A pool on a port of its own."""
        told = self.events.setdefault(name, [])
        config = PoolConfig(name=name, bind=Address("127.0.0.1", 0), swim=QUICK)
        pool = await Pool.start(msgspec.structs.replace(config, **fields), told.append)
        self.running.append(pool)
        return pool

    def changes(self, name: str, of: str) -> list[Change]:
        """What one pool told of a member."""
        told = self.events[name]
        return [e.change for e in told if isinstance(e, MemberChanged) and e.member.name == of]


@pytest.fixture
async def pools(tmp_path: Path) -> AsyncIterator[Pools]:
    """Pools that are stopped at the end."""
    made = Pools(tmp_path)
    yield made
    for pool in made.running:
        await pool.stop()


def status(pool: Pool, name: str) -> Status:
    """How a pool sees a member."""
    member = pool.serf.roster.members.get(name)
    return Status.NONE if member is None else member.status


def test_a_datagram_that_waits_before_the_start_harms_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """As it does at a node that was away for a moment, and that others go on asking. On the loop of the agent, which
    takes datagrams at once.
    """

    async def story() -> None:
        udp, tcp = bind("127.0.0.1", 0)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for _ in range(20):
                sender.sendto(b"\x00\x81\xa4Node\xa3one", udp.getsockname())
            config = PoolConfig(name="one", bind=Address("127.0.0.1", 0), swim=QUICK)
            pool = await Pool.start(config, lambda event: None, sockets=(udp, tcp))
            await soon(lambda: status(pool, "one") is Status.ALIVE, "it has begun")
            await pool.stop()

    uvloop.run(story())
    assert not [record for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")]


async def test_two_nodes_join_talk_and_part(pools: Pools) -> None:
    one = await pools.start("one", tags={"role": "a"})
    two = await pools.start("two", tags={"role": "b"})
    assert await two.join([one.address]) == 1
    await soon(lambda: status(one, "two") is Status.ALIVE, "one sees two")
    assert one.serf.roster.members["two"].tags == {"role": "b"}
    two.do(lambda serf, now: serf.fire("deploy", b"v1", False, now))
    await soon(lambda: any(isinstance(e, EventReceived) for e in pools.events["one"]), "the event arrives")
    await two.leave()
    await soon(lambda: status(one, "two") is Status.LEFT, "two has left")
    assert pools.changes("one", "two") == [Change.JOIN, Change.LEAVE]


async def test_a_pool_lives_on_ipv6(pools: Pools) -> None:
    one = await pools.start("one", bind=Address("::1", 0))
    two = await pools.start("two", bind=Address("::1", 0), label="x")
    three = await pools.start("three", bind=Address("::1", 0))
    with pytest.raises(JoinFailed, match=r"Failed to join \[::1\]:"):
        await two.join([one.address])
    await three.join([one.address])
    await soon(lambda: "three" in one.serf.coordinates.known, "an Ack arrives")


async def test_a_stopped_node_fails_and_its_return_is_a_join(pools: Pools) -> None:
    one = await pools.start("one")
    two = await pools.start("two")
    await two.join([one.address])
    await two.stop()
    await soon(lambda: status(one, "two") is Status.FAILED, "two has failed")
    again = await pools.start("two", bind=two.address)
    await again.join([one.address])
    await soon(lambda: status(one, "two") is Status.ALIVE, "two is back")


async def test_a_query_is_answered_over_the_network(pools: Pools) -> None:
    one = await pools.start("one")
    two = await pools.start("two")
    await two.join([one.address])

    async def answer() -> None:
        await soon(lambda: any(isinstance(e, QueryReceived) for e in pools.events["two"]), "the query arrives")
        received = next(e for e in pools.events["two"] if isinstance(e, QueryReceived))
        two.do(lambda serf, now: serf.queries.respond(received, b"fine", now))

    answering = asyncio.create_task(answer())
    pending = await one.query("how", b"", nodes=("two",), enough=1, timeout=20.0)
    await answering
    assert pending.responses == {"two": b"fine"}


async def test_an_encrypted_pool_admits_only_who_has_the_key(pools: Pools) -> None:
    one = await pools.start("one", keyring=Keyring(KEY))
    two = await pools.start("two", keyring=Keyring(KEY))
    stranger = await pools.start("stranger")
    other_key = await pools.start("other", keyring=Keyring(bytes(16)))
    await two.join([one.address])
    await soon(lambda: status(one, "two") is Status.ALIVE, "one sees two")
    for refused in (stranger, other_key):
        with pytest.raises(JoinFailed, match="Failed to join 127.0.0.1"):
            await refused.join([one.address])
    assert len(one.serf.members()) == 2


async def test_a_node_that_is_not_admitted_stays_out(pools: Pools) -> None:
    def only(dc: str) -> Admission:
        def admit(name: str, host: str, tags: dict[str, str]) -> str:
            return "" if tags.get("dc") == dc else f"Member '{name}' part of wrong datacenter '{tags.get('dc')}'"

        return admit

    one = await pools.start("one", tags={"dc": "dc1"}, admission=only("dc1"))
    two = await pools.start("two", tags={"dc": "dc2"}, admission=only("dc2"))
    with pytest.raises(JoinFailed, match="wrong datacenter"):
        await two.join([one.address])
    assert status(one, "two") is Status.NONE
    assert status(two, "one") is Status.NONE


async def test_a_restarted_node_finds_its_pool_again(pools: Pools) -> None:
    journal = pools.folder / "local.snapshot"
    one = await pools.start("one")
    two = await pools.start("two", journal=journal)
    await two.join([one.address])
    two.do(lambda serf, now: serf.fire("once", b"", False, now))
    await soon(lambda: any(isinstance(e, EventReceived) for e in pools.events["one"]), "the event arrives")
    await two.stop()
    assert journal.stat().st_mode & 0o777 == 0o600
    pools.events["two"].clear()
    again = await pools.start("two", journal=journal)
    assert await again.rejoin()
    await soon(lambda: status(again, "one") is Status.ALIVE, "two sees one")
    assert not any(isinstance(e, EventReceived) for e in pools.events["two"])
    await again.leave()
    await again.stop()
    third = await pools.start("two", journal=journal)
    assert not await third.rejoin()


async def test_forged_and_broken_input_harms_nothing(pools: Pools) -> None:
    one = await pools.start("one")
    two = await pools.start("two")
    await two.join([one.address])
    target = (one.address.host, one.address.port)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for data in (
            b"",
            b"\xff",
            b"\x07\xff",
            b"\x04\xc1",
            b"\x09\x82",
            b"\x0c" + bytes(9),
            b"\xf4\x09x",
            bytes(60_000),
        ):
            sock.sendto(data, target)
    for data in (b"\x06\xff", b"\x0a\xff\xff\xff\xff", b"\x63", b"\xf4\x00", b"\x06\x81\xa5Nodes\xce\xff\xff\xff\xff"):
        reader, writer = await asyncio.open_connection(*target)
        writer.write(data)
        assert (await reader.read())[:1] in (b"\x0d", b"")
        writer.close()
        await writer.wait_closed()
    three = await pools.start("three")
    await three.join([one.address])
    await soon(lambda: len(one.serf.roster.with_status(Status.ALIVE)) == 3, "the pool works on")


async def test_a_taken_address_is_an_error_that_names_it(pools: Pools) -> None:
    one = await pools.start("one")
    with pytest.raises(OSError, match=f"cannot bind 127.0.0.1:{one.address.port}"):
        await pools.start("two", bind=one.address)
