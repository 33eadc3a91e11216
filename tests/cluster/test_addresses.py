"""Agents that bind every address of their host, or one that a template finds, and tell the others another."""

from __future__ import annotations

from pathlib import Path

from lictor.model.member import ALIVE
from tests.cluster.network import HostedAgent, HostedServer, network
from tests.gossip.agents import PROBING
from tests.patience import eventually, settles


def test_others_are_told_the_address_to_advertise_whatever_is_bound(tmp_path: Path) -> None:
    with network() as wires:
        hosts = {name: wires.host() for name in ("server", "open", "second", "found")}
        second = "10.77.0.200"
        hosts["second"].namespace.set_up(f"address add {second}/24 dev eth0")
        server = HostedServer(tmp_path, "server", hosts["server"], "-bootstrap-expect=1", "-bind=0.0.0.0", *PROBING)
        flags = {
            "open": ["-bind=0.0.0.0"],
            "second": ["-bind=0.0.0.0", f"-advertise={second}"],
            "found": ['-bind={{ GetInterfaceIP "eth0" }}', "-advertise-wan=198.51.100.7"],
        }
        join = [f"-retry-join={server.at('serf-lan')}", "-retry-interval=1s", *PROBING]
        agents = {name: HostedAgent(tmp_path, name, hosts[name], *join, *own) for name, own in flags.items()}
        wanted = {name: host.ipv4 for name, host in hosts.items()} | {"second": second}
        try:
            server.start()
            for agent in agents.values():
                agent.start()
            for one in (server, *agents.values()):
                settles(one.members, dict.fromkeys(hosts, ALIVE), f"{one.name} sees everybody")
                told = {member["Name"]: member["Addr"] for member in one.get("/v1/agent/members")}
                assert told == wanted
                eventually(one.leader, f"{one.name} knows the server")
            assert agents["open"].leader() == server.at("server")

            def nodes() -> dict[str, str]:
                return {node["Node"]: node["Address"] for node in agents["open"].get("/v1/catalog/nodes")}

            settles(nodes, wanted, "the catalog has the addresses that are advertised")
            (found,) = [node for node in server.get("/v1/catalog/nodes") if node["Node"] == "found"]
            assert found["TaggedAddresses"]["wan"] == "198.51.100.7"
            assert server.dig("second.node.consul", "A").records("A") == [second]
        finally:
            for one in (server, *agents.values()):
                one.close()
