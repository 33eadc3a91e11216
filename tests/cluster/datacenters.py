"""Two real datacenters of one server each, joined over their gossip, which is encrypted, and a client agent in the
first; all with TLS that checks what server of which datacenter it is that answers and asks.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.servers import ClientAgent, Server
from tests.gossip.agents import QUICK
from tests.patience import eventually, settles
from tests.rpc.certificates import Authority, authority

STRICT = ("verify_incoming", "verify_outgoing", "verify_server_hostname")
KEY = base64.b64encode(bytes(range(32))).decode()
BETWEEN = f"gossip_wan {{ {QUICK} }}"


class Datacenters:
    """`one` and `two` are the servers of dc1 and dc2, `worker` is the agent beside `one`; they run and are joined."""

    def __init__(self, folder: Path) -> None:
        self.authority = authority(folder / "authority")
        self.one = Server(folder, "one", "-datacenter=dc1", "-bootstrap-expect=1", "-hcl", BETWEEN)
        join = f"-retry-join-wan={self.one.at('serf-wan')}"
        self.two = Server(folder, "two", "-datacenter=dc2", "-bootstrap-expect=1", "-hcl", BETWEEN, join)
        self.two.flags.append("-retry-interval-wan=1s")
        join = f"-retry-join={self.one.at('serf-lan')}"
        translate = "translate_wan_addrs = true"
        self.worker = ClientAgent(folder, "worker", "-datacenter=dc1", join, "-retry-interval=1s", "-hcl", translate)
        for agent in (self.one, self.two, self.worker):
            agent.flags.append(f"-encrypt={KEY}")
        self.one.flags += tls_of(self.authority, self.one, "-server", "-dc=dc1")
        self.two.flags += tls_of(self.authority, self.two, "-server", "-dc=dc2")
        self.worker.flags += tls_of(self.authority, self.worker, "-client", "-dc=dc1")

    def start(self) -> None:
        """Start all, and wait until each datacenter knows of the other."""
        self.one.start()
        for agent in (self.two, self.worker):
            agent.start()
        self.settle()

    def settle(self) -> None:
        """Wait until all have leaders, and each datacenter knows of the other."""
        for agent in (self.one, self.two, self.worker):
            eventually(agent.leader, f"{agent.name} knows a leader")
        settles(lambda: self.one.get("/v1/catalog/datacenters"), ["dc1", "dc2"], "dc1 knows of dc2")
        settles(lambda: self.two.get("/v1/catalog/datacenters"), ["dc2", "dc1"], "dc2 knows of dc1")
        there = f'"{self.two.address}"'.encode()
        settles(lambda: self.one.ask("GET", "/v1/status/leader?dc=dc2"), (200, there), "dc2 answers dc1")


def tls_of(made: Authority, agent: Server, *arguments: str) -> list[str]:
    """Flags for TLS with a new certificate of an authority."""
    settings = made.settings(*arguments)
    keys = {"ca_file": settings.ca_file, "cert_file": settings.cert_file, "key_file": settings.key_file}
    file = agent.folder / "tls.json"
    file.write_text(json.dumps({"tls": {"internal_rpc": {**keys, **dict.fromkeys(STRICT, True)}}}))
    return [f"-config-file={file}"]


@contextmanager
def datacenters_in(folder: Path) -> Iterator[Datacenters]:
    """Two datacenters, ended with the block. What was logged is shown where it fails."""
    made = Datacenters(folder)
    agents = (made.one, made.two, made.worker)
    try:
        made.start()
        yield made
    except BaseException:
        for agent in agents:
            print(f"---- {agent.name}\n{agent.log()[-6000:]}")
        raise
    finally:
        for agent in agents:
            agent.close()
