"""The examples of docs/native.md do what they say."""

import http.server
import re
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from lictor.client import AsyncClient, Client
from tests.patience import PATIENCE

PAGE = Path(__file__).parents[2] / "docs" / "native.md"


@pytest.fixture(scope="module")
def examples() -> dict[str, Any]:
    """What all of the page's examples define."""
    found: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
        exec(compile(block, str(PAGE), "exec"), found)  # noqa: S102
    return found


def test_a_server_and_a_client_with_threads(client: Client, examples: dict[str, Any]) -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    examples["register"](client, listening.getsockname()[1])
    try:
        with ThreadPoolExecutor(1) as pool:
            greeted = pool.submit(examples["greet"], client, listening)
            assert examples["ask"](client) == b"good morning, web"
            greeted.result(PATIENCE)
    finally:
        client.agent.deregister("greeter")


async def test_a_server_and_a_client_with_an_event_loop(
    client: Client, loop_client: AsyncClient, examples: dict[str, Any]
) -> None:
    server = await examples["greet_each"](loop_client)
    examples["register"](client, server.sockets[0].getsockname()[1])
    try:
        assert await examples["ask_once"](loop_client) == b"good evening, web"
    finally:
        client.agent.deregister("greeter")
        server.close()
        await server.wait_closed()


def test_pages_by_pythons_own_http_server(client: Client, examples: dict[str, Any]) -> None:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            caller: Any = self.connection
            self.send_response(200)
            self.end_headers()
            self.wfile.write(caller.peer.service.encode())

        def log_message(self, format: str, *args: Any) -> None:
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=examples["serve_pages"], args=(client, server))
    thread.start()
    try:
        assert examples["fetch"](client, "127.0.0.1", server.server_port) == b"web"
    finally:
        server.shutdown()
        thread.join(PATIENCE)
        server.server_close()
