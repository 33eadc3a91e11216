"""Every call of the Python client `py-consul`, with `requests` and with asyncio, against a running agent.

`test_every_call_is_made_or_skipped_by_name` compares the client's public methods with the calls in this file, so that
a method which a new version of the client brings is noticed.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract.servers import NODE, Server
from tests.patience import PATIENCE, eventually

consul = pytest.importorskip("consul", reason="py-consul is not installed")
aio = pytest.importorskip("consul.aio", reason="py-consul is not installed")
errors = pytest.importorskip("consul.exceptions", reason="py-consul is not installed")

# The client makes its connector with an argument that aiohttp is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore:ssl_context is deprecated:DeprecationWarning")

ACLS = "needs ACLs, which the agent refuses while they are disabled; see test_acl_calls_are_refused"
CONNECT = "needs the certificate authority"
SKIPPED = {
    "agent.connect.authorize": CONNECT,
    "agent.connect.ca.roots": CONNECT,
    "agent.connect.ca.leaf": CONNECT,
    "connect.ca.": CONNECT,
    "discovery_chain.": "needs compiled discovery chains",
    "acl.": ACLS,
    "http.": "the client's own transport",
    "prepare_headers": "the client's own business",
    "http_connect": "the client's own business",
    "operator.keyring_install": "needs an agent with a gossip key; refused without, as keyring_list is here",
    "operator.keyring_use": "as keyring_install",
    "operator.keyring_remove": "as keyring_install",
}


class Patient:
    """The asyncio client, used a call at a time: what a call returns is awaited before it is handed on."""

    def __init__(self, target: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._target = target
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        return Patient(getattr(self._target, name), self._loop)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        result = self._target(*args, **kwargs)
        return self._loop.run_until_complete(result) if inspect.isawaitable(result) else result


@pytest.fixture(params=["requests", "asyncio"])
def c(either: Server, request: pytest.FixtureRequest) -> Iterator[Any]:
    """A client of the agent."""
    port = either.ports["http"]
    if request.param == "requests":
        client = consul.Consul(port=port)
        yield client
        client.http.session.close()
        return
    loop = asyncio.new_event_loop()

    async def make() -> Any:
        return aio.Consul(port=port)

    client = loop.run_until_complete(make())
    yield Patient(client, loop)
    loop.run_until_complete(client.close())
    loop.close()


@pytest.fixture
def name() -> str:
    """A name that no other test uses."""
    return f"t{uuid.uuid4().hex[:12]}"


def rows(answer: tuple[str, Any]) -> Any:
    """The value of an answer that comes with an index, which must be a positive number."""
    index, value = answer
    assert int(index) > 0
    return value


def refused(call: Any) -> bool:
    """Whether the agent did not do what was asked."""
    try:
        return call() is False
    except errors.ConsulException:
        return True


@contextlib.contextmanager
def meanwhile(either: Server, act: Any) -> Iterator[None]:
    """Run `act` with a second client shortly after the block has begun."""
    client = consul.Consul(port=either.ports["http"])
    timer = threading.Timer(0.2, act, [client])
    timer.start()
    try:
        yield
    finally:
        timer.join()
        client.http.session.close()


def test_every_call_is_made_or_skipped_by_name() -> None:
    """A call that this file neither makes nor names with a reason fails this test."""
    made = set()
    for node in ast.walk(ast.parse(Path(__file__).read_text())):
        if isinstance(node, ast.Attribute):
            with contextlib.suppress(AttributeError):
                made.add(ast.unparse(node).removeprefix("c."))
    client = consul.Consul(port=1)
    known = set(_methods(client, ""))
    client.http.session.close()
    assert len(known) > 100
    missing = {m for m in known if m not in made and not m.startswith(tuple(SKIPPED))}
    assert not missing, f"calls of the client that are neither made here nor skipped with a reason: {sorted(missing)}"


def _methods(target: Any, prefix: str) -> Iterator[str]:
    for attribute in dir(target):
        if attribute.startswith("_") or (prefix and attribute == "agent"):
            continue
        value = getattr(target, attribute)
        if inspect.ismethod(value):
            yield prefix + attribute
        elif type(value).__module__.startswith("consul.") and not inspect.isclass(value):
            yield from _methods(value, f"{prefix}{attribute}.")


# -- status, agent ----------------------------------------------------------------------------------------------------


def test_status(c: Any, either: Server) -> None:
    leader = f"127.0.0.1:{either.ports['server']}"
    assert c.status.leader() == leader
    assert c.status.peers() == [leader]


def test_agent_tells_of_itself_and_its_members(c: Any, either: Server) -> None:
    me = c.agent.self()
    assert me["Config"]["NodeName"] == NODE and me["Config"]["NodeID"] == either.node_id
    assert me["Config"]["Datacenter"] == "dc1" and me["Config"]["Server"] is True
    assert me["Member"]["Name"] == NODE and me["Member"]["Status"] == 1
    assert "DebugConfig" in me and "Coord" in me and me["Meta"] is not None
    members = c.agent.members()
    assert [(m["Name"], m["Addr"], m["Port"], m["Status"]) for m in members] == [
        (NODE, "127.0.0.1", either.ports["serf-lan"], 1)
    ]
    assert members[0]["Tags"]["role"] == "consul" and members[0]["Tags"]["dc"] == "dc1"
    assert [m["Name"] for m in c.agent.members(wan=True)] == [f"{NODE}.dc1"]


def test_agent_metrics(c: Any) -> None:
    metrics = c.agent.metrics()
    assert {"Timestamp", "Gauges", "Points", "Counters", "Samples"} <= metrics.keys()
    text = c.agent.metrics(format_prometheus=True)
    assert "# TYPE " in text and "consul_" in text


def test_agent_join_force_leave_reload(c: Any, either: Server) -> None:
    assert c.agent.join(f"127.0.0.1:{either.ports['serf-lan']}") is True
    assert c.agent.join(f"127.0.0.1:{either.ports['serf-wan']}", wan=True) is True
    with pytest.raises(errors.ConsulException, match="500"):
        c.agent.join("127.0.0.1:1")
    if either.kind == "consul":
        with pytest.raises(errors.ConsulException, match="agent: No node found with name 'nobody'"):
            c.agent.force_leave("nobody")
    else:
        with pytest.raises(errors.ConsulException, match="No node found with name 'nobody'"):
            c.agent.force_leave("nobody", prune=True)
    assert c.agent.reload() is True


def test_agent_monitor_streams_until_the_client_goes(c: Any, either: Server, request: pytest.FixtureRequest) -> None:
    with pytest.raises(errors.BadRequest, match="Unknown log level"):
        c.agent.monitor(loglevel="shouting")
    # The client reads the stream to its end, which never comes, so it gives up after its time.
    if isinstance(c, Patient):

        async def listen() -> None:
            impatient = aio.Consul(port=either.ports["http"], connections_timeout=1)
            try:
                with pytest.raises(asyncio.TimeoutError):
                    await impatient.agent.monitor(loglevel="info", logjson=True)
            finally:
                await impatient.close()

        asyncio.run(listen())
    else:
        import requests

        impatient = consul.Consul(port=either.ports["http"], connections_timeout=0.5)
        with pytest.raises(requests.exceptions.RequestException, match="[Tt]imed out"):
            impatient.agent.monitor(loglevel="err")
        impatient.http.session.close()


def test_agent_maintenance(c: Any, name: str) -> None:
    assert c.agent.maintenance(True, "moving the rack") is True
    try:
        check = c.agent.checks()["_node_maintenance"]
        assert (check["Status"], check["Notes"]) == ("critical", "moving the rack")
    finally:
        assert c.agent.maintenance(False) is True
    assert "_node_maintenance" not in c.agent.checks()
    c.agent.service.register(name)
    assert c.agent.service.maintenance(name, True, "upgrade") is True
    assert c.agent.checks()[f"_service_maintenance:{name}"]["Notes"] == "upgrade"
    assert c.agent.service.maintenance(name, False) is True
    assert f"_service_maintenance:{name}" not in c.agent.checks()
    c.agent.service.deregister(name)


def test_agent_tokens_are_refused_without_acls(c: Any) -> None:
    for setter in (
        c.agent.token.set_default,
        c.agent.token.set_agent,
        c.agent.token.set_agent_recovery,
        c.agent.token.set_replication,
        c.agent.token.set_config_file_service_registration,
    ):
        with pytest.raises(errors.ACLDisabled, match="ACL support disabled"):
            setter("5c4a5fd3-c5a2-4b36-a7bd-b4a3a4a3f1a1")
    with pytest.raises(errors.ACLDisabled, match="ACL support disabled"):
        c.agent.token.set("default", "")


def test_agent_service_from_registration_to_deregistration(c: Any, name: str) -> None:
    assert c.agent.service.register(
        name,
        service_id=f"{name}-1",
        address="10.1.2.3",
        port=8080,
        tags=["v1", "primary"],
        meta={"version": "1.2"},
        weights={"Passing": 10, "Warning": 2},
        tagged_addresses={"lan": {"address": "10.1.2.3", "port": 8080}, "wan": {"address": "198.51.100.7", "port": 80}},
        enable_tag_override=True,
        check=consul.Check.ttl("1h"),
        extra_checks=[consul.Check.script(["true"], "1h"), consul.Check.tcp("127.0.0.1", 1, "1h", timeout="1s")],
    )
    expected = {
        "ID": f"{name}-1",
        "Service": name,
        "Tags": ["v1", "primary"],
        "Meta": {"version": "1.2"},
        "Port": 8080,
        "Address": "10.1.2.3",
        "Weights": {"Passing": 10, "Warning": 2},
        "EnableTagOverride": True,
    }
    service = c.agent.services(filter_expr=f'Service == "{name}"')[f"{name}-1"]
    assert {k: service[k] for k in expected} == expected
    assert service["TaggedAddresses"]["wan"] == {"Address": "198.51.100.7", "Port": 80}
    definition = c.agent.service_definition(f"{name}-1")
    assert {k: definition[k] for k in expected} == expected and definition["ContentHash"]
    checks = c.agent.checks(filter_expr=f'ServiceName == "{name}"')
    assert {k: v["Type"] for k, v in checks.items()} == {
        f"service:{name}-1:1": "ttl",
        f"service:{name}-1:2": "script",
        f"service:{name}-1:3": "tcp",
    }

    assert c.agent.service.register(
        name, service_id=f"{name}-1", check=consul.Check.ttl("1h"), replace_existing_checks=True
    )
    assert list(c.agent.checks(filter_expr=f'ServiceName == "{name}"')) == [f"service:{name}-1"]
    assert c.agent.service.deregister(f"{name}-1") is True
    assert c.agent.services(filter_expr=f'Service == "{name}"') == {}
    assert c.agent.service_definition(f"{name}-1") is None


def test_agent_service_with_sidecar_and_proxy(c: Any, name: str) -> None:
    assert c.agent.service.register(name, port=80, connect={"sidecar_service": {}})
    sidecar = c.agent.services()[f"{name}-sidecar-proxy"]
    assert sidecar["Kind"] == "connect-proxy" and sidecar["Service"] == f"{name}-sidecar-proxy"
    assert sidecar["Proxy"]["DestinationServiceName"] == name and sidecar["Proxy"]["LocalServicePort"] == 80
    found = eventually(lambda: rows(c.health.connect(name)), "the sidecar is found with the service's name")
    assert [i["Service"]["ID"] for i in found] == [f"{name}-sidecar-proxy"]
    assert [i["ServiceID"] for i in rows(c.catalog.connect(name))] == [f"{name}-sidecar-proxy"]
    assert c.agent.service.deregister(name) is True
    assert f"{name}-sidecar-proxy" not in c.agent.services()
    assert c.agent.service.register(
        f"{name}-p", kind="connect-proxy", port=1, proxy={"destination_service_name": name, "upstreams": []}
    )
    assert c.agent.services()[f"{name}-p"]["Proxy"]["DestinationServiceName"] == name
    c.agent.service.deregister(f"{name}-p")


def test_agent_checks_of_each_kind(c: Any, name: str) -> None:
    ttl = f"{name}-ttl"
    assert c.agent.check.register(ttl, check=consul.Check.ttl("1h"), notes="told by the job") is True
    assert c.agent.checks()[ttl]["Status"] == "critical"
    for report, status in (
        (c.agent.check.ttl_pass, "passing"),
        (c.agent.check.ttl_warn, "warning"),
        (c.agent.check.ttl_fail, "critical"),
    ):
        assert report(ttl, "as told") is True
        check = c.agent.checks()[ttl]
        assert (check["Status"], check["Output"], check["Notes"]) == (status, "as told", "told by the job")
    kinds = {
        "http": consul.Check.http("http://127.0.0.1:1/", "1h", timeout="1s", header={"x-one": ["1"]}, deregister="2h"),
        "tcp": consul.Check.tcp("127.0.0.1", 1, "1h", deregister="2h"),
        "grpc": consul.Check.grpc("127.0.0.1:1", "1h"),
        "script": consul.Check.script(["sh", "-c", "echo fine"], "1s", deregister="2h"),
    }
    for kind, check in kinds.items():
        assert c.agent.check.register(f"{name}-{kind}", check=check) is True
        assert c.agent.checks()[f"{name}-{kind}"]["Type"] == kind
    output = eventually(
        lambda: c.agent.checks()[f"{name}-script"]["Status"] == "passing" and c.agent.checks()[f"{name}-script"],
        "the script passes",
    )
    assert output["Output"] == "fine\n"
    for kind in ("ttl", *kinds):
        assert c.agent.check.deregister(f"{name}-{kind}") is True
    # Errors to the reference, 404s since, of which the client makes False.
    assert refused(lambda: c.agent.check.ttl_pass(ttl))
    assert refused(lambda: c.agent.check.register(f"{name}-o", check=consul.Check.ttl("1h"), service_id="no-such"))


# -- catalog, health --------------------------------------------------------------------------------------------------


def test_catalog(c: Any, name: str) -> None:
    service = {"Service": f"{name}-s", "ID": f"{name}-1", "Port": 80, "Tags": ["a", "b"], "Meta": {"m": "1"}}
    check = {"Name": "up", "CheckID": f"{name}-up", "ServiceID": f"{name}-1", "Status": "passing"}
    assert c.catalog.register(name, "10.9.8.7", service=service, check=check, tagged_addresses={"wan": "198.51.100.9"})
    assert c.catalog.datacenters() == ["dc1"]
    node = next(n for n in rows(c.catalog.nodes(filter_expr=f'Node == "{name}"')))
    assert (node["Address"], node["TaggedAddresses"]["wan"]) == ("10.9.8.7", "198.51.100.9")
    assert NODE in [n["Node"] for n in rows(c.catalog.nodes(near=NODE, consistency="consistent"))]
    assert rows(c.catalog.nodes(node_meta={"rack": "none"})) == []
    assert sorted(rows(c.catalog.services(consistency="stale"))[f"{name}-s"]) == ["a", "b"]
    assert rows(c.catalog.node(name))["Services"][f"{name}-1"]["Port"] == 80
    assert rows(c.catalog.node(f"{name}-other")) is None
    (instance,) = rows(c.catalog.service(f"{name}-s", tag="a"))
    assert (instance["ServiceAddress"], instance["ServicePort"], instance["ServiceMeta"]) == ("", 80, {"m": "1"})
    assert rows(c.catalog.service(f"{name}-s", tag="c")) == []
    assert rows(c.catalog.service(f"{name}-s", filter_expr='ServiceMeta.m == "2"')) == []
    with pytest.raises(errors.ConsulException, match="No path to datacenter"):
        c.catalog.nodes(dc="elsewhere")
    with pytest.raises(errors.ConsulException, match="No path to datacenter"):
        c.catalog.register(name, "10.9.8.7", dc="elsewhere")
    assert c.catalog.register(name, "10.0.0.1", service=service, skip_node_update=True)
    assert rows(c.catalog.node(name))["Node"]["Address"] == "10.9.8.7"

    assert c.catalog.deregister(name, check_id=f"{name}-up") is True
    assert rows(c.health.node(name)) == []
    assert c.catalog.deregister(name, service_id=f"{name}-1") is True
    assert rows(c.catalog.service(f"{name}-s")) == []
    assert c.catalog.deregister(name) is True
    assert rows(c.catalog.node(name)) is None


def test_catalog_gateway_services(c: Any, name: str) -> None:
    entry = {"Services": [{"Name": f"{name}-inside"}]}
    assert c.config.set("terminating-gateway", name, entry) is True
    (row,) = c.catalog.gateway_services(name)
    assert (row["Service"]["Name"], row["GatewayKind"]) == (f"{name}-inside", "terminating-gateway")
    assert c.config.delete("terminating-gateway", name)


def test_health(c: Any, name: str) -> None:
    for instance, status in (("1", "passing"), ("2", "warning"), ("3", "critical")):
        service = {"Service": f"{name}-s", "ID": instance, "Port": 80, "Tags": ["all", f"t{instance}"]}
        check = {"Name": "up", "CheckID": f"{name}-{instance}", "ServiceID": instance, "Status": status}
        assert c.catalog.register(name, "10.9.8.7", service=service, check=check)
    assert [i["Service"]["ID"] for i in rows(c.health.service(f"{name}-s"))] == ["1", "2", "3"]
    assert [i["Service"]["ID"] for i in rows(c.health.service(f"{name}-s", passing=True))] == ["1"]
    assert [i["Service"]["ID"] for i in rows(c.health.service(f"{name}-s", tag="t2", near=NODE))] == ["2"]
    assert [i["Service"]["ID"] for i in rows(c.health.service(f"{name}-s", tag=["all", "t3"]))] == ["3"]
    assert [
        i["Service"]["ID"] for i in rows(c.health.service(f"{name}-s", filter_expr='Checks.Status == "warning"'))
    ] == ["2"]
    assert [check["Status"] for check in rows(c.health.checks(f"{name}-s"))] == ["passing", "warning", "critical"]
    assert {check["CheckID"] for check in rows(c.health.node(name))} == {f"{name}-1", f"{name}-2", f"{name}-3"}
    for state in ("passing", "warning", "critical", "any"):
        found = rows(c.health.state(state, filter_expr=f'Node == "{name}"'))
        assert {check["Status"] for check in found} == (
            {state} if state != "any" else {"passing", "warning", "critical"}
        )
    with pytest.raises(errors.ConsulException):
        c.health.service(f"{name}-s", filter_expr="Service.Nonsense == 1")
    assert rows(c.health.ingress(f"{name}-s")) == []
    c.catalog.deregister(name)


def test_blocking_health_query_returns_at_the_change(c: Any, either: Server, name: str) -> None:
    index, found = c.health.service(name)
    assert found == []
    with meanwhile(
        either, lambda other: other.catalog.register(name, "10.0.0.9", service={"Service": name, "Port": 1})
    ):
        newer, found = c.health.service(name, index=index, wait="5m")
    assert int(newer) > int(index) and [i["Service"]["Port"] for i in found] == [1]
    again, found = c.health.service(name, index=newer, wait="100ms")
    assert again == newer and len(found) == 1
    c.catalog.deregister(name)


# -- kv, sessions, transactions ---------------------------------------------------------------------------------------


def test_kv(c: Any, name: str) -> None:
    assert rows(c.kv.get(f"{name}/a")) is None
    assert c.kv.put(f"{name}/a", "one", flags=7) is True
    pair = rows(c.kv.get(f"{name}/a", consistency="consistent"))
    assert (pair["Key"], pair["Value"], pair["Flags"], pair["LockIndex"]) == (f"{name}/a", b"one", 7, 0)
    assert c.kv.put(f"{name}/a", "two", cas=pair["ModifyIndex"] + 1) is False
    assert c.kv.put(f"{name}/a", "two", cas=pair["ModifyIndex"]) is True
    assert c.kv.put(f"{name}/b/c", bytes(range(256))) is True
    assert c.kv.put(f"{name}/ä ü/%?#", "") is True
    assert rows(c.kv.get(f"{name}/b/c"))["Value"] == bytes(range(256))
    assert rows(c.kv.get(f"{name}/ä ü/%?#"))["Value"] is None
    assert rows(c.kv.get(f"{name}/", keys=True)) == [f"{name}/a", f"{name}/b/c", f"{name}/ä ü/%?#"]
    assert rows(c.kv.get(f"{name}/", keys=True, separator="/")) == [f"{name}/a", f"{name}/b/", f"{name}/ä ü/"]
    assert [p["Key"] for p in rows(c.kv.get(f"{name}/", recurse=True))] == rows(c.kv.get(f"{name}/", keys=True))
    assert c.kv.delete(f"{name}/a", cas=1) is False
    assert c.kv.delete(f"{name}/a") is True
    assert c.kv.delete(f"{name}/", recurse=True) is True
    assert rows(c.kv.get(f"{name}/", recurse=True)) is None
    with pytest.raises(errors.ConsulException, match="No path to datacenter"):
        c.kv.put(name, "x", dc="elsewhere")
    with pytest.raises(errors.ClientError, match="413"):
        c.kv.put(name, b"x" * (512 * 1024 + 1))


def test_blocking_kv_query_returns_at_the_change(c: Any, either: Server, name: str) -> None:
    c.kv.put(name, "before")
    index, _ = c.kv.get(name)
    with meanwhile(either, lambda other: other.kv.put(name, "after")):
        newer, pair = c.kv.get(name, index=index, wait="5m")
    assert pair["Value"] == b"after" and int(newer) == pair["ModifyIndex"]
    c.kv.delete(name)


def test_sessions_hold_locks(c: Any, name: str) -> None:
    session = c.session.create(name, lock_delay=0, behavior="delete", ttl=60)
    info = rows(c.session.info(session))
    assert (info["Name"], info["Node"], info["Behavior"], info["TTL"], info["LockDelay"]) == (
        name,
        NODE,
        "delete",
        "60s",
        0,
    )
    assert session in [s["ID"] for s in rows(c.session.list())]
    assert session in [s["ID"] for s in rows(c.session.node(NODE, consistency="stale"))]
    assert c.session.renew(session)["ID"] == session
    other = c.session.create(lock_delay=0)
    assert c.kv.put(name, "mine", acquire=session) is True
    assert c.kv.put(name, "theirs", acquire=other) is False
    assert rows(c.kv.get(name))["Session"] == session
    assert c.kv.put(name, "still", release=session) is True
    assert c.kv.put(name, "theirs", acquire=other) is True
    assert c.session.destroy(other) is True
    assert "Session" not in rows(c.kv.get(name))
    assert c.kv.put(name, "mine", acquire=session) is True
    assert c.session.destroy(session) is True
    assert rows(c.kv.get(name)) is None, "a session that deletes takes its keys along"
    assert rows(c.session.info(session)) is None
    with pytest.raises(errors.NotFound):
        c.session.renew(session)
    with pytest.raises(errors.NotFound):
        c.session.renew("1" * 36)
    with pytest.raises(errors.ConsulException, match="No path to datacenter"):
        c.session.create(dc="elsewhere")


def test_sessions_refuse_unknown_checks_and_nodes(c: Any) -> None:
    with pytest.raises(errors.ConsulException, match="Missing check 'no-such-check' registration"):
        c.session.create(checks=["no-such-check"])
    with pytest.raises(errors.ConsulException, match="Missing node registration"):
        c.session.create(node="no-such-node")


def test_a_session_with_a_check_stands_on_the_nodes_health_too(c: Any, name: str) -> None:
    c.agent.check.register(name, check=consul.Check.ttl("1h"))
    c.agent.check.ttl_pass(name)
    session = eventually(lambda: created(c, name), "the catalog knows the check")
    info = rows(c.session.info(session))
    assert (info["NodeChecks"], info["Checks"]) == (["serfHealth"], [name])
    c.agent.check.ttl_fail(name)
    eventually(lambda: rows(c.session.info(session)) is None, "the session ends with the check")
    free = c.session.create(checks=[])
    assert rows(c.session.info(free))["NodeChecks"] == []
    c.session.destroy(free)
    c.agent.check.deregister(name)


def created(c: Any, check: str) -> str:
    """A session that stands on a check; empty while the catalog does not know it as passing."""
    try:
        session: str = c.session.create(checks=[check])
    except errors.ConsulException:
        return ""
    return session


def test_transactions(c: Any, name: str) -> None:
    one = {"KV": {"Verb": "set", "Key": f"{name}/1", "Value": "b25l"}}
    two = {"KV": {"Verb": "set", "Key": f"{name}/2", "Value": "dHdv", "Flags": 5}}
    read = {"KV": {"Verb": "get-tree", "Key": f"{name}/"}}
    done = c.txn.put([one, two, read])
    assert done["Errors"] is None
    assert [r["KV"]["Key"] for r in done["Results"]] == [f"{name}/1", f"{name}/2", f"{name}/1", f"{name}/2"]
    assert done["Results"][0]["KV"]["Value"] is None and done["Results"][3]["KV"]["Value"] == "dHdv"
    missing = {"KV": {"Verb": "check-not-exists", "Key": f"{name}/1"}}
    with pytest.raises(errors.ClientError, match=f'409 [^!]*"OpIndex": ?1[^!]*key [^!]*{name}/1[^!]* exists'):
        c.txn.put([{"KV": {"Verb": "delete", "Key": f"{name}/1"}}, one, missing][1:])
    c.kv.delete(f"{name}/", recurse=True)


# -- events, prepared queries, coordinates, configuration entries -----------------------------------------------------


def test_events(c: Any, either: Server, name: str) -> None:
    fired = c.event.fire(name, "the payload")
    assert fired["Name"] == name and fired["ID"]
    (event,) = eventually(lambda: rows(c.event.list(name)), "the event arrives")
    assert (event["ID"], event["Payload"], event["LTime"] > 0) == (fired["ID"], b"the payload", True)
    for filters in ({"node": NODE}, {"service": "consul"}, {"service": "consul", "tag": "^$|x"}):
        assert c.event.fire(f"{name}-f", **filters)["ID"]
    with pytest.raises(errors.ConsulException, match="Cannot provide tag filter without service filter"):
        c.event.fire(name, tag="orphan")
    index, _ = c.event.list(name)
    with meanwhile(either, lambda other: other.event.fire(name, "again")):
        newer, events = c.event.list(name, index=index, wait="5m")
    assert newer != index and [e["Payload"] for e in events] == [b"the payload", b"again"]


def test_prepared_queries(c: Any, name: str) -> None:
    for instance, status in (("1", "passing"), ("2", "critical")):
        check = {"Name": "up", "CheckID": f"{name}-{instance}", "ServiceID": instance, "Status": status}
        service = {"Service": name, "ID": instance, "Port": 80, "Tags": ["v1"]}
        c.catalog.register(name, "10.4.4.4", service=service, check=check)
    query = c.query.create(name, name=f"{name}-q", onlypassing=True, tags=["v1"], ttl="7s")["ID"]
    (stored,) = c.query.get(query)
    assert stored["Service"]["Service"] == name and stored["DNS"]["TTL"] == "7s"
    assert query in [q["ID"] for q in c.query.list()]
    for key in (f"{name}-q", f"{name}-q-anything"):
        found = c.query.execute(key, near=NODE, limit=5)
        assert [n["Service"]["ID"] for n in found["Nodes"]] == ["1"]
        assert (found["Datacenter"], found["Failovers"], found["DNS"]["TTL"]) == ("dc1", 0, "7s")
    assert c.query.explain(f"{name}-q-anything")["Query"]["Service"]["Service"] == name
    with pytest.raises(errors.ConsulException, match="templates can only be resolved up by name"):
        c.query.execute(query)
    assert c.query.update(query, name, name=f"{name}-q", nearestn=2, datacenters=["dc1"], regexp="^(.*)$") is True
    (stored,) = c.query.get(query)
    assert stored["Template"] == {**stored["Template"], "Type": "name_prefix_match", "Regexp": "^(.*)$"}
    assert stored["Service"]["Failover"]["NearestN"] == 2
    assert c.query.delete(query) is True
    assert c.query.get(query) is None and c.query.execute(f"{name}-q") is None
    c.catalog.deregister(name)


def test_coordinates(c: Any, name: str) -> None:
    (area, *_) = c.coordinate.datacenters()
    assert area["Datacenter"] == "dc1" and len(area["Coordinates"][0]["Coord"]["Vec"]) == 8
    assert c.catalog.register(name, "10.5.5.5")
    place = {"Vec": [0.001] * 8, "Error": 1.0, "Adjustment": 0.0, "Height": 0.00001}
    assert c.coordinate.update(name, place) is True
    stored = eventually(lambda: rows(c.coordinate.node(name)), "the coordinate arrives")
    assert stored == [{"Node": name, "Segment": "", "Coord": place}]
    assert name in [n["Node"] for n in rows(c.coordinate.nodes(consistency="stale"))]
    c.catalog.deregister(name)


def test_configuration_entries(c: Any, either: Server, name: str) -> None:
    assert c.config.set("service-defaults", name, {"Protocol": "http"}) is True
    entry = c.config.get("service-defaults", name)
    assert (entry["Kind"], entry["Name"], entry["Protocol"]) == ("service-defaults", name, "http")
    assert name in [e["Name"] for e in c.config.list("service-defaults")]
    assert c.config.set("service-defaults", name, {"Protocol": "grpc"}, cas=entry["ModifyIndex"] + 100) is False
    assert c.config.set("service-defaults", name, {"Protocol": "grpc"}, cas=entry["ModifyIndex"]) is True
    if either.kind == "lictor":  # the reference deletes without comparing
        assert c.config.delete("service-defaults", name, cas=entry["ModifyIndex"]) is False
    assert c.config.delete("service-defaults", name) is True
    assert c.config.get("service-defaults", name) is None
    with pytest.raises(errors.BadRequest):
        c.config.set("service-nonsense", name)


# -- operator, snapshot, what is refused ------------------------------------------------------------------------------


def test_operator(c: Any, either: Server) -> None:
    (server,) = c.operator.raft_config()["Servers"]
    assert (server["Node"], server["Leader"], server["Voter"]) == (NODE, True, True)
    assert server["Address"] == f"127.0.0.1:{either.ports['server']}"
    with pytest.raises(errors.ConsulException, match="was not found in the Raft configuration"):
        c.operator.raft_remove_peer(address="127.0.0.9:8300")
    before = c.operator.autopilot_configuration()
    assert before["CleanupDeadServers"] is True and before["MaxTrailingLogs"] == 250
    assert c.operator.update_autopilot_configuration(
        cleanup_dead_servers=True,
        max_trailing_logs=300,
        last_contact_threshold="200ms",
        server_stabilization_time="10s",
    )
    assert c.operator.autopilot_configuration()["MaxTrailingLogs"] == 300
    index = c.operator.autopilot_configuration()["ModifyIndex"]
    if either.kind == "lictor":
        assert c.operator.update_autopilot_configuration(max_trailing_logs=250, cas=index + 100) is False
    assert c.operator.update_autopilot_configuration(
        cleanup_dead_servers=True,
        max_trailing_logs=250,
        last_contact_threshold="200ms",
        server_stabilization_time="10s",
        cas=index,
    )
    health = eventually(
        lambda: (h := c.operator.autopilot_health())["Healthy"] and h, "the server has been there long enough"
    )
    assert [(s["Name"], s["Leader"], s["Voter"]) for s in health["Servers"]] == [(NODE, True, True)]
    with pytest.raises(errors.ConsulException, match="keyring is empty|No keyring|[Kk]eyring"):
        c.operator.keyring_list()
    if either.kind == "lictor":  # newer than the reference
        usage = c.operator.usage()["Usage"]["dc1"]
        assert usage["Nodes"] >= 1 and usage["Services"] >= 1 and usage["ServiceInstances"] >= 1
        with pytest.raises(errors.ConsulException, match="500"):
            c.operator.raft_transfer_leader()


def test_intentions(c: Any, either: Server, name: str) -> None:
    if either.kind != "lictor":
        pytest.skip("the client uses endpoints that came after the reference")
    assert c.connect.intentions.upsert("web", name, action="allow", description="d") is True
    assert c.connect.intentions.upsert("*", name, action="deny") is True
    found = c.connect.intentions.read("web", name)
    assert (found["SourceName"], found["DestinationName"], found["Action"]) == ("web", name, "allow")
    assert [one["SourceName"] for one in c.connect.intentions.list(filter_expr=f"DestinationName == {name}")] == [
        "web",
        "*",
    ]
    assert [one["SourceName"] for one in c.connect.intentions.match("destination", name)[name]] == ["web", "*"]
    assert (c.connect.intentions.check("web", name), c.connect.intentions.check("other", name)) == (True, False)
    permissions = [{"Action": "allow", "HTTP": {"PathPrefix": "/"}}]
    assert c.config.set("service-defaults", name, {"Protocol": "http"}) is True
    assert c.connect.intentions.upsert("web", name, permissions=permissions) is True
    assert c.connect.intentions.read("web", name)["Permissions"] == permissions
    assert c.connect.intentions.check("web", name) is False
    assert c.connect.intentions.delete("web", name) is True
    assert c.connect.intentions.delete("*", name) is True
    assert c.connect.intentions.read("web", name) is None


def test_snapshot(c: Any, name: str) -> None:
    c.kv.put(name, "kept")
    archive = c.snapshot.save()
    assert archive[:2] == b"\x1f\x8b"
    c.kv.put(name, "lost")
    assert c.snapshot.restore(archive) is True
    assert eventually(lambda: rows(c.kv.get(name)), "the pair is back")["Value"] == b"kept"
    with pytest.raises(errors.ConsulException):
        c.snapshot.restore(archive[:-20])
    assert rows(c.kv.get(name))["Value"] == b"kept"
    c.kv.delete(name)


def test_acl_calls_are_refused(c: Any) -> None:
    for call in (c.acl.token.list, c.acl.policy.list, c.acl.role.list, c.acl.auth_method.list, c.acl.binding_rule.list):
        with pytest.raises(errors.ACLDisabled, match="ACL support disabled"):
            call()


def test_leave_ends_the_agent(either: Server) -> None:
    from tests.contract import servers

    own = servers.start(either.kind, "clients")
    try:
        c = consul.Consul(port=own.ports["http"])
        assert c.agent.leave() is True
        c.http.session.close()
        assert own.process.wait(PATIENCE) == 0
    finally:
        own.stop()
