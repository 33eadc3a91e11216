"""Autopilot: its configuration, and the health of the servers as it judges it."""

import time
from typing import Any

import msgspec

from lictor.model.version import API_VERSION
from lictor.raft.consensus import Consensus, Peer

SETTING = "autopilot"


class AutopilotConfig(msgspec.Struct, frozen=True, rename="pascal"):
    """The configuration as the API shows it and the store keeps it; durations are texts such as `200ms`."""

    cleanup_dead_servers: bool = False
    last_contact_threshold: str = "0s"
    max_trailing_logs: int = 0
    min_quorum: int = 0
    server_stabilization_time: str = "0s"
    redundancy_zone_tag: str = ""
    disable_upgrade_migration: bool = False
    upgrade_version_tag: str = ""


class ServerHealth(msgspec.Struct, frozen=True):
    """One server as autopilot sees it; `stable_since` is in seconds since 1970."""

    peer: Peer
    last_term: int
    last_index: int
    healthy: bool
    stable_since: float

    @property
    def since(self) -> str:
        """`stable_since` as the API shows it."""
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(round(self.stable_since)))


class ClusterHealth(msgspec.Struct, frozen=True):
    """All servers, and how many of them may fail without losing the majority."""

    servers: tuple[ServerHealth, ...]
    failure_tolerance: int

    @property
    def healthy(self) -> bool:
        """Whether every server is."""
        return bool(self.servers) and all(server.healthy for server in self.servers)


def cluster_health(consensus: Consensus, stable_since: float) -> ClusterHealth:
    """The servers' health: of a server that is its own majority, so far."""
    stats = consensus.stats()
    term, index = int(stats.get("term", "0")), int(stats.get("last_log_index", "0"))
    servers = tuple(
        ServerHealth(peer, term, index, consensus.is_leader or not peer.leader, stable_since)
        for peer in consensus.peers()
    )
    voters = sum(1 for server in servers if server.peer.voter and server.healthy)
    needed = sum(1 for server in servers if server.peer.voter) // 2 + 1
    return ClusterHealth(servers, max(0, voters - needed))


def health_json(health: ClusterHealth) -> dict[str, Any]:
    """What `/v1/operator/autopilot/health` shows."""
    return {
        "Healthy": health.healthy,
        "FailureTolerance": health.failure_tolerance,
        "Servers": [
            {
                "ID": server.peer.id,
                "Name": server.peer.node,
                "Address": server.peer.address,
                "SerfStatus": "alive",
                "Version": API_VERSION,
                "Leader": server.peer.leader,
                "LastContact": "0s",
                "LastTerm": server.last_term,
                "LastIndex": server.last_index,
                "Healthy": server.healthy,
                "Voter": server.peer.voter,
                "StableSince": server.since,
            }
            for server in health.servers
        ],
    }


def state_json(health: ClusterHealth) -> dict[str, Any]:
    """What `/v1/operator/autopilot/state` shows."""
    return {
        "Healthy": health.healthy,
        "FailureTolerance": health.failure_tolerance,
        "OptimisticFailureTolerance": health.failure_tolerance,
        "Servers": {server.peer.id: _state(server) for server in health.servers},
        "Leader": next((server.peer.id for server in health.servers if server.peer.leader), ""),
        "Voters": [server.peer.id for server in health.servers if server.peer.voter],
    }


def _state(server: ServerHealth) -> dict[str, Any]:
    peer = server.peer
    return {
        "ID": peer.id,
        "Name": peer.node,
        "Address": peer.address,
        "NodeStatus": "alive",
        "Version": API_VERSION,
        "LastContact": "0s",
        "LastTerm": server.last_term,
        "LastIndex": server.last_index,
        "Healthy": server.healthy,
        "StableSince": server.since,
        "ReadReplica": False,
        "Status": "leader" if peer.leader else "voter" if peer.voter else "non-voter",
        "Meta": {},
        "NodeType": "voter" if peer.voter else "non-voter",
    }
