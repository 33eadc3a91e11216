"""Proxies as processes of their own, beside a real agent."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from tests.agent.processes import Process
from tests.patience import PATIENCE, eventually
from tests.ports import free_port


class Proxy:
    """One run of `lictor connect proxy`, or of another program with the same flags."""

    def __init__(self, folder: Path, name: str, agent: Process, *flags: str, program: list[str] | None = None) -> None:
        self._log = folder / f"{name}.log"
        self._before = self._log.stat().st_size if self._log.exists() else 0
        command = [*(program or [sys.executable, "-m", "lictor"]), "connect", "proxy", *flags]
        command += [f"-http-addr=127.0.0.1:{agent.ports['http']}"]
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("CONSUL_", "LICTOR_"))}
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environment
            )

    def log(self) -> str:
        """What it has written."""
        return self._log.read_text(errors="replace")[self._before :]

    def says(self, text: str) -> None:
        """Wait until it has written something."""
        eventually(lambda: text in self.log() or self._ended(), f"the proxy says {text!r}")
        assert text in self.log(), self.log()[-3000:]

    def _ended(self) -> bool:
        return self.process.poll() is not None

    def end(self, number: int = signal.SIGTERM) -> int:
        """End it with a signal. Returns its exit code."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    def close(self) -> None:
        """End it if it has not ended."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(PATIENCE)


class Echo:
    """A service that sends back what it gets, with its name before the first of it. In a thread of its own."""

    def __init__(self, name: str) -> None:
        self.name = name.encode()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._loop = asyncio.new_event_loop()
        self._live: set[Any] = set()
        self._thread = threading.Thread(target=self._run, name=f"echo {name}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(
            self._loop.create_server(lambda: _Echoing(self.name, self._live), sock=self._listener)
        )
        self._loop.run_forever()
        server.close()
        for transport in list(self._live):
            transport.abort()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    def close(self) -> None:
        """End it."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)


class _Echoing(asyncio.Protocol):
    def __init__(self, name: bytes, live: set[Any]) -> None:
        self._name = name
        self._live = live

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._live.add(transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._live.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        self._transport.write(self._name + b": " + data)


def register(
    agent: Process, name: str, port: int, *, upstreams: dict[int, str] | None = None, sidecar: int = 0, **proxy: Any
) -> int:
    """Register a service with a sidecar that counts as healthy. Returns the sidecar's port."""
    sidecar = sidecar or free_port()
    block = {
        "Upstreams": [{"DestinationName": to, "LocalBindPort": at} for at, to in (upstreams or {}).items()],
        **proxy,
    }
    checks = [{"Name": "alias", "AliasService": name}]
    body = {
        "Name": name,
        "Port": port,
        "Connect": {"SidecarService": {"Port": sidecar, "Proxy": block, "Checks": checks}},
    }
    agent.put("/v1/agent/service/register", body)
    return sidecar


def intend(agent: Process, destination: str, **sources: str) -> None:
    """Have intentions for a destination: an action for each source; `any` is every source."""
    rows = [{"Name": "*" if name == "any" else name, "Action": action} for name, action in sources.items()]
    agent.put("/v1/config", {"Kind": "service-intentions", "Name": destination, "Sources": rows})


def ask(port: int, data: bytes = b"hello") -> bytes:
    """What comes back of a connection; nothing where it is refused."""
    try:
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as sock:
            sock.sendall(data)
            return sock.recv(65536)
    except OSError:
        return b""


def metrics(port: int) -> dict[str, float]:
    """The samples of an admin listener."""
    import urllib.request

    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE) as answer:
        lines = answer.read().decode().splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}


def live_connections(agent: Process) -> Any:
    """What the agent answers about proxies, for the message of a failure."""
    return json.dumps(agent.get("/v1/agent/services"))
