"""The API by way of both clients, against a real agent."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import msgspec
import pytest

from lictor.client import AsyncClient, Client
from lictor.client.calls import Call, call, read
from lictor.client.errors import (
    ApiError,
    BadAnswer,
    ClientError,
    Forbidden,
    InvalidRequest,
    LockError,
    NoAgent,
    NotFound,
    ServerError,
)
from lictor.client.records import CheckSpec
from lictor.client.settings import Retry
from lictor.model.prepared_query import PreparedQuery, ServiceQuery
from tests.agent.processes import Process
from tests.client.conftest import PATIENT, address
from tests.patience import PATIENCE, eventually, soon

TTL = 600.0  # seconds: nobody who stands still for a while loses a lock by that


def test_keys_and_values(client: Client) -> None:
    assert client.kv.get("kv/a") is None
    assert client.kv.put("kv/a b/ü?#%", "hello", flags=7)
    entry = client.kv.get("kv/a b/ü?#%")
    assert entry is not None
    assert (entry.value, entry.flags) == (b"hello", 7)
    assert client.kv.put("kv/a", b"1", cas=0)
    assert not client.kv.put("kv/a", b"2", cas=0)
    assert client.kv.raw("kv/a") == b"1"
    assert client.kv.raw("kv/none") is None
    assert [e.key for e in client.kv.list("kv/")] == ["kv/a", "kv/a b/ü?#%"]
    assert client.kv.keys("kv/", separator="/") == ["kv/a", "kv/a b/"]
    assert not client.kv.delete("kv/a", cas=1)
    assert client.kv.delete("kv/", recurse=True)
    assert client.kv.list("kv/") == []
    assert client.kv.keys("kv/") == []


def test_intentions(client: Client) -> None:
    calls = client.intentions
    assert calls.put("web", "db", "allow", description="d")
    assert calls.put("*", "db", "deny")
    assert [(row.source_name, row.action, row.precedence) for row in calls.match("db")] == [
        ("web", "allow", 9),
        ("*", "deny", 8),
    ]
    assert [row.destination_name for row in calls.match("web", by="source")] == ["db", "db"]
    assert [row.source_name for row in calls.list(filter="Action == deny")] == ["*"]
    assert (calls.check("web", "db"), calls.check("api", "db")) == (True, False)
    permissions = [{"Action": "allow", "HTTP": {"PathPrefix": "/"}}]
    assert client.config.put({"Kind": "service-defaults", "Name": "db", "Protocol": "http"})
    assert calls.put("web", "db", permissions=permissions)
    row = calls.get("web", "db")
    assert row is not None
    assert (row.action, row.permissions) == ("", permissions)
    assert calls.explain("web", "db")["Verdict"] == "needs layer 7"
    assert calls.explain("web", "db", change="deny")["Effect"]["Verdict"] == "denied"
    assert calls.delete("web", "db")
    assert calls.delete("*", "db")
    assert calls.get("web", "db") is None
    client.config.delete("service-defaults", "db")
    with pytest.raises(ServerError, match="Action must be set"):
        calls.put("web", "db")


def test_services_and_checks_of_the_agent(client: Client) -> None:
    client.agent.register(
        "shop",
        id="shop1",
        port=80,
        tags=["v1"],
        meta={"k": "v"},
        checks=[CheckSpec(check_id="shop-ttl", ttl="1h")],
        EnableTagOverride=True,
    )
    service = client.agent.service("shop1")
    assert service is not None
    assert (service.service, service.port, service.tags, service.enable_tag_override) == ("shop", 80, ("v1",), True)
    assert "shop1" in client.agent.services()
    assert client.agent.service("none") is None
    eventually(lambda: client.catalog.service("shop"), "it is in the catalog")
    assert client.health.service("shop", passing=True) == []
    client.agent.report("shop-ttl", "passing", output="well")
    eventually(lambda: client.health.service("shop", passing=True), "it passes")
    (entry,) = client.health.service("shop", passing=True)
    assert (entry.service.id, entry.node.node) == ("shop1", "n1")
    assert {c.check_id: c.output for c in entry.checks}["shop-ttl"] == "well"
    assert [c.check_id for c in client.health.checks("shop")] == ["shop-ttl"]
    client.agent.service_maintenance("shop1", True, reason="work")
    eventually(lambda: client.health.service("shop", passing=True) == [], "it is in maintenance")
    client.agent.service_maintenance("shop1", False)
    client.agent.register_check(CheckSpec(name="disk", ttl="1h", status="passing"))
    assert client.agent.checks()["disk"].status == "passing"
    client.agent.deregister_check("disk")
    (row,) = client.catalog.service("shop")
    assert (row.service_port, row.service_tags, row.service_meta) == (80, ("v1",), {"k": "v"})
    assert client.catalog.service("shop", tag="v2") == []
    assert client.catalog.services()["shop"] == ["v1"]
    client.agent.deregister("shop1")
    eventually(lambda: "shop" not in client.catalog.services(), "it is gone")


def test_the_catalog(client: Client) -> None:
    client.catalog.register(
        {"Node": "db1", "Address": "10.1.1.1", "NodeMeta": {"rack": "a"}, "Service": {"Service": "db", "Port": 5432}}
    )
    assert [n.node for n in client.catalog.nodes(node_meta={"rack": "a"})] == ["db1"]
    node = client.catalog.node("db1")
    assert node is not None
    assert node.node.address == "10.1.1.1"
    assert [s.port for s in node.services.values()] == [5432]
    assert client.catalog.node("none") is None
    assert client.catalog.datacenters() == ["dc1"]
    assert [e.service.port for e in client.health.service("db", filter='Node.Meta.rack == "a"')] == [5432]
    assert client.health.node("db1") == []
    client.catalog.deregister("db1")
    assert client.catalog.node("db1") is None


def test_sessions_transactions_events_queries_and_the_rest(client: Client) -> None:
    session = client.session.create("mine", ttl=30, lock_delay=0.001)
    found = client.session.info(session)
    assert found is not None
    assert (found.name, found.ttl, found.lock_delay) == ("mine", "30s", 1_000_000)
    assert session in [s.id for s in client.session.list()]
    assert session in [s.id for s in client.session.node("n1")]
    renewed = client.session.renew(session)
    assert renewed is not None
    assert client.kv.put("rest/lock", b"", acquire=session)
    assert client.session.destroy(session)
    assert client.session.renew(session) is None
    assert client.session.info(session) is None

    done = client.txn.apply([{"KV": {"Verb": "set", "Key": "rest/t", "Value": b"x"}}])
    assert done.committed
    assert client.kv.raw("rest/t") == b"x"
    undone = client.txn.apply([{"KV": {"Verb": "check-index", "Key": "rest/t", "Index": 1}}])
    assert not undone.committed
    assert undone.errors is not None
    assert undone.errors[0].op_index == 0

    fired = client.event.fire("deploy", b"now")
    assert (fired.name, fired.payload) == ("deploy", b"now")
    eventually(lambda: fired.id in [e.id for e in client.event.list("deploy")], "the event is seen")

    client.agent.register("asked", port=1)
    eventually(lambda: client.catalog.service("asked"), "it is in the catalog")
    query = client.query.create(PreparedQuery(name="q1", service=ServiceQuery(service="asked")))
    defined = client.query.get(query)
    assert defined is not None
    assert defined.service.service == "asked"
    assert query in [q.id for q in client.query.list()]
    assert [e.service.port for e in client.query.execute("q1").nodes] == [1]
    client.query.update(msgspec.structs.replace(defined, name="q2"))
    assert client.query.execute("q2").service == "asked"
    client.query.delete(query)
    assert client.query.get(query) is None

    assert client.config.put({"Kind": "service-defaults", "Name": "asked", "Protocol": "http"})
    entry = client.config.get("service-defaults", "asked")
    assert entry is not None
    assert entry["Protocol"] == "http"
    assert [e["Name"] for e in client.config.list("service-defaults")] == ["asked"]
    client.config.delete("service-defaults", "asked")
    assert client.config.get("service-defaults", "asked") is None

    assert client.status.leader()
    assert len(client.status.peers()) == 1
    (server,) = client.operator.raft_configuration().servers
    assert server.leader
    assert client.operator.autopilot()["CleanupDeadServers"] is True
    assert client.operator.health().servers is not None
    eventually(lambda: client.operator.authority()["Provider"] == "consul", "the mesh has its authority")
    authority = client.operator.authority()
    client.operator.set_authority({**authority, "Config": {**authority["Config"], "LeafCertTTL": "70h"}})
    assert client.operator.authority()["Config"]["LeafCertTTL"] == "70h"
    with pytest.raises(ServerError, match="could not atomically update"):
        client.operator.set_authority(authority)
    assert [m.name for m in client.agent.members()] == ["n1"]
    assert client.agent.self()["Config"]["NodeName"] == "n1"
    eventually(lambda: [c.node for c in client.coordinate.nodes()], "a coordinate")
    assert client.coordinate.node("none") == []
    archive = client.snapshot.save()
    assert archive[:2] == b"\x1f\x8b"


def test_an_answer_says_what_is_known_of_it(client: Client) -> None:
    client.kv.put("answer", b"1")
    answer = client.kv.get.answer("answer")
    assert answer.value is not None
    assert answer.index == answer.value.modify_index
    assert answer.known_leader
    assert answer.last_contact == 0


def test_a_watch_yields_what_is_there_and_each_change(client: Client) -> None:
    client.kv.put("watched", b"0")
    seen: list[bytes | None] = []
    ended = threading.Event()

    def watch() -> None:
        for entry in client.kv.get.watch("watched"):
            seen.append(entry.value if entry is not None else None)
            if entry is None:
                ended.set()
                return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    eventually(lambda: seen == [b"0"], "what is there")
    client.kv.put("elsewhere", b"1")
    client.kv.put("watched", b"2")
    eventually(lambda: seen == [b"0", b"2"], "the change")
    client.kv.delete("watched")
    assert ended.wait(PATIENCE)
    thread.join(PATIENCE)
    assert seen == [b"0", b"2", None]


def test_a_watch_goes_on_when_the_agent_comes_back(tmp_path_factory: pytest.TempPathFactory) -> None:
    own = Process(tmp_path_factory.mktemp("own"))
    try:
        own.start()
        with Client(address(own), options=PATIENT, environment={}) as client:
            client.kv.put("a", b"1")
            watch: Iterator[Any] = client.kv.raw.watch("a")
            assert next(watch) == b"1"
            own.kill()
            seen: list[bytes] = []
            thread = threading.Thread(target=lambda: seen.append(next(watch)), daemon=True)
            thread.start()
            own.start()
            eventually(lambda: client.kv.put("a", b"2"), "a leader")
            thread.join(PATIENCE)
            assert seen == [b"2"]
    finally:
        own.close()


def test_what_has_no_index_cannot_be_watched(client: Client) -> None:
    made = client.watch(Call("GET", "/v1/status/leader", lambda reply: reply.body), 1.0)
    with pytest.raises(BadAnswer, match="GET /v1/status/leader cannot be watched"):
        next(made)


@pytest.mark.parametrize(
    ("ask", "error", "told"),
    [
        (lambda c: c.kv.put("", b""), InvalidRequest, "PUT /v1/kv/: 400 "),
        (lambda c: c.session.info("no-id"), ServerError, "500 "),
        (lambda c: c.agent.deregister("none"), NotFound, "404 "),
        (lambda c: c.catalog.nodes(dc="nowhere"), ServerError, "No path to datacenter"),
        (lambda c: c.catalog.nodes(filter="((("), InvalidRequest, "400 "),
    ],
)
def test_errors_have_types_and_say_what_was_asked(
    client: Client, ask: Callable[[Client], Any], error: type[ApiError], told: str
) -> None:
    with pytest.raises(error) as caught:
        ask(client)
    assert told in str(caught.value)
    assert isinstance(caught.value, ClientError)


def test_what_is_said_with_every_request(client: Client, agent: Process) -> None:
    with pytest.raises(ServerError, match="No path to datacenter"):
        client.using(datacenter="elsewhere").catalog.nodes()
    stale = client.using(consistency="stale", retry=Retry(tries=1))
    assert stale.kv.get("none") is None
    assert client.options.consistency == ""


def test_no_agent(client: Client) -> None:
    with (
        Client("127.0.0.1:1", environment={}) as nowhere,
        pytest.raises(NoAgent, match="no agent at http://127.0.0.1:1"),
    ):
        nowhere.status.leader()
    client.close()
    with pytest.raises(NoAgent, match="the client is closed"):
        client.status.leader()


def test_a_lock_has_one_holder(client: Client) -> None:
    one, two = client.lock("locks/a", ttl=TTL, value="one"), client.lock("locks/a", ttl=TTL)
    with one:
        assert one.held
        assert client.kv.raw("locks/a") == b"one"
        assert not two.acquire(timeout=0.2)
        with pytest.raises(LockError, match="held already"):
            one.acquire()
    assert two.acquire(timeout=PATIENCE)
    two.release()
    two.release()
    assert not two.held
    assert client.kv.get("locks/a") is None, "nothing is left of a lock that nobody holds"
    assert not [s for s in client.session.list() if "locks/a" in s.name]


def test_who_waits_gets_the_lock_when_it_is_let_go(client: Client) -> None:
    held = client.lock("locks/b", ttl=TTL)
    assert held.acquire()
    order: list[str] = []
    other = client.lock("locks/b", ttl=TTL)

    def wait() -> None:
        assert other.acquire(PATIENCE)
        order.append("taken")

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    eventually(lambda: len([s for s in client.session.list() if "locks/b" in s.name]) == 2, "the other waits")
    order.append("let go")
    held.release()
    thread.join(PATIENCE)
    assert order == ["let go", "taken"]
    other.release()


def test_a_lock_whose_session_ends_is_lost(client: Client) -> None:
    lock = client.lock("locks/c", ttl=TTL, lock_delay=0.0)
    assert lock.acquire()
    for session in client.session.list():
        if "locks/c" in session.name:
            client.session.destroy(session.id)
    assert lock.lost.wait(PATIENCE)
    assert not lock.held
    lock.release()


def test_a_key_that_is_no_lock_is_not_taken(client: Client) -> None:
    client.kv.put("locks/plain", b"data")
    with pytest.raises(LockError, match="locks/plain is there already, and is no lock"):
        client.lock("locks/plain", ttl=TTL).acquire()
    assert client.kv.raw("locks/plain") == b"data"


def test_a_semaphore_has_as_many_holders_as_it_says(client: Client) -> None:
    holders = [client.semaphore("sem", 2, ttl=TTL) for _ in range(3)]
    assert holders[0].acquire() and holders[1].acquire()
    assert not holders[2].acquire(timeout=0.2)
    holders[0].release()
    assert holders[2].acquire(timeout=PATIENCE)
    with pytest.raises(LockError, match="has the limit 2, and 3 was asked for"):
        client.semaphore("sem", 3, ttl=TTL).acquire()
    for held in holders[1:]:
        held.release()


# -- on an event loop --------------------------------------------------------------------------------------------------


async def test_the_same_calls_on_an_event_loop(loop_client: AsyncClient) -> None:
    client = loop_client
    assert await client.kv.put("loop/a b/ü?#%", b"1")
    assert await client.kv.raw("loop/a b/ü?#%") == b"1"
    assert await client.kv.get("loop/none") is None
    assert [e.key for e in await client.kv.list("loop/")] == ["loop/a b/ü?#%"]
    await client.agent.register("loop-web", port=80)
    async with asyncio.timeout(PATIENCE):
        while not (found := await client.health.service("loop-web")):
            await asyncio.sleep(0.05)
    assert [e.service.port for e in found] == [80]
    answer = await client.kv.raw.answer("loop/a b/ü?#%")
    assert answer.index > 0
    with pytest.raises(NotFound):
        await client.agent.deregister("none")
    with pytest.raises(ServerError, match="No path to datacenter"):
        await client.using(datacenter="elsewhere").catalog.nodes()


async def test_a_watch_on_an_event_loop(loop_client: AsyncClient) -> None:
    client = loop_client
    await client.kv.put("loop/watched", b"0")
    watch: AsyncIterator[bytes | None] = client.kv.raw.watch("loop/watched")
    assert await anext(watch) == b"0"
    coming = asyncio.ensure_future(anext(watch))
    await client.kv.put("loop/watched", b"1")
    async with asyncio.timeout(PATIENCE):
        assert await coming == b"1"


async def test_a_lock_on_an_event_loop(loop_client: AsyncClient) -> None:
    client = loop_client
    async with client.lock("loop/lock", ttl=TTL, value="me") as lock:
        assert lock.held
        assert await client.kv.raw("loop/lock") == b"me"
        assert not await client.lock("loop/lock", ttl=TTL).acquire(timeout=0.2)
    async with client.lock("loop/lock", ttl=TTL, lock_delay=0.0) as lock:
        (session,) = [s for s in await client.session.list() if "loop/lock" in s.name]
        await client.session.destroy(session.id)
        await soon(lock.lost.is_set, "the lock is lost")
    async with client.semaphore("loop/sem", 1, ttl=TTL):
        assert not await client.semaphore("loop/sem", 1, ttl=TTL).acquire(timeout=0.2)


async def test_no_agent_on_an_event_loop() -> None:
    async with AsyncClient("127.0.0.1:1", environment={}) as client:
        with pytest.raises(NoAgent, match="no agent at http://127.0.0.1:1") as caught:
            await client.status.leader()
        assert not caught.value.begun
    with pytest.raises(NoAgent, match="the client is closed"):
        await client.status.leader()


async def test_both_flavours_have_the_same_calls(client: Client, loop_client: AsyncClient) -> None:
    """Each family is one class, whose calls are described once."""
    families = {name for name, value in vars(client).items() if hasattr(value, "maker")}
    assert len(families) == 14
    for name in families:
        assert type(getattr(client, name)) is type(getattr(loop_client, name))
        described = [m for m in vars(type(getattr(client, name))).values() if isinstance(m, call | read)]
        assert described
        assert all(m.__doc__ for m in described)


def forbidding(status: int) -> Callable[[Any, Any], Awaitable[None]]:
    """A server that gives one answer to everybody."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 %d No\r\nContent-Length: 17\r\nConnection: close\r\n\r\nPermission denied" % status)
        await writer.drain()
        writer.close()

    return answer


@pytest.mark.parametrize(("status", "error"), [(403, Forbidden), (401, Forbidden), (418, ApiError)])
async def test_other_answers(status: int, error: type[ApiError]) -> None:
    server = await asyncio.start_server(forbidding(status), "127.0.0.1", 0)
    async with (
        server,
        AsyncClient(f"127.0.0.1:{server.sockets[0].getsockname()[1]}", options=PATIENT, environment={}) as client,
    ):
        with pytest.raises(error, match=f"{status} \\(Permission denied\\)"):
            await client.kv.get("a")
