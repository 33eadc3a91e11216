"""What `/v1/agent/self` shows under `Stats`, and `lictor info` prints: groups of names with their values as text."""

from __future__ import annotations

import asyncio
import os
import platform
from typing import TYPE_CHECKING

from lictor.model.version import API_VERSION, __version__

if TYPE_CHECKING:
    from lictor.agent.agent import Agent

_MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "i386": "386", "i686": "386"}


def machine() -> str:
    """The processor's architecture under the name that Consul gives it."""
    return _MACHINES.get(platform.machine(), platform.machine())


def stats(agent: Agent) -> dict[str, dict[str, str]]:
    """The groups for an agent."""
    services, checks = agent.local.counts()
    held = agent.registry.runner
    ttls = sum(1 for check in agent.local.checks.values() if check.type == "ttl")
    found = {
        "agent": {
            "check_monitors": str(len(held) - ttls),
            "check_ttls": str(ttls),
            "checks": str(checks),
            "services": str(services),
        },
        "build": {"prerelease": "", "revision": f"lictor {__version__}", "version": API_VERSION},
        "consul": _consul(agent),
        "runtime": {
            "arch": machine(),
            "cpu_count": str(os.cpu_count() or 1),
            # Under this name because it is the number that people graph: what is under way at the same time.
            "goroutines": str(len(asyncio.all_tasks())),
            "max_procs": str(len(os.sched_getaffinity(0))),
            "os": platform.system().lower(),
            "version": f"python{platform.python_version()}",
        },
        "serf_lan": _serf(agent, len(agent.members())),
    }
    if agent.server is not None:
        found["raft"] = agent.server.consensus.stats()
        found["serf_wan"] = _serf(agent, len(agent.members(wan=True)))
    return found


def _consul(agent: Agent) -> dict[str, str]:
    if agent.server is None:
        return {"acl": "disabled", "known_servers": "0", "server": "false"}
    return {
        "acl": "disabled",
        "bootstrap": str(agent.config.bootstrap).lower(),
        "known_datacenters": "1",
        "leader": str(agent.server.consensus.is_leader).lower(),
        "leader_addr": agent.server.consensus.leader,
        "server": "true",
    }


def _serf(agent: Agent, members: int) -> dict[str, str]:
    return {
        "coordinate_resets": "0",
        "encrypted": str(bool(agent.config.encrypt)).lower(),
        "event_queue": "0",
        "event_time": str(agent.events.clock + 1),
        "failed": "0",
        "health_score": "0",
        "intent_queue": "0",
        "left": "0",
        "member_time": "1",
        "members": str(members),
        "query_queue": "0",
        "query_time": "1",
    }
