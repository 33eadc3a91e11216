"""What autopilot knows of the servers, as `/v1/operator/autopilot/health` and `state` show it."""

import time
from typing import Any

from lictor.model.duration import format_duration
from lictor.model.member import STATUS_NAMES
from lictor.server.autopilot import NEVER, Judged, State


def health_json(state: State) -> dict[str, Any]:
    """The body of `health`."""
    return {
        "Healthy": state.healthy,
        "FailureTolerance": state.failure_tolerance,
        "Servers": [_health(server) for server in state.servers],
    }


def _health(server: Judged) -> dict[str, Any]:
    seen = server.seen
    return {
        "ID": seen.id,
        "Name": seen.node,
        "Address": seen.address,
        "SerfStatus": STATUS_NAMES[seen.status],
        "Version": seen.version,
        "Leader": seen.leader,
        "LastContact": _contact(server),
        "LastTerm": seen.last_term,
        "LastIndex": seen.last_index,
        "Healthy": server.healthy,
        "Voter": seen.voter,
        "StableSince": _since(server),
    }


def state_json(state: State) -> dict[str, Any]:
    """The body of `state`."""
    leader = state.leader
    shown: dict[str, Any] = {
        "Healthy": state.healthy,
        "FailureTolerance": state.failure_tolerance,
        "OptimisticFailureTolerance": state.failure_tolerance,
        "Servers": {server.seen.id: _state(server) for server in state.servers},
        "Leader": leader.seen.id if leader is not None else "",
        "Voters": [server.seen.id for server in state.voters],
    }
    replicas = [server.seen.id for server in state.servers if server.seen.read_replica]
    if replicas:
        shown["ReadReplicas"] = replicas
    return shown


def _state(server: Judged) -> dict[str, Any]:
    seen = server.seen
    return {
        "ID": seen.id,
        "Name": seen.node,
        "Address": seen.address,
        "NodeStatus": STATUS_NAMES[seen.status] if seen.status else "unknown",
        "Version": seen.version,
        "LastContact": _contact(server),
        "LastTerm": seen.last_term,
        "LastIndex": seen.last_index,
        "Healthy": server.healthy,
        "StableSince": _since(server),
        "ReadReplica": seen.read_replica,
        "Status": "leader" if seen.leader else "voter" if seen.voter else "non-voter",
        "Meta": seen.meta,
        "NodeType": "read-replica" if seen.read_replica else "voter",
    }


def _contact(server: Judged) -> str:
    """Since when it has heard nothing of the leader; of one that does not answer nothing is known."""
    contact = server.seen.contact
    return "0s" if server.seen.leader or contact == NEVER else format_duration(contact)


def _since(server: Judged) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(round(server.shown_since)))
