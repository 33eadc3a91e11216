"""`/v1/internal/ui`: what the web page asks for; and its way to the metrics back end."""

from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from yarl import URL

from lictor.agent.config.sections import MetricsProxy, UiConfig
from lictor.http.metrics_proxy import NotAllowed, target
from lictor.model.errors import InvalidRequest, NotFound
from tests.http.conftest import Door, open_agent


async def register(door: Door, node: str, service: dict[str, object], status: str = "passing") -> None:
    check = {"CheckID": f"c-{service['ID']}", "Name": "c", "Status": status, "ServiceID": service["ID"]}
    body = {"Node": node, "Address": "10.0.0.1", "Service": service, "Check": check}
    assert await door.put("/v1/catalog/register", body) == (200, b"true")


@pytest.fixture
async def mesh(door: Door) -> Door:
    """web calls db; both have a sidecar, and an ingress gateway leads to web."""
    meta = {"external-source": "nomad"}
    await register(door, "m1", {"ID": "w1", "Service": "web", "Port": 1, "Tags": ["b", "a"], "Meta": meta})
    await register(door, "m2", {"ID": "w2", "Service": "web", "Port": 1}, "warning")
    await register(door, "m1", {"ID": "d1", "Service": "db", "Port": 2}, "critical")
    for name, upstreams in (("web", [{"DestinationName": "db", "LocalBindPort": 9}]), ("db", [])):
        proxy = {"DestinationServiceName": name, "Upstreams": upstreams}
        sidecar = {"ID": f"{name}-p", "Service": f"{name}-p", "Kind": "connect-proxy", "Port": 3, "Proxy": proxy}
        await register(door, "m1", sidecar)
    await register(door, "m3", {"ID": "in", "Service": "in", "Kind": "ingress-gateway", "Port": 4})
    listener = {"Port": 8080, "Protocol": "tcp", "Services": [{"Name": "web"}]}
    await door.put("/v1/config", {"Kind": "ingress-gateway", "Name": "in", "Listeners": [listener]})
    return door


async def test_services_in_summary(mesh: Door) -> None:
    found = {row["Name"]: row for row in await mesh.json("/v1/internal/ui/services")}
    assert list(found) == sorted(found)
    row = found["web"]
    assert (row["InstanceCount"], row["Nodes"], row["Tags"]) == (2, ["m1", "m2"], ["a", "b"])
    assert (row["ChecksPassing"], row["ChecksWarning"], row["ChecksCritical"]) == (2, 1, 0), "with its sidecar's check"
    assert (row["ConnectedWithProxy"], row["ConnectedWithGateway"], row["ExternalSources"]) == (True, True, ["nomad"])
    assert "Kind" not in row
    assert (found["db"]["ConnectedWithGateway"], found["db"]["ExternalSources"]) == (False, None)
    assert found["in"]["GatewayConfig"] == {"AssociatedServiceCount": 1}
    only = await mesh.json("/v1/internal/ui/services?filter=Service.Service==db")
    assert [row["Name"] for row in only] == ["db"]


async def test_nodes_with_all_they_have(mesh: Door) -> None:
    found = await mesh.json("/v1/internal/ui/nodes?filter=Node==m1")
    assert [(row["Node"], len(row["Services"]), len(row["Checks"])) for row in found] == [("m1", 4, 4)]
    assert await mesh.json("/v1/internal/ui/node/m1") == found[0]
    assert (await mesh.get("/v1/internal/ui/node/nope"))[0] == 404
    assert (await mesh.get("/v1/internal/ui/node/"))[::2] == (400, b"Missing node name")


async def test_topology(mesh: Door) -> None:
    found = await mesh.json("/v1/internal/ui/service-topology/web?kind=")
    assert ([row["Name"] for row in found["Upstreams"]], found["Downstreams"], found["Protocol"]) == (["db"], [], "tcp")
    assert found["Upstreams"][0]["Intention"]["Allowed"] is True
    assert found["Upstreams"][0]["Source"] == "proxy-registration"
    found = await mesh.json("/v1/internal/ui/service-topology/db?kind=")
    assert [row["Name"] for row in found["Downstreams"]] == ["web"]
    for path, text in (
        ("web", b"Missing service kind"),
        ("web?kind=x", b'Unsupported service kind "x"'),
        ("?kind=", b"Missing service name"),
    ):
        assert (await mesh.get(f"/v1/internal/ui/service-topology/{path}"))[::2] == (400, text)


async def test_topology_tells_what_intentions_say(mesh: Door) -> None:
    async def put(source: str, destination: str, body: object) -> None:
        path = f"/v1/connect/intentions/exact?source={source}&destination={destination}"
        assert await mesh.put(path, body) == (200, b"true")

    async def decision() -> dict[str, object]:
        (upstream,) = (await mesh.json("/v1/internal/ui/service-topology/web?kind="))["Upstreams"]
        (downstream,) = (await mesh.json("/v1/internal/ui/service-topology/db?kind="))["Downstreams"]
        assert upstream["Intention"] == downstream["Intention"]
        found: dict[str, object] = upstream["Intention"]
        return found

    default = {"DefaultAllow": True, "HasPermissions": False, "ExternalSource": "", "HasExact": False}
    assert await decision() == default | {"Allowed": True}
    await put("*", "db", {"Action": "deny"})
    assert await decision() == default | {"Allowed": False}
    await mesh.put("/v1/config", {"Kind": "service-defaults", "Name": "db", "Protocol": "http"})
    await put("web", "db", {"Permissions": [{"Action": "allow", "HTTP": {"PathPrefix": "/"}}]})
    assert await decision() == default | {"Allowed": False, "HasPermissions": True, "HasExact": True}
    await put("web", "db", {"Action": "allow"})
    assert await decision() == default | {"Allowed": True, "HasExact": True}
    await put("x", "web", {"Action": "allow"})
    rows = await mesh.json("/v1/internal/ui/gateway-intentions/in")
    assert [(row["SourceName"], row["DestinationName"]) for row in rows] == [("x", "web")]
    assert await mesh.json("/v1/internal/ui/gateway-intentions/nope") == []


async def test_gateways(mesh: Door) -> None:
    (bound,) = await mesh.json("/v1/catalog/gateway-services/in")
    assert (bound["Gateway"], bound["Service"], bound["GatewayKind"]) == (
        {"Name": "in"},
        {"Name": "web"},
        "ingress-gateway",
    )
    assert (bound["Port"], bound["Protocol"]) == (8080, "tcp")
    assert await mesh.json("/v1/catalog/gateway-services/none") is None
    (row,) = await mesh.json("/v1/internal/ui/gateway-services-nodes/in")
    assert row["GatewayConfig"] == {"Addresses": ["web.ingress.dc1.consul.:8080"]}
    assert [row["Node"]["Node"] for row in await mesh.json("/v1/health/ingress/web")] == ["m3"]
    await mesh.put("/v1/config", {"Kind": "terminating-gateway", "Name": "out", "Services": [{"Name": "*"}]})
    found = await mesh.json("/v1/catalog/gateway-services/out")
    assert [(row["Service"]["Name"], row["FromWildcard"]) for row in found] == [("db", True), ("web", True)]


async def test_overview_and_federation(mesh: Door) -> None:
    found = await mesh.json("/v1/internal/ui/catalog-overview")
    assert found["Nodes"] == [{"Total": 4, "Passing": 2, "Warning": 1, "Critical": 1}]
    assert {"Name": "web", "Total": 2, "Passing": 1, "Warning": 1, "Critical": 0} in found["Services"]
    (state,) = await mesh.json("/v1/internal/federation-states")
    assert state["Datacenter"] == "dc1"
    assert (await mesh.json("/v1/internal/federation-state/dc1"))["State"] == state
    assert await mesh.json("/v1/internal/federation-states/mesh-gateways") == {}
    assert (await mesh.get("/v1/internal/federation-state/zz"))[0] == 404


# -- metrics proxy ----------------------------------------------------------------------------------------------------


def proxied(base: str, *paths: str, provider: str = "") -> UiConfig:
    return UiConfig(
        enabled=True, metrics_provider=provider, metrics_proxy=MetricsProxy(base_url=base, path_allowlist=paths)
    )


def test_only_what_is_configured_may_be_asked() -> None:
    assert target(proxied("http://h:1/base"), "api/x", "q=1") == "http://h:1/base/api/x?q=1"
    assert target(proxied("http://h:1", "/ok"), "ok", "") == "http://h:1/ok"
    assert target(proxied("http://h:1", provider="prometheus"), "api/v1/query", "") == "http://h:1/api/v1/query"
    with pytest.raises(NotFound, match="UI is not enabled"):
        target(UiConfig(), "x", "")
    with pytest.raises(NotFound, match="Metrics proxy is not enabled"):
        target(UiConfig(enabled=True), "x", "")
    for path in ("../x", "a/../../x", "a/b/../../../etc"):
        with pytest.raises(InvalidRequest, match=r"Invalid path\."):
            target(proxied("http://h:1/base"), path, "")
    for path in ("other", "ok/..//ok/x", "OK", "ok/x", "//evil.example/ok"):
        with pytest.raises(NotAllowed):
            target(proxied("http://h:1", "/ok"), path, "")
    with pytest.raises(NotAllowed):
        target(proxied("http://h:1", provider="prometheus"), "api/v1/admin", "")
    assert URL(target(proxied("http://h:1"), "@evil.example/x", ""), encoded=True).host == "h"
    assert target(proxied("http://h:1"), "a?b#c", "") == "http://h:1/a%3Fb%23c"


@pytest.fixture
async def back_end() -> AsyncIterator[str]:
    """A metrics back end that tells what it was asked."""

    async def answer(request: web.Request) -> web.Response:
        if request.path == "/p/away":
            raise web.HTTPFound("http://127.0.0.1:1/")
        seen = {
            "path": request.path_qs,
            "added": request.headers.get("X-Added"),
            "token": "X-Consul-Token" in request.headers,
        }
        return web.json_response(seen)

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/p"
    await runner.cleanup()


async def test_the_back_end_is_asked(back_end: str) -> None:
    proxy = f'metrics_proxy {{ base_url = "{back_end}" add_headers = [{{ name = "X-Added" value = "v" }}] }}'
    async with open_agent("-hcl", f"ui_config {{ enabled = true {proxy} }}") as door:
        path = "/v1/internal/ui/metrics-proxy"
        status, headers, body = await door.get(f"{path}/x?q=a%20b", **{"X-Consul-Token": "secret"})
        assert (status, headers["content-type"]) == (200, "application/json; charset=utf-8")
        assert body == b'{"path": "/p/x?q=a%20b", "added": "v", "token": false}'
        status, headers, _ = await door.get(f"{path}/away")
        assert status == 302, "a redirect is not followed"
        assert (await door.call("POST", f"{path}/x"))[0] == 405


async def test_a_back_end_that_is_not_there() -> None:
    proxy = 'metrics_proxy { base_url = "http://127.0.0.1:1" }'
    async with open_agent("-hcl", f"ui_config {{ enabled = true {proxy} }}") as door:
        assert (await door.get("/v1/internal/ui/metrics-proxy/x"))[0] == 502
