"""Proxies that an agent starts, with real processes: they serve, outlive the agent, hand over, drain and end."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lictor.agent.processes import began
from tests.agent.processes import Process
from tests.patience import PATIENCE, eventually
from tests.ports import free_port

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="agents start proxies on Linux only")

LAUNCH = "connect { launch { enabled = true } }"
ENVOY = shutil.which("envoy", path=str(Path(sys.executable).parent)) or shutil.which("envoy")


class Echo:
    """A service that sends back what it gets, with its name before it."""

    def __init__(self, name: bytes) -> None:
        self._name = name
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            while data := connection.recv(65536):
                connection.sendall(self._name + b":" + data)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture
def echo() -> Iterator[Echo]:
    service = Echo(b"web")
    yield service
    service.close()


@contextlib.contextmanager
def agent_in(folder: Path, *flags: str) -> Iterator[Process]:
    agent = Process(folder, f"-hcl={LAUNCH}", *flags)
    try:
        agent.start()
        yield agent
    finally:
        pids = records(agent)
        agent.close()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def records(agent: Process) -> list[int]:
    """The ids of all processes that the agent has started and not seen end."""
    found = []
    for path in (agent.data / "proxies").glob("*.json"):
        with contextlib.suppress(FileNotFoundError):
            process = json.loads(path.read_bytes())["process"]
            if began(process["pid"]) == process["began"]:
                found.append(process["pid"])
    return found


def register(agent: Process, name: str, port: int, launch: str, **upstreams: int) -> None:
    proxy: dict[str, Any] = {"Launch": launch} if launch else {}
    proxy["Upstreams"] = [{"DestinationName": other, "LocalBindPort": bind} for other, bind in upstreams.items()]
    sidecar = {"Port": free_port(), "Proxy": proxy}
    definition = {"ID": name, "Name": name, "Port": port, "Connect": {"SidecarService": sidecar}}
    agent.put("/v1/agent/service/register", definition)


def processes(agent: Process) -> dict[str, Any]:
    """The process of each sidecar by the service's name, None where there is none."""
    return {sidecar["Service"]: sidecar["Process"] for sidecar in agent.get("/v1/agent/connect/proxies")}


def pid_of(agent: Process, service: str) -> int:
    """The process of a sidecar, 0 where none runs."""
    process = processes(agent).get(service)
    return int(process["PID"]) if process is not None and process["State"] == "running" else 0


def connect(port: int) -> socket.socket:
    """A connection through the mesh, as soon as one can be made."""

    def try_it() -> socket.socket | None:
        connection = socket.socket()
        connection.settimeout(PATIENCE)
        try:
            connection.connect(("127.0.0.1", port))
            if says(connection, b"hello") == b"web:hello":
                return connection
        except OSError:
            pass
        connection.close()
        return None

    found: socket.socket = eventually(try_it, f"port {port} leads to the service")
    return found


def says(connection: socket.socket, word: bytes) -> bytes:
    """What comes back for a word, all of it that comes at once."""
    connection.sendall(word)
    return connection.recv(65536)


def test_built_in_proxies_outlive_the_agent_and_hand_over(tmp_path: Path, echo: Echo) -> None:
    upstream = free_port()
    with agent_in(tmp_path) as agent:
        register(agent, "web", echo.port, "builtin")
        register(agent, "client", free_port(), "builtin", web=upstream)
        with connect(upstream) as first:
            pid = pid_of(agent, "web")
            assert pid == pid_of(agent, "client") != 0, "one process serves both"
            register(agent, "late", free_port(), "builtin")
            found: dict[str, Any] = eventually(
                lambda: processes(agent).get("late") and processes(agent), "it is served"
            )
            assert found["late"]["Seconds"] < found["web"]["Seconds"], "each is served for as long as it is there"
            agent.put("/v1/agent/service/deregister/late")
            assert Path(f"/proc/{pid}/status").read_text().count("NoNewPrivs:\t1") == 1

            # The agent ends, and another takes its place: nothing that is live notices.
            agent.kill()
            assert says(first, b"alone") == b"web:alone"
            with connect(upstream) as while_away:
                agent.start()
                assert pid_of(agent, "web") == pid
                assert says(while_away, b"again") == b"web:again"

            # The agent comes back at another address: another process takes the listeners, this one drains.
            assert agent.end(signal.SIGTERM) == 0
            agent.ports["http"] = free_port()
            agent.start()
            eventually(lambda: pid_of(agent, "web") not in (0, pid), "another process serves")
            with connect(upstream):
                assert says(first, b"still") == b"web:still"
                assert pid in records(agent)
        eventually(lambda: records(agent) == [pid_of(agent, "web")], "the former process ends with its connections")

        # Nothing is left where nothing is registered.
        last = pid_of(agent, "web")
        for name in ("web", "client"):
            agent.put(f"/v1/agent/service/deregister/{name}")
        eventually(lambda: began(last) == 0, "the process ends")
        eventually(lambda: not list((agent.data / "proxies").glob("*.json")), "no record is left")


def test_a_proxy_that_is_killed_is_started_again_and_all_end_with_leave(tmp_path: Path, echo: Echo) -> None:
    upstream = free_port()
    with agent_in(tmp_path, '-hcl=connect { launch { one_process = false default = "builtin" } }') as agent:
        register(agent, "web", echo.port, "")
        register(agent, "client", free_port(), "", web=upstream)
        register(agent, "other", free_port(), "none")
        connect(upstream).close()
        first, second = pid_of(agent, "web"), pid_of(agent, "client")
        assert 0 not in (first, second) and first != second
        assert processes(agent)["other"] is None

        os.kill(first, signal.SIGKILL)
        eventually(lambda: pid_of(agent, "web") not in (0, first), "it is started again")
        killed = processes(agent)["web"]
        assert killed["Restarts"] == 1
        assert killed["Reason"].startswith("signal: SIGKILL")
        connect(upstream).close()

        running = [pid_of(agent, "web"), second]
        agent.put("/v1/agent/leave")
        assert agent.process is not None
        agent.process.wait(PATIENCE)
        assert [began(pid) for pid in running] == [0, 0]


@pytest.mark.skipif(ENVOY is None, reason="no Envoy is installed (lictor[envoy])")
def test_an_envoy_is_found_again_and_drained(tmp_path: Path, echo: Echo) -> None:
    upstream = free_port()
    with agent_in(tmp_path) as agent:
        register(agent, "web", echo.port, "builtin")
        register(agent, "client", free_port(), "envoy", web=upstream)
        with connect(upstream) as connection:
            pid = pid_of(agent, "client")
            assert agent.end(signal.SIGTERM) == 0
            assert says(connection, b"alone") == b"web:alone"
            agent.start()
            assert pid_of(agent, "client") == pid
            agent.put("/v1/agent/service/deregister/client")

            def refused() -> bool:
                with socket.socket() as other:
                    return other.connect_ex(("127.0.0.1", upstream)) != 0

            eventually(refused, "it accepts no more")
            assert says(connection, b"drained") == b"web:drained"
        eventually(lambda: began(pid) == 0, "it ends after its last connection")


def test_an_agent_that_launches_nothing_says_so(tmp_path: Path) -> None:
    agent = Process(tmp_path)
    try:
        agent.start()
        sidecar = {"Proxy": {"Launch": "builtin"}}
        definition = {"Name": "web", "Port": 80, "Connect": {"SidecarService": sidecar}}
        status, body = agent.ask("PUT", "/v1/agent/service/register", definition)
        assert (status, b"connect.launch.enabled" in body) == (500, True), body
        assert agent.get("/v1/agent/services") == {}
        sidecar["Proxy"]["Launch"] = "docker"
        status, body = agent.ask("PUT", "/v1/agent/service/register", definition)
        assert (status, b"Proxy.Launch must be one of" in body) == (400, True), body
    finally:
        agent.close()


def test_long_ids_are_told_apart_and_nothing_is_left_of_what_is_gone(tmp_path: Path, echo: Echo) -> None:
    folder = tmp_path / "data" / "proxies"
    folder.mkdir(parents=True)
    nobody = {"process": {"pid": 1 << 40, "began": 1}, "version": "0", "address": ""}
    program = {"name": "lost", "kind": "builtin", "arguments": [], "proxies": []}
    (folder / "lost.json").write_text(json.dumps({**nobody, "program": program}))
    with agent_in(tmp_path, "-hcl=connect { launch { one_process = false } }") as agent:
        names = ["y" * 230 + last for last in "ab"]
        for name in names:
            register(agent, name, echo.port, "builtin")
        eventually(lambda: all(pid_of(agent, name) for name in names), "both have a process")
        eventually(lambda: len(records(agent)) == 2, "each has a record of its own")
        for name in names:
            agent.put(f"/v1/agent/service/deregister/{name}")
        eventually(lambda: list(folder.iterdir()) == [folder / "run"], "their records and output are gone")
        eventually(lambda: list((folder / "run").iterdir()) == [], "and so are their sockets")
