"""Real servers on the loopback, each with a data folder of its own, that form a cluster."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from tests.patience import PATIENCE, eventually
from tests.ports import agent_ports

# Where the machine stands still for a second the leader is lost: a request waits until there is one again. Where a
# server stands still for ten it is taken for dead: it must not be removed, which leaves no majority when one is killed.
QUICK = """
performance { raft_multiplier = 1 leave_drain_time = "100ms" rpc_hold_timeout = "60s" }
autopilot { cleanup_dead_servers = false server_stabilization_time = "1s" }
connect { test_ca_leaf_root_change_spread = "2s" }
"""
IMPATIENT = 'performance { rpc_hold_timeout = "1s" }'


class Server:
    """One server, named `name`, with its folder under `folder`. `start` it any number of times."""

    role: tuple[str, ...] = ("-server",)
    door = "127.0.0.1"  # where its HTTP and DNS are
    program: tuple[str, ...] = ("-m", "lictor")

    def __init__(self, folder: Path, name: str, *flags: str, host: str = "127.0.0.1") -> None:
        self.name = name
        self.folder = folder / name
        self.folder.mkdir()
        self.data = self.folder / "data"
        self.host = host
        self.ports = agent_ports()
        self.node_id = str(uuid.uuid4())
        self.flags = list(flags)
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """Where other servers reach it."""
        return self.at("server")

    def at(self, port: str) -> str:
        """Where one of its ports is for other agents."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.ports[port]}"

    def move(self) -> None:
        """Have other ports at the next start."""
        self.ports = agent_ports()

    def spawn(self, *more: str) -> subprocess.Popen[bytes]:
        """Begin a run, without waiting for anything."""
        arguments = [sys.executable, *self.program, "agent", *self.role, f"-node={self.name}"]
        arguments += [f"-bind={self.host}", f"-data-dir={self.data}", f"-node-id={self.node_id}", "-hcl", QUICK]
        arguments += [f"-{name}-port={port}" for name, port in self.ports.items()]
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("CONSUL_", "LICTOR_"))}
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*arguments, *self.flags, *more],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
            )
        return self.process

    def start(self, *more: str) -> Server:
        """Begin a run and wait until this very agent answers."""
        process = self.spawn(*more)

        def ready() -> bool:
            assert process.poll() is None, f"{self.name} ended; its log ends:\n{self.log()[-3000:]}"
            try:
                status, body = self.ask("GET", "/v1/agent/self")
            except OSError:
                return False
            return status == 200 and json.loads(body)["Config"]["NodeID"] == self.node_id

        eventually(ready, f"{self.name} answers")
        return self

    @property
    def runs(self) -> bool:
        """Whether there is a process."""
        return self.process is not None and self.process.poll() is None

    def kill(self) -> None:
        """End the run as a crash does."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(PATIENCE)

    def close(self) -> None:
        """End the run if it has not ended."""
        if self.runs:
            self.kill()

    def end(self, number: int) -> int:
        """End the run with a signal. Returns the exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    def log(self) -> str:
        """All that every run has written."""
        path = self.folder / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def logs(self, text: str) -> None:
        """Wait until something is in the log."""
        eventually(lambda: text in self.log(), f"{text!r} in the log of {self.name}: {self.log()[-2000:]}")

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
        """A request's status and body."""
        connection = http.client.HTTPConnection(self.door, self.ports["http"], timeout=PATIENCE)
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

    def write(self, key: str, value: bytes) -> None:
        """Set a key; where there is no leader just now, again."""
        eventually(lambda: self.ask("PUT", f"/v1/kv/{key}", value) == (200, b"true"), f"{self.name} writes {key}")

    def read(self, key: str) -> bytes | None:
        """A key's value, as a default read shows it; None for none. Where there is no leader just now, again."""

        def answered() -> Any:
            status, body = self.ask("GET", f"/v1/kv/{key}?raw")
            return (status, body) if status in (200, 404) else None

        status, body = eventually(answered, f"{self.name} reads {key}")
        return body if status == 200 else None

    def leader(self) -> str:
        """The leader's address as this server knows it, or empty."""
        status, body = self.ask("GET", "/v1/status/leader")
        return str(json.loads(body)) if status == 200 else ""

    def peers(self) -> dict[str, dict[str, Any]]:
        """The configuration's servers by name, as this server knows them; empty where it cannot tell."""
        status, body = self.ask("GET", "/v1/operator/raft/configuration?stale")
        return {peer["Node"]: peer for peer in json.loads(body)["Servers"]} if status == 200 else {}

    def voters(self) -> set[str]:
        """The names of the servers that vote, as this server knows them."""
        return {name for name, peer in self.peers().items() if peer["Voter"]}

    def members(self) -> dict[str, int]:
        """Every member's status as this server shows it: 1 alive, 3 left, 4 failed."""
        return {member["Name"]: member["Status"] for member in self.get("/v1/agent/members")}


class ClientAgent(Server):
    """One agent that is no server."""

    role = ()


class Cluster:
    """Servers that are to form a cluster, each made by `make`."""

    def __init__(
        self, folder: Path, *names: str, flags: Sequence[str] = (), make: Callable[[Path, str], Server] = Server
    ) -> None:
        self.folder = folder
        self.flags = list(flags)
        self.servers = {name: make(folder, name) for name in names}
        for server in self.servers.values():
            server.flags = [f"-bootstrap-expect={len(names)}", *self.joins(), *flags]

    def __getitem__(self, name: str) -> Server:
        return self.servers[name]

    def __iter__(self) -> Iterator[Server]:
        return iter(self.servers.values())

    def joins(self) -> list[str]:
        """Flags that name all servers."""
        return [f"-retry-join={server.address}" for server in self.servers.values()]

    def add(self, name: str, *flags: str) -> Server:
        """One more, which joins the others; not started."""
        joins = self.joins()
        self.servers[name] = Server(self.folder, name, *joins, *self.flags, *flags)
        return self.servers[name]

    def start(self) -> Cluster:
        """Start all that do not run, and wait until they are one cluster."""
        waiting = [server for server in self if not server.runs]
        for server in waiting:
            server.spawn()
        for server in waiting:
            eventually(partial(_answers, server), f"{server.name} answers")
        self.settle()
        return self

    def settle(self, *names: str) -> Server:
        """Wait until these, or all, are each other's only peers and know a leader that is one of them. Returns it."""
        wanted = names or tuple(self.servers)

        def agreed() -> Server | None:
            leaders = set()
            for name in wanted:
                server = self.servers[name]
                assert server.runs, f"{name} ended; its log ends:\n{server.log()[-3000:]}"
                if not _answers(server) or set(server.peers()) != set(wanted):
                    return None
                leaders.add(server.leader())
            return next((s for s in self if s.name in wanted and leaders == {s.address}), None)

        found: Server = eventually(agreed, f"{', '.join(wanted)} are a cluster")
        return found

    def leader(self) -> Server:
        """The server that leads, as most of those that run see it."""

        def found() -> Server | None:
            for server in self:
                if server.runs and _answers(server) and server.leader() == server.address:
                    return server
            return None

        leader: Server = eventually(found, "a leader")
        return leader

    def close(self) -> None:
        """End all that run."""
        for server in self:
            server.close()


@contextmanager
def cluster(
    folder: Path, *names: str, flags: Sequence[str] = (), make: Callable[[Path, str], Server] = Server
) -> Iterator[Cluster]:
    """Servers of these names, not started; ended with the block. What they logged is shown where it fails."""
    made = Cluster(folder, *names, flags=flags, make=make)
    try:
        yield made
    except BaseException:
        for server in made:
            print(f"---- {server.name}\n{server.log()[-6000:]}")
        raise
    finally:
        made.close()


def _answers(server: Server) -> bool:
    assert server.runs, f"{server.name} ended; its log ends:\n{server.log()[-3000:]}"
    try:
        return server.ask("GET", "/v1/agent/self")[0] == 200
    except OSError:
        return False
