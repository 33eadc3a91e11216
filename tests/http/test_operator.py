"""`/v1/operator` and `/v1/acl`: what the operator looks at and sets, and what is off."""

import asyncio
import json

from tests.http.conftest import Door, open_agent
from tests.patience import PATIENCE


async def test_raft(door: Door) -> None:
    (server,) = (await door.json("/v1/operator/raft/configuration"))["Servers"]
    assert (server["Node"], server["Leader"], server["Voter"], server["ProtocolVersion"]) == ("n1", True, True, "3")
    assert server["ID"] == door.agent.node_id
    for query, status, text in (
        (
            "",
            400,
            "Bad request: Must specify either ?id with the server's ID or ?address with IP:port of peer to remove",
        ),
        ("?id=a&address=b", 400, "Bad request: Must specify only one of ?id or ?address"),
        ("?id=a", 500, 'id "a" was not found in the Raft configuration'),
        ("?address=a", 500, 'address "a" was not found in the Raft configuration'),
        (f"?id={server['ID']}", 500, "need at least one voter in configuration"),
    ):
        got, _, body = await door.call("DELETE", f"/v1/operator/raft/peer{query}")
        assert (got, body.decode()) == (status, text)
    status, _, body = await door.call("POST", "/v1/operator/raft/transfer-leader")
    assert (status, body) == (500, b"cannot find peer")


async def test_autopilot_configuration(door: Door) -> None:
    path = "/v1/operator/autopilot/configuration"
    first = await door.json(path)
    assert (first["CleanupDeadServers"], first["LastContactThreshold"]) == (True, "200ms")
    assert first["CreateIndex"] == first["ModifyIndex"] > 0
    assert await door.put(path, {"LastContactThreshold": "1s", "ServerStabilizationTime": 20_000_000_000}) == (
        200,
        b"true",
    )
    second = await door.json(path)
    assert (second["LastContactThreshold"], second["ServerStabilizationTime"]) == ("1s", "20s")
    assert second["CreateIndex"] == first["CreateIndex"] < second["ModifyIndex"]
    assert await door.put(f"{path}?cas={first['ModifyIndex']}", {}) == (200, b"false")
    assert await door.put(f"{path}?cas={second['ModifyIndex']}", {}) == (200, b"true")
    for query, body, text in (
        ("?cas=x", b"{}", 'Error parsing cas value: strconv.ParseUint: parsing "x": invalid syntax'),
        ("", b"", "Error parsing autopilot config: EOF"),
        ("", b'{"Foo": 1}', 'Error parsing autopilot config: json: unknown field "Foo"'),
        ("", b'{"LastContactThreshold": "x"}', 'Error parsing autopilot config: time: invalid duration "x"'),
    ):
        status, answer = await door.put(path + query, body)
        assert (status, answer.decode()) == (400, f"Bad request: {text}")


async def test_autopilot_health_and_state(door: Door) -> None:
    health = await door.json("/v1/operator/autopilot/health")
    assert (health["Healthy"], health["FailureTolerance"]) == (True, 0)
    assert (health["Servers"][0]["Leader"], health["Servers"][0]["SerfStatus"]) == (True, "alive")
    state = await door.json("/v1/operator/autopilot/state")
    own = door.agent.node_id
    assert (state["Leader"], state["Voters"], state["Servers"][own]["Status"]) == (own, [own], "leader")


async def test_the_keyring_of_gossip_that_is_not_encrypted(door: Door) -> None:
    path = "/v1/operator/keyring"
    status, _, body = await door.get(path)
    assert status == 500
    assert body.decode().splitlines() == [
        "4 errors occurred:",
        "\t* WAN error: 1/1 nodes reported failure",
        "\t* n1.dc1: Keyring is empty (encryption not enabled)",
        "\t* dc1 (LAN) error: 1/1 nodes reported failure",
        "\t* n1: Keyring is empty (encryption not enabled)",
        "",
    ]
    for method in ("POST", "PUT", "DELETE"):
        status, _, body = await door.call(method, path, json={"Key": "x"})
        assert (status, b"No keyring to modify (encryption not enabled)" in body) == (500, True)
    for query, text in (
        ("?relay-factor=9", "Invalid relay-factor: Relay factor must be in range: [0, 5]"),
        ("?relay-factor=x", 'Error parsing relay factor: strconv.Atoi: parsing "x": invalid syntax'),
        ("?local-only=x", 'Error parsing local-only: strconv.ParseBool: parsing "x": invalid syntax'),
    ):
        status, _, body = await door.get(path + query)
        assert (status, body.decode()) == (400, f"Bad request: {text}")


async def test_usage(door: Door) -> None:
    for name in ("web", "web", "db"):
        service = {"Service": name, "ID": f"{name}-{len(name)}", "Connect": {"Native": name == "db"}, "Port": 1}
        await door.put("/v1/catalog/register", {"Node": "m", "Address": "10.0.0.1", "Service": service})
    found = await door.json("/v1/operator/usage")
    counted = found["Usage"]["dc1"]
    assert (counted["Nodes"], counted["Services"], counted["ServiceInstances"]) == (2, 3, 3)
    assert (counted["BillableServiceInstances"], counted["ConnectServiceInstances"]["connect-native"]) == (2, 1)
    assert found["Index"] == door.agent.store.index


async def test_coordinates() -> None:
    async with open_agent("-hcl=disable_coordinates = true") as door:
        await _coordinates(door)


async def _coordinates(door: Door) -> None:
    coord = {"Vec": [0.5, *[0] * 7], "Error": 1.5, "Adjustment": 0, "Height": 0.001}
    assert await door.put("/v1/coordinate/update", {"Node": "n1", "Coord": coord}) == (200, b"")
    row = {"Node": "n1", "Segment": "", "Coord": coord}
    async with asyncio.timeout(PATIENCE):  # written with others, some seconds later
        while await door.json("/v1/coordinate/nodes") != [row]:
            await asyncio.sleep(0.05)
    assert await door.json("/v1/coordinate/node/n1") == [row]
    assert await door.json("/v1/coordinate/nodes?segment=x") == []
    assert (await door.get("/v1/coordinate/node/nope"))[0] == 404
    assert (await door.json("/v1/coordinate/datacenters"))[0]["AreaID"] == "wan"
    assert await door.put("/v1/coordinate/update", {"Node": "nope", "Coord": coord}) == (200, b"")
    for body, status in ((b"", 400), ({"Node": "n1"}, 400), ({"Node": "n1", "Coord": {"Vec": [1]}}, 500)):
        assert (await door.put("/v1/coordinate/update", body))[0] == status
    assert await door.json("/v1/coordinate/nodes") == [row]


async def test_access_control_is_off(door: Door) -> None:
    for method, path in (
        ("PUT", "/v1/acl/bootstrap"),
        ("GET", "/v1/acl/tokens"),
        ("GET", "/v1/acl/policy/name/x"),
        ("POST", "/v1/acl/login"),
        ("POST", "/v1/internal/acl/authorize"),
    ):
        status, _, body = await door.call(method, path)
        assert (status, body) == (401, b"ACL support disabled"), path
    status, headers, _ = await door.call("POST", "/v1/acl/policy")
    assert (status, headers["allow"]) == (405, "OPTIONS,PUT")


async def test_nothing_is_exported_before_an_entry_says_so(door: Door) -> None:
    assert await door.json("/v1/exported-services") == []
    assert await door.json("/v1/imported-services") == []
    services = [{"Name": "web", "Consumers": [{"Peer": "west"}, {"Peer": "east"}]}]
    await door.put("/v1/config", {"Kind": "exported-services", "Name": "default", "Services": services})
    assert await door.json("/v1/exported-services") == [{"Service": "web", "Consumers": {"Peers": ["east", "west"]}}]
    assert json.dumps(await door.json("/v1/internal/ui/exported-services?peer=east")).count('"web"') == 1
