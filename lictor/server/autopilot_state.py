"""What autopilot knows of the servers: how each was seen, whether it is healthy, and since when. Pure.

The rules are Consul's: a server is *healthy* if it is alive, has heard of the leader lately, is of the leader's term
and not far behind it; it is *stable* once it has been healthy for the stabilization time (which counts only when
autopilot itself has run for that long: a new leader knows no server for longer than itself). It is *lost* once it is
known to have failed, or was unhealthy for that time.
"""

from collections.abc import Sequence

import msgspec

from lictor.model.member import ALIVE
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
    """All servers after a round, `rules` are those that it was judged by. `began` is when autopilot did, `at` when the
    round was, in seconds of the steady clock.
    """

    servers: tuple[Judged, ...] = ()
    began: float = 0.0
    at: float = 0.0
    rules: Rules = Rules()

    @property
    def healthy(self) -> bool:
        """Whether every server is."""
        return bool(self.servers) and all(server.healthy for server in self.servers)

    @property
    def voters(self) -> list[Judged]:
        """Those that vote."""
        return [server for server in self.servers if server.seen.voter]

    @property
    def capable(self) -> list[Judged]:
        """Those that vote, or may."""
        return [server for server in self.servers if not server.seen.read_replica]

    @property
    def leader(self) -> Judged | None:
        """The one that leads."""
        return next((server for server in self.servers if server.seen.leader), None)

    @property
    def failure_tolerance(self) -> int:
        """How many of the voters may fail without the loss of the majority."""
        return max(0, spare(self.voters))

    @property
    def optimistic_failure_tolerance(self) -> int:
        """How many servers may fail one after the other, with time for the standbys of zones to be promoted."""
        if not self.rules.zone_tag:
            return self.failure_tolerance
        return max(0, sum(server.healthy for server in self.capable) - (len(self.voters) // 2 + 1))

    def zone(self, server: Judged) -> str:
        """The redundancy zone of a server; empty where it is in none."""
        tag = self.rules.zone_tag
        return server.seen.meta.get(tag, "") if tag and not server.seen.read_replica else ""

    @property
    def zones(self) -> dict[str, list[Judged]]:
        """The servers of each redundancy zone, in the order of the zones' names."""
        found: dict[str, list[Judged]] = {}
        for server in self.servers:
            found.setdefault(self.zone(server), []).append(server)
        found.pop("", None)
        return dict(sorted(found.items()))

    def is_stable(self, server: Judged) -> bool:
        """Whether a server has been healthy for long enough."""
        wanted = self.rules.stabilization if self.at - self.began > self.rules.stabilization else 0.0
        return server.healthy and self.at - server.since >= wanted

    def is_lost(self, server: Judged) -> bool:
        """Whether a server cannot be counted on any more; one that only missed a look still can."""
        if server.healthy:
            return False
        return server.seen.status != ALIVE or self.at - server.since >= self.rules.stabilization


def spare(voters: Sequence[Judged]) -> int:
    """How many healthy ones there are beyond a majority."""
    return sum(1 for voter in voters if voter.healthy) - (len(voters) // 2 + 1)


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
    return State(tuple(judged), before.began if before is not None else now, now, rules)


def _is_healthy(seen: Seen, leader: Seen, rules: Rules) -> bool:
    if leader.last_index == 0 or leader.last_term == 0:
        return False
    return (
        seen.status == ALIVE
        and seen.contact <= rules.contact
        and seen.last_term == leader.last_term
        and seen.last_index + rules.trailing >= leader.last_index
    )
