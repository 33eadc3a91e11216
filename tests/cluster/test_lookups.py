"""Lookups of programs beside agents that are no servers: what they know outlives the servers, and the agents."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lictor.client import Client, Options
from lictor.client.errors import NoInstance
from tests.cluster.datacenter import Datacenter, datacenter_in
from tests.cluster.servers import Server
from tests.patience import PATIENCE, eventually


@pytest.fixture
def datacenter(tmp_path: Path) -> Iterator[Datacenter]:
    """A datacenter whose servers and agents a test may end."""
    with datacenter_in(tmp_path) as made:
        yield made


def client_of(agent: Server) -> Client:
    patient = Options(timeout=PATIENCE, connect_timeout=PATIENCE)
    return Client(f"127.0.0.1:{agent.ports['http']}", options=patient, environment=dict(os.environ))


def finds(client: Client, port: int) -> bool:
    """Whether a lookup finds an instance with a port, now."""
    try:
        return client.lookup("web", "nearest").port == port
    except NoInstance:
        return False


def test_lookups_outlive_the_servers_and_the_agent(datacenter: Datacenter) -> None:
    one, two = datacenter.client("one"), datacenter.client("two")
    one.put("/v1/agent/service/register", {"Name": "web", "Port": 81})
    with client_of(two) as client:
        eventually(lambda: finds(client, 81), "the other agent publishes it")
        eventually(lambda: client.lookup("web").age < 5, "it knows that it has the newest")
        one.put("/v1/agent/service/register", {"Name": "web", "Port": 82})
        eventually(lambda: finds(client, 82), "the change")

        for server in datacenter.servers:
            server.kill()
        eventually(lambda: client.lookup("web").age > 8, "it grows older without servers")
        assert client.lookup("web").port == 82
        assert client.lookups.file.alive, "the agent itself lives"

        two.kill()
        assert client.lookup("web").port == 82
        two.start()
        assert client.lookup("web").port == 82, "it has what it knew on its disk"
        assert client.lookup("web").age > 8, "and does not take it for new"

        for server in datacenter.servers:
            server.spawn()
        eventually(lambda: client.lookup("web").age < 5, "it is up to date again")
        one.put("/v1/agent/service/register", {"Name": "web", "Port": 83})
        eventually(lambda: finds(client, 83), "and follows")
