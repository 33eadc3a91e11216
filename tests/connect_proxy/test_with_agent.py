"""The proxy with a real agent: it follows registrations, intentions and certificates, and outlives the agent."""

from __future__ import annotations

import os
import socket
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.agent.processes import Process
from tests.connect_proxy.processes import Echo, Proxy, ask, intend, metrics, register
from tests.patience import PATIENCE, eventually, settles
from tests.ports import free_port

REFERENCE = os.environ.get("LICTOR_REFERENCE_CONSUL", "")


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Process]:
    """An agent that is its own server."""
    process = Process(tmp_path)
    try:
        process.start()
        yield process
    finally:
        process.close()


@pytest.fixture
def proxy(tmp_path: Path, agent: Process) -> Iterator[Callable[..., Proxy]]:
    """Starts proxies, and ends them all."""
    started: list[Proxy] = []

    def start(name: str, *flags: str, program: list[str] | None = None) -> Proxy:
        started.append(Proxy(tmp_path, name, agent, *flags, program=program))
        return started[-1]

    yield start
    for one in started:
        one.close()


@pytest.fixture
def echo() -> Iterator[Callable[[str], Echo]]:
    """Starts services, and ends them all."""
    started: list[Echo] = []

    def start(name: str) -> Echo:
        started.append(Echo(name))
        return started[-1]

    yield start
    for one in started:
        one.close()


def test_two_sidecars_and_an_intention_that_changes(
    agent: Process, proxy: Callable[..., Proxy], echo: Callable[[str], Echo]
) -> None:
    up = free_port()
    register(agent, "web", echo("web").port)
    register(agent, "client", free_port(), upstreams={up: "web"})
    web = proxy("web", "-sidecar-for", "web")
    proxy("client", "-sidecar-for", "client")
    eventually(lambda: ask(up) == b"web: hello", "bytes pass through both sidecars")
    with socket.create_connection(("127.0.0.1", up), PATIENCE) as kept:
        kept.sendall(b"hello")
        assert kept.recv(100) == b"web: hello"
        intend(agent, "web", client="deny")
        with pytest.raises(ConnectionResetError):
            assert kept.recv(100) == b"never"
    web.says("Cut a connection that is not allowed any more")
    assert ask(up) == b""
    web.says("Refused a connection")
    assert "Matched L4 intention" in web.log()
    intend(agent, "web", client="allow")
    eventually(lambda: ask(up) == b"web: hello", "it is allowed again")
    assert web.end() == 0
    assert "Connect proxy shutdown" in web.log()


def test_an_agent_that_is_away_changes_nothing_and_is_followed_when_it_is_back(
    agent: Process, proxy: Callable[..., Proxy], echo: Callable[[str], Echo]
) -> None:
    up, later = free_port(), free_port()
    register(agent, "web", echo("web").port)
    side = register(agent, "client", 9, upstreams={up: "web"})
    proxy("web", "-sidecar-for", "web")
    client = proxy("client", "-sidecar-for", "client")
    eventually(lambda: ask(up) == b"web: hello", "bytes pass through both sidecars")
    with socket.create_connection(("127.0.0.1", up), PATIENCE) as kept:
        kept.sendall(b"one")
        assert kept.recv(100) == b"web: one"
        agent.kill()
        client.says("Watch errored")
        kept.sendall(b"two")
        assert kept.recv(100) == b"web: two"
        assert ask(up) == b"web: hello", "a new connection needs no agent"
        agent.start()
        register(agent, "client", 9, upstreams={up: "web", later: "web"}, sidecar=side)
        eventually(lambda: ask(later) == b"web: hello", "the new upstream is there")
        kept.sendall(b"three")
        assert kept.recv(100) == b"web: three"


def test_one_process_for_a_node_follows_its_registrations(
    agent: Process, proxy: Callable[..., Proxy], echo: Callable[[str], Echo]
) -> None:
    ports = [free_port() for _ in range(3)]
    admin = free_port()
    node = proxy("node", "-node", "-undeclared", f"-admin-bind=127.0.0.1:{admin}")
    for number, port in enumerate(ports):
        register(agent, f"s{number}", echo(f"s{number}").port, upstreams={port: f"s{(number + 1) % 3}"})
    register(agent, "other", 9, Launch="none")
    for number, port in enumerate(ports):
        wanted = f"s{(number + 1) % 3}: hello".encode()
        eventually(lambda port=port, wanted=wanted: ask(port) == wanted, "each sidecar reaches the next")  # type: ignore[misc]
    assert "service=other" not in node.log(), "that one asks for no proxy of the agent"
    assert metrics(admin)["lictor_proxy_certificates_identities"] == 3
    with urllib.request.urlopen(f"http://127.0.0.1:{admin}/ready", timeout=PATIENCE) as answer:
        assert answer.status == 200
    intend(agent, "s1", any="deny")
    eventually(lambda: ask(ports[0]) == b"", "each has intentions of its own")
    assert ask(ports[1]) == b"s2: hello"
    agent.put("/v1/agent/service/deregister/s0")
    eventually(lambda: _refused(ports[0]), "the listeners of what is deregistered are closed")
    assert ask(ports[1]) == b"s2: hello"


def _refused(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) != 0


def test_an_upstream_may_be_a_prepared_query_or_have_addresses_of_its_own(
    agent: Process, proxy: Callable[..., Proxy], echo: Callable[[str], Echo]
) -> None:
    up, fixed = free_port(), free_port()
    status, answer = agent.ask("POST", "/v1/query", {"Name": "any-web", "Service": {"Service": "web", "Connect": True}})
    assert status == 200, answer
    web = register(agent, "web", echo("web").port)
    static = {"DestinationName": "web", "LocalBindPort": fixed, "Config": {"addresses": [f"127.0.0.1:{web}"]}}
    upstream = {"DestinationType": "prepared_query", "DestinationName": "any-web", "LocalBindPort": up}
    register(agent, "client", 9, Upstreams=[upstream, static])
    proxy("node", "-node", "-undeclared")
    eventually(lambda: ask(up) == b"web: hello", "bytes pass to what the query finds")
    eventually(lambda: ask(fixed) == b"web: hello", "and to the address")


def deaf(agent: Process) -> dict[str, Any]:
    """Where proxies cannot listen, by the services that they are for."""
    return {one["Service"]: one["Deaf"] for one in agent.get("/v1/agent/connect/proxies") if one["Deaf"]}


def test_an_address_that_is_in_use_is_listened_on_when_it_is_free(
    agent: Process, proxy: Callable[..., Proxy], echo: Callable[[str], Echo]
) -> None:
    up = free_port()
    register(agent, "web", echo("web").port)
    register(agent, "client", 9, upstreams={up: "web"})
    with socket.create_server(("127.0.0.1", up)):
        node = proxy("node", "-node", "-undeclared")
        node.says("Cannot listen")
        told = [{"Address": f"127.0.0.1:{up}", "Reason": "Address already in use"}]
        settles(lambda: deaf(agent), {"client": told}, "the agent tells where the proxy cannot listen")
    eventually(lambda: ask(up) == b"web: hello", "it listens now")
    settles(lambda: deaf(agent), {}, "the agent tells no more of it")
    assert node.log().count("Cannot listen") == 1


def test_a_process_takes_the_place_of_another_without_a_connection_lost(
    tmp_path: Path, agent: Process, proxy: Callable[..., Proxy], echo: Callable[[str], Echo]
) -> None:
    up = free_port()
    register(agent, "web", echo("web").port)
    register(agent, "client", 9, upstreams={up: "web"})
    path = tmp_path / "node.sock"
    first = proxy("first", "-node", "-undeclared", f"-handover={path}")
    eventually(lambda: ask(up) == b"web: hello", "the first serves")
    eventually(path.exists, "it can be followed")
    assert path.stat().st_mode & 0o777 == 0o600
    with socket.create_connection(("127.0.0.1", up), PATIENCE) as kept:
        kept.sendall(b"one")
        assert kept.recv(100) == b"web: one"
        second = proxy("second", "-node", "-undeclared", f"-handover={path}")
        while "Another process serves now" not in first.log():
            assert ask(up) == b"web: hello", "no connection is refused meanwhile"
            assert second.process.poll() is None, second.log()
        assert ask(up) == b"web: hello"
        kept.sendall(b"two")
        assert kept.recv(100) == b"web: two"
        assert first.process.poll() is None
    assert first.process.wait(PATIENCE) == 0
    assert ask(up) == b"web: hello"
    third = proxy("third", "-node", "-undeclared", f"-handover={path}")
    assert second.process.wait(PATIENCE) == 0, "the second is followed in turn"
    eventually(lambda: ask(up) == b"web: hello", "the third serves")
    assert third.end() == 0
    assert not path.exists()


def test_a_successor_that_dies_leaves_the_former_process_as_it_was(
    tmp_path: Path, agent: Process, proxy: Callable[..., Proxy], echo: Callable[[str], Echo]
) -> None:
    up = free_port()
    register(agent, "web", echo("web").port)
    register(agent, "client", 9, upstreams={up: "web"})
    path = tmp_path / "node.sock"
    first = proxy("first", "-node", "-undeclared", f"-handover={path}")
    eventually(lambda: ask(up) == b"web: hello", "the first serves")
    eventually(path.exists, "it can be followed")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as channel:
        channel.settimeout(PATIENCE)
        channel.connect(str(path))
        _, descriptors, _, _ = socket.recv_fds(channel, 65536, 10)
        assert len(descriptors) == 3
        for descriptor in descriptors:
            os.close(descriptor)
    first.says("this one goes on")
    assert ask(up) == b"web: hello"


def test_a_proxy_of_flags_registers_itself(
    agent: Process, proxy: Callable[..., Proxy], echo: Callable[[str], Echo]
) -> None:
    up, listen = free_port(), free_port()
    server = proxy(
        "web", "-service=web", f"-service-addr=127.0.0.1:{echo('web').port}", f"-listen=127.0.0.1:{listen}", "-register"
    )
    proxy("client", "-service=client", f"-upstream=web:127.0.0.1:{up}")
    eventually(lambda: ask(up) == b"web: hello", "bytes pass")
    assert agent.get("/v1/agent/services")["web-proxy"]["Proxy"]["DestinationServiceName"] == "web"
    assert server.end() == 0
    assert "web-proxy" not in agent.get("/v1/agent/services")


@pytest.mark.skipif(not REFERENCE, reason="LICTOR_REFERENCE_CONSUL names no Consul")
def test_the_reference_proxy_and_this_one_talk_to_each_other(
    agent: Process, proxy: Callable[..., Proxy], echo: Callable[[str], Echo]
) -> None:
    theirs, ours = free_port(), free_port()
    register(agent, "one", echo("one").port, upstreams={ours: "two"})
    register(agent, "two", echo("two").port, upstreams={theirs: "one"})
    proxy("one", "-sidecar-for", "one")
    proxy("two", "-sidecar-for", "two", program=[REFERENCE])
    eventually(lambda: ask(ours) == b"two: hello", "ours reaches theirs")
    eventually(lambda: ask(theirs) == b"one: hello", "theirs reaches ours")
    intend(agent, "one", two="deny")
    eventually(lambda: ask(theirs) == b"", "theirs is refused by ours")
