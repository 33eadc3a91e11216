"""Two datacenters: what is asked of the other one, over HTTP, DNS and the command line, and what becomes of it where
the other one is away.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from lictor.agent.config import RuntimeConfig
from lictor.agent.config.security import Tls
from lictor.agent.forwarding import REQUEST
from lictor.agent.rpc_tls import rpc_tls
from lictor.model.errors import LictorError
from lictor.model.member import FAILED, LEFT
from lictor.server.datacenters import CALL, Envelope
from tests.cluster.datacenters import KEY, Datacenters, datacenters_in
from tests.cluster.servers import Server
from tests.contract.dig import DnsAnswer, question
from tests.contract.dig import ask as dig
from tests.patience import PATIENCE, eventually, settles
from tests.rpc.networks import network

WEB = {
    "Node": "far",
    "Address": "10.2.0.1",
    "TaggedAddresses": {"wan": "99.2.0.1"},
    "Datacenter": "dc2",
    "Service": {
        "Service": "web",
        "Address": "10.2.0.9",
        "Port": 80,
        "TaggedAddresses": {"wan": {"Address": "99.2.0.9", "Port": 8080}},
    },
}
"""A service of dc2 with another address for those who come from elsewhere; it can be registered anywhere."""


UNREACHED = b"Remote DC has no server currently reachable"


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Datacenters]:
    """Two datacenters, with `web` in dc2."""
    with datacenters_in(tmp_path_factory.mktemp("datacenters")) as made:
        made.worker.put("/v1/catalog/register", WEB)
        yield made


def answer(agent: Server, name: str, kind: str = "A") -> DnsAnswer:
    """What an agent's DNS says."""
    return dig(agent.ports["dns"], question(name, kind))


def run(agent: Server, *arguments: str) -> tuple[int, str]:
    """A command's exit code and what it prints."""
    command = [sys.executable, "-m", "lictor", *arguments]
    environment = {**os.environ, "LICTOR_HTTP_ADDR": f"127.0.0.1:{agent.ports['http']}"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False, env=environment)
    return done.returncode, done.stdout + done.stderr


def test_keys_are_read_and_written_there_and_not_here(both: Datacenters) -> None:
    for agent in (both.one, both.worker):
        assert agent.ask("PUT", f"/v1/kv/{agent.name}?dc=dc2", b"there") == (200, b"true")
        assert agent.ask("GET", f"/v1/kv/{agent.name}?dc=dc2&raw") == (200, b"there")
        assert agent.ask("GET", f"/v1/kv/{agent.name}")[0] == 404
        assert both.two.read(agent.name) == b"there"
        operations = [{"KV": {"Verb": "delete", "Key": agent.name}}]
        assert agent.ask("PUT", "/v1/txn?dc=dc2", operations)[0] == 200
        assert both.two.read(agent.name) is None


@pytest.mark.parametrize("name", ["one", "worker"])
def test_a_blocking_query_waits_for_what_changes_there(both: Datacenters, name: str) -> None:
    agent: Server = getattr(both, name)
    both.two.write("waited", b"before")
    found = agent.get("/v1/kv/waited?dc=dc2")
    index, answers = found[0]["ModifyIndex"], list[Any]()
    target = f"/v1/kv/waited?dc=dc2&index={index}&wait=120s"
    waiting = threading.Thread(target=lambda: answers.append(agent.get(target)))
    waiting.start()
    both.two.write("waited", b"after")
    waiting.join(PATIENCE)
    assert answers and answers[0][0]["ModifyIndex"] > index


def test_the_catalog_of_the_other_is_read_with_the_addresses_it_has_for_others(both: Datacenters) -> None:
    def first(agent: Server, path: str) -> Any:
        return agent.get(path)[0]

    plain, translated = (first(agent, "/v1/health/service/web?dc=dc2") for agent in (both.one, both.worker))
    assert (plain["Service"]["Address"], plain["Service"]["Port"]) == ("10.2.0.9", 80)
    assert (translated["Service"]["Address"], translated["Service"]["Port"]) == ("99.2.0.9", 8080)
    assert (plain["Node"]["Address"], translated["Node"]["Address"]) == ("10.2.0.1", "99.2.0.1")
    row = first(both.worker, "/v1/catalog/service/web?dc=dc2")
    assert (row["Address"], row["ServiceAddress"], row["ServicePort"]) == ("99.2.0.1", "99.2.0.9", 8080)
    node = both.worker.get("/v1/catalog/node/far?dc=dc2")
    assert node["Node"]["Address"] == "99.2.0.1"
    assert [service["Address"] for service in node["Services"].values()] == ["99.2.0.9"]
    nodes = {node["Node"]: node["Address"] for node in both.worker.get("/v1/catalog/nodes?dc=dc2")}
    assert nodes["far"] == "99.2.0.1"
    assert "far" not in {node["Node"] for node in both.one.get("/v1/catalog/nodes")}


def test_a_place_in_one_datacenter_is_near_to_nothing_in_the_other(both: Datacenters) -> None:
    def names(agent: Server, query: str) -> list[str]:
        return [node["Node"] for node in agent.get(f"/v1/catalog/nodes?{query}")]

    settles(lambda: names(both.two, "near=two"), ["two", "far"], "two knows where it is")
    for agent in (both.one, both.worker):
        assert names(agent, "dc=dc2&near=two") == ["far", "two"]
        assert names(agent, "dc=dc2&near=_agent") == ["far", "two"]


def test_to_an_unknown_datacenter_there_is_no_path(both: Datacenters) -> None:
    refused = (500, b"No path to datacenter")
    elsewhere = {**WEB, "Datacenter": "dc9"}
    for agent in (both.one, both.worker):
        assert agent.ask("GET", "/v1/catalog/nodes?dc=dc9") == refused
        assert agent.ask("PUT", "/v1/kv/x?dc=dc9", b"") == refused
        assert agent.ask("GET", "/v1/status/leader?dc=dc9") == refused
        assert agent.ask("PUT", "/v1/event/fire/x?dc=dc9", b"") == refused
        assert agent.ask("PUT", "/v1/catalog/register", elsewhere) == refused
        assert agent.ask("GET", "/v1/snapshot?dc=dc9") == refused
        assert agent.ask("GET", "/v1/catalog/datacenters?dc=dc9")[0] == 200
        assert agent.ask("GET", "/v1/agent/services?dc=dc9")[0] == 200
        assert answer(agent, "web.service.dc9.consul").rcode == "NXDOMAIN"


def test_events_snapshots_sessions_and_the_operators_views_are_had_from_there(both: Datacenters) -> None:
    both.worker.put("/v1/event/fire/deploy?dc=dc2", b"now")
    settles(lambda: [e["Name"] for e in both.two.get("/v1/event/list")], ["deploy"], "dc2's event is there")
    assert both.one.get("/v1/event/list") == []
    for agent in (both.one, both.worker):
        status, archive = agent.ask("GET", "/v1/snapshot?dc=dc2")
        assert status == 200 and archive.startswith(b"\x1f\x8b")
        peers = agent.get("/v1/operator/raft/configuration?dc=dc2")["Servers"]
        assert [peer["Node"] for peer in peers] == ["two"]
        assert agent.get("/v1/connect/ca/roots?dc=dc2")["TrustDomain"] == trust_domain(both.two)
    session = json.loads(both.worker.put("/v1/session/create?dc=dc2", {"Node": "far", "Checks": []}))["ID"]
    assert [one["ID"] for one in both.two.get("/v1/session/list")] == [session]
    assert [one["ID"] for one in both.one.get(f"/v1/session/info/{session}?dc=dc2")] == [session]
    between = both.worker.get("/v1/coordinate/datacenters")
    assert [entry["Datacenter"] for entry in between] == ["dc1", "dc2"]


def test_what_an_intention_would_do_elsewhere_is_told_by_the_agents_there(both: Datacenters) -> None:
    asked = "/v1/connect/intentions/explain?source=a&destination=b&change=deny"
    for agent in (both.one, both.worker):
        here, there = (agent.get(asked + name)["Effect"]["Agents"] for name in ("", "&dc=dc2"))
        assert (here, there) == (len(both.one.get("/v1/agent/members")), len(both.two.get("/v1/agent/members")))
        assert agent.ask("GET", asked + "&dc=dc9") == (500, b"No path to datacenter")


def trust_domain(agent: Server) -> str:
    """Of an agent's own datacenter."""
    return str(agent.get("/v1/connect/ca/roots")["TrustDomain"])


def test_names_of_the_other_are_resolved_here(both: Datacenters) -> None:
    assert answer(both.one, "web.service.dc2.consul").records("A") == ["10.2.0.9"]
    assert answer(both.one, "web.service.dc2.consul", "SRV").records("SRV") == ["1 1 80 0a020009.addr.dc2.consul."]
    assert answer(both.one, "far.node.dc2.consul").records("A") == ["10.2.0.1"]
    assert answer(both.worker, "web.service.dc2.consul").records("A") == ["99.2.0.9"]
    there = answer(both.worker, "web.service.dc2.consul", "SRV").records("SRV")
    assert there == ["1 1 8080 63020009.addr.dc2.consul."]
    assert answer(both.worker, "far.node.dc2.consul").records("A") == ["99.2.0.1"]
    for name in ("web.service.consul", "none.service.dc2.consul", "none.node.dc2.consul", "none.query.dc2.consul"):
        assert answer(both.one, name).rcode == "NXDOMAIN", name


def test_a_prepared_query_fails_over(both: Datacenters) -> None:
    failovers: list[dict[str, Any]] = [
        {"NearestN": 1},
        {"Datacenters": ["dc9", "dc2"]},
        {"Targets": [{"Datacenter": "dc2"}]},
    ]
    for number, failover in enumerate(failovers):
        body = {"Name": f"web{number}", "Service": {"Service": "web", "Failover": failover}, "DNS": {"TTL": "7s"}}
        assert both.one.ask("POST", "/v1/query", body)[0] == 200
        for agent, address in ((both.one, "10.2.0.9"), (both.worker, "99.2.0.9")):
            found = agent.get(f"/v1/query/web{number}/execute")
            assert (found["Datacenter"], found["Failovers"]) == ("dc2", 1), failover
            assert [row["Service"]["Address"] for row in found["Nodes"]] == [address]
            assert answer(agent, f"web{number}.query.consul").records("A") == [address]
    assert both.one.ask("POST", "/v1/query", {"Name": "stays", "Service": {"Service": "web"}})[0] == 200
    assert both.one.get("/v1/query/stays/execute")["Nodes"] == []
    assert both.two.get("/v1/query/web0/execute?dc=dc1")["Datacenter"] == "dc2"
    assert answer(both.two, "web0.query.dc1.consul").records("A") == ["10.2.0.9"]


def test_gossip_keys_are_changed_in_every_datacenter(both: Datacenters) -> None:
    new = base64.b64encode(bytes(range(1, 33))).decode()

    def keys() -> dict[str, set[str]]:
        listed = both.worker.get("/v1/operator/keyring")
        return {f"{pool['Datacenter']} {pool['WAN']}": set(pool["Keys"]) for pool in listed}

    pools = ("dc1 True", "dc1 False", "dc2 False")
    assert keys() == dict.fromkeys(pools, {KEY})
    assert run(both.one, "keyring", f"-install={new}")[0] == 0
    assert keys() == dict.fromkeys(pools, {KEY, new})
    assert run(both.worker, "keyring", f"-use={new}")[0] == 0
    assert run(both.worker, "keyring", f"-remove={KEY}")[0] == 0
    assert keys() == dict.fromkeys(pools, {new})
    assert [pool["Datacenter"] for pool in both.two.get("/v1/operator/keyring?local-only=true")] == ["dc2"]


def test_the_command_line_names_datacenters(both: Datacenters) -> None:
    assert run(both.worker, "catalog", "datacenters") == (0, "dc1\ndc2\n")
    code, printed = run(both.one, "members", "-wan")
    assert code == 0 and "one.dc1" in printed and "two.dc2" in printed
    code, printed = run(both.worker, "operator", "raft", "list-peers", "-datacenter=dc2")
    assert code == 0 and both.two.address in printed
    code, printed = run(both.one, "rtt", "-wan", "one.dc1", "two.dc2")
    assert code == 0 and "using WAN coordinates" in printed
    assert run(both.worker, "kv", "put", "-datacenter=dc2", "typed", "in")[0] == 0
    assert both.two.read("typed") == b"in"
    code, printed = run(both.one, "kv", "get", "-datacenter=dc9", "typed")
    assert code == 1 and "No path to datacenter" in printed
    assert run(both.one, "join", "-wan", both.two.at("serf-wan"))[0] == 0
    assert f"dc2 answers, and is led by {both.two.address}" in run(both.worker, "check")[1]


def test_a_datacenter_that_is_away_is_told_of_and_found_again_where_it_has_moved(both: Datacenters) -> None:
    body = {"Name": "away", "Service": {"Service": "web", "Failover": {"NearestN": 1}}}
    assert both.one.ask("POST", "/v1/query", body)[0] == 200
    both.two.kill()

    def refused() -> bool:
        status, body = both.worker.ask("GET", "/v1/catalog/nodes?dc=dc2")
        return status == 500 and body.startswith((b"rpc error making call: ", UNREACHED))

    eventually(refused, "the other datacenter is told of as away")
    before = both.one.log().count("\n")
    for _ in range(200):
        assert both.one.ask("GET", "/v1/catalog/nodes?dc=dc2")[0] == 500
        assert both.one.ask("PUT", "/v1/kv/x?dc=dc2", b"")[0] == 500
    assert both.one.log().count("\n") - before < 40, "a datacenter that is away fills no log"
    assert answer(both.worker, "web.service.dc2.consul").rcode == "SERVFAIL"
    assert both.one.get("/v1/query/away/execute")["Nodes"] == []
    both.worker.write("here", b"goes on")
    settles(lambda: wan_status(both.one, "two.dc2"), FAILED, "gossip finds out")
    settles(lambda: both.worker.ask("GET", "/v1/catalog/nodes?dc=dc2"), (500, UNREACHED), "which is told")
    assert f"dc2 does not answer: {UNREACHED.decode()}" in run(both.worker, "check")[1]
    code, printed = run(both.one, "force-leave", "two.dc2")
    assert code == 1 and "No node found with name 'two.dc2'" in printed
    assert run(both.one, "force-leave", "-wan", "two.dc2") == (0, "")
    settles(lambda: wan_status(both.one, "two.dc2"), LEFT, "it counts as left")
    refused_for_good = (500, b"No path to datacenter")
    settles(lambda: both.worker.ask("GET", "/v1/catalog/nodes?dc=dc2"), refused_for_good, "nobody looks for it")
    assert both.one.get("/v1/catalog/datacenters") == ["dc1"]
    both.two.move()
    both.two.start()
    both.settle()
    assert both.worker.get("/v1/health/service/web?dc=dc2")
    assert answer(both.one, "web.service.dc2.consul").records("A") == ["10.2.0.9"]


def wan_status(agent: Server, name: str) -> int:
    """A member's status in the pool between datacenters."""
    return {member["Name"]: int(member["Status"]) for member in agent.get("/v1/agent/members?wan=1")}[name]


def test_who_is_no_server_of_another_datacenter_is_not_answered_as_one(both: Datacenters) -> None:
    """What a caller says of itself is worth nothing without the certificate of a server there."""
    asked = msgspec.msgpack.encode(Envelope("dc2", both.two.node_id, "dc1", REQUEST, b""))

    async def told(*certificate: str) -> str:
        settings = both.authority.settings(*certificate, verify_outgoing=True)
        async with network(security=rpc_tls(RuntimeConfig(tls=Tls(defaults=settings)))) as caller:
            with pytest.raises(LictorError) as raised:
                await caller.call(both.one.address, CALL, asked, PATIENCE)
            return f"{type(raised.value).__name__}: {raised.value}"

    for certificate in (("-client", "-dc=dc2"), ("-server", "-dc=dc1"), ("-server", "-dc=dc3")):
        assert asyncio.run(told(*certificate)).startswith("Forbidden: the certificate is none of a server"), certificate
    assert asyncio.run(told("-server", "-dc=dc2")).startswith("InvalidRequest: "), "what it asks can only not be read"
