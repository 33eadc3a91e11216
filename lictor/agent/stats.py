"""What `/v1/agent/self` shows under `Stats`, and `lictor info` prints: groups of names with their values as text."""

from __future__ import annotations

import asyncio
import math
import os
import platform
from typing import TYPE_CHECKING

from lictor.agent.leaves_book import EXPIRED, utc_text
from lictor.model.version import API_VERSION, __version__

if TYPE_CHECKING:
    from lictor.agent.agent import Agent
    from lictor.agent.lan import LanPool
    from lictor.agent.leaves import Leaves
    from lictor.agent.replica import PartialReplica
    from lictor.agent.replica_file import ReplicaFile
    from lictor.server.from_primary_entries import EntriesFromPrimary

_SERF = (
    "coordinate_resets",
    "encrypted",
    "event_queue",
    "event_time",
    "failed",
    "health_score",
    "intent_queue",
    "left",
    "member_time",
    "members",
    "query_queue",
    "query_time",
)
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
        "serf_lan": _serf(agent, agent.pools.lan, len(agent.members())),
    }
    if agent.leaves.states():
        found["leaf_certs"] = _leaves(agent.leaves)
    if agent.client is not None:
        found["replica"] = _replica(agent.client.replica, agent.client.file)
    if agent.lookup_map is not None:
        found["lookup_map"] = {"path": str(agent.lookup_map.path), "size": str(agent.lookup_map.size)}
    if agent.server is not None:
        found["raft"] = agent.server.consensus.stats()
        found["serf_wan"] = _serf(agent, agent.pools.wan, len(agent.members(wan=True)))
        copied = agent.leadership.entries_from_primary if agent.leadership is not None else None
        if copied is not None:
            found["primary"] = _primary(copied)
    return found


def _consul(agent: Agent) -> dict[str, str]:
    if agent.server is None:
        known = len(agent.client.servers) if agent.client is not None else 0
        return {"acl": "disabled", "known_servers": str(known), "server": "false"}
    return {
        "acl": "disabled",
        "bootstrap": str(agent.config.bootstrap).lower(),
        "known_datacenters": "1",
        "leader": str(agent.server.consensus.is_leader).lower(),
        "leader_addr": agent.server.consensus.leader,
        "server": "true",
    }


def _leaves(leaves: Leaves) -> dict[str, str]:
    """The identities that the agent holds, when the first of those that are good ends, and why none is signed now."""
    states = leaves.states().values()
    ends = [leaf.valid_before for state, leaf in states if leaf is not None and state != EXPIRED]
    return {
        "expired": str(sum(1 for state, _ in states if state == EXPIRED)),
        "held": str(sum(1 for _, leaf in states if leaf is not None)),
        "next_ends": utc_text(min(ends)) if ends else "",
        "trouble": leaves.trouble,
    }


def _replica(replica: PartialReplica, file: ReplicaFile | None) -> dict[str, str]:
    """What the agent holds of the servers' state, since when, in seconds, it may have changed, and whether that is on
    disk.
    """
    return {
        "age": f"{replica.age:.3f}" if math.isfinite(replica.age) else "never",
        "index": str(replica.index),
        "rows": str(replica.rows),
        "server": replica.server,
        "topics": str(replica.topics),
        "on_disk": "nothing" if file is None else "current" if file.current else "behind",
    }


def _primary(copied: EntriesFromPrimary) -> dict[str, str]:
    """The primary datacenter, and how far its config entries are copied. The leader asks, and knows what is wrong."""
    return {
        "config_entries": "complete" if copied.complete else "incomplete",
        "copied": str(copied.copied),
        "datacenter": copied.primary.datacenter,
        "failure": copied.failure,
        "index": str(copied.position.index),
    }


def _serf(agent: Agent, pool: LanPool | None, members: int) -> dict[str, str]:
    if pool is not None:
        return {"encrypted": str(pool.encrypted).lower()} | {name: str(n) for name, n in pool.figures().items()}
    found = dict.fromkeys(_SERF, "0")
    found |= {"encrypted": "false", "event_time": str(agent.events.clock + 1), "members": str(members)}
    return found | {"member_time": "1", "query_time": "1"}
