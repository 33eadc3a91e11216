"""Starting and ending the agents that the cases talk to: the reference Consul and Lictor, with the same flags.

Both get the same node name, the same configuration file and ports of their own. Every server gets a random node id,
and nothing is written to it before its catalog shows that id: a port can be taken by somebody else's agent between
choosing and listening, and the cases must never write to that one.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.contract.client import Answer, Api
from tests.patience import PATIENCE, Waiting
from tests.ports import agent_ports

NODE = "contract"
# How long an agent may take to end by itself; the reference sometimes takes many seconds.
GRACE_SECONDS = 2.0
ATTEMPTS = 3

# One configuration a profile. "plain" is what a new user has; "tuned" changes what the configuration can change. The
# agents of "disk" are servers with a data directory; the others run with `-dev`.
PROFILES: dict[str, dict[str, Any]] = {
    "plain": {"log_level": "warn", "performance": {"leave_drain_time": "100ms"}},
    "disk": {
        "log_level": "warn",
        "server": True,
        "bootstrap_expect": 1,
        "performance": {"raft_multiplier": 1, "leave_drain_time": "100ms"},
    },
    "tuned": {
        "log_level": "warn",
        "session_ttl_min": "1s",
        "enable_script_checks": True,
        "check_update_interval": "0s",
        "node_meta": {"rack": "r1", "rfc1035-note": "plain text", "empty": ""},
        "translate_wan_addrs": True,
        "telemetry": {"prometheus_retention_time": "60s"},
        "http_config": {
            "response_headers": {"Access-Control-Allow-Origin": "*", "X-Contract": "yes"},
            "block_endpoints": ["/v1/agent/monitor"],
        },
        "limits": {"kv_max_value_size": 1024},
        "dns_config": {
            "node_ttl": "7s",
            "service_ttl": {"*": "5s", "ttl-exact": "9s", "ttl-w*": "11s"},
            "only_passing": True,
            "enable_truncate": True,
            "udp_answer_limit": 2,
            "a_record_limit": 0,
            "soa": {"refresh": 1800, "retry": 300, "expire": 43200, "min_ttl": 13},
        },
        "alt_domain": "alt.example",
        "domain": "contract.example",
    },
}


class NotAvailable(Exception):
    """The server cannot be had here; the text says why."""


@dataclass
class Server:
    """A running agent. `ports` are keyed by the flag's name without `-port`."""

    kind: str
    profile: str
    node_id: str
    ports: dict[str, int]
    process: subprocess.Popen[bytes]
    folder: Path
    arguments: list[str]
    api: Api = field(init=False)

    def __post_init__(self) -> None:
        self.api = Api("127.0.0.1", self.ports["http"])

    def log(self) -> str:
        """The last lines that the agent wrote."""
        return (self.folder / "log").read_text(errors="replace")[-4000:]

    def kill(self) -> None:
        """Ends this process without a warning, as a power cut does."""
        self.process.kill()
        self.process.wait(PATIENCE)

    def restart(self) -> None:
        """Starts a killed agent again with the same ports, configuration and data. Raises AssertionError."""
        self.process = spawn(self.arguments, self.folder)
        trouble = _wait_until_ready(self)
        assert trouble is None, f"the {self.kind} agent did not start again ({trouble}); its log ends:\n{self.log()}"

    def stop(self) -> None:
        """Ends this process, and only this one. Nothing is lost by killing an agent that keeps all in memory."""
        self.process.terminate()
        try:
            self.process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(PATIENCE)
        shutil.rmtree(self.folder, ignore_errors=True)


def command(kind: str) -> list[str]:
    """The command line's beginning for a kind of server. Raises NotAvailable."""
    if kind == "lictor":
        return [sys.executable, "-m", "lictor"]
    path = os.environ.get("LICTOR_REFERENCE_CONSUL", "")
    if not path:
        raise NotAvailable("LICTOR_REFERENCE_CONSUL is not set (path of a Consul 1.8.7 binary)")
    if not os.access(path, os.X_OK):
        raise NotAvailable(f"LICTOR_REFERENCE_CONSUL={path} cannot be run")
    return [path]


def start(kind: str, profile: str) -> Server:
    """Starts an agent in development mode and waits until it serves. Raises NotAvailable, AssertionError."""
    prefix = command(kind)
    for attempt in range(ATTEMPTS):
        server = _launch(prefix, kind, profile)
        trouble = _wait_until_ready(server)
        if trouble is None:
            return server
        log = server.log()
        server.stop()
        taken = "address already in use" in log.lower()
        if attempt == ATTEMPTS - 1 or not taken:
            raise AssertionError(f"the {kind} agent did not start ({trouble}); its log ends:\n{log}")
    raise AssertionError("unreachable")


def _launch(prefix: list[str], kind: str, profile: str) -> Server:
    ports = agent_ports()
    node_id = str(uuid.uuid4())
    folder = Path(tempfile.mkdtemp(prefix=f"contract-{kind}-"))
    configuration = folder / "contract.json"
    configuration.write_text(json.dumps(PROFILES[profile]))
    mode = [f"-data-dir={folder / 'data'}"] if profile == "disk" else ["-dev"]
    arguments = [*prefix, "agent", *mode, "-bind=127.0.0.1", "-client=127.0.0.1", f"-node={NODE}"]
    arguments += [f"-node-id={node_id}", "-datacenter=dc1", f"-config-file={configuration}"]
    arguments += [f"-{name}-port={port}" for name, port in ports.items()]
    return Server(kind, profile, node_id, ports, spawn(arguments, folder), folder, arguments)


def spawn(arguments: list[str], folder: Path) -> subprocess.Popen[bytes]:
    """Starts a process that logs into its folder and knows nothing of the caller's own agent."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("CONSUL_", "LICTOR_"))}
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(  # ends in Server.stop
            arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environment
        )


def _wait_until_ready(server: Server) -> str | None:
    """None when it serves; else what is wrong. Only reads, until the agent is known to be ours."""
    waiting = Waiting()
    while (pause := waiting.pause()) is not None:
        if server.process.poll() is not None:
            return f"it ended with code {server.process.returncode}"
        if _ready(server):
            return None
        time.sleep(pause)
    return "it never became ready"


def _ready(server: Server) -> bool:
    mine = _ask(server, f"/v1/catalog/node/{NODE}")
    if mine is None or mine.status != 200:
        return False
    entry = mine.json() or {}
    if entry.get("Node", {}).get("ID") != server.node_id:
        return False
    health = _ask(server, f"/v1/health/node/{NODE}")
    if health is None or health.status != 200:
        return False
    has_serf = any(check["CheckID"] == "serfHealth" and check["Status"] == "passing" for check in health.json())
    # The server registers its own service, and the agent its addresses and meta, a moment after the node.
    return has_serf and "consul" in entry.get("Services", {}) and bool(entry["Node"]["TaggedAddresses"])


def _ask(server: Server, path: str) -> Answer | None:
    try:
        return server.api.request("GET", path)
    except OSError:
        return None
