"""What autopilot knows of the servers, as `/v1/operator/autopilot/health` and `state` show it."""

import time
from collections.abc import Iterable
from typing import Any

from lictor.model.duration import format_duration
from lictor.model.member import STATUS_NAMES
from lictor.server.autopilot_state import NEVER, Judged, State
from lictor.server.autopilot_upgrade import Upgrade, upgrade, version_text


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
    """The body of `state`; blocks that have nothing to say are left out."""
    leader = state.leader
    shown: dict[str, Any] = {
        "Healthy": state.healthy,
        "FailureTolerance": state.failure_tolerance,
        "OptimisticFailureTolerance": state.optimistic_failure_tolerance,
        "Servers": {server.seen.id: _state(state, server) for server in state.servers},
        "Leader": leader.seen.id if leader is not None else "",
        "Voters": _ids(state.voters),
    }
    replicas = _ids(server for server in state.servers if server.seen.read_replica)
    if replicas:
        shown["ReadReplicas"] = replicas
    zones = {name: _zone(servers) for name, servers in state.zones.items()}
    if zones:
        shown["RedundancyZones"] = zones
    shown["Upgrade"] = _upgrade(state, upgrade(state))
    return shown


def _state(state: State, server: Judged) -> dict[str, Any]:
    seen = server.seen
    shown: dict[str, Any] = {
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
        "NodeType": _type(state, server),
    }
    zone, version = state.zone(server), version_text(seen, state.rules)
    return shown | ({"RedundancyZone": zone} if zone else {}) | ({"UpgradeVersion": version} if version else {})


def _type(state: State, server: Judged) -> str:
    zone = state.zone(server)
    if server.seen.read_replica:
        return "read-replica"
    if not zone:
        return "voter"
    if not server.seen.voter:
        return "zone-standby"
    first = next(other for other in _leading_first(state.zones[zone]) if other.seen.voter)
    return "zone-voter" if server is first else "zone-extra-voter"


def _leading_first(servers: Iterable[Judged]) -> list[Judged]:
    return sorted(servers, key=lambda server: (not server.seen.leader, not server.healthy, server.seen.id))


def _zone(servers: Iterable[Judged]) -> dict[str, Any]:
    found = list(servers)
    healthy = sum(server.healthy for server in found)
    return {
        "Servers": _ids(found),
        "Voters": _ids(server for server in found if server.seen.voter),
        "FailureTolerance": max(0, healthy - 1),
    }


def _upgrade(state: State, found: Upgrade) -> dict[str, Any]:
    shown: dict[str, Any] = {"Status": found.status.value}
    if found.target:
        shown["TargetVersion"] = found.target
    zones: dict[str, Any] = {}
    for version, servers in (("TargetVersion", found.new), ("OtherVersion", found.old)):
        shown |= _groups(version, servers)
        for name in state.zones:
            zones[name] = zones.get(name, {}) | _groups(version, [s for s in servers if state.zone(s) == name])
    return shown | ({"RedundancyZones": zones} if zones else {})


def _groups(version: str, servers: Iterable[Judged]) -> dict[str, list[str]]:
    """The servers of a version by what they do, under the API's names; only those that there are."""
    found: dict[str, list[str]] = {}
    for server in servers:
        seen = server.seen
        role = "ReadReplicas" if seen.read_replica else "Voters" if seen.voter else "NonVoters"
        found.setdefault(f"{version}{role}", []).append(seen.id)
    return found


def _ids(servers: Iterable[Judged]) -> list[str]:
    return [server.seen.id for server in servers]


def _contact(server: Judged) -> str:
    """Since when it has heard nothing of the leader; of one that does not answer nothing is known."""
    contact = server.seen.contact
    return "0s" if server.seen.leader or contact == NEVER else format_duration(contact)


def _since(server: Judged) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(round(server.shown_since)))
