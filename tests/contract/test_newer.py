"""Features that the reference has not: expectations from the documentation of later releases, on Lictor only."""

from __future__ import annotations

import pytest

from tests.contract.client import Api
from tests.contract.covers import covers
from tests.contract.servers import NODE, Server
from tests.patience import eventually


@pytest.mark.newer("the header came after the reference")
def test_the_default_acl_policy_is_told(api: Api, name: str) -> None:
    """On every answer: what a request without a token may do."""
    for path in ("/v1/status/leader", f"/v1/kv/{name}", "/v1/agent/self"):
        assert api.get(path).headers["x-consul-default-acl-policy"] == "allow"


@pytest.mark.newer("the header came after the reference")
def test_the_backend_of_a_read_is_told(api: Api, name: str) -> None:
    """`blocking-query` or `streaming`, on the reads that can be either."""
    for path in (f"/v1/health/service/{name}", "/v1/catalog/nodes"):
        assert api.get(path).headers["x-consul-query-backend"] in ("blocking-query", "streaming")


@pytest.mark.newer("the endpoint came after the reference")
@covers("GET /v1/agent/version")
def test_the_version_of_the_agent(api: Api) -> None:
    """The same strings as in /v1/agent/self."""
    answer = api.get("/v1/agent/version")
    assert answer.status == 200
    body = answer.json()
    assert {"SHA", "BuildDate", "HumanVersion", "FIPS"} <= set(body)
    assert body["HumanVersion"]


@pytest.mark.newer("the endpoints are Lictor's own")
@covers("GET /v1/agent/lookup")
@covers("PUT /v1/agent/lookup/:service")
def test_the_lookup_map(api: Api, name: str) -> None:
    """Where it is, and what is in it since it was asked for."""
    assert name not in api.get("/v1/agent/lookup").json()["Services"]
    published = api.put(f"/v1/agent/lookup/{name}").json()
    found = api.get("/v1/agent/lookup").json()
    assert published["Path"] == found["Path"] == api.get("/v1/agent/self").json()["Stats"]["lookup_map"]["path"]
    assert name in found["Services"]
    assert 0 < found["Size"] < 2**53


@pytest.mark.newer("the endpoint came after the reference")
@covers("GET /v1/operator/autopilot/state")
def test_the_state_of_autopilot(server: Server) -> None:
    """One healthy voter that leads."""
    state = server.api.get("/v1/operator/autopilot/state").json()
    assert state["Healthy"] is True
    assert state["Leader"] == server.node_id
    assert state["Voters"] == [server.node_id]
    me = state["Servers"][server.node_id]
    assert me["Name"] == NODE
    assert me["Status"] == "leader"
    assert me["NodeStatus"] == "alive"
    assert me["Healthy"] is True
    assert state["FailureTolerance"] == 0


@covers("GET /v1/operator/autopilot/health")
def test_the_health_of_the_servers(server: Server) -> None:
    """In both: here because its sister endpoint is newer."""

    def healthy() -> dict[str, object] | None:
        answer = server.api.get("/v1/operator/autopilot/health")
        return answer.json() if answer.status == 200 else None

    body = eventually(healthy, "autopilot says that the servers are healthy")
    assert body["Healthy"] is True
    assert body["FailureTolerance"] == 0
    assert len(body["Servers"]) == 1
    me = body["Servers"][0]
    assert me["ID"] == server.node_id
    assert me["Name"] == NODE
    assert me["Address"] == f"127.0.0.1:{server.ports['server']}"
    assert me["SerfStatus"] == "alive"
    assert (me["Leader"], me["Voter"], me["Healthy"]) == (True, True, True)
    assert {"Version", "LastContact", "LastTerm", "LastIndex", "StableSince"} <= set(me)


@pytest.mark.newer("the endpoint came after the reference")
@covers("POST /v1/operator/raft/transfer-leader")
def test_a_server_on_its_own_has_nobody_to_lead_in_its_place(api: Api) -> None:
    answer = api.post("/v1/operator/raft/transfer-leader")
    assert (answer.status, answer.text) == (500, "cannot find peer")
    assert api.get("/v1/status/leader").json()


@pytest.mark.newer("the endpoint came after the reference")
@covers("GET /v1/operator/usage")
def test_usage_counts_services(api: Api, name: str) -> None:
    """By datacenter: services, instances, and of them those that take part in the mesh."""

    def count() -> tuple[int, int]:
        usage = api.get("/v1/operator/usage").json()["Usage"]["dc1"]
        assert {"Nodes", "Services", "ServiceInstances", "ConnectServiceInstances", "BillableServiceInstances"} <= set(
            usage
        )
        return usage["Services"], usage["ServiceInstances"]

    before = count()
    for node in ("a", "b"):
        service = {"ID": "s", "Service": name}
        api.put("/v1/catalog/register", {"Node": f"{name}-{node}", "Address": "10.80.0.2", "Service": service})
    assert count() == (before[0] + 1, before[1] + 2)


@pytest.mark.newer("the reference does not show Interval, Timeout and ExposedPort")
@covers("GET /v1/agent/checks")
def test_a_check_shows_its_interval(api: Api, name: str) -> None:
    """As the durations are written."""
    definition = {"Name": name, "TCP": "127.0.0.1:1", "Interval": "10h", "Timeout": "5s"}
    api.put("/v1/agent/check/register", definition)
    check = api.get("/v1/agent/checks").json()[name]
    assert (check["Interval"], check["Timeout"]) == ("10h0m0s", "5s")
    assert check["ExposedPort"] == 0


@pytest.mark.newer("these types of checks came after the reference")
@covers("PUT /v1/agent/check/register", "UDP", "H2PING", "OSService")
@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        ({"UDP": "127.0.0.1:1"}, "udp"),
        ({"H2PING": "127.0.0.1:1", "H2PingUseTLS": False}, "h2ping"),
        ({"OSService": "none"}, "os_service"),
    ],
)
def test_newer_kinds_of_checks(api: Api, name: str, fields: dict[str, object], shown: str) -> None:
    """Taken, and shown with their type."""
    answer = api.put("/v1/agent/check/register", {"Name": name, "Interval": "10h", "Status": "passing", **fields})
    assert answer.status == 200, answer.text
    assert api.get("/v1/agent/checks").json()[name]["Type"] == shown


@pytest.mark.newer("the parameter came after the reference")
@covers("GET /v1/health/service/:service", "merge-central-config")
@covers("GET /v1/catalog/service/:service", "merge-central-config")
def test_central_configuration_is_merged_into_proxies(api: Api, name: str) -> None:
    """A proxy shows what proxy-defaults and service-defaults give it, when it is asked for."""
    api.put("/v1/config", {"Kind": "proxy-defaults", "Name": "global", "Config": {"from_defaults": 1}})
    proxy = {"Service": f"{name}-p", "Kind": "connect-proxy", "Port": 1, "Proxy": {"DestinationServiceName": name}}
    api.put("/v1/catalog/register", {"Node": name, "Address": "10.80.0.3", "Service": proxy})
    plain = api.get(f"/v1/health/service/{name}-p").json()[0]["Service"]["Proxy"]
    merged = api.get(f"/v1/health/service/{name}-p?merge-central-config").json()[0]["Service"]["Proxy"]
    assert "from_defaults" not in (plain.get("Config") or {})
    assert merged["Config"]["from_defaults"] == 1
    listed = api.get(f"/v1/catalog/service/{name}-p?merge-central-config").json()[0]["ServiceProxy"]
    assert listed["Config"]["from_defaults"] == 1


@pytest.mark.newer("the reference does not know the session verb of a transaction")
@covers("PUT /v1/txn")
def test_a_session_verb_that_finds_nothing_succeeds(api: Api) -> None:
    """Deleting what is not there is no error."""
    gone = {"Session": {"Verb": "delete", "Session": {"ID": "7b1c9a5e-0000-4000-8000-000000000000"}}}
    assert api.put("/v1/txn", [gone]).status == 200


@pytest.mark.newer("the verb came after the reference")
@covers("PUT /v1/txn")
def test_a_missing_key_can_be_read_in_a_transaction(api: Api, name: str) -> None:
    """`get-or-empty` gives null for the value where `get` rolls back."""
    answer = api.put("/v1/txn", [{"KV": {"Verb": "get-or-empty", "Key": name}}])
    assert answer.status == 200, answer.text
    assert answer.json()["Results"][0]["KV"]["Key"] == name
    assert answer.json()["Results"][0]["KV"]["Value"] is None


@pytest.mark.newer("the endpoint came after the reference")
@covers("GET /v1/connect/intentions/exact", "source", "destination")
@covers("PUT /v1/connect/intentions/exact", "source", "destination")
@covers("DELETE /v1/connect/intentions/exact", "source", "destination")
def test_an_intention_by_its_ends(api: Api, name: str) -> None:
    """The config entry of its destination holds it; deleting what is not there is no error."""
    path = f"/v1/connect/intentions/exact?source=web&destination={name}"
    assert api.get(path).status == 404
    assert api.put(path, {"Action": "allow"}).json() is True
    found = api.get(path).json()
    assert (found["SourceName"], found["DestinationName"], found["Precedence"]) == ("web", name, 9)
    assert api.get(f"/v1/config/service-intentions/{name}").json()["Sources"][0]["Name"] == "web"
    assert api.delete(path).json() is True
    assert api.delete(path).json() is True
    assert api.get(f"/v1/config/service-intentions/{name}").status == 404


@pytest.mark.newer("permissions came after the reference")
@covers("PUT /v1/connect/intentions/exact", "source", "destination")
@covers("GET /v1/connect/intentions/check", "source", "destination")
def test_layer_7_permissions_deny_a_connection_that_nobody_looks_into(api: Api, name: str) -> None:
    """As they do where a native program asks to authorize one."""
    ends = f"source=web&destination={name}"
    permissions = [{"Action": "allow", "HTTP": {"PathPrefix": "/", "Methods": ["GET"]}}]
    api.put("/v1/config", {"Kind": "service-defaults", "Name": name, "Protocol": "http"})
    assert api.put(f"/v1/connect/intentions/exact?{ends}", {"Permissions": permissions}).json() is True
    assert api.get(f"/v1/connect/intentions/check?{ends}").json() == {"Allowed": False}
    assert api.get(f"/v1/connect/intentions/exact?{ends}").json()["Permissions"] == permissions
    api.delete(f"/v1/connect/intentions/exact?{ends}")
