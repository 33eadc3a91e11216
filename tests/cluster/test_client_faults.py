"""What happens to client agents: they are stopped, they die in the midst of much, their address becomes another's."""

from __future__ import annotations

import http.client
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.cluster.datacenter import Datacenter, datacenter_in
from tests.cluster.servers import Server
from tests.patience import eventually, settles

SERVICES = 1000


@pytest.fixture(scope="module")
def datacenter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Datacenter]:
    """Servers; each test brings its own agents, and the agent "witness" looks on."""
    with datacenter_in(tmp_path_factory.mktemp("datacenter")) as made:
        made.client("witness")
        yield made


def health(agent: Server, node: str) -> str:
    """A node's own health, as an agent tells it; empty for a node that is not there."""
    found = [c["Status"] for c in agent.get(f"/v1/health/node/{node}") if c["CheckID"] == "serfHealth"]
    return found[0] if found else ""


def indexes(agent: Server, node: str) -> dict[str, int]:
    """When each service of a node was last changed in the catalog."""
    found = agent.get(f"/v1/catalog/node/{node}")
    return {name: service["ModifyIndex"] for name, service in found["Services"].items()}


def test_an_agent_that_stands_still_for_a_while_is_critical_meanwhile_and_its_services_do_not_change(
    datacenter: Datacenter,
) -> None:
    agent, witness = datacenter.client("still"), datacenter.clients[0]
    agent.put("/v1/agent/service/register", {"Name": "steady", "Port": 80})
    eventually(lambda: health(witness, "still") == "passing", "it is healthy")
    before = indexes(witness, "still")
    assert agent.process is not None
    agent.process.send_signal(signal.SIGSTOP)
    try:
        eventually(lambda: health(witness, "still") == "critical", "it is noticed")
    finally:
        agent.process.send_signal(signal.SIGCONT)
    eventually(lambda: health(witness, "still") == "passing", "it is healthy again")
    assert indexes(witness, "still") == before, "a service has changed that nobody changed"
    assert [row["ServicePort"] for row in agent.get("/v1/catalog/service/steady")] == [80]


def test_a_thousand_services_registered_at_once_by_an_agent_that_dies_are_all_there(datacenter: Datacenter) -> None:
    agent, witness = datacenter.client("busy"), datacenter.clients[0]

    def register(number: int) -> int:
        agent.put("/v1/agent/service/register", {"Name": f"s{number}", "Port": number + 1})
        return number

    with ThreadPoolExecutor(16) as pool:
        done = set(pool.map(register, range(SERVICES)))
    assert len(done) == SERVICES
    agent.kill()
    agent.start()
    wanted = {f"s{number}" for number in range(SERVICES)}
    assert set(agent.get("/v1/agent/services")) == wanted, "what was acknowledged is on its disk"
    eventually(lambda: wanted <= set(witness.get("/v1/catalog/services")), "and in the catalog")
    eventually(lambda: health(witness, "busy") == "passing", "its node is healthy")
    assert len(witness.get("/v1/catalog/node-services/busy")["Services"]) == SERVICES
    agent.end(signal.SIGTERM)
    eventually(lambda: not wanted & set(witness.get("/v1/catalog/services")), "when it leaves they go")


def test_what_was_acknowledged_to_a_client_is_there_although_its_agent_dies_in_the_midst_of_it(
    datacenter: Datacenter,
) -> None:
    agent, witness = datacenter.client("dying"), datacenter.clients[0]
    done: set[str] = set()
    counting = threading.Lock()

    def register(number: int) -> None:
        try:
            agent.put("/v1/agent/service/register", {"Name": f"d{number}", "Port": number + 1})
        except (OSError, http.client.HTTPException):
            return  # nobody knows whether it was taken
        with counting:
            done.add(f"d{number}")
            if len(done) == SERVICES // 4:
                agent.kill()

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(register, range(SERVICES)))
    assert SERVICES // 4 <= len(done) < SERVICES // 2
    agent.start()
    there = set(agent.get("/v1/agent/services"))
    assert done <= there, "what was acknowledged is on its disk"

    def catalog() -> set[str]:
        return {row["Service"] for row in witness.get("/v1/catalog/node-services/dying")["Services"]}

    settles(catalog, there, "the catalog has what the agent has")
    agent.end(signal.SIGTERM)
    eventually(lambda: not there & set(witness.get("/v1/catalog/services")), "when it leaves they go")


def test_an_address_that_another_node_takes_over_is_that_nodes(datacenter: Datacenter) -> None:
    first, witness = datacenter.client("former"), datacenter.clients[0]
    first.put("/v1/agent/service/register", {"Name": "moved", "Port": 80})
    eventually(lambda: health(witness, "former") == "passing", "the first is healthy")
    first.kill()
    second = datacenter.client("latter", ports=first.ports)
    second.put("/v1/agent/service/register", {"Name": "moved", "Port": 81})
    eventually(lambda: health(witness, "latter") == "passing", "the second is healthy")
    eventually(lambda: health(witness, "former") == "critical", "the first is not, although its address answers")

    def healthy() -> list[int]:
        return [row["Service"]["Port"] for row in witness.get("/v1/health/service/moved?passing")]

    eventually(lambda: healthy() == [81], "only the second's service is offered")
