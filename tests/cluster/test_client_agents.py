"""Agents that are no servers, beside three that are: what their doors answer, and what outlives the servers."""

from __future__ import annotations

import base64
import http.client
import json
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.datacenter import Datacenter, datacenter_in
from tests.cluster.servers import Server
from tests.contract.dig import ask as dig
from tests.contract.dig import question
from tests.patience import PATIENCE, eventually

WEB = {"Name": "web", "Port": 80, "Check": {"TTL": "1h", "Status": "passing"}}


@pytest.fixture
def datacenter(tmp_path: Path) -> Iterator[Datacenter]:
    """A datacenter whose servers and agents a test may end."""
    with datacenter_in(tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Datacenter]:
    """A datacenter for tests that end nothing: agents "one" and "two" are in it."""
    with datacenter_in(tmp_path_factory.mktemp("datacenter")) as made:
        made.client("one")
        made.client("two")
        yield made


def headers(agent: Server, path: str, sent: dict[str, str] | None = None) -> tuple[int, dict[str, str], Any]:
    """The status, headers and JSON of a GET."""
    connection = http.client.HTTPConnection("127.0.0.1", agent.ports["http"], timeout=PATIENCE)
    try:
        connection.request("GET", path, headers=sent or {})
        answer = connection.getresponse()
        body = answer.read()
        found = {name.lower(): value for name, value in answer.getheaders()}
        return answer.status, found, json.loads(body) if answer.status == 200 else body
    finally:
        connection.close()


def ports(agent: Server, service: str) -> list[int]:
    """The ports of a service's healthy instances, as an agent tells them."""
    return sorted(row["Service"]["Port"] for row in agent.get(f"/v1/health/service/{service}?passing"))


def named(agent: Server, service: str) -> list[int]:
    """The ports of a service's instances, as DNS tells them."""
    answer = dig(agent.ports["dns"], question(f"{service}.service.consul", "SRV"))
    return sorted(int(record.split()[2]) for record in answer.records("SRV"))


def statuses(agent: Server, node: str) -> dict[str, str]:
    """A node's checks, as the servers have them."""
    return {check["CheckID"]: check["Status"] for check in agent.get(f"/v1/health/node/{node}")}


def waiting_at(server: Server) -> int:
    """How many blocking queries wait at a server."""
    gauges = {gauge["Name"]: gauge["Value"] for gauge in server.get("/v1/agent/metrics")["Gauges"]}
    return int(next(value for name, value in gauges.items() if name.endswith("rpc.queries_blocking")))


def test_what_is_registered_with_an_agent_is_found_everywhere(shared: Datacenter) -> None:
    first, second = shared.clients
    first.put("/v1/agent/service/register", WEB)
    assert ports(first, "web") == [80], "whoever has registered reads it at once"
    eventually(lambda: ports(second, "web") == [80], "the other agent finds it")
    eventually(lambda: named(second, "web") == [80], "so does its DNS")
    eventually(lambda: ports(shared.any(), "web") == [80], "and the servers")
    eventually(lambda: statuses(second, "one").get("serfHealth") == "passing", "its node is healthy")
    roles = {member["Name"]: member["Tags"]["role"] for member in second.get("/v1/agent/members")}
    assert roles == {"a": "consul", "b": "consul", "c": "consul", "one": "node", "two": "node"}
    first.put("/v1/agent/check/fail/service:web")
    eventually(lambda: ports(second, "web") == [], "a failed check reaches the other agent")
    first.put("/v1/agent/check/pass/service:web")
    eventually(lambda: ports(second, "web") == [80], "and so does its recovery")
    first.put("/v1/agent/service/deregister/web")
    eventually(lambda: named(second, "web") == [], "what is deregistered is gone")


def test_discovery_tells_that_it_comes_from_the_agent_and_how_old_it_is(shared: Datacenter) -> None:
    agent = shared.clients[0]
    agent.put("/v1/agent/service/register", {"Name": "aged", "Port": 1})
    path = "/v1/health/service/aged?passing"
    assert headers(agent, path)[1]["x-cache"] == "MISS"
    for _ in range(3):
        status, found, _ = headers(agent, path)
        assert (status, found["x-cache"]) == (200, "HIT")
        assert int(found["age"]) < 30
        assert found["x-consul-knownleader"] == "true"
    assert "age" not in headers(agent, path + "&consistent")[1]
    assert headers(agent, path, {"Cache-Control": "must-revalidate"})[0] == 200
    assert headers(agent, path + "&cached", {"Cache-Control": "max-age=x"})[0] == 400


def test_every_server_endpoint_is_there_through_an_agent(shared: Datacenter) -> None:
    agent = shared.clients[0]
    assert agent.put("/v1/kv/a", b"1") == b"true"
    assert agent.get("/v1/kv/a")[0]["Value"] == base64.b64encode(b"1").decode()
    index = agent.get("/v1/kv/a")[0]["ModifyIndex"]
    assert agent.put(f"/v1/kv/a?cas={index}", b"2") == b"true"
    assert agent.put(f"/v1/kv/a?cas={index}", b"3") == b"false"
    session = json.loads(agent.put("/v1/session/create", {"TTL": "60s"}))["ID"]
    assert agent.get(f"/v1/session/info/{session}")[0]["Node"] == "one", "a session is of the node that was asked"
    assert agent.put(f"/v1/kv/lock?acquire={session}", b"x") == b"true"
    done = json.loads(agent.put("/v1/txn", [{"KV": {"Verb": "get", "Key": "a"}}]))
    assert base64.b64decode(done["Results"][0]["KV"]["Value"]) == b"2"
    query = json.loads(agent.ask("POST", "/v1/query", {"Name": "q", "Service": {"Service": "consul"}})[1])["ID"]
    assert len(agent.get(f"/v1/query/{query}/execute")["Nodes"]) == 3
    assert {node["Node"] for node in agent.get("/v1/catalog/nodes")} >= {"a", "b", "c", "one"}
    assert set(agent.peers()) == {"a", "b", "c"}
    assert agent.get("/v1/operator/autopilot/health")["Healthy"] in (True, False)
    status, saved = agent.ask("GET", "/v1/snapshot")
    assert status == 200
    assert agent.put("/v1/kv/a", b"later") == b"true"
    agent.put("/v1/snapshot", saved)
    assert base64.b64decode(agent.get("/v1/kv/a")[0]["Value"]) == b"2"
    assert agent.ask("GET", "/v1/kv/a?dc=elsewhere") == (500, b"No path to datacenter")
    assert agent.ask("PUT", "/v1/kv/big", b"x" * 600_000)[0] == 413
    assert agent.ask("GET", "/v1/health/service/web?index=x")[0] == 400
    assert agent.ask("PUT", "/v1/session/destroy/nothing")[0] == 500


def test_a_blocking_query_through_an_agent_wakes(shared: Datacenter) -> None:
    agent, server = shared.clients[0], shared.any()
    agent.put("/v1/kv/watched", b"1")
    for path, change in (
        ("/v1/kv/watched", lambda: server.write("watched", b"2")),
        ("/v1/health/service/new", lambda: server.put("/v1/agent/service/register", {"Name": "new", "Port": 1})),
        ("/v1/catalog/nodes", lambda: server.put("/v1/catalog/register", {"Node": "other", "Address": "10.0.0.1"})),
    ):
        index = int(headers(agent, path)[1]["x-consul-index"])
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(agent.ask, "GET", f"{path}?index={index}&wait=9m")
            change()
            assert waiting.result(PATIENCE)[0] == 200, path


def test_what_an_agent_asks_of_servers_and_holds_of_them_is_published(shared: Datacenter) -> None:
    one = shared.clients[0]
    ports(one, "measured")

    def gauges(server: Server) -> dict[str, float]:
        return {gauge["Name"].split(".", 1)[1]: gauge["Value"] for gauge in server.get("/v1/agent/metrics")["Gauges"]}

    found = gauges(one)
    named_of_replica = {name.rpartition("replica.")[2]: value for name, value in found.items() if "replica." in name}
    assert named_of_replica["following"] == 1
    assert named_of_replica["topics"] >= 1
    assert named_of_replica["streams"] >= 1
    assert 0 <= named_of_replica["age"] < PATIENCE
    followed = [
        value
        for server in shared.servers
        for name, value in gauges(server).items()
        if name.endswith("replica.sessions")
    ]
    assert sum(followed) >= 1

    def counted() -> bool:
        one.get("/v1/catalog/datacenters")
        interval = one.get("/v1/agent/metrics")
        names = {row["Name"] for kind in ("Counters", "Samples") for row in interval[kind]}
        return all(any(name.endswith(wanted) for name in names) for wanted in ("client.rpc", "memberlist.udp.sent"))

    eventually(counted, "calls to servers are in an interval that has ended")
    stats = one.get("/v1/agent/self")["Stats"]
    assert Path(stats["lookup_map"]["path"]).exists()
    assert stats["replica"]["server"]
    assert int(stats["replica"]["topics"]) >= 1
    assert stats["consul"]["known_servers"] == "3"


def test_a_client_that_goes_away_leaves_nothing_behind_at_the_server(shared: Datacenter) -> None:
    agent = shared.clients[0]
    for number in range(36):  # more than an agent holds of one prefix: such a query waits at a server
        agent.put(f"/v1/kv/large/{number}", bytes(500_000))

    def running() -> int:
        return sum(waiting_at(server) for server in shared.servers)

    before = running()
    clients = [http.client.HTTPConnection("127.0.0.1", agent.ports["http"], timeout=PATIENCE) for _ in range(5)]
    for number, client in enumerate(clients):
        client.request("GET", f"/v1/kv/large/?keys&index={10_000_000 + number}&wait=9m")
    eventually(lambda: running() == before + 5, "the servers wait for them")
    for client in clients:
        client.close()
    eventually(lambda: running() == before, "and wait no more")
    assert agent.ask("DELETE", "/v1/kv/large/?recurse")[0] == 200


def test_what_is_held_outlives_every_server(datacenter: Datacenter) -> None:
    agent = datacenter.client("one", "-hcl", 'performance { rpc_hold_timeout = "1s" }')
    agent.put("/v1/agent/service/register", WEB)
    assert ports(agent, "web") == named(agent, "web") == [80]
    for server in datacenter.servers:
        server.kill()
    assert agent.ask("GET", "/v1/kv/a")[0] == 500
    eventually(lambda: int(headers(agent, "/v1/health/service/web?passing")[1]["age"]) >= 2, "its age is told")
    assert ports(agent, "web") == named(agent, "web") == [80]
    assert agent.ask("GET", "/v1/health/service/web?consistent")[0] == 500
    control = {"Cache-Control": "max-age=1, stale-if-error=3600"}
    assert headers(agent, "/v1/health/service/web", control)[0] == 200
    assert headers(agent, "/v1/health/service/web", {"Cache-Control": "max-age=1"})[0] == 500
    agent.put("/v1/agent/service/register", {"Name": "later", "Port": 81})
    datacenter.servers.start()
    eventually(lambda: ports(agent, "later") == [81], "what was registered meanwhile arrives")
    eventually(lambda: int(headers(agent, "/v1/health/service/web")[1]["age"]) < 2, "it follows a server again")
    eventually(lambda: ports(datacenter.any(), "web") == [80], "the servers still have it")


def test_a_killed_server_is_not_noticed(datacenter: Datacenter) -> None:
    agent = datacenter.client("one")
    agent.put("/v1/agent/service/register", WEB)
    other = datacenter.client("two")
    assert ports(other, "web") == [80]
    for number, server in enumerate(list(datacenter.servers)):
        server.kill()
        agent.write(f"key{number}", b"x")
        agent.put("/v1/agent/check/fail/service:web")
        eventually(lambda: ports(other, "web") == [], "changes go on arriving")
        agent.put("/v1/agent/check/pass/service:web")
        eventually(lambda: ports(other, "web") == [80], "changes go on arriving")
        datacenter.servers.start()


def test_an_agent_that_is_killed_becomes_critical_and_comes_back(datacenter: Datacenter) -> None:
    agent, other = datacenter.client("one"), datacenter.client("two")
    agent.put("/v1/agent/service/register", {"Name": "web", "Port": 80})
    eventually(lambda: ports(other, "web") == [80], "it is found")
    agent.kill()
    eventually(lambda: ports(other, "web") == [], "its services are not healthy any more")
    assert statuses(other, "one")["serfHealth"] == "critical"
    agent.start()
    eventually(lambda: ports(other, "web") == [80], "its services are back")


def test_an_agent_that_leaves_is_gone_with_its_services(datacenter: Datacenter) -> None:
    agent, other = datacenter.client("one"), datacenter.client("two")
    agent.put("/v1/agent/service/register", {"Name": "web", "Port": 80})
    eventually(lambda: ports(other, "web") == [80], "it is found")
    assert agent.end(signal.SIGTERM) == 0, "an agent that is no server leaves when it is asked to end"
    eventually(lambda: ports(other, "web") == [], "its services are gone")
    eventually(lambda: "one" not in {n["Node"] for n in other.get("/v1/catalog/nodes")}, "and so is its node")
    left = {member["Name"]: member["Status"] for member in other.get("/v1/agent/members")}
    assert left.get("one") in (None, 3)


def test_strays_in_the_catalog_are_removed_by_the_agent_whose_node_it_is(datacenter: Datacenter) -> None:
    agent = datacenter.client("one")
    agent.put("/v1/agent/service/register", {"Name": "web", "Port": 80})
    node = agent.get("/v1/agent/self")["Member"]["Addr"]
    stray = {"Node": "one", "Address": node, "Service": {"Service": "stray", "Port": 1}, "SkipNodeUpdate": True}
    agent.put("/v1/catalog/register", stray)
    assert "stray" in agent.get("/v1/catalog/services")
    agent.end(signal.SIGKILL)
    agent.start()
    eventually(lambda: "stray" not in agent.get("/v1/catalog/services"), "the stray is removed")
    assert "web" in agent.get("/v1/catalog/services")
