"""`/v1/agent` about the agent itself, and `/v1/event`."""

import asyncio
import base64
import json
import uuid
from typing import Any

import pytest

from lictor.agent.logs import LogConfig, LogSystem, logger
from tests.http.conftest import Door, eventually, open_agent
from tests.patience import PATIENCE


async def test_self_tells_who_it_is(door: Door) -> None:
    me = await door.json("/v1/agent/self")
    assert set(me) - {"xDS"} == {"Config", "DebugConfig", "Coord", "Member", "Stats", "Meta"}
    assert me["Config"]["NodeName"] == "n1"
    assert me["Config"]["NodeID"] == door.agent.node_id
    assert me["Stats"]["consul"]["leader"] == "true"
    assert me["Stats"]["raft"]["state"] == "Leader"
    assert me["Meta"]["consul-version"] == me["Config"]["Version"]
    assert all(isinstance(v, str) for group in me["Stats"].values() for v in group.values())


async def test_the_host_is_described(door: Door) -> None:
    host = await door.json("/v1/agent/host")
    assert host["Memory"]["total"] > host["Memory"]["available"] > 0
    assert len(host["CPU"]) >= 1
    assert host["Host"]["os"] == "linux"
    assert host["Disk"]["total"] > 0


async def test_members_by_pool_and_filter(door: Door) -> None:
    (lan,) = await door.json("/v1/agent/members")
    (wan,) = await door.json("/v1/agent/members?wan=1")
    assert (lan["Name"], wan["Name"]) == ("n1", "n1.dc1")
    assert await door.json("/v1/agent/members?filter=Name == other") == []
    assert (await door.get("/v1/agent/members?segment=x"))[0] == 500


async def test_joining_oneself_succeeds_and_others_get_the_reason(door: Door) -> None:
    port = door.agent.config.ports.serf_lan
    assert (await door.put(f"/v1/agent/join/127.0.0.1:{port}"))[0] == 200
    assert (await door.put("/v1/agent/join/127.0.0.1"))[0] == 200
    for address, reason in (
        ("127.0.0.1:1", "Failed to join 127.0.0.1: dial tcp 127.0.0.1:1: connect: connection refused"),
        (f"127.0.0.1:{door.port}", "received invalid msgType"),
        ("127.0.0.1:http", "its port must be a number"),
        ("", "Failed to resolve : lookup : no such host"),
    ):
        status, text = await door.put(f"/v1/agent/join/{address}")
        assert status == 500
        assert reason in text.decode()


async def test_only_members_can_be_forced_out(door: Door) -> None:
    assert (await door.put("/v1/agent/force-leave/n1"))[0] == 200
    assert await door.put("/v1/agent/force-leave/x?prune") == (500, b"agent: No node found with name 'x'")


async def test_leave_is_answered_and_then_done(door: Door) -> None:
    left = asyncio.Event()
    door.agent.on_leave = left.set
    assert await door.put("/v1/agent/leave") == (200, b"")
    async with asyncio.timeout(PATIENCE):
        await left.wait()


async def test_reload_says_what_needs_a_restart(door: Door) -> None:
    async def reloaded() -> list[str]:
        return ["datacenter", "ports.http"]

    assert await door.put("/v1/agent/reload") == (200, b"")
    door.agent.on_reload = reloaded
    status, text = await door.put("/v1/agent/reload")
    assert (status, text) == (200, b"Reloaded; these keys need a restart to take effect: datacenter, ports.http\n")


async def test_tokens_need_access_control(door: Door) -> None:
    assert await door.put("/v1/agent/token/default", {"Token": "x"}) == (401, b"ACL support disabled")
    async with open_agent("-hcl=acl { enabled = true }") as opened:
        for name in ("default", "acl_token", "agent_master", "acl_agent_master_token", "replication", "dns"):
            assert await opened.put(f"/v1/agent/token/{name}", {"Token": name}) == (200, b""), name
        assert opened.agent.tokens["agent_recovery"] == "acl_agent_master_token"
        assert opened.agent.tokens["default"] == "acl_token"
        assert await opened.put("/v1/agent/token/nope", {"Token": "x"}) == (404, b'Token "nope" is unknown')
        assert (await opened.put("/v1/agent/token/default", {"Tokn": "x"}))[0] == 400


async def test_metrics_in_both_forms(door: Door) -> None:
    status, _, text = await door.get("/v1/agent/metrics?format=prometheus")
    assert (status, text) == (415, b"Prometheus is not enabled since its retention time is not positive")
    await door.put("/v1/kv/a", b"1")
    await door.put("/v1/agent/service/register", {"Name": "web"})
    asked = 0
    while door.http.api.hits < 2:
        await door.get("/v1/kv/a")
        asked += 1
    shown = await door.json("/v1/agent/metrics")
    samples = {s["Name"]: s for s in shown["Samples"]}
    assert samples["consul.http.GET.v1.kv._"]["Count"] == asked - 2  # two were answered from the cache
    assert {"consul.kvs.apply", "consul.catalog.register", "consul.raft.commitTime", "consul.api.http"} <= set(samples)
    assert "consul.raft.apply" in {c["Name"] for c in shown["Counters"]}
    gauges = {g["Name"]: g["Value"] for g in shown["Gauges"]}
    assert gauges["consul.http.answers.hits"] == 2
    assert gauges["consul.state.nodes"] == 1
    assert gauges["consul.state.services"] == 2
    assert gauges["consul.members.servers"] == 1
    assert gauges["consul.server.isLeader"] == 1
    assert gauges["consul.runtime.alloc_bytes"] > 1_000_000


async def test_prometheus_where_it_is_kept() -> None:
    async with open_agent('-hcl=telemetry { prometheus_retention_time = "60s" disable_hostname = true }') as door:
        await door.put("/v1/kv/a", b"1")
        status, headers, text = await door.get("/v1/agent/metrics?format=prometheus")
        assert status == 200
        assert headers["content-type"].startswith("text/plain; version=0.0.4")
        lines = text.decode().splitlines()
        assert any(line.startswith("consul_kvs_apply_count ") for line in lines)
        assert any(line.startswith("consul_state_nodes{") for line in lines)
        for line in lines:
            if not line.startswith("#"):
                float(line.rpartition(" ")[2])


async def test_the_monitor_streams_until_its_reader_goes(door: Door) -> None:
    logs = LogSystem(LogConfig(level="ERR"))
    door.agent.logs = logs
    try:
        assert (await door.get("/v1/agent/monitor?loglevel=weird"))[0] == 400
        before = len(logs._all)
        async with door.client.get(door.url("/v1/agent/monitor?loglevel=debug&logjson")) as response:
            logger("agent.test").debug("a line", number=7)
            async with asyncio.timeout(PATIENCE):
                line = json.loads(await response.content.readline())
            assert (line["@message"], line["@level"], line["number"]) == ("a line", "debug", 7)
            response.close()
        await eventually(lambda: len(logs._all) == before, "the reader's destination is removed")
    finally:
        logs.close()


async def test_an_event_is_fired_listed_and_waited_for(door: Door) -> None:
    _, headers, body = await door.get("/v1/event/list")
    assert (headers["x-consul-index"], body) == ("1", b"[]")
    _, text = await door.put("/v1/event/fire/deploy", b"payload")
    fired = json.loads(text)
    assert (fired["Name"], base64.b64decode(fired["Payload"])) == ("deploy", b"payload")
    uuid.UUID(fired["ID"])
    _, headers, body = await door.get("/v1/event/list?name=deploy")
    assert [e["ID"] for e in json.loads(body)] == [fired["ID"]]
    index = headers["x-consul-index"]
    waiting = asyncio.create_task(door.get(f"/v1/event/list?name=deploy&index={index}&wait=60s"))
    await door.put("/v1/event/fire/other")
    await door.get(f"/v1/event/list?name=deploy&index={index}&wait=50ms")
    assert not waiting.done()
    await door.put("/v1/event/fire/deploy")
    _, headers, body = await waiting
    assert headers["x-consul-index"] != index
    assert [e["Payload"] for e in json.loads(body)] == ["cGF5bG9hZA==", None]


@pytest.mark.parametrize(
    ("query", "listed"), [("node=n1", 1), ("node=^x", 0), ("service=web", 1), ("service=web&tag=b", 0)]
)
async def test_an_event_for_others_is_not_listed(door: Door, query: str, listed: int) -> None:
    await door.put("/v1/agent/service/register", {"Name": "web", "Tags": ["a"]})
    assert (await door.put(f"/v1/event/fire/e?{query}"))[0] == 200
    assert len(await door.json("/v1/event/list")) == listed


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("", 400, "Missing name"),
        ("e?node=(", 500, "Invalid node filter: error parsing regexp: missing closing ): `(`"),
        ("e?tag=x", 500, "Cannot provide tag filter without service filter"),
        ("e?dc=nowhere", 500, "No path to datacenter"),
    ],
)
async def test_an_event_that_cannot_be_fired(door: Door, path: str, status: int, text: str) -> None:
    assert await door.put(f"/v1/event/fire/{path}") == (status, text.encode())


async def test_remote_exec_is_obeyed_only_where_it_is_allowed() -> None:
    class Handler:
        def __init__(self) -> None:
            self.payloads: list[bytes] = []

        def handle(self, payload: bytes) -> None:
            self.payloads.append(payload)

    for flag, expected in (("disable_remote_exec = true", []), ("disable_remote_exec = false", [b"job"])):
        async with open_agent(f"-hcl={flag}") as door:
            handler = Handler()
            door.agent.remote_exec = handler
            answer: tuple[int, Any] = await door.put("/v1/event/fire/_rexec", b"job")
            assert answer[0] == 200
            assert handler.payloads == expected
