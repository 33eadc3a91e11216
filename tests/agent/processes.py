"""Agents as processes of their own, with a data directory, for the tests of what survives and of what signals do."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

from tests.patience import PATIENCE, eventually
from tests.ports import agent_ports

# Certificates are renewed soon after a change of the root, not within half a minute.
QUICK = 'connect { test_ca_leaf_root_change_spread = "2s" }'


class Process:
    """One agent: a single server with its data under `folder`. `start` it any number of times."""

    def __init__(self, folder: Path, *flags: str) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.ports = agent_ports()
        self.node_id = str(uuid.uuid4())
        self.flags = flags
        self.environment: dict[str, str] = {}
        self.process: subprocess.Popen[bytes] | None = None

    def spawn(self) -> subprocess.Popen[bytes]:
        """Begin a run, without waiting for anything."""
        arguments = [sys.executable, "-m", "lictor", "agent", "-server", "-bootstrap-expect=1", "-node=n1"]
        arguments += ["-bind=127.0.0.1", f"-data-dir={self.data}", f"-node-id={self.node_id}"]
        arguments += ["-hcl", QUICK, *self.flags]
        arguments += [f"-{name}-port={port}" for name, port in self.ports.items()]
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("CONSUL_", "LICTOR_"))}
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**environment, **self.environment},
            )
        return self.process

    def start(self) -> None:
        """Begin a run and wait until this very agent serves."""
        process = self.spawn()

        def ready() -> bool:
            assert process.poll() is None, f"the agent ended; its log ends:\n{self.log()[-3000:]}"
            try:
                status, body = self.ask("GET", "/v1/agent/self")
            except OSError:
                return False
            return status == 200 and json.loads(body)["Config"]["NodeID"] == self.node_id

        eventually(ready, "the agent serves")

    def kill(self) -> None:
        """End the run as a crash does."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(PATIENCE)

    def end(self, number: int) -> int:
        """End the run with a signal. Returns the exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    def close(self) -> None:
        """End the run if it has not ended."""
        if self.process is not None and self.process.poll() is None:
            self.kill()

    def log(self) -> str:
        """All that every run has written."""
        return (self.folder / "log").read_text(errors="replace")

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
        """A request's status and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.ports["http"], timeout=PATIENCE)
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        try:
            connection.request(method, path, data)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def get(self, path: str) -> Any:
        """The JSON of a GET that must succeed."""
        status, body = self.ask("GET", path)
        assert status == 200, body
        return json.loads(body)

    def put(self, path: str, body: Any = None) -> bytes:
        """The answer to a PUT that must succeed."""
        status, answer = self.ask("PUT", path, body)
        assert status == 200, answer
        return answer
