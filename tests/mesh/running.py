"""A service over HTTP, its sidecar, and a client that never stops asking."""

from __future__ import annotations

import http.client
import http.server
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.cluster.servers import Server
from tests.patience import PATIENCE, eventually
from tests.ports import free_port

PACE = 0.02  # seconds between two requests of a client: the machine is not this test's alone


class Page(http.server.BaseHTTPRequestHandler):
    """Answers every path with itself, and keeps connections."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer."""
        body = self.path.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Be quiet."""


class Quiet(http.server.ThreadingHTTPServer):
    """Connections that are cut are what these tests are about."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing."""


@contextmanager
def pages() -> Iterator[int]:
    """A service on a port of its own, for the block."""
    server = Quiet(("127.0.0.1", free_port()), Page)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join(PATIENCE)
        server.server_close()


class Sidecar:
    """A service's registration with an agent, and the process of its proxy. `upstreams` are local ports by service;
    the services are in the `datacenter`, the agent's own where it is empty.
    """

    def __init__(
        self, agent: Server, folder: Path, service: str, port: int, *upstreams: str, datacenter: str = ""
    ) -> None:
        self.agent = agent
        self.service = service
        self.port = free_port()
        self.upstreams = {name: free_port() for name in upstreams}
        self._log = folder / f"{service}.log"
        self.process: subprocess.Popen[bytes] | None = None
        proxy = {
            "Upstreams": [
                {"DestinationName": name, "LocalBindPort": at, "Datacenter": datacenter}
                for name, at in self.upstreams.items()
            ],
        }
        checks = [{"Name": "its service", "AliasService": service}]
        side = {"Port": self.port, "Address": "127.0.0.1", "Proxy": proxy, "Checks": checks}
        body = {"Name": service, "Port": port, "Address": "127.0.0.1", "Connect": {"SidecarService": side}}
        agent.put("/v1/agent/service/register", body)

    def start(self) -> Sidecar:
        """Begin the proxy, and wait until it listens."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("CONSUL_", "LICTOR_"))}
        arguments = ["connect", "proxy", f"-sidecar-for={self.service}", "-log-level=debug"]
        arguments.append(f"-http-addr=127.0.0.1:{self.agent.ports['http']}")
        began = self.log().count("Starting listener")
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "lictor", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
            )
        wanted = began + 1 + len(self.upstreams)
        eventually(lambda: self.log().count("Starting listener") >= wanted, f"{self.service}'s proxy listens")
        return self

    def log(self) -> str:
        """All that its runs have written."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def end(self) -> None:
        """End the proxy."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(PATIENCE)
            self.process = None


def ask(port: int, path: str = "/x") -> bool:
    """Whether a request on a new connection through a local port is answered."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request("GET", path)
        return connection.getresponse().read() == path.encode()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


class Kept:
    """One connection through a local port, which lasts."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        self._connection.auto_open = 0  # what is cut stays cut
        self._connection.connect()

    def ask(self, path: str = "/kept") -> bool:
        """Whether a request on it is answered."""
        try:
            self._connection.request("GET", path)
            return self._connection.getresponse().read() == path.encode()
        except (OSError, http.client.HTTPException):
            return False

    def close(self) -> None:
        """End it."""
        self._connection.close()


class Load:
    """Clients that ask without a pause worth the name: one on a connection that lasts, one on new ones each time."""

    def __init__(self, port: int) -> None:
        self.asked = 0
        self.lost: list[str] = []
        self._port = port
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=run) for run in (self._on_one, self._on_new)]

    def _on_new(self) -> None:
        while not self._ended.is_set():
            self._count(ask(self._port), "on a new connection")

    def _on_one(self) -> None:
        kept = Kept(self._port)
        while not self._ended.is_set():
            self._count(kept.ask(), "on the one that lasts")
        kept.close()

    def _count(self, answered: bool, how: str) -> None:
        self.asked += 1
        if not answered:
            self.lost.append(f"request {self.asked} {how}, at {time.strftime('%H:%M:%S', time.gmtime())}")
        time.sleep(PACE)

    def more(self, requests: int) -> None:
        """Wait until so many more have been made."""
        wanted = self.asked + requests
        eventually(lambda: self.asked >= wanted, f"{requests} more requests")

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(PATIENCE)
