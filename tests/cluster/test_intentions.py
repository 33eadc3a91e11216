"""Intentions on agents that are no servers: decided on the node, also while every server is away, and explained with
what all agents of the datacenter know.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.datacenter import Datacenter, datacenter_in
from tests.cluster.servers import Server
from tests.patience import PATIENCE, eventually

BASE = "/v1/connect/intentions"
OF_DB = f"{BASE}/match?by=destination&name=db"


@pytest.fixture
def datacenter(tmp_path: Path) -> Iterator[Datacenter]:
    """A datacenter whose servers and agents a test may end."""
    with datacenter_in(tmp_path) as made:
        yield made


def put(agent: Server, source: str, destination: str, action: str) -> None:
    """Put an intention through an agent."""
    assert agent.put(f"{BASE}/exact?source={source}&destination={destination}", {"Action": action}) == b"true"


def of_db(agent: Server) -> list[tuple[str, str]]:
    """The intentions for "db" in their order: the source and the action of each."""
    return [(one["SourceName"], one["Action"]) for one in agent.get(OF_DB)["db"] or ()]


def allowed(agent: Server, source: str) -> bool:
    """Whether an agent would let a service connect to "db"."""
    return bool(agent.get(f"{BASE}/check?source={source}&destination=db")["Allowed"])


def effect(agent: Server, source: str, change: str) -> dict[str, Any]:
    """What a change of the intention for "db" would do, as an agent tells it."""
    found: dict[str, Any] = agent.get(f"{BASE}/explain?source={source}&destination=db&change={change}")["Effect"]
    return found


def test_decisions_go_on_while_every_server_is_away(datacenter: Datacenter) -> None:
    agent = datacenter.client("one", "-hcl", 'performance { rpc_hold_timeout = "1s" }')
    put(agent, "web", "db", "allow")
    put(agent, "*", "*", "deny")
    assert of_db(agent) == [("web", "allow"), ("*", "deny")], "whoever has written reads it at once"
    assert (allowed(agent, "web"), allowed(agent, "api")) == (True, False)
    for server in datacenter.servers:
        server.kill()
    assert agent.ask("PUT", f"{BASE}/exact?source=api&destination=db", {"Action": "allow"})[0] == 500
    assert of_db(agent) == [("web", "allow"), ("*", "deny")]
    assert (allowed(agent, "web"), allowed(agent, "api")) == (True, False)
    explained = agent.get(f"{BASE}/explain?source=api&destination=db")
    assert (explained["Verdict"], explained["Rule"]["SourceName"]) == ("denied", "*")
    with ThreadPoolExecutor(1) as pool:
        index = answer_index(agent)
        waiting = pool.submit(agent.get, f"{OF_DB}&index={index}&wait=9m")
        datacenter.servers.start()
        eventually(lambda: agent.leader(), "the servers are back")
        eventually(
            lambda: agent.ask("PUT", f"{BASE}/exact?source=api&destination=db", {"Action": "allow"}) == (200, b"true"),
            "intentions can be written again",
        )
        changed = waiting.result()
    assert [one["SourceName"] for one in changed["db"]] == ["api", "web", "*"]
    assert allowed(agent, "api")


def answer_index(agent: Server) -> int:
    """The index of what an agent answers for "db"."""
    connection = http.client.HTTPConnection("127.0.0.1", agent.ports["http"], timeout=PATIENCE)
    try:
        connection.request("GET", OF_DB)
        answer = connection.getresponse()
        json.loads(answer.read())
        return int(answer.headers["X-Consul-Index"])
    finally:
        connection.close()


def test_a_change_reaches_every_agent_and_every_server(datacenter: Datacenter) -> None:
    first, second = datacenter.client("one"), datacenter.client("two")
    for round_, action in enumerate(("allow", "deny", "allow")):
        put(first, "web", "db", action)
        wanted = [("web", action)]

        def known(wanted: list[tuple[str, str]] = wanted) -> bool:
            return all(of_db(agent) == wanted for agent in (first, second, *datacenter.servers))

        eventually(known, f"round {round_} is known")


def test_a_change_is_explained_with_the_connections_of_all_agents(datacenter: Datacenter) -> None:
    first, second = datacenter.client("one"), datacenter.client("two")
    live = {"one": (first, 3), "two": (second, 4)}
    for agent, _ in live.values():
        agent.put("/v1/agent/service/register", {"Name": "db", "Port": 1, "Connect": {"SidecarService": {}}})

    def cut() -> dict[str, int] | None:
        """The connections that a denial would cut, by node, once all five agents have answered. Proxies say again who
        is connected: what is not is forgotten.
        """
        for agent, count in live.values():
            inbound = [{"SourceURI": "spiffe://x.consul/ns/default/dc/dc1/svc/web", "Connections": count}]
            agent.put("/v1/agent/connect/connections/db-sidecar-proxy", {"Inbound": inbound})
        found = effect(first, "web", "deny")
        if found["Agents"] != 5 or found["Silent"]:
            return None
        assert found["CutConnections"] == sum(one["Connections"] for one in found["Cut"])
        return {one["Node"]: one["Connections"] for one in found["Cut"]}

    eventually(lambda: cut() == {"one": 3, "two": 4}, "all connections are told of")
    put(second, "*", "db", "deny")
    eventually(lambda: effect(first, "web", "allow")["Verdict"] == "allowed", "a change is tried")
    eventually(lambda: cut() == {}, "who is denied already is not cut")
