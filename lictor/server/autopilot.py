"""Autopilot: judges the health of the servers, and decides who votes and who is removed. Pure.

A round has two steps: `judge` makes the next `State` of what was seen of each server, and `plan` says what to change.
The rules are Consul's:

- a server is *healthy* if it is alive, has heard of the leader lately, is of the leader's term and not far behind it;
  it is *stable* once it has been healthy for the stabilization time (which counts only when autopilot itself has run
  for that long: a new leader knows no server for longer than itself);
- a stable server that does not vote, and is no read replica, is promoted;
- a dead server is removed, if less than half of the voters are removed with it, and `min_quorum` of them are left;
- where some servers are of a newer version, their promotion waits until they are as many as the voters of older
  versions; then they vote, one of them is made the leader, and the older ones vote no more. Being able to lose a server
  comes before that: whoever is stable is promoted while the voters cannot lose one, and when the servers of a small
  cluster are upgraded one by one in their places, the last ones go on voting.
"""

from collections.abc import Sequence

import msgspec

from lictor.model.member import ALIVE, FAILED, LEFT
from lictor.server.autopilot_config import Rules

NEVER = float("inf")


class Seen(msgspec.Struct, frozen=True):
    """A server of the configuration as it was seen in a round. `contact` is the seconds since it heard of the leader,
    as it says itself; infinite where it did not answer. What it said before counts on; `version`, that of the interface
    it speaks, is empty where it never said anything; `build` is the program's own.
    """

    id: str
    node: str
    address: str
    voter: bool
    leader: bool
    status: int = ALIVE
    version: str = ""
    build: str = ""
    contact: float = NEVER
    last_term: int = 0
    last_index: int = 0
    read_replica: bool = False
    meta: dict[str, str] = {}


class Judged(msgspec.Struct, frozen=True):
    """A server and its health. `since` is when that changed last, in seconds of a steady clock, `shown_since` the same
    in seconds since 1970.
    """

    seen: Seen
    healthy: bool
    since: float
    shown_since: float


class State(msgspec.Struct, frozen=True):
    """All servers after a round. `began` is when autopilot did, in seconds of the steady clock."""

    servers: tuple[Judged, ...] = ()
    began: float = 0.0

    @property
    def healthy(self) -> bool:
        """Whether every server is."""
        return bool(self.servers) and all(server.healthy for server in self.servers)

    @property
    def voters(self) -> list[Judged]:
        """Those that vote."""
        return [server for server in self.servers if server.seen.voter]

    @property
    def leader(self) -> Judged | None:
        """The one that leads."""
        return next((server for server in self.servers if server.seen.leader), None)

    @property
    def failure_tolerance(self) -> int:
        """How many of the voters may fail without the loss of the majority."""
        return max(0, _spare(self.voters))


class Plan(msgspec.Struct, frozen=True):
    """What to change, by node ids: the first of these that has any. `reason` is for the log."""

    remove: tuple[str, ...] = ()
    promote: tuple[str, ...] = ()
    transfer: str = ""
    demote: tuple[str, ...] = ()
    reason: str = ""


def judge(before: State | None, servers: Sequence[Seen], rules: Rules, now: float, shown_now: float) -> State:
    """The state after a round. `now` is in seconds of a steady clock, `shown_now` in seconds since 1970."""
    leader = next((server for server in servers if server.leader), None)
    known = {server.seen.id: server for server in before.servers} if before is not None else {}
    judged = []
    for seen in servers:
        healthy = leader is not None and _is_healthy(seen, leader, rules)
        old = known.get(seen.id)
        if old is not None and old.healthy == healthy:
            judged.append(Judged(seen, healthy, old.since, old.shown_since))
        else:
            judged.append(Judged(seen, healthy, now, shown_now))
    return State(tuple(judged), before.began if before is not None else now)


def _is_healthy(seen: Seen, leader: Seen, rules: Rules) -> bool:
    if leader.last_index == 0 or leader.last_term == 0:
        return False
    return (
        seen.status == ALIVE
        and seen.contact <= rules.contact
        and seen.last_term == leader.last_term
        and seen.last_index + rules.trailing >= leader.last_index
    )


def plan(state: State, rules: Rules, now: float) -> Plan:
    """What to change now."""
    removed = _dead(state, rules, now) if rules.cleanup else ()
    if removed:
        return Plan(remove=removed, reason="dead servers are removed")
    replicas = _replicas(state)
    if replicas is not None:
        return replicas
    capable = [server for server in state.servers if not server.seen.read_replica]
    if rules.migrate:
        known = [server for server in capable if server.seen.version]
        newest = max((_version(s.seen, rules) for s in known if s.seen.status == ALIVE), default=None)
        old = [server for server in known if newest is not None and _version(server.seen, rules) < newest]
        if old:
            new = [server for server in known if server not in old]
            return _migration(state, rules, now, old, new)
    return Plan(promote=_ready(state, rules, now, capable), reason="healthy for the stabilization time")


def _ready(state: State, rules: Rules, now: float, servers: Sequence[Judged]) -> tuple[str, ...]:
    """Those that may be promoted."""
    return tuple(s.seen.id for s in servers if not s.seen.voter and _is_stable(state, rules, now, s))


def _is_stable(state: State, rules: Rules, now: float, server: Judged) -> bool:
    wanted = rules.stabilization if now - state.began > rules.stabilization else 0.0
    return server.healthy and now - server.since >= wanted


def _dead(state: State, rules: Rules, now: float) -> tuple[str, ...]:
    """The dead servers that are removed: those without a vote all, of the voters as many as is safe."""
    dead = [
        server
        for server in state.servers
        if server.seen.status in (FAILED, LEFT) and not server.healthy and now - server.since >= rules.stabilization
    ]
    left = len(state.voters)
    room = (left - 1) // 2
    removed = [server.seen.id for server in dead if not server.seen.voter]
    for server in dead:
        if server.seen.voter and room > 0 and left - 1 >= rules.min_quorum:
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
        return Plan(transfer=_furthest(others), reason="the leader is a read replica") if others else None
    for server in voting:
        if _spare([voter for voter in state.voters if voter is not server]) >= 0:
            return Plan(demote=(server.seen.id,), reason="a read replica does not vote")
    return None


def _migration(state: State, rules: Rules, now: float, old: Sequence[Judged], new: Sequence[Judged]) -> Plan:
    """From the servers of older versions to those of the newest."""
    old_voters = [server for server in old if server.seen.voter]
    usable = [s for s in new if s.healthy and (s.seen.voter or _is_stable(state, rules, now, s))]
    if len(usable) < len(old_voters):
        joining = old if _spare(state.voters) > 0 else [*old, *new]
        return Plan(promote=_ready(state, rules, now, joining), reason="healthy for the stabilization time")
    ready = _ready(state, rules, now, new)
    if ready:
        return Plan(promote=ready, reason="there are enough servers of the newest version")
    new_voters = [server for server in usable if server.seen.voter]
    if not old_voters or not new_voters:
        return Plan()
    if any(server.seen.leader for server in old_voters):
        return Plan(transfer=_furthest(new_voters), reason="a server of the newest version is to lead")
    for server in sorted(old_voters, key=lambda one: one.healthy):
        left = [voter for voter in state.voters if voter is not server]
        if _spare(left) >= min(1, _spare(state.voters)):
            return Plan(demote=(server.seen.id,), reason="servers of the newest version have taken over")
    return Plan()


def _furthest(servers: Sequence[Judged]) -> str:
    return max(servers, key=lambda server: server.seen.last_index).seen.id


def _spare(voters: Sequence[Judged]) -> int:
    """How many healthy ones there are beyond a majority."""
    return sum(1 for voter in voters if voter.healthy) - (len(voters) // 2 + 1)


_Version = tuple[tuple[int, ...], bool, str]


def _version(seen: Seen, rules: Rules) -> tuple[_Version, ...]:
    """What a server's version is told from, in the order of versions."""
    if rules.version_tag:
        return (_ordered(seen.meta.get(rules.version_tag, "")),)
    return _ordered(seen.version), _ordered(seen.build)


def _ordered(text: str) -> _Version:
    """A version in the order of versions: what has a suffix after `-` comes before what has none."""
    text = text[:64].partition("+")[0]
    numbers, dash, suffix = text.partition("-")
    parts = [int(part) if part.isascii() and part.isdigit() else 0 for part in numbers.split(".")]
    while parts and parts[-1] == 0:
        parts.pop()
    return tuple(parts), not dash, suffix
