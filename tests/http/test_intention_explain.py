"""`/v1/connect/intentions/explain`, and the connections that proxies tell of."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from lictor.agent.live_connections import MAX_REPORTERS, Inbound, Seen
from lictor.model.intention_effect import Enforced
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


def told(door: Door, enforced: Enforced, inbound: dict[str, int], *requesters: str) -> None:
    """What the Envoy of "db" has told."""
    now = asyncio.get_running_loop().time()
    door.agent.connections.report(
        "db-sidecar-proxy",
        "db",
        [Inbound(uri(name), count) for name, count in inbound.items()],
        now,
        enforced=enforced,
        requests=[Seen(uri(name), now) for name in requesters],
    )


def uri(name: str) -> str:
    return f"spiffe://x.consul/ns/default/dc/dc1/svc/{name}"


async def test_an_envoy_that_carries_connections_ends_all_of_them(mesh: Door) -> None:
    told(mesh, Enforced.LISTENER, {"web": 3, "api": 2})
    effect = (await explain(mesh, "*", "db", "allow"))["Effect"]
    assert (effect["CutConnections"], effect["RestartedConnections"], effect["KeptConnections"]) == (0, 0, 5)
    await put(mesh, "api", "db", {"Action": "allow"})
    effect = (await explain(mesh, "*", "db", "deny"))["Effect"]
    assert [(one["Source"], one["Connections"]) for one in effect["Cut"]] == [("web", 3)]
    assert [(one["Source"], one["Connections"]) for one in effect["Restarted"]] == [("api", 2)]
    effect = (await explain(mesh, "nobody", "db", "deny"))["Effect"]
    assert (effect["CutConnections"], effect["RestartedConnections"]) == (0, 5), "those of others as well"


async def test_where_requests_are_looked_at_they_are_refused_and_no_connection_is_cut(mesh: Door) -> None:
    body = {"Kind": "service-defaults", "Name": "db", "Protocol": "http"}
    assert (await mesh.put("/v1/config", body))[0] == 200
    told(mesh, Enforced.REQUESTS, {}, "web", "api")
    effect = (await explain(mesh, "web", "db", "deny"))["Effect"]
    assert [(one["Source"], one["Destination"]) for one in effect["Refused"]] == [("web", "db")]
    assert (effect["CutConnections"], effect["KeptConnections"], effect["RefusedCallers"]) == (0, 0, 1)
    permissions = [{"Action": "deny", "HTTP": {"PathPrefix": "/admin"}}]
    entry = {"Kind": "service-intentions", "Name": "db", "Sources": [{"Name": "web", "Permissions": permissions}]}
    status, answer = await mesh.put(f"{EXPLAIN}?source=*", entry)
    assert status == 200
    effect = json.loads(answer)["Effect"]
    assert (effect["Change"], effect["Changes"], effect["RefusedCallers"]) == ("write", True, 0)
    steps = ["deny: PathPrefix /admin", "allow: everything else, by default"]
    assert effect["Judged"] == [{"Source": "web", "Destination": "db", "Seen": True, "Permissions": steps}]
    assert (await explain(mesh, "web", "db"))["Rule"] is None, "nothing was written"
    assert (await mesh.put("/v1/config", entry))[0] == 200
    again = json.loads((await mesh.put(f"{EXPLAIN}?source=*", entry))[1])["Effect"]
    assert (again["Changes"], again["Judged"]) == (False, [])
    assert (await explain(mesh, "web", "db"))["Permissions"] == steps
    effect = (await explain(mesh, "web", "db", "deny"))["Effect"]
    assert [one["Source"] for one in effect["Refused"]] == ["web"]


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({"Kind": "service-defaults", "Name": "db"}, 400, "the entry must be of kind"),
        ({"Kind": "service-intentions", "Name": "db"}, 500, "At least one source is required"),
        ({"Kind": "nonsense"}, 400, "Request decoding failed"),
        ([], 400, "Request decoding failed"),
    ],
)
async def test_entries_that_cannot_be_tried(mesh: Door, body: Any, status: int, text: str) -> None:
    answered, answer = await mesh.put(EXPLAIN, body)
    assert (answered, text in answer.decode()) == (status, True), answer


async def test_several_programs_tell_of_one_service_by_its_name(mesh: Door) -> None:
    service: dict[str, Any] = {"ID": "own-1", "Name": "own", "Port": 1, "Connect": {"Native": True}}
    assert (await mesh.put("/v1/agent/service/register", service))[0] == 200

    async def tell(reporter: str, count: int) -> int:
        inbound = [{"SourceURI": uri("web"), "Connections": count}]
        return int((await mesh.put(f"{CONNECTIONS}/own", {"Reporter": reporter, "Inbound": inbound}))[0])

    for number in range(MAX_REPORTERS):
        assert await tell(str(number), 1) == 200
    assert await tell("one too many", 1) == 400
    shown = await mesh.json(f"{CONNECTIONS}/own-1")
    assert [one["Connections"] for one in shown["Inbound"]] == [MAX_REPORTERS]
    for number in range(1, MAX_REPORTERS):
        assert await tell(str(number), 0) == 200
    assert (await mesh.json(f"{CONNECTIONS}/own-1"))["Inbound"][0]["Connections"] == 1
    effect = (await explain(mesh, "web", "own", "deny"))["Effect"]
    assert effect["CutConnections"] == 1


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
