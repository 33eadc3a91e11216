"""`/v1/agent/service*` through the door: registered, shown, waited for, told to load balancers, taken away."""

import asyncio
import json
from typing import Any

import pytest

from tests.http.conftest import Door, open_agent


async def ok(door: Door, path: str, body: Any = None) -> None:
    status, text = await door.put(path, body)
    assert (status, text) == (200, b""), text


async def test_a_service_is_in_the_catalog_when_its_registration_is_answered(door: Door) -> None:
    await ok(door, "/v1/agent/service/register", {"Name": "web", "Port": 80, "Check": {"TTL": "1h"}})
    (row,) = await door.json("/v1/health/service/web")
    assert row["Service"]["Port"] == 80
    assert [c["CheckID"] for c in row["Checks"]] == ["serfHealth", "service:web"]
    await ok(door, "/v1/agent/check/pass/service:web")
    assert len(await door.json("/v1/health/service/web?passing")) == 1
    await ok(door, "/v1/agent/service/deregister/web")
    assert await door.json("/v1/health/service/web") == []
    assert await door.json("/v1/agent/checks") == {}


async def test_what_is_refused_changes_nothing(door: Door) -> None:
    await ok(door, "/v1/agent/service/register", {"Name": "web", "Port": 80, "Check": {"TTL": "1h", "CheckID": "c"}})
    before = await door.json("/v1/agent/services"), await door.json("/v1/agent/checks")
    for body, status in (
        ({"Name": "web", "Port": 81, "Checks": [{"TTL": "1h"}, {"TCP": "x:1"}]}, 400),
        ({"Name": "web", "Port": 81, "Check": {"Args": ["true"], "Interval": "1s"}}, 500),
        ({"Name": "web", "Port": 81, "Connect": {"SidecarService": {"ID": "own"}}}, 400),
        ({"Name": "web", "Weights": {"Passing": -1}}, 400),
        (b'{"Name": "web"', 400),
        (b"", 400),
        (b"null", 400),
        (b"[" * 5000, 400),
    ):
        answered, text = await door.put("/v1/agent/service/register", body)
        assert answered == status, (body, text)
    assert (await door.json("/v1/agent/services"), await door.json("/v1/agent/checks")) == before


@pytest.mark.parametrize(
    ("method", "path", "status", "text"),
    [
        ("PUT", "service/deregister/nope", 404, 'Unknown service ID "nope". Ensure that the service ID is passed, not'),
        ("PUT", "service/maintenance/nope?enable=true", 404, 'Unknown service ID "nope"'),
        ("PUT", "service/maintenance/nope", 400, "Missing value for enable"),
        ("PUT", "service/maintenance/nope?enable=maybe", 400, 'Invalid value for enable: "maybe"'),
        ("PUT", "check/deregister/nope", 404, 'Unknown check ID "nope". Ensure that the check ID is passed, not'),
        ("PUT", "check/pass/nope", 404, 'Unknown check ID "nope"'),
        ("GET", "service/nope", 404, "unknown service ID: nope"),
        ("GET", "service/register", 405, "method GET not allowed"),
        ("PUT", "services", 405, "method PUT not allowed"),
    ],
)
async def test_what_is_not_there_is_told(door: Door, method: str, path: str, status: int, text: str) -> None:
    answered, _, body = await door.call(method, f"/v1/agent/{path}")
    assert answered == status
    assert body.decode().startswith(text)


async def test_a_sidecar_comes_and_goes_with_its_service(door: Door) -> None:
    definition = {"Name": "web", "Port": 80, "Connect": {"SidecarService": {}}}
    await ok(door, "/v1/agent/service/register", definition)
    first = (await door.json("/v1/agent/service/web-sidecar-proxy"))["Port"]
    await ok(door, "/v1/agent/service/register", {**definition, "Name": "api"})
    assert (await door.json("/v1/agent/service/api-sidecar-proxy"))["Port"] != first
    await ok(door, "/v1/agent/service/register", definition)
    assert (await door.json("/v1/agent/service/web-sidecar-proxy"))["Port"] == first
    await ok(door, "/v1/agent/service/deregister/web")
    assert set(await door.json("/v1/agent/services")) == {"api", "api-sidecar-proxy"}


async def test_agents_say_what_an_upstream_is_and_the_catalog_takes_it_as_it_is_given(door: Door) -> None:
    proxy = {"DestinationServiceName": "web", "Upstreams": [{"DestinationName": "db", "LocalBindPort": 9191}]}
    own = {"Kind": "connect-proxy", "Port": 1, "Proxy": proxy}
    await ok(door, "/v1/agent/service/register", own | {"Name": "a"})
    elsewhere = {"Node": "other", "Address": "10.0.0.1", "Service": own | {"Service": "b"}}
    assert (await door.put("/v1/catalog/register", elsewhere))[0] == 200
    kinds = [
        (await door.json(f"/v1/catalog/service/{name}"))[0]["ServiceProxy"]["Upstreams"][0]["DestinationType"]
        for name in ("a", "b")
    ]
    assert kinds == ["service", ""]


@pytest.mark.parametrize(
    ("proxy", "text"),
    [
        ({"Upstreams": [{"DestinationName": "db"}]}, "upstream local bind port or local socket path must be defined"),
        ({"Upstreams": [{"LocalBindPort": 9191}]}, "upstream destination name cannot be empty"),
        ({"Expose": {"Paths": [{"ListenerPort": 9191}]}}, "expose.paths: empty path exposed"),
    ],
)
async def test_a_sidecar_that_could_not_do_what_it_is_asked_for_is_refused(
    door: Door, proxy: dict[str, Any], text: str
) -> None:
    definition = {"Name": "web", "Port": 80, "Connect": {"SidecarService": {"Proxy": proxy}}}
    status, body = await door.put("/v1/agent/service/register", definition)
    assert status == 400
    assert body.decode().startswith(f"Invalid SidecarService: 1 error occurred:\n\t* {text}")
    assert not await door.json("/v1/agent/services")


async def test_sidecars_registered_at_the_same_time_get_ports_of_their_own(door: Door) -> None:
    names = [f"s{n}" for n in range(20)]
    await asyncio.gather(
        *(ok(door, "/v1/agent/service/register", {"Name": n, "Connect": {"SidecarService": {}}}) for n in names)
    )
    services = await door.json("/v1/agent/services")
    ports = [services[f"{name}-sidecar-proxy"]["Port"] for name in names]
    assert sorted(ports) == list(range(21000, 21020))


async def test_the_hash_changes_with_the_content_and_can_be_waited_for(door: Door) -> None:
    await ok(door, "/v1/agent/service/register", {"Name": "web", "Port": 1})
    _, headers, body = await door.get("/v1/agent/service/web")
    shown = headers["x-consul-contenthash"]
    assert json.loads(body)["ContentHash"] == shown
    waiting = asyncio.create_task(door.get(f"/v1/agent/service/web?hash={shown}&wait=60s"))
    await ok(door, "/v1/agent/service/register", {"Name": "other"})
    await ok(door, "/v1/agent/service/register", {"Name": "web", "Port": 1})
    _, headers, _ = await door.get(f"/v1/agent/service/web?hash={shown}&wait=100ms")
    assert headers["x-consul-contenthash"] == shown
    assert not waiting.done()
    await ok(door, "/v1/agent/service/register", {"Name": "web", "Port": 2})
    _, headers, body = await waiting
    assert headers["x-consul-contenthash"] != shown
    assert json.loads(body)["Port"] == 2
    waiting = asyncio.create_task(door.get(f"/v1/agent/service/web?hash={headers['x-consul-contenthash']}&wait=60s"))
    await asyncio.sleep(0)
    await ok(door, "/v1/agent/service/deregister/web")
    assert (await waiting)[0] == 404


async def test_a_load_balancer_is_told_by_code(door: Door) -> None:
    async def codes() -> tuple[int, int]:
        by_id, _, _ = await door.get("/v1/agent/health/service/id/w1?format=text")
        by_name, headers, text = await door.get("/v1/agent/health/service/name/web?format=text")
        assert headers["x-consul-reason"] == text.decode()
        return by_id, by_name

    assert (await door.get("/v1/agent/health/service/id/w1"))[0] == 404
    assert (await door.get("/v1/agent/health/service/name/web"))[0] == 404
    for service_id in ("w1", "w2"):
        check = {"CheckID": service_id, "TTL": "1h", "Status": "passing"}
        await ok(door, "/v1/agent/service/register", {"Name": "web", "ID": service_id, "Check": check})
    assert await codes() == (200, 200)
    await ok(door, "/v1/agent/check/warn/w2")
    assert await codes() == (200, 429)
    await ok(door, "/v1/agent/check/fail/w1")
    assert await codes() == (503, 503)
    await ok(door, "/v1/agent/check/pass/w1")
    await ok(door, "/v1/agent/maintenance?enable=true")
    assert await codes() == (503, 503)
    _, _, body = await door.get("/v1/agent/health/service/id/w1")
    shown = json.loads(body)
    assert shown["AggregatedStatus"] == "maintenance"
    assert {check["CheckID"] for check in shown["Checks"]} == {"_node_maintenance", "w1"}
    await ok(door, "/v1/agent/maintenance?enable=false")
    assert await codes() == (200, 429)


async def test_an_output_is_cut_to_what_the_check_keeps(door: Door) -> None:
    await ok(door, "/v1/agent/check/register", {"Name": "c", "TTL": "1h"})
    await ok(door, "/v1/agent/check/update/c", {"Status": "passing", "Output": "x" * 10_000})
    output = (await door.json("/v1/agent/checks"))["c"]["Output"]
    assert output.startswith("x" * 4096)
    assert len(output) < 5000


async def test_a_changed_output_is_shown_at_once_though_the_catalog_hears_later(door: Door) -> None:
    await ok(door, "/v1/agent/check/register", {"Name": "c", "TTL": "1h"})
    await ok(door, "/v1/agent/check/pass/c?note=one")
    await ok(door, "/v1/agent/check/pass/c?note=two")
    assert (await door.json("/v1/agent/checks"))["c"]["Output"] == "two"
    (row,) = [c for c in await door.json("/v1/health/node/n1") if c["CheckID"] == "c"]
    assert row["Output"] == "one"


async def test_checks_survive_a_new_definition_of_their_service(door: Door) -> None:
    web = {"Name": "web", "Check": {"CheckID": "c", "TTL": "1h"}}
    await ok(door, "/v1/agent/service/register", web)
    await ok(door, "/v1/agent/check/pass/c?note=fine")
    await ok(door, "/v1/agent/service/register", {**web, "Port": 5, "Tags": ["new"]})
    check = (await door.json("/v1/agent/checks"))["c"]
    assert (check["Status"], check["Output"], check["ServiceTags"]) == ("passing", "fine", ["new"])
    await ok(door, "/v1/agent/service/register?replace-existing-checks=true", {"Name": "web"})
    assert await door.json("/v1/agent/checks") == {}


async def test_filters_select_services_and_checks(door: Door) -> None:
    await ok(door, "/v1/agent/service/register", {"ID": "a", "Name": "web", "Tags": ["v1"], "Meta": {"env": "prod"}})
    await ok(door, "/v1/agent/service/register", {"ID": "b", "Name": "web", "Kind": "mesh-gateway", "Port": 1})
    assert set(await door.json('/v1/agent/services?filter="v1" in Tags')) == {"a"}
    assert set(await door.json("/v1/agent/services?filter=Meta.env == prod")) == {"a"}
    assert set(await door.json('/v1/agent/services?filter=Kind != ""')) == {"b"}
    status, _, text = await door.get("/v1/agent/services?filter=Nope == 1")
    assert status == 400
    assert b'Selector "Nope" is not valid' in text


async def test_scripts_are_for_who_enables_them() -> None:
    script = {"Name": "s", "Args": ["true"], "Interval": "10h"}
    async with open_agent("-enable-local-script-checks") as door:
        status, text = await door.put("/v1/agent/check/register", script)
        assert status == 500
        assert text.startswith(b"Scripts are disabled on this agent from remote calls")
    async with open_agent("-enable-script-checks") as door:
        await ok(door, "/v1/agent/check/register", script)


@pytest.mark.parametrize("path", ["/v1/agent/service/register", "/v1/agent/check/register", "/v1/catalog/register"])
async def test_a_namespace_is_refused_rather_than_dropped(door: Door, path: str) -> None:
    body = {"Name": "web", "TTL": "10s"} if "agent/check" in path else {"Name": "web"}
    if "catalog" in path:
        body = {"Node": "n2", "Address": "10.0.0.2"}
    status, told = await door.put(path, {**body, "Namespace": "other"})
    assert status == 400
    assert b"Namespaces are a Consul Enterprise feature" in told
    assert (await door.put(path, {**body, "Namespace": "default"}))[0] == 200


async def test_a_change_of_the_services_can_be_waited_for(door: Door) -> None:
    await ok(door, "/v1/agent/service/register", {"Name": "a"})
    _, headers, _ = await door.get("/v1/agent/services")
    assert "x-consul-contenthash" not in headers, "nobody has asked"
    _, headers, _ = await door.get("/v1/agent/services?hash=0")
    content = headers["x-consul-contenthash"]
    waiting = asyncio.create_task(door.get(f"/v1/agent/services?hash={content}&wait=60s"))
    await ok(door, "/v1/agent/service/register", {"Name": "b"})
    _, headers, body = await waiting
    assert set(json.loads(body)) == {"a", "b"}
    assert headers["x-consul-contenthash"] != content


@pytest.mark.parametrize("proxy_id", [".", "..", "a\nb"])
async def test_a_proxy_whose_id_stands_in_no_path_is_not_started(proxy_id: str) -> None:
    async with open_agent("-hcl", "connect { launch { enabled = true } }") as door:
        proxy = {"DestinationServiceName": "web", "Launch": "builtin"}
        definition = {"Kind": "connect-proxy", "Name": "p", "ID": proxy_id, "Port": 1, "Proxy": proxy}
        status, body = await door.put("/v1/agent/service/register", definition)
        assert (status, b"cannot be started: its agent could not be asked about it" in body) == (400, True)
        proxy["Launch"] = "none"
        await ok(door, "/v1/agent/service/register", definition)
