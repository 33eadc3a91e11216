"""`/v1/connect/intentions`: one store behind intentions by id, by their ends, and config entries."""

import asyncio
import json
from typing import Any

import pytest

from tests.http.conftest import Door, open_agent
from tests.patience import PATIENCE

BASE = "/v1/connect/intentions"


def entry(name: str, *sources: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"Kind": "service-intentions", "Name": name, "Sources": list(sources), **more}


async def ask(door: Door, method: str, path: str, body: Any = None) -> tuple[int, str]:
    status, _, answer = await door.call(method, f"{BASE}{path}", json=body)
    return status, answer.decode()


async def ends(door: Door, path: str = "") -> list[tuple[str, str, str]]:
    found = await door.json(f"{BASE}{path}")
    return [(one["SourceName"], one["DestinationName"], one.get("Action", "")) for one in found]


async def test_an_intention_by_its_ends(door: Door) -> None:
    assert await ask(door, "PUT", "/exact?source=web&destination=db", {"Action": "allow"}) == (200, "true")
    found = await door.json(f"{BASE}/exact?source=web&destination=default/db")
    assert found == {
        "Description": "",
        "SourceNS": "default",
        "SourceName": "web",
        "DestinationNS": "default",
        "DestinationName": "db",
        "SourceType": "consul",
        "Action": "allow",
        "Meta": None,
        "Precedence": 9,
        "CreateIndex": found["CreateIndex"],
        "ModifyIndex": found["ModifyIndex"],
    }
    assert (await door.json("/v1/config/service-intentions/db"))["Sources"] == [
        {"Name": "web", "Action": "allow", "Precedence": 9, "Type": "consul"}
    ]
    assert await ask(door, "PUT", "/exact?source=*&destination=db", {"Action": "deny"}) == (200, "true")
    assert await ask(door, "PUT", "/exact?source=web&destination=db", {"Action": "deny"}) == (200, "true")
    assert await ends(door) == [("web", "db", "deny"), ("*", "db", "deny")]
    for _ in range(2):
        assert await ask(door, "DELETE", "/exact?source=web&destination=db") == (200, "true")
    assert await ask(door, "GET", "/exact?source=web&destination=db") == (404, "Intention not found")
    assert await ask(door, "DELETE", "/exact?source=*&destination=db") == (200, "true")
    assert await door.json("/v1/config/service-intentions") == []


@pytest.mark.parametrize("spelt", ["db", "Db", "DB"])
async def test_a_destination_is_the_service_however_it_is_spelt(door: Door, spelt: str) -> None:
    assert await ask(door, "PUT", "/exact?source=*&destination=dB", {"Action": "deny"}) == (200, "true")
    assert (await door.json(f"{BASE}/match?by=destination&name={spelt}"))[spelt][0]["Action"] == "deny"
    assert await door.json(f"{BASE}/check?source=web&destination={spelt}") == {"Allowed": False}
    assert await ask(door, "PUT", f"/exact?source=web&destination={spelt}", {"Action": "allow"}) == (200, "true")
    assert await ends(door) == [("web", "dB", "allow"), ("*", "dB", "deny")]
    assert (await door.json(f"/v1/config/service-intentions/{spelt}"))["Name"] == "dB"
    assert (await door.call("DELETE", f"/v1/config/service-intentions/{spelt}"))[0] == 200
    assert await ends(door) == []


async def test_a_change_is_told_to_whoever_spells_the_destination_otherwise(door: Door) -> None:
    status, headers, _ = await door.call("GET", f"{BASE}/match?by=destination&name=Db")
    assert status == 200
    path = f"{BASE}/match?by=destination&name=Db&index={headers['x-consul-index']}&wait=600s"
    waiting = asyncio.create_task(door.json(path))
    assert await ask(door, "PUT", "/exact?source=*&destination=db", {"Action": "deny"}) == (200, "true")
    async with asyncio.timeout(PATIENCE):
        assert (await waiting)["Db"][0]["Action"] == "deny"


async def speaks_http(door: Door, service: str) -> None:
    body = {"Kind": "service-defaults", "Name": service, "Protocol": "http"}
    assert await door.put("/v1/config", body) == (200, b"true")


async def test_a_config_entry_is_seen_as_intentions(door: Door) -> None:
    await speaks_http(door, "db")
    permissions = [{"Action": "allow", "HTTP": {"PathPrefix": "/x", "Methods": ["get"]}}]
    body = entry("db", {"Name": "web", "Permissions": permissions}, {"Name": "*", "Action": "deny"}, Meta={"t": "1"})
    assert (await door.put("/v1/config", body))[0] == 200
    web, any_source = await door.json(BASE)
    assert web["Permissions"] == [{"Action": "allow", "HTTP": {"PathPrefix": "/x", "Methods": ["GET"]}}]
    assert (web["Meta"], any_source["Meta"], "Action" in web) == ({"t": "1"}, {"t": "1"}, False)
    assert await ends(door, "?filter=Precedence==8") == [("*", "db", "deny")]
    # What was read may be sent back, with the entry's meta and no other.
    assert await ask(door, "PUT", "/exact?source=web&destination=db", web) == (200, "true")
    assert await ask(door, "PUT", "/exact?source=web&destination=db", web | {"Meta": {"t": "2"}}) == (
        500,
        "Meta must not be specified, or should be unchanged during an update.",
    )
    assert (await door.json("/v1/config/service-intentions/db"))["Meta"] == {"t": "1"}


async def test_layer_7_permissions_are_checked(door: Door) -> None:
    where = "/exact?source=web&destination=db"
    for body, text in (
        ({}, "Sources[0].Action must be set to 'allow' or 'deny'"),
        (
            {"Action": "allow", "Permissions": [{"Action": "allow", "HTTP": {"PathExact": "/"}}]},
            "Sources[0].Action must be omitted if Permissions are specified",
        ),
        ({"Permissions": [{"Action": "allow"}]}, "Sources[0].Permissions[0].HTTP is required"),
        ({"Permissions": [{"Action": "allow", "HTTP": {}}]}, "Sources[0].Permissions[0].HTTP should not be empty"),
        (
            {"Permissions": [{"Action": "allow", "HTTP": {"PathExact": "x"}}]},
            "Sources[0].Permissions[0].HTTP.PathExact doesn't start with '/': \"x\"",
        ),
        (
            {"Permissions": [{"Action": "allow", "HTTP": {"Methods": ["GET", "GET"]}}]},
            'Sources[0].Permissions[0].HTTP.Methods contains "GET" more than once',
        ),
    ):
        assert await ask(door, "PUT", where, body) == (500, text)
    permitted = {"Permissions": [{"Action": "allow", "HTTP": {"PathExact": "/"}}]}
    assert await ask(door, "PUT", "/exact?source=web&destination=*", permitted) == (
        500,
        "Sources[0].Permissions cannot be specified on intentions with wildcarded destinations",
    )
    assert await ends(door) == []
    status, text = await ask(door, "PUT", where, {"Permissions": [{"Action": "allow", "Nothing": 1}]})
    assert (status, text.startswith("Request decode failed: ")) == (400, True)


async def test_permissions_are_for_services_that_have_requests(door: Door) -> None:
    refused = 'service "db" has protocol "tcp", which is incompatible with L7 intentions permissions'
    permitted = {"Permissions": [{"Action": "allow", "HTTP": {"PathPrefix": "/"}}]}
    body = entry("db", {"Name": "web", **permitted})
    ends = "/exact?source=web&destination=db"
    assert await ask(door, "PUT", ends, permitted) == (500, refused)
    assert await door.put("/v1/config", body) == (500, refused.encode())
    await speaks_http(door, "db")
    assert await ask(door, "PUT", ends, permitted) == (200, "true")
    defaults = {"Kind": "service-defaults", "Name": "db", "Protocol": "tcp"}
    assert await door.put("/v1/config", defaults) == (500, refused.encode())
    status, _, text = await door.call("DELETE", "/v1/config/service-defaults/db")
    assert (status, text) == (500, refused.encode())
    # What all services speak is enough, as long as it is so.
    general = {"Kind": "proxy-defaults", "Name": "global", "Config": {"protocol": "grpc"}}
    assert (await door.put("/v1/config", general))[0] == 200
    assert (await door.call("DELETE", "/v1/config/service-defaults/db"))[0] == 200
    status, _, text = await door.call("DELETE", "/v1/config/proxy-defaults/global")
    assert (status, text) == (500, refused.encode())
    assert await ask(door, "DELETE", ends) == (200, "true")
    assert (await door.call("DELETE", "/v1/config/proxy-defaults/global"))[0] == 200


async def test_ids_go_when_an_entry_is_edited_as_one(door: Door) -> None:
    status, answer = await ask(door, "POST", "", {"SourceName": "web", "DestinationName": "db", "Action": "allow"})
    legacy_id = json.loads(answer)["ID"]
    assert status == 200
    assert await ask(door, "PUT", "/exact?source=api&destination=db", {"Action": "deny"}) == (200, "true")
    assert await ask(door, "GET", f"/{legacy_id}") == (404, "Intention not found")
    assert [one for one in await door.json(BASE) if "ID" in one or "CreatedAt" in one] == []
    assert await ask(door, "POST", "", {"SourceName": "x", "DestinationName": "db", "Action": "allow"}) == (
        500,
        'cannot use legacy intention API to edit intentions with a destination of "db" after editing them via a '
        "service-intentions config entry",
    )


async def test_meta_of_an_id_is_not_lost_silently(door: Door) -> None:
    made = {"SourceName": "web", "DestinationName": "db", "Action": "allow", "Meta": {"a": "b"}}
    assert (await ask(door, "POST", "", made))[0] == 200
    assert await ask(door, "PUT", "/exact?source=api&destination=db", {"Action": "deny"}) == (
        500,
        "Sources[0].LegacyMeta must be omitted",
    )
    assert [one["Meta"] for one in await door.json(BASE)] == [{"a": "b"}]


async def test_the_destination_of_an_id_stays(door: Door) -> None:
    made = {"SourceName": "web", "DestinationName": "db", "Action": "allow"}
    legacy_id = json.loads((await ask(door, "POST", "", made))[1])["ID"]
    before = await door.json(f"{BASE}/{legacy_id}")
    assert await ask(door, "PUT", f"/{legacy_id}", made | {"DestinationName": "other"}) == (
        500,
        "Cannot modify Destination partition/namespace/name for an intention once it exists.",
    )
    assert (await ask(door, "PUT", f"/{legacy_id}", made | {"SourceName": "api", "Action": "deny"}))[0] == 200
    after = await door.json(f"{BASE}/{legacy_id}")
    assert (after["SourceName"], after["Action"], after["CreatedAt"]) == ("api", "deny", before["CreatedAt"])
    assert after["UpdatedAt"] > before["UpdatedAt"]


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("/exact?source=web", 500, "required query parameter 'destination' not set"),
        ("/exact?source=&destination=db", 500, "required query parameter 'source' not set"),
        ("/exact?source=web&destination=db", 404, "Intention not found"),
        ("/exact?source=peer:p/web&destination=db", 404, "Intention not found"),
        (
            "/exact?source=a/b/c&destination=db",
            500,
            "source \"a/b/c\" is invalid: input can contain at most one '/'",
        ),
        (
            "/exact?source=web&destination=other/db",
            400,
            'destination "other/db" is invalid: Namespaces is a Consul Enterprise feature',
        ),
        ("/match?by=source&name=peer:p/web", 500, 'name "peer:p/web" is invalid: cannot specify a peer here'),
    ],
)
async def test_refusals(door: Door, path: str, status: int, text: str) -> None:
    assert await ask(door, "GET", path) == (status, text)


async def test_the_default_policy_is_told_with_a_match_and_decides_a_check() -> None:
    for flags, told, allowed in (
        ([], "allow", True),
        (["-hcl=default_intention_policy = 'deny'"], "deny", False),
        (["-hcl=default_intention_policy = 'allow'"], "allow", True),
    ):
        async with open_agent(*(flag.replace("'", '"') for flag in flags)) as door:
            _, headers, body = await door.get(f"{BASE}/match?by=destination&name=db")
            assert (headers["x-lictor-default-intention-policy"], json.loads(body)) == (told, {"db": None})
            assert await door.json(f"{BASE}/check?source=web&destination=db") == {"Allowed": allowed}


async def test_layer_7_is_denied_by_a_check(door: Door) -> None:
    await speaks_http(door, "db")
    permitted = {"Permissions": [{"Action": "allow", "HTTP": {"PathPrefix": "/"}}]}
    assert await ask(door, "PUT", "/exact?source=web&destination=db", permitted) == (200, "true")
    assert await door.json(f"{BASE}/check?source=web&destination=db") == {"Allowed": False}
    assert await door.json(f"{BASE}/check?source=api&destination=db") == {"Allowed": True}


async def test_without_the_mesh_there_are_no_intentions() -> None:
    async with open_agent("-hcl=connect { enabled = false }") as door:
        assert await ask(door, "GET", "") == (500, "Connect must be enabled in order to use this endpoint")


async def test_a_waiting_match_wakes_for_its_destination_and_for_any_and_for_no_other(door: Door) -> None:
    async def put(source: str, destination: str, action: str) -> None:
        path = f"/exact?source={source}&destination={destination}"
        assert await ask(door, "PUT", path, {"Action": action}) == (200, "true")

    async def wait(index: str) -> tuple[str, list[str]]:
        _, headers, body = await door.get(f"{BASE}/match?by=destination&name=db&index={index}&wait=5m")
        return headers["x-consul-index"], [one["Action"] for one in json.loads(body)["db"]]

    await put("web", "db", "allow")
    _, headers, _ = await door.get(f"{BASE}/match?by=destination&name=db")
    index = headers["x-consul-index"]
    async with asyncio.timeout(PATIENCE):
        waiting = asyncio.create_task(wait(index))
        await put("web", "other", "allow")
        await put("*", "*", "deny")
        index, actions = await waiting
        assert actions == ["allow", "deny"]
        waiting = asyncio.create_task(wait(index))
        assert await ask(door, "DELETE", "/exact?source=web&destination=other") == (200, "true")
        await put("web", "db", "deny")
        assert (await waiting)[1] == ["deny", "deny"]


async def test_of_many_who_edit_one_destination_none_undoes_another(door: Door) -> None:
    names = [f"s{number}" for number in range(40)]
    paths = [f"/exact?source={name}&destination=db" for name in names]
    answers = await asyncio.gather(*(ask(door, "PUT", path, {"Action": "allow"}) for path in paths))
    assert set(answers) == {(200, "true")}
    assert sorted(one[0] for one in await ends(door)) == sorted(names)
    await asyncio.gather(*(ask(door, "DELETE", path) for path in paths[::2]))
    assert sorted(one[0] for one in await ends(door)) == sorted(names[1::2])
