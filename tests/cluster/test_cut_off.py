"""Agents that the network cuts off, alone and with half of the others: each is a host of a network of the test's own.

What nobody changed does not change, what was acknowledged stays, whoever is cut off goes on answering from what it has
and says how old that is, and when the network is whole again all see the same.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lictor.model.member import ALIVE, FAILED
from tests.cluster.network import HostedAgent, HostedServer, Network, network
from tests.cluster.servers import Cluster, Server, cluster
from tests.patience import PATIENCE, eventually, settles

SERVERS = {"a": "left", "b": "left", "c": "right"}
AGENTS = {"one": "left", "two": "left", "three": "right", "four": "right"}
LEFT, RIGHT = ({name for name, switch in AGENTS.items() if switch == side} for side in ("left", "right"))
WEB = {name: 81 + number for number, name in enumerate(AGENTS)}
# Who is not reached is found soon; who is gets the time to contradict whoever was cut off.
GOSSIP = 'gossip_interval = "20ms" probe_interval = "200ms" probe_timeout = "100ms" suspicion_mult = 8'
RECONNECT = 'reconnect_interval = "2s"'
FLAGS = ("-hcl", f"gossip_lan {{ {GOSSIP} {RECONNECT} }}")


class Site:
    """Three servers and four agents on hosts of their own, each agent with an instance of "web"."""

    def __init__(self, folder: Path, wires: Network, servers: Cluster) -> None:
        self.wires = wires
        self.servers = servers
        joins = [f"-retry-join={server.at('serf-lan')}" for server in servers]
        self.agents = {
            name: HostedAgent(folder, name, wires.host(switch), *joins, "-retry-interval=1s", *FLAGS)
            for name, switch in AGENTS.items()
        }

    def start(self) -> None:
        """Have all run, and know of each other."""
        self.servers.start()
        for agent in self.agents.values():
            agent.start()
        for name, agent in self.agents.items():
            eventually(agent.leader, f"{name} has found the servers")
            check = {"TTL": "1h", "Status": "passing"}
            agent.put("/v1/agent/service/register", {"Name": "web", "Port": WEB[name], "Check": check})
        self.whole()

    def everybody(self) -> list[Server]:
        """All agents, servers first."""
        return [*self.servers, *self.agents.values()]

    def close(self) -> None:
        """End the agents."""
        for agent in self.agents.values():
            if agent.runs:
                agent.kill()

    def whole(self) -> None:
        """Wait until all see each other, one leader, and every instance of "web"."""
        alive = dict.fromkeys([*SERVERS, *AGENTS], ALIVE)
        self.servers.settle()
        for agent in self.everybody():
            settles(agent.members, alive, f"{agent.name} sees everybody")
            settles(partial(ports, agent), sorted(WEB.values()), f"{agent.name} finds all that is healthy")
            settles(partial(named, agent), sorted(WEB.values()), f"so does the DNS of {agent.name}")
        for agent in self.agents.values():
            eventually(partial(_is_fresh, agent), f"what {agent.name} has is new")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The agents, whole before and after each test."""
    folder = tmp_path_factory.mktemp("site")

    def server(folder: Path, name: str) -> Server:
        return HostedServer(folder, name, wires.host(SERVERS[name]))

    with network() as wires, cluster(folder, *SERVERS, flags=FLAGS, make=server) as servers:
        made = Site(folder, wires, servers)
        try:
            made.start()
            yield made
        finally:
            made.close()


def ports(agent: Server, service: str = "web") -> list[int]:
    """The ports of a service's healthy instances, as an agent tells them; none where it does not know."""
    status, _, rows = health(agent, service)
    return sorted(row["Service"]["Port"] for row in rows) if status == 200 else []


def named(agent: Server) -> list[int]:
    """The ports of the instances of "web" that DNS gives."""
    assert isinstance(agent, HostedServer)
    return sorted(int(record.split()[2]) for record in agent.dig("web.service.consul", "SRV").records("SRV"))


def health(agent: Server, service: str) -> tuple[int, dict[str, str], Any]:
    """The status, the headers and the JSON of a question for a service's healthy instances."""
    assert isinstance(agent, HostedServer)
    with agent.on.namespace.inside():
        connection = http.client.HTTPConnection(agent.door, agent.ports["http"], timeout=PATIENCE)
        try:
            connection.request("GET", f"/v1/health/service/{service}?passing")
            answer = connection.getresponse()
            body = answer.read()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, found, json.loads(body) if answer.status == 200 else None
        finally:
            connection.close()


def age(agent: Server) -> int:
    """How old the answer about "web" says that it is, in seconds."""
    return int(health(agent, "web")[1].get("age", "0"))


def _is_fresh(agent: Server) -> bool:
    return age(agent) < 2


def changes(agent: Server) -> dict[tuple[str, str], int]:
    """When each instance of "web" and each check of it was last changed, by node and name. Nodes are not looked at: who
    stands still with the machine is taken for failed for a moment.
    """
    found = {}
    for row in agent.get("/v1/health/service/web"):
        node = row["Node"]["Node"]
        found[node, "service"] = row["Service"]["ModifyIndex"]
        for check in row["Checks"]:
            if check["ServiceID"]:
                found[node, check["CheckID"]] = check["ModifyIndex"]
    return found


def sees(agent: Server, names: set[str], status: int) -> Callable[[], bool]:
    """Whether an agent has these members with a status."""
    return lambda: {name for name, found in agent.members().items() if found == status} >= names


def test_an_agent_that_is_cut_off_goes_on_answering_and_loses_nothing(site: Site) -> None:
    agent, witness = site.agents["one"], site.agents["two"]
    before = changes(witness)
    site.wires.cut(agent.on)
    try:
        rest = sorted(port for name, port in WEB.items() if name != "one")
        settles(lambda: ports(witness), rest, "the others find what is healthy without it")
        eventually(lambda: age(agent) >= 5, "what it has grows older")
        assert ports(agent) == named(agent) == sorted(WEB.values()), "it goes on answering from what it has"
        agent.put("/v1/agent/service/register", {"Name": "meanwhile", "Port": 99})
        assert "meanwhile" in agent.get("/v1/agent/services")
        witness.put("/v1/agent/service/register", {"Name": "elsewhere", "Port": 98})
        eventually(lambda: ports(site.servers["c"], "elsewhere") == [98], "the others go on changing things")
        everybody = {*SERVERS, *AGENTS} - {"one"}
        eventually(sees(agent, everybody, FAILED), "it takes everybody for failed, and has said so")
    finally:
        site.wires.mend(agent.on)
    site.whole()
    settles(lambda: ports(witness, "meanwhile"), [99], "what was registered with it meanwhile is known")
    settles(lambda: ports(agent, "elsewhere"), [98], "it knows what was registered meanwhile")
    assert changes(witness) == before, "something changed that nobody changed"


def test_a_leader_that_is_cut_off_is_replaced_and_follows_when_it_is_back(site: Site) -> None:
    first = site.servers.leader()
    rest = [server for server in site.servers if server is not first]
    agent = site.agents["two"]
    before = changes(agent)
    first.write("key", b"before")
    assert isinstance(first, HostedServer)
    site.wires.cut(first.on)
    try:
        agent.write("key", b"after")
        agent.put("/v1/agent/check/fail/service:web")
        rest_of_web = sorted(set(WEB.values()) - {WEB["two"]})
        for other in (*rest, *site.agents.values()):
            settles(partial(ports, other), rest_of_web, f"{other.name} is told of a change")
        agent.put("/v1/agent/check/pass/service:web")
        eventually(lambda: rest[0].members()[first.name] == FAILED, "it is seen to have failed")
        everybody = {*SERVERS, *AGENTS} - {first.name}
        eventually(sees(first, everybody, FAILED), "it takes everybody for failed, and has said so")
    finally:
        site.wires.mend(first.on)
    site.whole()
    assert first.read("key") == b"after"
    changed = {key for key, index in changes(agent).items() if index != before[key]}
    assert changed == {("two", "service:web")}, "something changed that nobody changed"


def test_half_of_the_pool_that_is_cut_off_goes_on_answering_and_all_is_whole_again(site: Site) -> None:
    witness, lost = site.agents["one"], site.agents["three"]
    before = changes(witness)
    site.wires.part()
    try:
        settles(lambda: ports(witness), sorted(WEB[name] for name in LEFT), "one half sees the other as unhealthy")
        eventually(sees(witness, {"c", *RIGHT}, FAILED), "so does its gossip")
        eventually(sees(lost, {"a", "b", *LEFT}, FAILED), "and the other half's the same of the first")
        for name in RIGHT:
            agent = site.agents[name]
            eventually(lambda agent=agent: age(agent) >= 5, f"what {name} has grows older")  # type: ignore[misc]
            assert ports(agent) == named(agent) == sorted(WEB.values()), "without a majority nothing is buried"
        acknowledged = [f"half/{number}" for number in range(20)]
        for key in acknowledged:
            witness.write(key, b"kept")
        witness.put("/v1/agent/service/register", {"Name": "here", "Port": 97})
        lost.put("/v1/agent/service/register", {"Name": "there", "Port": 96})
        assert ports(site.agents["two"], "here") == [97]
    finally:
        site.wires.join()
    site.whole()
    for other in site.everybody():
        settles(partial(ports, other, "here"), [97], f"{other.name} finds what one half registered")
        settles(partial(ports, other, "there"), [96], f"{other.name} finds what the other half registered")
        assert all(other.read(key) == b"kept" for key in acknowledged), "what was acknowledged is there"
    assert changes(witness) == before, "something changed that nobody changed"
