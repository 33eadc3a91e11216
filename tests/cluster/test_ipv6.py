"""Agents that have no IPv4 address of their own: they find each other, answer and fail over as all others do."""

from __future__ import annotations

import ipaddress
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from dnslib import QTYPE

from lictor.model.member import ALIVE, FAILED
from tests.cluster.network import Host, HostedAgent, HostedServer, Network, network
from tests.cluster.servers import Cluster, Server, cluster
from tests.gossip.agents import QUICK
from tests.patience import PATIENCE, eventually, settles

FLAGS = ("-hcl", f"gossip_lan {{ {QUICK} }}")


@pytest.fixture
def wires() -> Iterator[Network]:
    """A network in which hosts have IPv6 addresses."""
    with network() as made:
        yield made


@contextmanager
def datacenter(folder: Path, *hosts: Host, agents: Mapping[str, Host]) -> Iterator[tuple[Cluster, list[HostedAgent]]]:
    """Servers named a, b, ... and agents beside them, all running, on hosts that are used by their IPv6 addresses."""
    names = dict(zip("abc", hosts, strict=False))

    def server(folder: Path, name: str) -> Server:
        return HostedServer(folder, name, names[name], ipv6=True)

    with cluster(folder, *names, flags=["-client=::1", *FLAGS], make=server) as servers:
        servers.start()
        joins = [f"-retry-join={server.at('serf-lan')}" for server in servers]
        made = [
            HostedAgent(folder, name, host, *joins, "-retry-interval=1s", *FLAGS, ipv6=True)
            for name, host in agents.items()
        ]
        try:
            for agent in made:
                agent.start()
                eventually(agent.leader, f"{agent.name} has found the servers")
            yield servers, made
        finally:
            for agent in made:
                if agent.runs:
                    agent.kill()


def healthy(agent: Server) -> list[int]:
    """The ports of the healthy instances of "web"."""
    return sorted(row["Service"]["Port"] for row in agent.get("/v1/health/service/web?passing"))


def test_a_cluster_and_its_agents_live_on_ipv6(wires: Network, tmp_path: Path) -> None:
    hosts, agents = [wires.host() for _ in range(3)], {name: wires.host() for name in ("one", "two")}
    with datacenter(tmp_path, *hosts, agents=agents) as (servers, (one, two)):
        everybody = [*servers, one, two]
        for agent in everybody:
            settles(agent.members, dict.fromkeys(["a", "b", "c", "one", "two"], ALIVE), f"{agent.name} sees all")
        addresses = {member["Name"]: member["Addr"] for member in two.get("/v1/agent/members")}
        assert addresses == {agent.name: agent.host for agent in everybody}
        assert two.leader() in {f"[{server.host}]:{server.ports['server']}" for server in servers}

        one.put("/v1/agent/service/register", {"Name": "web", "Port": 80})
        for agent in everybody:
            assert isinstance(agent, HostedServer)
            settles(partial(healthy, agent), [80], f"{agent.name} finds the service")
            assert agent.dig("web.service.consul", "AAAA").records("AAAA") == [one.host]
            assert agent.dig("web.service.consul", "A").records("A") == []
            assert agent.dig("one.node.consul", "AAAA").records("AAAA") == [one.host]
            srv = agent.dig("web.service.consul", "SRV")
            assert srv.records("SRV") == ["1 1 80 one.node.dc1.consul."]
            assert [str(record.rdata) for record in srv.message.ar if record.rtype == QTYPE.AAAA] == [one.host]
            (row,) = agent.get("/v1/catalog/service/web")
            assert (row["Address"], row["TaggedAddresses"]["lan_ipv6"]) == (one.host, one.host)
        backwards = two.dig(ipaddress.ip_address(one.host).reverse_pointer, "PTR")
        assert backwards.records("PTR") == ["one.node.dc1.consul."]
        with two.on.namespace.inside():
            members = subprocess.run(
                [sys.executable, "-m", "lictor", "members", f"-http-addr=[::1]:{two.ports['http']}"],
                capture_output=True,
                text=True,
                timeout=PATIENCE,
                check=True,
            )
        assert f"[{one.host}]:{one.ports['serf-lan']}" in members.stdout

        leader = servers.leader()
        leader.kill()
        two.write("key", b"value")
        settles(lambda: two.members()[leader.name], FAILED, "a killed server is seen to have failed")
        one.kill()
        settles(partial(healthy, two), [], "so is a killed agent")
        one.start()
        settles(partial(healthy, two), [80], "and its return")


def test_agents_share_a_host_on_its_loopback_of_ipv6(wires: Network, tmp_path: Path) -> None:
    host = wires.host()
    loopback = Host(host.namespace, "127.0.0.1", "::1")
    with datacenter(tmp_path, loopback, agents={"one": loopback, "two": loopback}) as (_, (one, two)):
        one.put("/v1/agent/service/register", {"Name": "web", "Port": 80})
        settles(partial(healthy, two), [80], "the other agent finds it")
        assert two.dig("web.service.consul", "AAAA").records("AAAA") == ["::1"]
        assert two.get("/v1/agent/self")["Member"]["Addr"] == "::1"
