"""The agent about itself: shapes that hold numbers of the machine, streams, and how it ends."""

from __future__ import annotations

import http.client

import pytest

from tests.contract.client import Api
from tests.contract.covers import covers
from tests.contract.servers import NODE, Server
from tests.patience import PATIENCE, eventually


@covers("GET /v1/agent/self")
def test_self_tells_who_the_agent_is(server: Server) -> None:
    """The parts that tools read."""
    me = server.api.get("/v1/agent/self").json()
    assert {"Config", "DebugConfig", "Coord", "Member", "Stats", "Meta"} <= set(me)
    config = me["Config"]
    assert config["Datacenter"] == "dc1"
    assert config["NodeName"] == NODE
    assert config["NodeID"] == server.node_id
    assert config["Server"] is True
    assert isinstance(config["Version"], str)
    assert isinstance(config["Revision"], str)
    assert me["Member"]["Name"] == NODE
    assert me["Member"]["Addr"] == "127.0.0.1"
    assert me["Member"]["Port"] == server.ports["serf-lan"]
    assert me["Member"]["Tags"]["role"] == "consul"
    assert me["Member"]["Status"] == 1
    assert set(me["Coord"]) == {"Vec", "Error", "Adjustment", "Height"}
    assert len(me["Coord"]["Vec"]) == 8


@covers("GET /v1/agent/self")
def test_self_has_the_statistics_that_info_prints(api: Api) -> None:
    """Every value is a string, in groups."""
    stats = api.get("/v1/agent/self").json()["Stats"]
    assert {"agent", "build", "consul", "raft", "runtime", "serf_lan"} <= set(stats)
    assert all(isinstance(value, str) for group in stats.values() for value in group.values())
    assert {"check_monitors", "check_ttls", "checks", "services"} <= set(stats["agent"])
    assert stats["consul"]["leader"] == "true"
    assert stats["consul"]["server"] == "true"
    assert {"applied_index", "commit_index", "last_log_index", "last_log_term", "num_peers", "state", "term"} <= set(
        stats["raft"]
    )
    assert stats["raft"]["state"] == "Leader"


@covers("GET /v1/agent/self")
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("Datacenter", "dc1"),
        ("NodeName", NODE),
        ("DevMode", True),
        ("ServerMode", True),
        ("DNSDomain", "consul."),
        ("BindAddr", "127.0.0.1"),
        ("ACLsEnabled", False),
        ("EncryptKey", "hidden"),
    ],
)
def test_self_shows_the_configuration(api: Api, key: str, value: object) -> None:
    """What the agent runs with; secrets are hidden."""
    assert api.get("/v1/agent/self").json()["DebugConfig"][key] == value


@covers("GET /v1/agent/host")
def test_host_is_refused_without_a_token(api: Api) -> None:
    """Information about the machine is for operators; with ACLs off everybody is one."""
    answer = api.get("/v1/agent/host")
    assert answer.status == 200
    body = answer.json()
    assert {"Memory", "CPU", "Host", "Disk", "CollectionTime"} <= set(body)
    assert {"total", "available", "used", "usedPercent", "free"} <= set(body["Memory"])
    assert {"hostname", "uptime", "bootTime", "os", "kernelVersion"} <= set(body["Host"])
    assert {"path", "total", "free", "used", "usedPercent"} <= set(body["Disk"])


@covers("GET /v1/agent/metrics")
def test_metrics_have_the_shape_of_their_interval(api: Api) -> None:
    """Gauges, points, counters and samples of one interval."""

    def filled() -> dict[str, list[dict[str, object]]] | None:
        metrics = api.get("/v1/agent/metrics").json()
        return metrics if metrics["Gauges"] and metrics["Counters"] and metrics["Samples"] else None

    # An interval has just begun now and then, and holds nothing yet.
    metrics = eventually(filled, "an interval with something in it")
    assert {"Timestamp", "Gauges", "Points", "Counters", "Samples"} == set(metrics)
    assert {"Name", "Value", "Labels"} == set(metrics["Gauges"][0])
    summary = {"Name", "Count", "Rate", "Sum", "Min", "Max", "Mean", "Stddev", "Labels"}
    assert summary == set(metrics["Counters"][0])
    assert summary == set(metrics["Samples"][0])
    names = {item["Name"] for group in ("Gauges", "Counters", "Samples") for item in metrics[group]}
    assert all(str(item).startswith("consul.") for item in names)


@covers("GET /v1/agent/metrics", "format")
def test_metrics_for_prometheus(tuned: Server) -> None:
    """The text format, where a retention time is configured."""
    answer = tuned.api.get("/v1/agent/metrics?format=prometheus")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = answer.text.splitlines()
    assert any(line.startswith("# TYPE consul_") for line in lines)
    assert any(line.startswith("# HELP consul_") for line in lines)
    samples = [line for line in lines if line and not line.startswith("#")]
    for line in samples:
        series, _, value = line.rpartition(" ")
        assert series
        float(value)


@covers("GET /v1/agent/monitor", "loglevel")
def test_monitor_streams_the_log(server: Server, name: str) -> None:
    """Lines come as they are logged, in an answer that does not end."""
    connection = http.client.HTTPConnection("127.0.0.1", server.ports["http"], timeout=PATIENCE)
    connection.request("GET", "/v1/agent/monitor?loglevel=debug")
    response = connection.getresponse()
    try:
        assert response.status == 200
        server.api.put("/v1/agent/service/register", {"Name": name})
        server.api.put("/v1/agent/service/deregister/" + name)
        seen = b""
        while name.encode() not in seen:
            piece = response.read1(65536)
            assert piece, seen
            seen += piece
    finally:
        connection.close()


@covers("PUT /v1/agent/leave")
def test_leave_ends_the_agent(own: Server) -> None:
    """It answers, and the process ends by itself with success."""
    assert own.api.put("/v1/agent/leave").status == 200
    assert own.process.wait(PATIENCE) == 0


@covers("PUT /v1/agent/join/:address", "wan")
def test_joining_itself_is_possible(server: Server) -> None:
    """An address that answers can be joined; one where nothing listens cannot."""
    assert server.api.put(f"/v1/agent/join/127.0.0.1:{server.ports['serf-lan']}").status == 200
    answer = server.api.put("/v1/agent/join/127.0.0.1:1")
    assert answer.status == 500
    assert "Failed to join 127.0.0.1" in answer.text


@covers("GET /v1/agent/members")
def test_members_are_the_same_as_self(api: Api) -> None:
    """One agent, one member."""
    members = api.get("/v1/agent/members").json()
    assert members == [api.get("/v1/agent/self").json()["Member"]]


@covers("PUT /v1/agent/force-leave/:node", "prune")
def test_forcing_a_stranger_out_is_an_error(api: Api, name: str) -> None:
    """The text names the node."""
    answer = api.put(f"/v1/agent/force-leave/{name}")
    assert answer.status == 500
    assert answer.text == f"agent: No node found with name '{name}'"
