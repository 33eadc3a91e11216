"""Envoys at an agent that is no server: served while every server is away."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from dnslib import DNSRecord

from tests.cluster.servers import ClientAgent, cluster
from tests.connect_proxy.envoy.installed import ENVOY
from tests.connect_proxy.envoy.mesh import ENVIRONMENT, ROOT, fetch, service
from tests.patience import PATIENCE, eventually, settles
from tests.ports import free_port

pytestmark = pytest.mark.skipif(not ENVOY, reason="envoy is not installed")


@pytest.fixture
def envoys(tmp_path: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Envoys, which are ended."""
    made: list[subprocess.Popen[bytes]] = []
    yield made
    for one in made:
        if one.poll() is None:
            one.kill()
        one.wait(PATIENCE)


def start(folder: Path, agent: ClientAgent, name: str) -> subprocess.Popen[bytes]:
    """An Envoy of a service."""
    words = ["connect", "envoy", "-sidecar-for", name, "-admin-bind=127.0.0.1:0", "-no-central-config"]
    with (folder / f"{name}.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "lictor", *words, "--", "--concurrency", "1", "--log-level", "warn"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**ENVIRONMENT, "CONSUL_HTTP_ADDR": f"127.0.0.1:{agent.ports['http']}"},
            cwd=ROOT,
        )


def register(agent: ClientAgent, name: str, port: int, upstreams: dict[str, int]) -> None:
    """A service with a sidecar."""
    offered = [{"DestinationName": one, "LocalBindPort": at} for one, at in upstreams.items()]
    sidecar = {"Port": free_port(), "Check": {"TTL": "24h", "Status": "passing"}, "Proxy": {"Upstreams": offered}}
    agent.put("/v1/agent/service/register", {"Name": name, "Port": port, "Connect": {"SidecarService": sidecar}})


def looked_up(agent: ClientAgent, name: str) -> str:
    """The address that the agent's DNS has for a name; empty for none."""
    answer = DNSRecord.question(name).send("127.0.0.1", agent.ports["dns"], timeout=PATIENCE)
    return str(DNSRecord.parse(answer).short())


def test_envoys_are_served_and_begin_anew_while_the_servers_are_away(
    tmp_path: Path, envoys: list[subprocess.Popen[bytes]]
) -> None:
    with cluster(tmp_path, "a") as servers, service() as behind:
        servers.start()
        agent = ClientAgent(tmp_path, "web", f"-retry-join=127.0.0.1:{servers['a'].ports['serf-lan']}")
        try:
            agent.start()
            eventually(agent.leader, "the agent has found the server")
            port = free_port()
            register(agent, "server", behind, {})
            register(agent, "client", free_port(), {"server": port})
            envoys += [start(tmp_path, agent, name) for name in ("server", "client")]
            settles(lambda: fetch(port)[0], 200, "a request goes through")
            virtual = looked_up(agent, "server.virtual.consul")
            assert virtual and looked_up(agent, "server.virtual.dc1.consul") == virtual
            servers["a"].kill()
            assert looked_up(agent, "server.virtual.consul") == virtual
            assert fetch(port)[0] == 200
            for one in envoys:
                one.kill()
                one.wait(PATIENCE)
            settles(lambda: fetch(port)[0], 0, "the Envoys are gone")
            envoys[:] = [start(tmp_path, agent, name) for name in ("server", "client")]
            settles(lambda: fetch(port)[0], 200, "new ones have all that they need")
        except BaseException:
            print(agent.log()[-6000:])
            raise
        finally:
            if agent.runs:
                agent.kill()
