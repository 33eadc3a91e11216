"""Wall clocks that jump by days, forward and back: nothing ends early, lasts longer or seems old by it."""

from __future__ import annotations

import http.client
import json
import os
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from lictor.client import Client, Options
from lictor.model.member import ALIVE
from tests.cluster.servers import ClientAgent, Cluster, Server, cluster
from tests.cluster.shifted_clock import Shift
from tests.contract.dig import ask as dig
from tests.contract.dig import question
from tests.patience import PATIENCE, eventually, settles

DAYS = 2 * 86_400.0
JUMPS = (DAYS, -DAYS, 0.0)


class Site:
    """Three servers and an agent. The clocks of the servers are one, that of the agent is another."""

    def __init__(self, servers: Cluster, agent: ClientAgent, of_servers: Shift, of_agent: Shift) -> None:
        self.servers = servers
        self.agent = agent
        self.of_servers = of_servers
        self.of_agent = of_agent

    def sound(self) -> None:
        """Everybody sees everybody, and writes are read."""
        for one in (*self.servers, self.agent):
            settles(one.members, dict.fromkeys(["a", "b", "c", "one"], ALIVE), f"{one.name} sees everybody")
        value = str(self.of_servers).encode()
        self.agent.write("key", value)
        for server in self.servers:
            assert server.read("key") == value


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """All run, with clocks that can be put forward and back."""
    of_servers, of_agent = Shift(tmp_path / "servers"), Shift(tmp_path / "agent")

    def server(folder: Path, name: str) -> Server:
        made = Server(folder, name)
        made.program = ("-m", "tests.cluster.shifted_clock", str(of_servers.file))
        return made

    with cluster(tmp_path, "a", "b", "c", flags=["-hcl", 'session_ttl_min = "1s"'], make=server) as servers:
        joins = [f"-retry-join=127.0.0.1:{server.ports['serf-lan']}" for server in servers]
        agent = ClientAgent(tmp_path, "one", *joins, "-retry-interval=1s")
        agent.program = ("-m", "tests.cluster.shifted_clock", str(of_agent.file))
        servers.start()
        agent.start()
        try:
            eventually(agent.leader, "the agent has found the servers")
            yield Site(servers, agent, of_servers, of_agent)
        finally:
            if agent.runs:
                agent.kill()


def session(agent: Server, ttl: str, lock_delay: str = "0s") -> str:
    """A new session of an agent's node."""
    body = {"TTL": ttl, "LockDelay": lock_delay, "Behavior": "delete"}
    return str(json.loads(agent.put("/v1/session/create", body))["ID"])


def lasts(agent: Server, number: str) -> bool:
    """Whether a session is there."""
    return bool(agent.get(f"/v1/session/info/{number}"))


def age(agent: Server) -> int:
    """How old an answer about "web" says that it is, in seconds."""
    connection = http.client.HTTPConnection(agent.door, agent.ports["http"], timeout=PATIENCE)
    try:
        connection.request("GET", "/v1/health/service/web?passing")
        answer = connection.getresponse()
        assert [row["Service"]["Port"] for row in json.loads(answer.read())] == [80]
        return int(answer.headers["Age"])
    finally:
        connection.close()


def healthy(agent: Server) -> list[int]:
    """The ports of the healthy instances of "web"."""
    return [row["Service"]["Port"] for row in agent.get("/v1/health/service/web?passing")]


def checks(agent: Server) -> dict[str, str]:
    """The status of the checks of "web"."""
    return {check["CheckID"]: check["Status"] for check in agent.get("/v1/health/checks/web")}


def test_sessions_locks_and_leaders_outlast_the_jumps_of_servers_clocks(site: Site) -> None:
    leader, agent = site.servers.leader(), site.agent
    long = session(agent, "86400s")
    assert agent.put(f"/v1/kv/long?acquire={long}", b"x") == b"true"
    for jump in JUMPS:
        site.of_servers.set(jump)
        short = session(agent, "1s", "1s")
        assert agent.put(f"/v1/kv/lock?acquire={short}", b"x") == b"true"
        eventually(lambda short=short: not lasts(agent, short), "a session ends when nobody renews it")  # type: ignore[misc]
        assert lasts(agent, long), "a session has ended by the jump of a clock"
        other = session(agent, "86400s")
        take = partial(agent.put, f"/v1/kv/lock?acquire={other}", b"x")
        eventually(lambda take=take: take() == b"true", "its lock is free after its delay")  # type: ignore[misc]
        agent.put(f"/v1/session/destroy/{other}")
        site.sound()
    held = session(agent, "86400s", "60s")
    assert agent.put(f"/v1/kv/held?acquire={held}", b"x") == b"true"
    began = time.monotonic()
    agent.put(f"/v1/session/destroy/{held}")
    site.of_servers.set(DAYS)
    taken = agent.put(f"/v1/kv/held?acquire={long}", b"x") == b"true"
    assert not taken or time.monotonic() - began >= 30.0, "a lock's delay has ended by the jump of a clock"
    assert leader.runs


def test_checks_answers_and_lookups_outlast_the_jumps_of_an_agent_s_clock(site: Site) -> None:
    agent, witness = site.agent, site.servers["a"]
    body = {"Name": "web", "Port": 80, "Checks": [{"CheckID": "long", "TTL": "1h", "Status": "passing"}]}
    agent.put("/v1/agent/service/register", body)
    patient = Options(timeout=PATIENCE, connect_timeout=PATIENCE)
    with Client(f"127.0.0.1:{agent.ports['http']}", options=patient, environment=dict(os.environ)) as client:
        for jump in JUMPS:
            site.of_agent.set(jump)
            short = {"Name": "short", "CheckID": "short", "TTL": "1s", "Status": "passing"}
            agent.put("/v1/agent/check/register", short)
            eventually(lambda: agent.get("/v1/agent/checks")["short"]["Status"] == "critical", "a check's time is over")
            settles(partial(checks, witness), {"long": "passing"}, "the other's is not")
            agent.put("/v1/agent/check/deregister/short")
            settles(partial(healthy, agent), [80], "the service is healthy")
            assert age(agent) < 60
            assert client.lookup("web").age < 60
            site.sound()
        for server in site.servers:
            server.kill()
        for jump in JUMPS:
            site.of_agent.set(jump)
            assert 0 <= age(agent) < 3600, "an answer looks older than it is, or younger"
            assert client.lookup("web").age < 3600
            assert dig(agent.ports["dns"], question("web.service.consul", "SRV")).rcode == "NOERROR"
        before = age(agent)
        eventually(lambda: age(agent) > before, "without servers it grows older")
