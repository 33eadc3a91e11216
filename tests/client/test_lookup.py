"""Lookups against a real agent: published by asking, followed through its death and its return."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lictor.client import AsyncClient, Client, Endpoint
from lictor.client.errors import ApiError, NoAgent, NoInstance, NoMap, NotPublished, Stale
from tests.agent.processes import Process
from tests.client.conftest import PATIENT, address
from tests.patience import PATIENCE, eventually


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Process]:
    """An agent of the test's own, not started."""
    process = Process(tmp_path)
    yield process
    process.close()


def register(agent: Process, name: str, port: int, **more: Any) -> None:
    agent.put("/v1/agent/service/register", {"Name": name, "Port": port, **more})

    def known() -> bool:
        return port in [row["ServicePort"] for row in agent.get(f"/v1/catalog/service/{name}")]

    eventually(known, f"{name} is in the catalog")


def client_of(agent: Process, **settings: Any) -> Client:
    return Client(address(agent), options=PATIENT, environment=dict(os.environ), **settings)


def map_of(agent: Process) -> str:
    return str(agent.get("/v1/agent/lookup")["Path"])


def finds(client: Client, name: str, port: int) -> bool:
    """Whether a lookup finds an instance with a port, now."""
    try:
        return client.lookup(name).port == port
    except NoInstance:
        return False


def test_a_lookup_has_the_agent_publish_the_service(agent: Process) -> None:
    register(agent, "alpha", 81, Tags=["v1"], Meta={"k": "v"}, Weights={"Passing": 3, "Warning": 1})
    with client_of(agent) as client:
        found = client.lookup("alpha")
        assert isinstance(found, Endpoint)
        assert (found.port, found.node, found.tags, found.meta, found.weight) == (81, "n1", ("v1",), {"k": "v"}, 3)
        assert "alpha" in agent.get("/v1/agent/lookup")["Services"]
        assert client.lookups.lookup("alpha") == found, "from now on without asking"
        assert client.lookups.file.alive
        assert found.age < 1000


def test_changes_come_by_themselves(agent: Process) -> None:
    register(agent, "beta", 81, Check={"CheckID": "beta-ttl", "TTL": "1h", "Status": "passing"})
    with client_of(agent) as client:
        assert client.lookup("beta").port == 81
        register(agent, "beta", 82, Check={"CheckID": "beta-ttl", "TTL": "1h", "Status": "passing"})
        eventually(lambda: finds(client, "beta", 82), "the new port")
        agent.put("/v1/agent/check/fail/beta-ttl")
        eventually(lambda: not finds(client, "beta", 82), "a critical instance is not found")
        (endpoint,) = client.instances("beta")
        assert endpoint.status == "critical"
        agent.put("/v1/agent/check/warn/beta-ttl")
        eventually(lambda: client.instances("beta")[0].status == "warning", "it warns")
        assert client.lookup("beta", warning=True).port == 82
        agent.put("/v1/agent/service/deregister/beta")
        eventually(lambda: client.instances("beta") == (), "it is gone")


def test_a_service_that_is_not_there_yet_is_found_when_it_comes(agent: Process) -> None:
    with client_of(agent) as client:
        with pytest.raises(NoInstance, match="gamma has no passing instance: none is registered"):
            client.lookup("gamma")
        register(agent, "gamma", 83)
        eventually(lambda: finds(client, "gamma", 83), "it is there")


def test_the_instance_on_the_own_node_is_the_nearest(agent: Process) -> None:
    register(agent, "delta", 84)
    agent.put(
        "/v1/catalog/register",
        {"Node": "far", "Address": "10.9.9.9", "Service": {"Service": "delta", "ID": "d2", "Port": 85}},
    )
    far = {"Vec": [0.3] + [0.0] * 7, "Error": 1.5, "Adjustment": 0.0, "Height": 1e-5}
    agent.put("/v1/coordinate/update", {"Node": "far", "Coord": far})
    eventually(lambda: len(agent.get("/v1/coordinate/nodes")) > 1, "both coordinates are stored")
    with client_of(agent) as client:
        assert len(client.instances("delta")) == 2
        assert {client.lookup("delta", "nearest").port for _ in range(20)} == {84}
        assert {round(e.rtt, 1) for e in client.instances("delta")} == {0.0, 0.3}


def test_connections_go_to_where_there_are_the_fewest(agent: Process) -> None:
    for number in range(3):
        register(agent, "epsilon", 90 + number, ID=f"e{number}")
    with client_of(agent) as client:
        with client.connection("epsilon") as one, client.connection("epsilon") as two:
            with client.connection("epsilon") as three:
                assert {one.port, two.port, three.port} == {90, 91, 92}
            assert client.lookup("epsilon", "least_connections") == three
        with pytest.raises(NoInstance), client.connection("epsilon", tag="none"):
            pass


async def test_the_flavour_for_event_loops_finds_the_same(agent: Process) -> None:
    await asyncio.to_thread(register, agent, "zeta", 86)
    async with AsyncClient(address(agent), options=PATIENT, environment=dict(os.environ)) as client:
        assert (await client.lookup("zeta")).port == 86
        assert [e.port for e in await client.instances("zeta")] == [86]
        async with client.connection("zeta") as endpoint:
            assert endpoint.port == 86
        with pytest.raises(NoInstance):
            await client.lookup("nothing-of-that-name")
        assert (await client.lookup("zeta", "round_robin", max_age=10_000)).age < 10_000


def test_a_killed_agent_goes_on_answering_and_its_successor_is_followed(own: Process) -> None:
    own.start()
    register(own, "web", 81)
    with client_of(own) as client:
        first = client.lookup("web")
        run = client.lookups.file.run
        own.kill()
        assert client.lookup("web") == first
        eventually(lambda: client.lookup("web").age > 3, "the map grows older")
        with pytest.raises(Stale):
            client.lookup("web", max_age=2)
        with pytest.raises(NoAgent, match=f"no agent at http://{address(own)}: .* does not hold other"):
            client.lookup("other")
        own.start()
        eventually(lambda: client.lookups.service("web") and client.lookups.file.run != run, "the new map is read")
        assert client.lookup("web") == first
        eventually(lambda: client.age() < 3 and client.lookups.file.alive, "the new map is young")
        register(own, "web", 82)
        eventually(lambda: finds(client, "web", 82), "it follows the new agent's changes")


def test_an_agent_that_ends_leaves_its_map(own: Process) -> None:
    own.start()
    register(own, "web", 81)
    with client_of(own) as client:
        client.lookup("web")
        path = map_of(own)
        assert own.end(signal.SIGTERM) == 0
        assert client.lookup("web").port == 81
        assert not client.lookups.file.alive
    with client_of(own) as late:
        assert late.lookup("web").port == 81, f"a program that starts now still finds {path}"


def test_without_agent_and_map_both_are_told() -> None:
    with Client("127.0.0.1:1", environment={}) as client, pytest.raises(NoAgent) as caught:
        client.lookup("web")
    told = str(caught.value)
    assert "no agent at http://127.0.0.1:1: Connection refused" in told
    assert "LICTOR_HTTP_ADDR" in told
    assert "there is no lookup map: looked for /run/lictor/lookup-127.0.0.1-1.map" in told


def test_a_program_that_may_not_read_the_map_is_answered_over_http(agent: Process, tmp_path: Path) -> None:
    register(agent, "eta", 87, Tags=["v1"])
    with client_of(agent, lookup_map=str(tmp_path / "elsewhere")) as client:
        found = client.lookup("eta", tag="v1")
        assert (found.port, found.node) == (87, "n1")
        assert found.age < 1000
        assert [client.lookup("eta", "round_robin").port for _ in range(3)] == [87] * 3
        with pytest.raises(NoMap):
            client.age()


def test_an_agent_that_publishes_no_map(own: Process, tmp_path: Path) -> None:
    (tmp_path / "off.hcl").write_text("lookup_map { enabled = false }")
    own.flags = (f"-config-file={tmp_path}/off.hcl",)
    own.start()
    register(own, "web", 81)
    with client_of(own) as client:
        assert client.lookup("web").port == 81
        with pytest.raises(ApiError, match="publishes no lookup map") as caught:
            client.agent.lookup_map()
        assert caught.value.status == 404


def test_the_place_and_mode_of_the_map_are_configured(own: Process, tmp_path: Path) -> None:
    path = tmp_path / "place" / "own.map"
    path.parent.mkdir()
    (tmp_path / "map.hcl").write_text(f'lookup_map {{ path = "{path}" mode = "0600" }}')
    own.flags = (f"-config-file={tmp_path}/map.hcl",)
    own.start()
    register(own, "web", 81)
    assert map_of(own) == str(path)
    assert path.stat().st_mode & 0o777 == 0o600
    with client_of(own) as client:
        assert client.lookup("web").port == 81
        assert client.lookups.file.path == path, "the agent said where its map is"


def test_a_place_that_cannot_be_written_keeps_the_agent_from_starting(own: Process, tmp_path: Path) -> None:
    (tmp_path / "map.hcl").write_text(f'lookup_map {{ path = "{tmp_path}/none/own.map" }}')
    own.flags = (f"-config-file={tmp_path}/map.hcl",)
    assert own.spawn().wait(PATIENCE) == 1
    assert "lookup_map: cannot write" in own.log()
    assert "No such file or directory" in own.log()


def test_a_thousand_services_are_published_and_followed(agent: Process) -> None:
    names = [f"many-{number}" for number in range(1000)]
    agent.put("/v1/catalog/register", {"Node": "busy", "Address": "10.8.8.8"})
    for start in range(0, 1000, 50):
        operations = [
            {"Service": {"Verb": "set", "Node": "busy", "Service": {"ID": n, "Service": n, "Port": 1000 + start}}}
            for n in names[start : start + 50]
        ]
        agent.put("/v1/txn", operations)
    with client_of(agent) as client:
        for number, name in enumerate(names):
            for endpoint in client.instances(name):
                assert endpoint.port == 1000 + number // 50 * 50
        assert set(names) <= set(client.agent.lookup_map().services)


def test_a_program_with_threads_and_a_child_process_looks_up(agent: Process) -> None:
    register(agent, "theta", 88)
    code = """
import json, os, sys, threading
from lictor.client import lookup
ports = [lookup("theta").port]
threads = [threading.Thread(target=lambda: ports.append(lookup("theta", "round_robin").port)) for _ in range(8)]
[t.start() for t in threads]; [t.join() for t in threads]
pid = os.fork()
if pid == 0:
    os._exit(0 if lookup("theta").port == 88 else 1)
ports.append(os.waitpid(pid, 0)[1])
print(json.dumps([ports, "http.client" in sys.modules, "aiohttp" in sys.modules, "ssl" in sys.modules]))
"""
    environment = {**os.environ, "LICTOR_HTTP_ADDR": address(agent)}
    with client_of(agent) as client:
        client.lookup("theta")

    def run() -> Any:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
        return json.loads(done.stdout)

    ports, http, aiohttp, ssl = run()
    assert ports == [88] * 9 + [0]
    assert (http, aiohttp, ssl) == (False, False, False), "what only looks up imports nothing of the network"


def test_the_map_itself_never_asks(agent: Process) -> None:
    register(agent, "iota", 89)
    with client_of(agent) as client, pytest.raises(NotPublished):
        client.lookups.lookup("iota")
