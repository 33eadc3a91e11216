"""An agent whose data folder is not simply its own: its state comes from elsewhere, or another agent runs in it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agent.processes import Process
from tests.patience import PATIENCE, eventually


@pytest.fixture
def agents(tmp_path: Path) -> Iterator[list[Process]]:
    """Two agents of the same name on two machines, not started."""
    folders = [tmp_path / "old", tmp_path / "new"]
    for folder in folders:
        folder.mkdir()
    processes = [Process(folder) for folder in folders]
    yield processes
    for process in processes:
        process.close()


def test_a_snapshot_is_restored_on_a_new_machine_which_then_restarts(agents: list[Process]) -> None:
    old, new = agents
    old.start()
    old.put("/v1/kv/a", b"value")
    old.put("/v1/agent/service/register", {"Name": "web", "Check": {"TTL": "1h", "Status": "passing"}})
    # A member that was there when the snapshot was taken, and a node that was registered from outside.
    gone = {"CheckID": "serfHealth", "Name": "Serf Health Status", "Status": "passing"}
    old.put("/v1/catalog/register", {"Node": "n2", "ID": str(uuid.uuid4()), "Address": "10.0.0.2", "Check": gone})
    old.put("/v1/catalog/register", {"Node": "outside", "Address": "10.0.0.3", "Service": {"Service": "search"}})
    archive = old.ask("GET", "/v1/snapshot")[1]
    old.kill()
    new.start()
    new.put("/v1/agent/service/register", {"Name": "api", "Port": 80})
    new.put("/v1/snapshot", archive)

    def own() -> bool:
        ids = {node["Node"]: node["ID"] for node in new.get("/v1/catalog/nodes")}
        services = set(new.get("/v1/catalog/services"))
        return ids == {"n1": new.node_id, "outside": ""} and services == {"consul", "api", "search"}

    eventually(own, "the new machine's id under its name, what is registered there, and what was from outside")
    new.kill()
    new.start()
    assert own()
    assert new.ask("GET", "/v1/kv/a?raw") == (200, b"value")
    (alive,) = (c for c in new.get("/v1/health/node/n1") if c["CheckID"] == "serfHealth")
    assert alive["Status"] == "passing"


def test_a_lost_node_id_keeps_nobody_from_starting(agents: list[Process]) -> None:
    agent, _ = agents
    agent.start()
    agent.put("/v1/agent/service/register", {"Name": "web"})
    agent.kill()
    agent.node_id = str(uuid.uuid4())
    agent.start()

    def renamed() -> bool:
        return [(node["Node"], node["ID"]) for node in agent.get("/v1/catalog/nodes")] == [("n1", agent.node_id)]

    eventually(renamed, "the node has its new id")
    eventually(lambda: set(agent.get("/v1/catalog/services")) == {"consul", "web"}, "its services are there")


def test_a_second_agent_in_a_folder_does_not_start_and_changes_nothing(agents: list[Process]) -> None:
    first, second = agents
    first.start()
    first.put("/v1/kv/a", b"value")
    kept = ("raft/identity.json", "raft/standing.json", "node-id", "lock")
    before = {name: (first.data / name).read_bytes() for name in kept if (first.data / name).exists()}
    second.data = first.data
    assert second.spawn().wait(PATIENCE) == 1
    assert first.process is not None
    assert f"another agent (process {first.process.pid}) uses the data directory {first.data}" in second.log()
    assert {name: (first.data / name).read_bytes() for name in before} == before
    assert first.ask("GET", "/v1/kv/a?raw") == (200, b"value")
    first.kill()
    second.start()
    assert second.ask("GET", "/v1/kv/a?raw") == (200, b"value")
