"""The consistency modes at the door: what is answered at once, what is confirmed first, and what an answer says of its
age. Consensus is a voter whose lease, confirmations and contact with a leader are in the test's hands.
"""

import asyncio
import contextlib
import json
import math
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from lictor.agent.agent import Agent
from lictor.agent.confirmations import Confirmations
from lictor.model.clock import lease_clock
from lictor.model.command import Batch, Command, KVWrite
from lictor.model.errors import NoLeader
from lictor.raft.consensus import Machine, ServerRecord
from lictor.raft.single import ALWAYS, SingleVoter
from lictor.server.server import StoreMachine
from lictor.store.commands import apply
from lictor.store.store import Store
from tests.http.conftest import Door, eventually, open_agent, read_answer
from tests.patience import PATIENCE

PLAIN, FULL = "", "Content-Length: 0\r\n"  # the second is more than the door reads itself: it is aiohttp's
WAYS = pytest.mark.parametrize("more", [PLAIN, FULL], ids=["plain", "full"])


class Steered(SingleVoter):
    """Consensus of a server that has others beside it. What was acknowledged elsewhere, in `behind`, arrives here with
    the next confirmation, and confirmations come while they are `let`.
    """

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine, lambda: ServerRecord("id", "n1", "127.0.0.1:1"))
        self.until = ALWAYS
        self.contact = 0.0
        self.known = True
        self.asked: list[bool] = []
        self.behind: list[Command] = []
        self.let = asyncio.Event()
        self.let.set()

    @property
    def fresh_until(self) -> float:
        return self.until

    @property
    def last_contact(self) -> float:
        return self.contact

    @property
    def leader(self) -> str:
        return "127.0.0.1:2" if self.known else ""

    def catch_up(self) -> None:
        """What was acknowledged elsewhere arrives."""
        behind, self.behind = self.behind, []
        for command in behind:
            self._machine.apply([msgspec.msgpack.encode(Batch(0.0, (command,)))])

    async def confirm(self, *, quorum: bool, timeout: float) -> None:
        self.asked.append(quorum)
        await self.let.wait()
        if not self.known:
            raise NoLeader
        self.catch_up()


class Follower:
    """A door on a follower's store."""

    def __init__(self, door: Door, consensus: Steered) -> None:
        self.door = door
        self.consensus = consensus

    def write_elsewhere(self, key: str, value: bytes) -> None:
        """Another server has acknowledged this."""
        self.consensus.behind.append(KVWrite("set", key, value))

    async def waits(self) -> None:
        """Return once a query waits for the key `a`."""
        watches = self.door.agent.store.watches
        await eventually(lambda: ("kv", "a") in watches.topics(), "the query waits")

    def lose_leader(self, contact: float = 5.0) -> None:
        """There is no leader any more, `contact` seconds after it was last heard of."""
        self.consensus.known = False
        self.consensus.contact = contact


@contextlib.asynccontextmanager
async def follower_with(*flags: str) -> AsyncIterator[Follower]:
    """An agent whose server turns into a follower as soon as it has started."""
    made: list[Steered] = []

    def steer(agent: Agent) -> None:
        assert agent.server is not None
        made.append(Steered(StoreMachine(agent.store)))
        agent.server.consensus = made[0]

    async with open_agent(*flags, before=steer) as door:
        await door.put("/v1/kv/a", b"one")
        made[0].until = 0.0
        yield Follower(door, made[0])
        made[0].let.set()


@pytest.fixture
async def follower() -> AsyncIterator[Follower]:
    async with follower_with() as opened:
        yield opened


Answer = tuple[int, dict[str, str], bytes]


class Line:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, path: str, more: str = PLAIN) -> None:
        self.writer.write(f"GET {path} HTTP/1.1\r\nHost: h\r\n{more}\r\n".encode())

    async def answer(self) -> Answer:
        head, body = await read_answer(self.reader)
        first, *lines = head.decode().strip().split("\r\n")
        return int(first.split()[1]), dict(line.lower().split(": ", 1) for line in lines), body

    async def get(self, path: str, more: str = PLAIN) -> Answer:
        self.send(path, more)
        return await self.answer()


@contextlib.asynccontextmanager
async def line(door: Door) -> AsyncIterator[Line]:
    async with door.socket() as (reader, writer):
        yield Line(reader, writer)


def age(answer: Answer) -> tuple[str, str, str]:
    """What an answer says: its mode, whether a leader is known, and the age."""
    names = ("x-consul-effective-consistency", "x-consul-knownleader", "x-consul-lastcontact")
    mode, known, contact = (answer[1][name] for name in names)
    return mode, known, contact


@WAYS
async def test_a_default_read_on_a_follower_sees_what_another_server_acknowledged(
    follower: Follower, more: str
) -> None:
    async with line(follower.door) as client:
        for value in (b"two", b"three", b"four"):
            follower.write_elsewhere("a", value)
            answer = await client.get("/v1/kv/a?raw", more)
            assert (answer[0], answer[2]) == (200, value)
            assert age(answer) == ("leader", "true", "0")
    assert follower.consensus.asked == [False] * 3


@WAYS
async def test_a_stale_read_is_answered_at_once_and_tells_its_age(follower: Follower, more: str) -> None:
    follower.write_elsewhere("a", b"two")
    async with line(follower.door) as client:
        for contact in (0.012, 0.05, 1.5, 1.5):
            follower.consensus.contact = contact
            answer = await client.get("/v1/kv/a?raw&stale", more)
            assert (answer[0], answer[2]) == (200, b"one")
            assert age(answer) == ("stale", "true", str(round(contact * 1000)))
        follower.lose_leader(60.0)
        assert age(await client.get("/v1/kv/a?raw&stale", more)) == ("stale", "false", "60000")
    assert follower.consensus.asked == []


async def test_a_kept_answer_is_given_only_once_it_is_confirmed(follower: Follower) -> None:
    api = follower.door.http.api
    async with line(follower.door) as client:
        for _ in range(2):
            await client.get("/v1/kv/a?raw")
        hits, misses = api.hits, api.misses
        for _ in range(3):
            assert (await client.get("/v1/kv/a?raw"))[2] == b"one"
        assert (api.hits, api.misses) == (hits + 3, misses), "what was confirmed comes from memory"
        assert len(follower.consensus.asked) == 5
        follower.write_elsewhere("a", b"two")
        assert (await client.get("/v1/kv/a?raw"))[2] == b"two"


async def test_under_its_lease_a_leader_answers_default_reads_at_once(follower: Follower) -> None:
    consensus = follower.consensus
    consensus.until = lease_clock() + 1000
    async with line(follower.door) as client:
        for _ in range(4):
            assert age(await client.get("/v1/kv/a?raw")) == ("leader", "true", "0")
        assert consensus.asked == []
        consensus.until = lease_clock() - 0.001
        follower.write_elsewhere("a", b"two")
        assert (await client.get("/v1/kv/a?raw"))[2] == b"two", "a lease that is over is none"
        assert consensus.asked == [False]


@WAYS
async def test_a_consistent_read_asks_the_majority_even_under_a_lease(follower: Follower, more: str) -> None:
    follower.consensus.until = lease_clock() + 1000
    async with line(follower.door) as client:
        for value in (b"two", b"three", b"four"):
            follower.write_elsewhere("a", value)
            answer = await client.get("/v1/kv/a?raw&consistent", more)
            assert answer[2] == value
            assert age(answer) == ("consistent", "true", "0")
    assert follower.consensus.asked == [True] * 3


async def test_a_server_that_is_always_alone_confirms_nothing(follower: Follower) -> None:
    follower.consensus.until = ALWAYS
    async with line(follower.door) as client:
        for path in ("/v1/kv/a", "/v1/kv/a?consistent", "/v1/kv/a?stale", "/v1/kv/a?max_stale=1ns"):
            for _ in range(3):
                assert age(await client.get(path))[1:] == ("true", "0")
    assert follower.consensus.asked == []


@WAYS
@pytest.mark.parametrize("path", ["/v1/kv/a", "/v1/kv/a?consistent", "/v1/health/service/consul", "/v1/kv/a?index=1"])
async def test_without_a_leader_reads_that_need_one_fail(follower: Follower, path: str, more: str) -> None:
    async with line(follower.door) as client:
        for _ in range(3):
            await client.get(path, more)
        follower.lose_leader()
        for _ in range(2):
            status, _, body = await client.get(path, more)
            assert (status, body) == (500, b"No cluster leader")
        assert (await client.get("/v1/kv/a?raw&stale"))[2] == b"one"
        follower.consensus.known = True
        assert (await client.get(path, more))[0] == 200


@WAYS
async def test_a_stale_read_may_not_be_older_than_max_stale(follower: Follower, more: str) -> None:
    follower.write_elsewhere("a", b"two")
    follower.consensus.contact = 2.0
    async with line(follower.door) as client:
        for bound in ("max_stale=3s", "stale&max_stale=2s", "stale&max_stale", "stale&max_stale=0s"):
            answer = await client.get(f"/v1/kv/a?raw&{bound}", more)
            assert answer[2] == b"one"
            assert age(answer) == ("stale", "true", "2000")
        assert follower.consensus.asked == []
        # Kept by now, and too old for it a moment later.
        for _ in range(2):
            await client.get("/v1/kv/a?raw&max_stale=3s", more)
        follower.consensus.contact = 3.5
        answer = await client.get("/v1/kv/a?raw&max_stale=3s", more)
        assert answer[2] == b"two"
        assert age(answer) == ("leader", "true", "0")
        assert follower.consensus.asked == [False]
        follower.consensus.contact = 1.0
        assert age(await client.get("/v1/kv/a?raw&max_stale=3s", more)) == ("stale", "true", "1000")
        follower.lose_leader(3.5)
        assert (await client.get("/v1/kv/a?raw&max_stale=3s", more))[2] == b"No cluster leader"
        assert (await client.get("/v1/kv/a?max_stale=soon", more))[2] == b'Invalid max_stale value "soon"'
        assert (await client.get("/v1/kv/a?max_stale=1s&consistent", more))[0] == 400


@WAYS
async def test_a_server_that_never_heard_of_a_leader_answers_no_stale_read(follower: Follower, more: str) -> None:
    follower.lose_leader(math.inf)
    async with line(follower.door) as client:
        assert (await client.get("/v1/kv/a?stale", more))[2] == b"No cluster leader"


async def test_what_is_sent_behind_a_read_that_waits_is_answered_after_it(follower: Follower) -> None:
    follower.consensus.let.clear()
    async with line(follower.door) as client:
        client.send("/v1/kv/a?raw")
        await eventually(lambda: len(follower.consensus.asked) == 1, "the read waits for its confirmation")
        client.send("/v1/kv/a?raw&stale")
        client.send("/v1/status/leader")
        client.send("/v1/kv/none?raw&stale")
        # Another connection is answered meanwhile.
        async with line(follower.door) as other:
            assert (await other.get("/v1/kv/a?raw&stale"))[2] == b"one"
        follower.write_elsewhere("a", b"two")
        follower.consensus.let.set()
        answers = [await client.answer() for _ in range(4)]
    assert [answer[2] for answer in answers] == [b"two", b"two", b'"127.0.0.1:2"', b""]


async def test_readers_of_one_turn_share_a_confirmation_and_later_ones_do_not() -> None:
    class Reader:
        error: Exception | None | str = "not told"

        def confirmed(self, error: Exception | None) -> None:
            self.error = error

    asked: list[bool] = []
    let = asyncio.Event()

    async def confirm(consistent: bool) -> None:
        asked.append(consistent)
        await let.wait()
        if consistent:
            raise NoLeader

    confirmations = Confirmations(confirm)
    early, late, gone = [Reader() for _ in range(50)], Reader(), Reader()
    for reader in early:
        confirmations.ask(reader, consistent=False)
    confirmations.ask(gone, consistent=False).leave(gone)
    await eventually(lambda: asked == [False], "one confirmation is asked for")
    confirmations.ask(late, consistent=False)
    unlucky = Reader()
    confirmations.ask(unlucky, consistent=True)
    await eventually(lambda: len(asked) == 3, "a confirmation counts only for those who asked before it began")
    let.set()
    await eventually(lambda: isinstance(unlucky.error, NoLeader), "who cannot be confirmed is told why")
    await eventually(lambda: all(reader.error is None for reader in (*early, late)), "all are told")
    assert gone.error == "not told"


@WAYS
async def test_a_client_that_goes_away_while_it_waits_leaves_nothing_behind(follower: Follower, more: str) -> None:
    others = follower.door.http.open_connections
    follower.consensus.let.clear()
    async with line(follower.door) as client:
        client.send("/v1/kv/a", more)
        await eventually(lambda: len(follower.consensus.asked) == 1, "the read waits for its confirmation")
    follower.consensus.let.set()
    await eventually(lambda: follower.door.http.open_connections == others, "its connection is closed")
    assert (await follower.door.get("/v1/kv/a"))[0] == 200


async def test_a_client_that_has_closed_its_side_is_still_answered(follower: Follower) -> None:
    async with line(follower.door) as client:
        client.send("/v1/kv/a?raw")
        client.writer.write_eof()
        assert (await client.answer())[2] == b"one"
        async with asyncio.timeout(PATIENCE):
            assert await client.reader.read() == b""


class TestBlockingQueries:
    @WAYS
    async def test_one_is_confirmed_when_it_begins_and_then_waits_here(self, follower: Follower, more: str) -> None:
        consensus = follower.consensus
        async with line(follower.door) as client:
            _, headers, _ = await client.get("/v1/kv/a")
            consensus.asked.clear()
            client.send(f"/v1/kv/a?index={headers['x-consul-index']}&wait=60s", more)
            await follower.waits()
            follower.write_elsewhere("a", b"two")
            consensus.contact = 0.042
            consensus.catch_up()
            answer = await client.answer()
            assert json.loads(answer[2])[0]["Value"] == "dHdv"
            assert age(answer) == ("leader", "true", "42"), "the age is that at the time of answering"
            assert consensus.asked == [False]

    async def test_one_that_is_behind_is_answered_as_soon_as_it_is_confirmed(self, follower: Follower) -> None:
        async with line(follower.door) as client:
            _, headers, _ = await client.get("/v1/kv/a")
            follower.write_elsewhere("a", b"two")
            answer = await client.get(f"/v1/kv/a?index={headers['x-consul-index']}&wait=60s")
            assert json.loads(answer[2])[0]["Value"] == "dHdv"
            assert age(answer) == ("leader", "true", "0")

    async def test_who_joins_those_that_wait_is_confirmed_as_well(self, follower: Follower) -> None:
        consensus, waiting = follower.consensus, follower.door.http.api.waiting
        async with line(follower.door) as first, line(follower.door) as second:
            _, headers, _ = await first.get("/v1/kv/a")
            path = f"/v1/kv/a?index={headers['x-consul-index']}&wait=60s"
            first.send(path)
            await eventually(lambda: len(waiting) == 1, "the first waits")
            consensus.asked.clear()
            second.send(path)
            await eventually(lambda: sum(len(group) for group, _ in waiting.values()) == 2, "the second waits with it")
            assert consensus.asked == [False]
            follower.lose_leader()
            async with line(follower.door) as third:
                assert (await third.get(path))[2] == b"No cluster leader"
            follower.write_elsewhere("a", b"two")
            consensus.catch_up()
            for client in (first, second):
                assert age(await client.answer()) == ("leader", "false", "5000")

    @WAYS
    async def test_a_stale_one_is_confirmed_in_the_end_if_it_has_become_too_old(
        self, follower: Follower, more: str
    ) -> None:
        consensus = follower.consensus
        async with line(follower.door) as client:
            for value, known in ((b"two", True), (b"three", False)):
                consensus.contact = 0.0
                _, headers, _ = await client.get("/v1/kv/a?stale")
                client.send(f"/v1/kv/a?raw&index={headers['x-consul-index']}&max_stale=3s&wait=60s", more)
                await follower.waits()
                consensus.contact, consensus.known = 4.0, known
                follower.write_elsewhere("a", value)
                consensus.catch_up()
                answer = await client.answer()
                assert answer[2] == (value if known else b"No cluster leader")
            assert consensus.asked == [False, False]

    async def test_one_whose_time_is_over_is_answered_as_it_stands(self, follower: Follower) -> None:
        async with line(follower.door) as client:
            _, headers, _ = await client.get("/v1/kv/a")
            follower.consensus.contact = 0.03
            answer = await client.get(f"/v1/kv/a?raw&index={headers['x-consul-index']}&wait=10ms")
            assert answer[2] == b"one"
            assert age(answer) == ("leader", "true", "30")


async def test_a_snapshot_from_the_leader_ends_what_was_kept(follower: Follower) -> None:
    door, machine = follower.door, StoreMachine(follower.door.agent.store)
    leader = Store()
    await StoreMachine(leader).load(machine.image().encode())
    apply(leader, KVWrite("set", "a", b"two"), 0)
    async with line(door) as client, line(door) as waiting:
        for _ in range(3):
            _, headers, value = await client.get("/v1/kv/a?raw&stale")
            assert value == b"one"
        waiting.send(f"/v1/kv/a?raw&stale&index={headers['x-consul-index']}&wait=60s")
        await eventually(lambda: len(door.http.api.waiting) == 1, "the query waits")
        await machine.load(StoreMachine(leader).image().encode())
        assert (await client.get("/v1/kv/a?raw&stale"))[2] == b"two"
        assert (await waiting.answer())[2] == b"two"


class TestDiscovery:
    async def test_configuration_may_allow_discovery_to_be_stale(self) -> None:
        async with follower_with('-hcl=discovery_max_stale = "10s"') as follower, line(follower.door) as client:
            follower.consensus.contact = 2.0
            for path in ("/v1/catalog/nodes", "/v1/health/service/consul", "/v1/catalog/service/consul?passing"):
                assert age(await client.get(path)) == ("stale", "true", "2000")
            assert follower.consensus.asked == []
            for path in ("/v1/catalog/nodes?leader", "/v1/kv/a", "/v1/health/node/n1?consistent"):
                assert age(await client.get(path))[1:] == ("true", "0")
            assert follower.consensus.asked == [False, False, True]
            follower.consensus.contact = 11.0
            assert age(await client.get("/v1/catalog/nodes")) == ("leader", "true", "0")

    async def test_what_a_cache_may_answer_is_not_confirmed(self, follower: Follower) -> None:
        follower.lose_leader(2.0)
        async with line(follower.door) as client:
            for cache in ("MISS", "HIT"):
                answer = await client.get("/v1/health/service/consul?cached")
                assert answer[1]["x-cache"] == cache.lower()
                assert age(answer) == ("leader", "false", "2000")
            assert (await client.get("/v1/catalog/nodes?cached"))[2] == b"No cluster leader"

    async def test_without_a_cache_it_is(self) -> None:
        flags = "-hcl=http_config { use_cache = false }"
        async with follower_with(flags) as follower, line(follower.door) as client:
            assert age(await client.get("/v1/health/service/consul?cached")) == ("leader", "true", "0")
            assert follower.consensus.asked == [False]


class TestActions:
    """Endpoints that read and are no plain reads."""

    async def txn(self, follower: Follower, mode: str) -> tuple[int, Any]:
        operations = [{"KV": {"Verb": "get", "Key": "a"}}]
        status, _, body = await follower.door.call("PUT", f"/v1/txn{mode}", json=operations)
        return status, json.loads(body) if status == 200 else body

    async def test_a_transaction_of_reads(self, follower: Follower) -> None:
        follower.write_elsewhere("a", b"two")
        follower.consensus.contact = 0.007
        _, found = await self.txn(follower, "?stale")
        assert found["Results"][0]["KV"]["Value"] == "b25l"
        assert (found["LastContact"], found["KnownLeader"]) == (7_000_000, True), "in nanoseconds"
        _, found = await self.txn(follower, "")
        assert found["Results"][0]["KV"]["Value"] == "dHdv"
        assert (found["LastContact"], found["KnownLeader"]) == (0, True)
        await self.txn(follower, "?consistent")
        assert follower.consensus.asked == [False, True]
        follower.lose_leader()
        assert await self.txn(follower, "") == (500, b"No cluster leader")
        assert (await self.txn(follower, "?stale"))[1]["KnownLeader"] is False

    async def test_a_prepared_query(self, follower: Follower) -> None:
        door, consensus = follower.door, follower.consensus
        body = {"Name": "q", "Service": {"Service": "consul"}}
        _, _, made = await door.call("POST", "/v1/query", json=body)
        query_id = json.loads(made)["ID"]
        for what in ("execute", "explain"):
            consensus.asked.clear()
            for mode in ("", "?consistent", "?stale"):
                assert (await door.get(f"/v1/query/q/{what}{mode}"))[0] == 200
            assert consensus.asked == [False, True]
        consensus.contact = 0.009
        found = await door.json("/v1/query/q/execute?stale")
        assert (found["LastContact"], found["ConsistencyLevel"]) == (9_000_000, "stale")
        consensus.asked.clear()
        assert (await door.put(f"/v1/query/{query_id}", body))[0] == 200
        assert (await door.call("DELETE", f"/v1/query/{query_id}"))[0] == 200
        assert consensus.asked == [False, False], "the query might have been made elsewhere"
        follower.lose_leader()
        assert (await door.get("/v1/query/q/execute"))[2] == b"No cluster leader"

    @pytest.mark.parametrize(
        "path",
        [
            "/v1/snapshot",
            "/v1/operator/raft/configuration",
            "/v1/operator/autopilot/configuration",
            "/v1/operator/usage",
            "/v1/coordinate/nodes",
            "/v1/config/service-defaults",
            "/v1/session/list",
            "/v1/internal/ui/catalog-overview",
            "/v1/internal/federation-state/dc1",
        ],
    )
    async def test_whatever_reads_the_store(self, follower: Follower, path: str) -> None:
        door, consensus = follower.door, follower.consensus
        assert (await door.get(path))[0] == 200
        assert (await door.get(f"{path}?consistent"))[0] == 200
        assert consensus.asked == [False, True]
        follower.lose_leader()
        assert (await door.get(path))[::2] == (500, b"No cluster leader")
        assert (await door.get(f"{path}?stale"))[0] == 200

    async def test_the_web_page_is_answered_without_a_leader(self, follower: Follower) -> None:
        for _ in range(3):
            assert (await follower.door.get("/v1/internal/ui/nodes"))[0] == 200
        follower.lose_leader()
        async with line(follower.door) as client:
            for path in ("nodes", "services", "node/n1"):
                for more in (PLAIN, FULL, PLAIN):
                    answer = await client.get(f"/v1/internal/ui/{path}", more)
                    assert answer[0] == 200
                    assert age(answer)[1:] == ("false", "5000")
            follower.consensus.known = True
            assert age(await client.get("/v1/internal/ui/nodes")) == ("leader", "true", "0")

    async def test_an_age_in_a_body_is_as_true_as_one_in_a_header(self, follower: Follower) -> None:
        async with line(follower.door) as client:
            for contact in (0.001, 0.002, 0.003, 0.004):
                follower.consensus.contact = contact
                for path in ("/v1/internal/federation-state/dc1?stale", "/v1/operator/usage?stale"):
                    _, _, body = await client.get(path)
                    assert json.loads(body)["LastContact"] == round(contact * 1e9)

    async def test_what_is_the_agents_own_needs_no_leader(self, follower: Follower) -> None:
        follower.lose_leader()
        for path in ("self", "members", "services", "checks", "metrics"):
            assert (await follower.door.get(f"/v1/agent/{path}"))[0] == 200
        assert await follower.door.json("/v1/event/list") == []
        assert await follower.door.json("/v1/status/leader") == ""
        assert await follower.door.json("/v1/catalog/datacenters") == ["dc1"]
