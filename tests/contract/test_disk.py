"""A server with a data directory: what it knew is there after it was killed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.conftest import Servers
from tests.contract.covers import covers
from tests.contract.servers import NODE, Server
from tests.patience import PATIENCE, eventually


@pytest.fixture
def disk(kind: str, pool: Servers) -> Iterator[Server]:
    """A server of this case's own with a data directory."""
    server = pool.start(kind, "disk")
    yield server
    server.stop()


@covers("GET /v1/kv/:key", "pretty")
@covers("PUT /v1/agent/service/register")
@covers("PUT /v1/agent/check/register")
def test_everything_is_there_after_a_kill(disk: Server, name: str) -> None:
    """Keys, sessions, the catalog, the agent's services and checks with their status, and maintenance."""
    api = disk.api
    api.put(f"/v1/kv/{name}?flags=7", "kept")
    session = api.put("/v1/session/create", {"Name": name}).json()["ID"]
    api.put(f"/v1/kv/{name}/lock?acquire={session}", "held")
    api.put("/v1/catalog/register", {"Node": name, "Address": "10.60.0.1", "Service": {"Service": f"{name}-ext"}})
    definition = {"Name": name, "Port": 8, "Tags": ["t"], "Check": {"CheckID": f"{name}-c", "TTL": "1h"}}
    api.put("/v1/agent/service/register", definition)
    api.put(f"/v1/agent/check/pass/{name}-c?note=well")
    api.put("/v1/agent/check/register", {"Name": f"{name}-n", "TCP": "127.0.0.1:1", "Interval": "10h", "Notes": "n"})
    api.put("/v1/agent/service/register", {"Name": f"{name}-gone"})
    api.put(f"/v1/agent/service/deregister/{name}-gone")
    eventually(lambda: status_in_catalog(disk, name) == ["passing"], "the check is in the catalog")
    before = api.get(f"/v1/kv/{name}?recurse").json()

    # Without -dev, JSON is dense unless it is asked for otherwise.
    dense, pretty = api.get(f"/v1/kv/{name}"), api.get(f"/v1/kv/{name}?pretty")
    assert b"\n" not in dense.body
    assert pretty.text.startswith('[\n    {\n        "LockIndex": 0,\n')
    assert pretty.json() == dense.json()

    disk.kill()
    disk.restart()

    eventually(lambda: api.get(f"/v1/kv/{name}?recurse").json() == before, "the keys are there")
    assert [item["ID"] for item in api.get("/v1/session/list").json()] == [session]
    assert list(api.get("/v1/agent/services").json()) == [name]
    check = api.get("/v1/agent/checks").json()[f"{name}-c"]
    assert (check["Status"], check["Output"]) == ("passing", "well")
    assert api.get("/v1/agent/checks").json()[f"{name}-n"]["Notes"] == "n"
    eventually(lambda: status_in_catalog(disk, name) == ["passing"], "the check is in the catalog")
    assert api.get(f"/v1/catalog/service/{name}-ext").json()[0]["Node"] == name
    assert api.get(f"/v1/catalog/service/{name}-gone").json() == []
    assert api.get("/v1/agent/self").json()["Config"]["NodeName"] == NODE
    assert api.put(f"/v1/kv/{name}/after", "v").json() is True


def test_a_graceful_end_keeps_it_as_well(disk: Server, name: str) -> None:
    """SIGTERM instead of a kill."""
    disk.api.put(f"/v1/kv/{name}", "kept")
    disk.process.terminate()
    disk.process.wait(PATIENCE)
    disk.restart()
    assert eventually(lambda: disk.api.get(f"/v1/kv/{name}?raw").text == "kept", "the key is there")


def status_in_catalog(server: Server, service: str) -> list[str]:
    """The statuses of a service's checks as everybody sees them."""
    return [check["Status"] for check in server.api.get(f"/v1/health/checks/{service}").json()]
