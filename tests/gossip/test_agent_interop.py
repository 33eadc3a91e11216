"""Whole agents in one datacenter's pool with the programs that people run today: what the catalog makes of them.

Skipped by name where they are not installed, see `test_interop`.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lictor.agent.events import WIRE_NAME, from_wire
from lictor.gossip.messages import Address
from lictor.gossip.roster import Status
from lictor.model.member import ALIVE, FAILED, LEFT
from tests.cluster.servers import Server
from tests.gossip.agents import PROBING, QUICK, agents, seen
from tests.gossip.test_interop import CONSUL, KEY, Agent, consul_agent, launched, serf_agent
from tests.patience import soon
from tests.ports import free_port

HOST = "127.0.0.64"


@pytest.fixture
def ours(tmp_path: Path) -> Iterator[Server]:
    """A server, not started."""
    server = Server(tmp_path, "ours", "-bootstrap-expect=1", "-hcl", f"gossip_lan {{ {QUICK} }}")
    yield server
    if server.runs:
        server.kill()


def pool_of(server: Server) -> str:
    """Where a server's pool is joined."""
    return f"{server.host}:{server.ports['serf-lan']}"


def statuses(server: Server) -> dict[str, int]:
    return {member["Name"]: member["Status"] for member in server.get("/v1/agent/members")}


def health(server: Server, node: str) -> list[str]:
    return [check["Status"] for check in server.get(f"/v1/health/node/{node}") if check["CheckID"] == "serfHealth"]


async def until(server: Server, condition: Any, what: str) -> None:
    """Wait for what a server's API says; it is asked from another thread, so that other programs go on."""
    state: dict[str, Any] = {}

    async def ask() -> None:
        while True:
            try:
                state["found"] = await asyncio.to_thread(condition, server)
            except OSError:
                pass
            await asyncio.sleep(0.05)

    asking = asyncio.create_task(ask())
    try:
        await soon(lambda: state.get("found"), what)
    finally:
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)


def consul_client(folder: Path, join: str, *arguments: str) -> Any:
    """A Consul agent that is no server, and joins a pool."""
    if CONSUL is None:
        pytest.skip("LICTOR_REFERENCE_CONSUL does not say where Consul is")
    gossip, api = Address(HOST, free_port()), f"{HOST}:{free_port()}"
    command = [CONSUL, "agent", "-node=theirs", f"-data-dir={folder / 'consul'}", f"-bind={HOST}", f"-client={HOST}"]
    command += [f"-serf-lan-port={gossip.port}", f"-http-port={api.rpartition(':')[2]}", "-dns-port=-1"]
    command += ["-node-id=5c8a2b38-8c3b-4d1a-9f6e-0d7a5be0c0de", f"-retry-join={join}", "-retry-interval=1s"]
    return launched([*command, *arguments], gossip, api, folder)


async def event_of(consul: Agent, name: str) -> dict[str, Any] | None:
    found: list[dict[str, Any]] = await consul.get("/v1/event/list")
    return next((event for event in found if event["Name"] == name), None)


@pytest.mark.parametrize("key", ["", KEY], ids=["plain", "encrypted"])
async def test_a_consul_agent_is_a_node_of_our_catalog(ours: Server, tmp_path: Path, key: str) -> None:
    encrypt = [f"-encrypt={key}"] if key else []
    await asyncio.to_thread(ours.start, *encrypt)
    async with consul_client(tmp_path, pool_of(ours), *encrypt) as consul:
        await consul.consul_sees("ours", Status.ALIVE)
        await until(ours, lambda s: health(s, "theirs") == ["passing"], "it is registered and passing")
        (node,) = [node for node in ours.get("/v1/catalog/nodes") if node["Node"] == "theirs"]
        assert (node["ID"], node["Address"]) == ("5c8a2b38-8c3b-4d1a-9f6e-0d7a5be0c0de", HOST)
        await asyncio.to_thread(ours.put, "/v1/event/fire/deploy?node=theirs", b"v1")
        event: dict[str, Any] = {}

        async def heard() -> None:
            while not (found := await event_of(consul, "deploy")):
                await asyncio.sleep(0.05)
            event.update(found)

        hearing = asyncio.create_task(heard())
        await soon(hearing.done, "our event arrives")
        assert base64.b64decode(event["Payload"]) == b"v1"
        assert event["NodeFilter"] == "theirs"
        await consul.end()
        await until(ours, lambda s: health(s, "theirs") == ["critical"], "its failure is in the catalog")
    async with consul_client(tmp_path, pool_of(ours), *encrypt) as consul:
        await until(ours, lambda s: health(s, "theirs") == ["passing"], "it is back")
        await consul.put("/v1/agent/leave")
        await until(ours, lambda s: statuses(s)["theirs"] == LEFT, "it has left")
        await until(ours, lambda s: health(s, "theirs") == [], "it is gone from the catalog")


@pytest.mark.parametrize("key", ["", KEY], ids=["plain", "encrypted"])
async def test_our_agent_is_a_node_of_consul_s_catalog(tmp_path: Path, key: str) -> None:
    encrypt = [f"-encrypt={key}"] if key else []
    async with consul_agent(tmp_path, *encrypt) as consul, agents() as made:

        async def status_there(wanted: str) -> None:
            while True:
                checks = await consul.get("/v1/health/node/ours")
                if [check["Status"] for check in checks if check["CheckID"] == "serfHealth"] == [wanted]:
                    return
                await asyncio.sleep(0.05)

        we = await made.lan("ours", *PROBING, *encrypt)
        heard: list[tuple[str, bytes]] = []
        we.on_event = lambda name, payload, time: heard.append((name, payload))
        await we.join([str(consul.gossip)])
        await soon(lambda: seen(we).get("theirs") == ALIVE, "we see Consul")
        (server,) = we.servers()
        assert (server.node, server.datacenter) == ("theirs", "dc1")
        for wanted in ("passing", "critical"):
            waiting = asyncio.create_task(status_there(wanted))
            await soon(waiting.done, f"Consul's catalog has our node {wanted}")
            if wanted == "passing":
                await consul.put("/v1/event/fire/deploy", b"v1")
                await soon(lambda: any(name == f"{WIRE_NAME}deploy" for name, _ in heard), "Consul's event arrives")
                (payload,) = [payload for name, payload in heard if name == f"{WIRE_NAME}deploy"]
                event = from_wire(payload, 1)
                assert (event.name, event.payload, event.version) == ("deploy", b"v1", 1)
                await made.end(we)
        back = await made.lan("ours", *PROBING, *encrypt)
        await back.join([str(consul.gossip)])
        await soon(lambda: seen(back).get("theirs") == ALIVE, "we are back")
        await back.leave()
        await consul.consul_sees("ours", Status.LEFT)


@pytest.mark.parametrize("key", ["", KEY], ids=["plain", "encrypted"])
async def test_a_serf_agent_is_a_member_and_no_node(ours: Server, tmp_path: Path, key: str) -> None:
    encrypt = [f"-encrypt={key}"] if key else []
    await asyncio.to_thread(ours.start, *encrypt)
    async with serf_agent(tmp_path, f"-join={pool_of(ours)}", *encrypt) as serf:
        await serf.serf_sees("ours", "alive", "role=consul")
        await until(ours, lambda s: statuses(s).get("theirs") == ALIVE, "we see serf")
        (member,) = [member for member in ours.get("/v1/agent/members") if member["Name"] == "theirs"]
        assert member["Tags"] == {"color": "red"}
        await asyncio.to_thread(ours.put, "/v1/event/fire/deploy", b"v1")
        await soon(lambda: f"{WIRE_NAME}deploy" in serf.log.read_text(), "our event arrives")
        await serf.serf("event", "-coalesce=false", "from-them", "1")
        await asyncio.to_thread(ours.put, "/v1/event/fire/last", b"")
        await soon(lambda: f"{WIRE_NAME}last" in serf.log.read_text(), "our last event arrives")
        events = json.loads((await asyncio.to_thread(ours.ask, "GET", "/v1/event/list"))[1])
        assert [event["Name"] for event in events] == ["deploy", "last"]
        assert {node["Node"] for node in ours.get("/v1/catalog/nodes")} == {"ours"}
        await serf.end()
        await until(ours, lambda s: statuses(s)["theirs"] == FAILED, "its failure is seen")
    async with serf_agent(tmp_path, f"-join={pool_of(ours)}", *encrypt, "-node=second") as serf:
        await until(ours, lambda s: statuses(s).get("second") == ALIVE, "we see the second")
        await serf.serf("leave")
        await until(ours, lambda s: statuses(s)["second"] == LEFT, "it has left")
    async with serf_agent(tmp_path, *encrypt, "-node=third") as serf:
        await asyncio.to_thread(ours.put, f"/v1/agent/join/{serf.gossip}")
        await serf.serf_sees("ours", "alive")
        await asyncio.to_thread(ours.kill)
        await serf.serf_sees("ours", "failed")
        await asyncio.to_thread(ours.start)
        await serf.serf_sees("ours", "alive")
        await asyncio.to_thread(ours.put, "/v1/agent/leave")
        await serf.serf_sees("ours", "left")
