"""`/v1/connect/intentions/explain`, and the connections that proxies tell of."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.http.conftest import Door, open_agent
from tests.patience import soon

EXPLAIN = "/v1/connect/intentions/explain"
CONNECTIONS = "/v1/agent/connect/connections"


@pytest.fixture
async def mesh() -> AsyncIterator[Door]:
    """An agent with three services that have sidecars, and gossip."""
    async with open_agent() as door:
        for name in ("web", "api", "db"):
            service: dict[str, Any] = {"Name": name, "Port": 1, "Connect": {"SidecarService": {}}}
            assert (await door.put("/v1/agent/service/register", service))[0] == 200
        await soon(lambda: door.agent.pools.lan is not None, "gossip runs")
        yield door


async def put(door: Door, source: str, destination: str, body: Any) -> None:
    path = f"/v1/connect/intentions/exact?source={source}&destination={destination}"
    assert (await door.put(path, body))[0] == 200


async def report(door: Door, service: str, **callers: int) -> None:
    inbound = [
        {"SourceURI": f"spiffe://x.consul/ns/default/dc/dc1/svc/{name}", "Connections": count}
        for name, count in callers.items()
    ]
    assert (await door.put(f"{CONNECTIONS}/{service}-sidecar-proxy", {"Inbound": inbound}))[0] == 200


async def explain(door: Door, source: str, destination: str, change: str = "") -> dict[str, Any]:
    found: dict[str, Any] = await door.json(f"{EXPLAIN}?source={source}&destination={destination}&change={change}")
    return found


async def test_the_deciding_intention_those_it_hides_and_what_would_change_it(mesh: Door) -> None:
    await put(mesh, "web", "db", {"Action": "allow"})
    await put(mesh, "*", "db", {"Action": "deny"})
    found = await explain(mesh, "web", "db")
    assert (found["Verdict"], found["Allowed"], found["Default"], found["Effect"]) == ("allowed", True, "allow", None)
    assert found["Reason"] == "Matched L4 intention: default/web => default/db (Precedence: 9, Action: ALLOW)"
    assert found["Rule"]["SourceName"] == "web"
    assert [one["SourceName"] for one in found["Shadowed"]] == ["*"]
    assert [(one["Command"], one["Verdict"]) for one in found["Remedies"]] == [
        ("lictor intention create -deny -replace web db", "denied"),
        ("lictor intention delete web db", "denied"),
    ]
    found = await explain(mesh, "api", "other")
    assert (found["Verdict"], found["Rule"], found["Reason"]) == (
        "allowed",
        None,
        "Default behavior configured by ACLs",
    )
    assert [one["Command"] for one in found["Remedies"]] == ["lictor intention create -deny api other"]


async def test_a_change_tells_which_live_connections_it_would_cut(mesh: Door) -> None:
    await report(mesh, "db", web=3, api=2)
    effect = (await explain(mesh, "web", "db", "deny"))["Effect"]
    node = mesh.agent.node_name
    assert effect["Cut"] == [{"Source": "web", "Destination": "db", "Node": node, "Connections": 3}]
    assert (effect["CutConnections"], effect["KeptConnections"], effect["Verdict"]) == (3, 0, "denied")
    assert (effect["Agents"], effect["Silent"], effect["Untold"]) == (1, [], 0)
    assert effect["Denied"] == [{"Source": "web", "Destination": "db"}]
    # One that has an intention of its own goes on.
    await put(mesh, "web", "db", {"Action": "allow"})
    effect = (await explain(mesh, "*", "db", "deny"))["Effect"]
    assert [(one["Source"], one["Connections"]) for one in effect["Cut"]] == [("api", 2)]
    assert effect["KeptConnections"] == 3
    assert [one["Source"] for one in effect["Denied"]] == ["api", "db"]
    # What allows cuts nothing, and nothing was made.
    await put(mesh, "*", "db", {"Action": "deny"})
    effect = (await explain(mesh, "api", "db", "allow"))["Effect"]
    assert (effect["Cut"], effect["Allowed"]) == ([], [{"Source": "api", "Destination": "db"}])
    assert (await explain(mesh, "api", "db"))["Verdict"] == "denied"


async def test_a_change_for_all_destinations_looks_at_each(mesh: Door) -> None:
    await report(mesh, "db", web=1)
    await report(mesh, "api", web=4)
    await put(mesh, "web", "db", {"Action": "allow"})
    effect = (await explain(mesh, "web", "*", "deny"))["Effect"]
    assert [(one["Destination"], one["Connections"]) for one in effect["Cut"]] == [("api", 4)]
    assert [one["Destination"] for one in effect["Denied"]] == ["api", "web"]


async def test_what_would_change_nothing_says_so(mesh: Door) -> None:
    assert (await explain(mesh, "web", "db", "delete"))["Effect"]["Changes"] is False
    assert (await explain(mesh, "web", "db", "allow"))["Effect"]["Changes"] is True
    await put(mesh, "web", "db", {"Action": "allow"})
    assert (await explain(mesh, "web", "db", "allow"))["Effect"]["Changes"] is False
    assert (await explain(mesh, "web", "db", "delete"))["Effect"]["Changes"] is True


async def test_layer_7_is_a_verdict_of_its_own(mesh: Door) -> None:
    assert (await mesh.put("/v1/config", {"Kind": "service-defaults", "Name": "db", "Protocol": "grpc"}))[0] == 200
    await put(mesh, "web", "db", {"Permissions": [{"Action": "allow", "HTTP": {"PathPrefix": "/"}}]})
    found = await explain(mesh, "web", "db")
    assert (found["Verdict"], found["Allowed"], found["Protocol"]) == ("needs layer 7", False, "grpc")


async def test_connections_are_shown_until_the_proxy_goes(mesh: Door) -> None:
    await report(mesh, "db", web=3)
    shown = await mesh.json(f"{CONNECTIONS}/db-sidecar-proxy")
    assert (shown["Destination"], shown["Inbound"][0]["Connections"]) == ("db", 3)
    assert list(await mesh.json(CONNECTIONS)) == ["db-sidecar-proxy"]
    assert (await mesh.get(f"{CONNECTIONS}/web-sidecar-proxy"))[0] == 404
    await report(mesh, "db")
    assert (await mesh.json(f"{CONNECTIONS}/db-sidecar-proxy"))["Inbound"] == []
    assert (await mesh.put("/v1/agent/service/deregister/db"))[0] == 200
    assert await mesh.json(CONNECTIONS) == {}


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        (f"{EXPLAIN}?source=web", 500, "required query parameter 'destination' not set"),
        (f"{EXPLAIN}?source=web&destination=db&change=x", 400, 'change must be allow, deny or delete, not "x"'),
        (f"{CONNECTIONS}/nobody", 404, 'proxy "nobody" has not told of its connections'),
    ],
)
async def test_refusals(mesh: Door, path: str, status: int, text: str) -> None:
    answered, _, body = await mesh.get(path)
    assert (answered, body.decode()) == (status, text)


@pytest.mark.parametrize(
    ("proxy", "body", "status"),
    [
        ("nobody", {"Inbound": []}, 404),
        ("db-sidecar-proxy", {"Inbound": [{"SourceURI": "x", "Connections": -1}]}, 400),
        ("db-sidecar-proxy", {"Inbound": [{"SourceURI": 1}]}, 400),
        ("db-sidecar-proxy", {"Inbound": {}}, 400),
        ("db-sidecar-proxy", {"Inbound": [{"SourceURI": "x", "Connections": 1}] * 2_001}, 400),
        ("db-sidecar-proxy", "{", 400),
    ],
)
async def test_reports_that_are_refused(mesh: Door, proxy: str, body: Any, status: int) -> None:
    assert (await mesh.put(f"{CONNECTIONS}/{proxy}", body))[0] == status
