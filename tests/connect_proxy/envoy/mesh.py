"""Real agents in development mode, real Envoys that they configure, and real HTTP services behind these."""

from __future__ import annotations

import http.client
import http.server
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from tests.agent.processes import QUICK
from tests.patience import PATIENCE, eventually
from tests.ports import agent_ports, free_port

ROOT = Path(__file__).parent.parent.parent.parent
ENVIRONMENT = {key: value for key, value in os.environ.items() if not key.startswith(("CONSUL_", "LICTOR_"))}


class Agent:
    """`lictor agent -dev`."""

    def __init__(self, folder: Path, *flags: str) -> None:
        self.ports = agent_ports()
        self._log = folder / "agent.log"
        arguments = [f"-{name}-port={port}" for name, port in self.ports.items()]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "lictor", "agent", "-dev", "-node=n1", "-hcl", QUICK, *arguments, *flags],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=ENVIRONMENT,
                cwd=ROOT,
            )
        eventually(self._answers, "the agent answers")

    @property
    def address(self) -> str:
        """Where its HTTP API is."""
        return f"127.0.0.1:{self.ports['http']}"

    def _answers(self) -> bool:
        assert self.process.poll() is None, f"the agent ended: {self.log()[-3000:]}"
        try:
            return self.ask("GET", "/v1/agent/connect/ca/roots")[0] == 200
        except OSError:
            return False

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """A request's status, and its answer's JSON or text."""
        connection = http.client.HTTPConnection("127.0.0.1", self.ports["http"], timeout=PATIENCE)
        try:
            connection.request(method, path, None if body is None else json.dumps(body).encode())
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        try:
            return answer.status, json.loads(text)
        except ValueError:
            return answer.status, text.decode()

    def put(self, path: str, body: Any = None) -> Any:
        """A PUT that must succeed."""
        status, answer = self.ask("PUT", path, body)
        assert status == 200, answer
        return answer

    def get(self, path: str) -> Any:
        """A GET that must succeed."""
        status, answer = self.ask("GET", path)
        assert status == 200, answer
        return answer

    def configure(self, kind: str, name: str, **fields: Any) -> None:
        """Write a config entry."""
        assert self.put("/v1/config", {"Kind": kind, "Name": name, **fields}) is True

    def intend(self, destination: str, *sources: dict[str, Any]) -> None:
        """Write the intentions of a destination."""
        self.configure("service-intentions", destination, Sources=list(sources))

    def register(
        self,
        name: str,
        port: int,
        upstreams: dict[str, int] | None = None,
        address: str = "",
        **proxy: Any,
    ) -> str:
        """Register a service with a sidecar, whose port is free, at an address. Returns the sidecar's id."""
        offered = [{"DestinationName": one, "LocalBindPort": at} for one, at in (upstreams or {}).items()]
        sidecar: dict[str, Any] = {"Port": free_port(), "Check": {"TTL": "24h", "Status": "passing"}}
        sidecar["Proxy"] = {"Upstreams": offered, **proxy}
        sidecar["Address"] = address
        self.put("/v1/agent/service/register", {"Name": name, "Port": port, "Connect": {"SidecarService": sidecar}})
        return f"{name}-sidecar-proxy"

    def log(self) -> str:
        """What it has written."""
        return self._log.read_text(errors="replace")

    def logs(self, text: str) -> None:
        """Wait until something is in the log."""
        eventually(lambda: text in self.log(), f"{text!r} in the agent's log: {self.log()[-2000:]}")

    def close(self) -> None:
        """End it."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE)


class Addressed(Protocol):
    """An agent, by where its HTTP interface is."""

    @property
    def address(self) -> str:
        """The address, host:port."""
        ...


class Envoy:
    """`lictor connect envoy` for a service."""

    def __init__(self, folder: Path, agent: Addressed, service: str, *flags: str) -> None:
        self.admin = free_port()
        self._log = folder / f"envoy-{service}.log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "lictor", "connect", "envoy", "-sidecar-for", service]
                + [f"-admin-bind=127.0.0.1:{self.admin}", *flags, "--", "--concurrency", "1", "--log-level", "warn"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**ENVIRONMENT, "CONSUL_HTTP_ADDR": agent.address},
                cwd=ROOT,
            )

    def page(self, path: str, method: str = "GET") -> str:
        """A page of the admin interface; empty where there is none yet."""
        assert self.process.poll() is None, f"Envoy ended: {self.log()[-3000:]}"
        connection = http.client.HTTPConnection("127.0.0.1", self.admin, timeout=PATIENCE)
        try:
            connection.request(method, path)
            return connection.getresponse().read().decode()
        except OSError:
            return ""
        finally:
            connection.close()

    def ready(self) -> None:
        """Wait until it serves."""
        eventually(lambda: self.page("/ready").strip() == "LIVE", f"Envoy serves: {self.log()[-2000:]}")

    def certificate(self) -> str:
        """The serial number of the certificate that it shows, empty for none."""
        found = json.loads(self.page("/certs") or "{}").get("certificates") or [{}]
        return str((found[0].get("cert_chain") or [{}])[0].get("serial_number", ""))

    def count(self, name: str) -> int:
        """A counter; 0 where there is none."""
        found = json.loads(self.page(f"/stats?format=json&filter=^{name}$") or '{"stats": []}')["stats"]
        return int(found[0]["value"]) if found else 0

    def log(self) -> str:
        """What it has written."""
        return self._log.read_text(errors="replace")

    def close(self) -> None:
        """End it."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE)


class Handler(http.server.BaseHTTPRequestHandler):
    """Says who called."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer with the path and whom the proxy took the caller for."""
        body = json.dumps({"path": self.path, "caller": self.headers.get("x-forwarded-client-cert", "")}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@contextmanager
def service() -> Iterator[int]:
    """An HTTP service; its port."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", free_port()), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def fetch(port: int, path: str = "/", method: str = "GET", headers: dict[str, str] | None = None) -> tuple[int, Any]:
    """A request through a proxy: its status and the service's answer; (0, "") where the connection came to nothing."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request(method, path, headers=headers or {})
        answer = connection.getresponse()
        text = answer.read().decode()
    except (OSError, http.client.HTTPException):
        return 0, ""
    finally:
        connection.close()
    return answer.status, json.loads(text) if text.startswith("{") else text


def ends(connection: socket.socket) -> bool:
    """Whether the other side has ended a connection on which nothing is to come."""
    connection.settimeout(0.01)
    try:
        return connection.recv(1) == b""
    except TimeoutError:
        return False
    except OSError:
        return True
