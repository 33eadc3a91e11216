"""A client agent as the server of the contract's cases: behind it is one server, on a node of its own."""

from __future__ import annotations

import json
import shutil
import tempfile
import uuid
from pathlib import Path
from typing import Any

from tests.contract import servers
from tests.contract.servers import NODE, PROFILES, Server
from tests.patience import eventually
from tests.ports import agent_ports

BEHIND = "behind"  # the node of the server


class AgentWithServer(Server):
    """The agent. `behind` is its server."""

    behind: Server

    def stop(self) -> None:
        """Ends both. Nothing is left that would have to leave in order."""
        for one in (self, self.behind):
            one.kill()
            shutil.rmtree(one.folder, ignore_errors=True)


def start(profile: str) -> AgentWithServer:
    """Starts a server and an agent beside it, and waits until the agent's node is in the catalog."""
    behind = _launch(Server, profile, BEHIND, "-server", "-bootstrap-expect=1")
    try:
        eventually(lambda: _serves(behind, BEHIND), "the server's node is in the catalog")
        agent: AgentWithServer = _launch(
            AgentWithServer, profile, NODE, f"-retry-join=127.0.0.1:{behind.ports['serf-lan']}"
        )
    except BaseException:
        behind.stop()
        raise
    agent.behind = behind
    agent.ports["server"] = behind.ports["server"]  # answers name it as the port of the server
    try:
        eventually(lambda: _serves(agent, NODE), "the agent's node is in the catalog")
    except BaseException:
        agent.stop()
        raise
    return agent


def _launch(kind: type[Any], profile: str, node: str, *mode: str) -> Any:
    ports, node_id = agent_ports(), str(uuid.uuid4())
    folder = Path(tempfile.mkdtemp(prefix="contract-agent-"))
    file = folder / "contract.json"
    quick = {"raft_multiplier": 1, "leave_drain_time": "100ms"}
    file.write_text(json.dumps({**PROFILES[profile], "performance": quick, "connect": {"enabled": True}}))
    arguments = [*servers.command("lictor"), "agent", *mode, "-ui", "-bind=127.0.0.1", "-client=127.0.0.1"]
    arguments += [f"-node={node}", f"-node-id={node_id}", "-datacenter=dc1", f"-data-dir={folder / 'data'}"]
    arguments += [f"-config-file={file}", *(f"-{name}-port={port}" for name, port in ports.items())]
    return kind("lictor", profile, node_id, ports, servers.spawn(arguments, folder), folder, arguments)


def _serves(one: Server, node: str) -> bool:
    assert one.process.poll() is None, one.log()
    try:
        answer = one.api.get(f"/v1/health/node/{node}")
    except OSError:
        return False
    checks = answer.json() if answer.status == 200 else []
    return any(check["CheckID"] == "serfHealth" and check["Status"] == "passing" for check in checks)
