"""Programs that speak the mesh's TLS themselves, with a proxy at the other end: the built-in one, and Envoy."""

from __future__ import annotations

import http.client
import http.server
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from lictor.client import Client, Options
from lictor.client.errors import ClientError
from lictor.client.tls import CheckedSocket
from tests.connect_proxy.envoy.installed import ENVOY
from tests.connect_proxy.envoy.mesh import Agent, Envoy, service
from tests.connect_proxy.envoy.test_mixed import BuiltIn, Proxy
from tests.patience import PATIENCE, eventually, settles
from tests.ports import free_port

PROXIES = [
    pytest.param(BuiltIn, id="built-in"),
    pytest.param(Envoy, id="envoy", marks=pytest.mark.skipif(not ENVOY, reason="envoy is not installed")),
]


class Names(http.server.BaseHTTPRequestHandler):
    """Answers with the name of who asks, by the certificate."""

    def do_GET(self) -> None:
        """Answer."""
        connection = self.connection
        assert isinstance(connection, CheckedSocket) and connection.peer is not None
        body = connection.peer.service.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Be quiet."""


class Quiet(http.server.ThreadingHTTPServer):
    """Those who are refused are what these tests are about."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing."""


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    """An agent."""
    made = Agent(tmp_path)
    yield made
    made.close()


@pytest.fixture
def client(agent: Agent) -> Iterator[Client]:
    """A client of it."""
    with Client(agent.address, options=Options(timeout=PATIENCE), environment={}) as made:
        yield made


def answers(client: Client) -> bool:
    """Whether `server` answers a request of the program `native`."""
    try:
        with client.connect.open("server", own="native") as connection:
            connection.settimeout(PATIENCE)
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return b" 200 " in connection.recv(100)
    except (ClientError, OSError):
        return False


@pytest.mark.parametrize("proxy", PROXIES)
def test_a_program_calls_a_service_behind_a_proxy(agent: Agent, client: Client, tmp_path: Path, proxy: Proxy) -> None:
    with service() as behind, ExitStack() as stack:
        agent.register("server", behind)
        made = proxy(tmp_path, agent, "server")
        stack.callback(made.close)
        eventually(lambda: answers(client), "the service answers")
        agent.intend("server", {"Name": "native", "Action": "deny"})
        eventually(lambda: not answers(client), "an intention keeps it out")
        agent.intend("server", {"Name": "native", "Action": "allow"})
        eventually(lambda: answers(client), "and lets it in again")


@pytest.mark.parametrize("proxy", PROXIES)
def test_a_program_is_called_through_a_proxy(agent: Agent, client: Client, tmp_path: Path, proxy: Proxy) -> None:
    port = free_port()
    server = Quiet(("127.0.0.1", free_port()), Names)
    at = server.server_port
    with ExitStack() as stack:
        server.socket = client.connect.wrap_server(server.socket, service="native")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        stack.callback(server.server_close)
        stack.callback(thread.join, PATIENCE)
        stack.callback(server.shutdown)
        client.agent.register("native", port=at, address="127.0.0.1", Connect={"Native": True})
        agent.register("caller", free_port(), {"native": port})
        made = proxy(tmp_path, agent, "caller")
        stack.callback(made.close)
        settles(lambda: _page(port), b"caller", "the program answers, and knows who asks")
        agent.intend("native", {"Name": "caller", "Action": "deny"})
        settles(lambda: _page(port), b"", "an intention keeps it out")
        agent.intend("native", {"Name": "caller", "Action": "allow"})
        settles(lambda: _page(port), b"caller", "and lets it in again")


def _page(port: int) -> bytes:
    """What is answered on a local port; empty for nothing."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request("GET", "/")
        answer = connection.getresponse()
        return answer.read() if answer.status == 200 else b""
    except (OSError, http.client.HTTPException):
        return b""
    finally:
        connection.close()
