"""Client agents with TLS and encrypted gossip: whom they believe, who believes them, and keys that change."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from lictor.model.member import ALIVE
from tests.cluster.servers import IMPATIENT, ClientAgent, Server
from tests.cluster.test_servers import STRICT, tls
from tests.gossip.agents import QUICK
from tests.patience import eventually, settles
from tests.rpc.certificates import Authority, authority

OLD, NEW = (base64.b64encode(bytes([number]) * 32).decode() for number in (1, 2))
KEYRING = "/v1/operator/keyring"


class Site:
    """One server, and agents that are told where it is."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server = Server(folder, "server", "-bootstrap-expect=1", "-hcl", f"gossip_lan {{ {QUICK} }}")
        self.agents: list[ClientAgent] = []

    def agent(self, name: str, *flags: str) -> ClientAgent:
        """One more, not started."""
        join = f"-retry-join={self.server.at('serf-lan')}"
        made = ClientAgent(self.folder, name, join, "-retry-interval=1s", "-hcl", IMPATIENT, *flags)
        made.flags += ["-hcl", f"gossip_lan {{ {QUICK} }}"]
        self.agents.append(made)
        return made


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """Nobody runs yet; whoever does at the end is ended."""
    made = Site(tmp_path)
    yield made
    for agent in (made.server, *made.agents):
        if agent.runs:
            agent.kill()


def works(site: Site, agent: Server) -> None:
    """An agent does all that an agent does."""
    eventually(agent.leader, f"{agent.name} has found the server")
    agent.write("key", agent.name.encode())
    assert site.server.read("key") == agent.name.encode()
    agent.put("/v1/agent/service/register", {"Name": agent.name, "Port": 80})
    settles(lambda: nodes(site.server, agent.name), [agent.name], "what it registers is known")
    assert nodes(agent, agent.name) == [agent.name]


def nodes(agent: Server, service: str) -> list[str]:
    """The nodes with a healthy instance of a service."""
    return [row["Node"]["Node"] for row in agent.get(f"/v1/health/service/{service}?passing")]


def with_authority_alone(made: Authority, agent: Server) -> list[str]:
    """Flags for an agent that knows the authority and has no certificate of its own."""
    file = agent.folder / "tls.json"
    settings = {"ca_file": made.ca_file, "verify_outgoing": True, "verify_server_hostname": True}
    file.write_text(json.dumps({"tls": {"internal_rpc": settings}}))
    return [f"-config-file={file}"]


def test_agents_and_servers_believe_whom_their_authority_has_signed(site: Site, tmp_path: Path) -> None:
    ours, theirs = authority(tmp_path / "ours"), authority(tmp_path / "theirs")
    server = site.server
    server.flags += tls(ours, "-server", *STRICT, server=server)
    known, bare, other, plain = (site.agent(name) for name in ("known", "bare", "other", "plain"))
    known.flags += tls(ours, "-client", *STRICT, server=known)
    bare.flags += with_authority_alone(ours, bare)
    other.flags += tls(theirs, "-client", *STRICT, server=other)
    server.start()
    for agent in site.agents:
        agent.start()
    works(site, known)
    bare.logs("check tls.internal_rpc.cert_file, key_file and ca_file here")
    server.logs("it showed no certificate: check tls.internal_rpc.cert_file and key_file there")
    other.logs(f"{server.address}: its certificate: self-signed certificate in certificate chain")
    plain.logs(f"{server.address}: it speaks TLS where a plain connection was expected")
    assert [agent.leader() for agent in (bare, other, plain)] == ["", "", ""], "none of the others is let in"
    assert nodes(server, "known") == ["known"]


def test_an_agent_believes_only_a_server_s_certificate_where_it_is_told_to(site: Site, tmp_path: Path) -> None:
    ours = authority(tmp_path / "ours")
    server = site.server
    server.flags += tls(ours, "-client", "verify_incoming", "verify_outgoing", server=server)
    strict, lenient = site.agent("strict"), site.agent("lenient")
    strict.flags += tls(ours, "-client", "verify_outgoing", "verify_server_hostname", server=strict)
    lenient.flags += tls(ours, "-client", "verify_outgoing", server=lenient)
    server.start()
    strict.start()
    lenient.start()
    works(site, lenient)
    strict.logs("its certificate: Hostname mismatch, certificate is not valid for 'server.dc1.consul'")
    assert strict.leader() == ""


def test_a_gossip_key_is_replaced_while_agents_come_and_go(site: Site) -> None:
    server = site.server
    server.flags.append(f"-encrypt={OLD}")
    first = site.agent("first", f"-encrypt={OLD}")
    server.start()
    first.start()
    works(site, first)

    def change(method: str, key: str) -> None:
        eventually(lambda: first.ask(method, KEYRING, {"Key": key})[0] == 200, f"{method} of a key on all members")

    def there(*names: str) -> None:
        for agent in (server, first):
            settles(agent.members, dict.fromkeys(["server", "first", *names], ALIVE), f"{agent.name} sees all")

    change("POST", NEW)
    second = site.agent("second", f"-encrypt={OLD}")
    second.start()
    works(site, second)
    there("second")
    change("POST", NEW)  # again, for who has come meanwhile
    first.kill()
    first.start()
    there("second")
    change("PUT", NEW)
    third = site.agent("third", f"-encrypt={NEW}")
    third.start()
    works(site, third)
    there("second", "third")
    change("DELETE", OLD)
    there("second", "third")
    stranger = site.agent("stranger", f"-encrypt={OLD}")
    stranger.start()
    stranger.logs("No installed keys could decrypt the message")
    there("second", "third")
    assert stranger.members() == {"stranger": ALIVE}
    for agent in (first, second, third):
        works(site, agent)
    server.kill()
    server.start()
    there("second", "third")
