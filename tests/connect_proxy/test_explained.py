"""What a change of an intention would cut is told from the connections that real proxies have."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.agent.processes import Process
from tests.connect_proxy.processes import Echo, Proxy, ask, intend, register
from tests.patience import PATIENCE, eventually
from tests.ports import free_port


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Process]:
    """An agent that is its own server."""
    process = Process(tmp_path)
    try:
        process.start()
        yield process
    finally:
        process.close()


def test_a_dry_run_tells_of_the_connections_that_the_change_then_cuts(agent: Process, tmp_path: Path) -> None:
    up = free_port()
    service = Echo("web")
    proxies: list[Proxy] = []
    try:
        register(agent, "web", service.port)
        register(agent, "client", free_port(), upstreams={up: "web"})
        proxies += [Proxy(tmp_path, name, agent, "-sidecar-for", name) for name in ("web", "client")]
        eventually(lambda: ask(up) == b"web: hello", "bytes pass through both sidecars")

        def cut(source: str) -> list[tuple[str, int]]:
            path = f"/v1/connect/intentions/explain?source={source}&destination=web&change=deny"
            effect: dict[str, Any] = agent.get(path)["Effect"]
            return [(one["Source"], one["Connections"]) for one in effect["Cut"]]

        with socket.create_connection(("127.0.0.1", up), PATIENCE) as kept:
            kept.sendall(b"hello")
            assert kept.recv(100) == b"web: hello"
            eventually(lambda: cut("client") == [("client", 1)], "the proxy has told of its connection")
            assert cut("*") == [("client", 1)]
            assert cut("other") == []
            kept.sendall(b"still")
            assert kept.recv(100) == b"web: still", "nothing has been changed"
            intend(agent, "web", client="deny")
            with pytest.raises(ConnectionResetError):
                assert kept.recv(100) == b"never"
        eventually(lambda: cut("client") == [], "it is gone, and nothing is left to cut")
    finally:
        for proxy in proxies:
            proxy.close()
        service.close()
