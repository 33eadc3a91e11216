"""Autopilot: decides which servers vote and which are removed. Pure.

A round has two steps: `judge` (in `autopilot_state`) makes the next `State` of what was seen of each server, and `plan`
says what to change. The rules are Consul's:

- a stable server that does not vote, and is no read replica, is promoted; where servers are in redundancy zones, one of
  each, see `autopilot_zones`;
- a dead server is removed, if less than half of the voters are removed with it, and `min_quorum` of them are left;
- where some servers are of a newer version, they take over together, see `autopilot_upgrade`.
"""

from collections.abc import Sequence

import msgspec

from lictor.model.member import FAILED, LEFT
from lictor.server.autopilot_state import Judged, State, spare
from lictor.server.autopilot_upgrade import Status, Upgrade, furthest, upgrade
from lictor.server.autopilot_zones import extra, ready, superfluous

_STABLE = "healthy for the stabilization time"


class Plan(msgspec.Struct, frozen=True):
    """What to change, by node ids: the first of these that has any. `reason` is for the log."""

    remove: tuple[str, ...] = ()
    promote: tuple[str, ...] = ()
    transfer: str = ""
    demote: tuple[str, ...] = ()
    reason: str = ""


def plan(state: State) -> Plan:
    """What to change now."""
    removed = _dead(state) if state.rules.cleanup else ()
    if removed:
        return Plan(remove=removed, reason="dead servers are removed")
    replicas = _replicas(state)
    if replicas is not None:
        return replicas
    found = upgrade(state)
    if found.status not in (Status.IDLE, Status.DISABLED):
        return _migration(state, found)
    promoted = ready(state, state.capable, state.capable)
    return Plan(promote=promoted, reason=_STABLE) if promoted else _upkeep(state, state.capable)


def _upkeep(state: State, candidates: Sequence[Judged]) -> Plan:
    """What the redundancy zones ask for beyond a voter in each."""
    promoted = extra(state, candidates)
    if promoted:
        return Plan(promote=promoted, reason="stands in for a redundancy zone without a server")
    return Plan(demote=superfluous(state), reason="another server stands in for it in the redundancy zones")


def _migration(state: State, found: Upgrade) -> Plan:
    ids = found.ids
    if found.status is Status.PROMOTING:
        return Plan(promote=ids, reason="there are enough servers of the newest version")
    if found.status is Status.LEADER_TRANSFER:
        return Plan(transfer=ids[0], reason="a server of the newest version is to lead")
    if found.status is Status.DEMOTING:
        return Plan(demote=ids, reason="servers of the newest version have taken over")
    if found.status is not Status.AWAIT_NEW_VOTERS:
        return _upkeep(state, [one for one in state.capable if one in found.new])
    candidates = [one for one in state.capable if one in found.old or spare(state.voters) <= 0]
    promoted = ready(state, candidates, state.capable)
    return Plan(promote=promoted, reason=_STABLE) if promoted else _upkeep(state, candidates)


def _dead(state: State) -> tuple[str, ...]:
    """The dead servers that are removed: those without a vote all, of the voters as many as is safe."""
    dead = [
        server
        for server in state.servers
        if server.seen.status in (FAILED, LEFT)
        and not server.healthy
        and state.at - server.since >= state.rules.stabilization
    ]
    left = len(state.voters)
    room = (left - 1) // 2
    removed = [server.seen.id for server in dead if not server.seen.voter]
    for server in dead:
        if server.seen.voter and room > 0 and left - 1 >= state.rules.min_quorum:
            removed.append(server.seen.id)
            left -= 1
            room -= 1
    return tuple(removed)


def _replicas(state: State) -> Plan | None:
    """A read replica has no vote. One may have, if it had before it was configured so."""
    voting = [server for server in state.voters if server.seen.read_replica]
    if not voting:
        return None
    leader = state.leader
    others = [server for server in state.voters if server.healthy and not server.seen.read_replica]
    if leader is not None and leader.seen.read_replica:
        return Plan(transfer=furthest(others), reason="the leader is a read replica") if others else None
    for server in voting:
        if spare([voter for voter in state.voters if voter is not server]) >= 0:
            return Plan(demote=(server.seen.id,), reason="a read replica does not vote")
    return None
