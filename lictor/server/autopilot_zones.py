"""Autopilot's redundancy zones: one voter in each, the other servers of the zone stand by without a vote. Pure.

A server's zone is the value of its node's meta under `redundancy_zone_tag`; a server without one, and every server
where no tag is set, may vote whatever others do.

- The first stable server of a zone votes. Where its voter is lost, another of the zone is promoted, then the lost one
  votes no more.
- Where nobody of a zone is left to take over, a standby of another zone is promoted in its place, as an *extra* voter,
  while the voters could not lose one more. It votes until the lost zone has a voter again.
- Who votes beyond the first of a zone loses the vote as long as the voters can lose one then. So a zone keeps two
  voters where there are only two zones, and three servers formed the cluster.
"""

from collections.abc import Sequence

from lictor.server.autopilot_state import Judged, State, spare


def ready(state: State, candidates: Sequence[Judged], group: Sequence[Judged]) -> tuple[str, ...]:
    """Those of the candidates that may be promoted, at most one for each zone in which none of the group votes."""
    taken = {state.zone(server) for server in group if server.seen.voter and not state.is_lost(server)} - {""}
    found = []
    for server in _best_first(candidates):
        zone = state.zone(server)
        if not server.seen.voter and zone not in taken and state.is_stable(server):
            found.append(server.seen.id)
            taken |= {zone} - {""}
    return tuple(found)


def one_each(state: State, servers: Sequence[Judged]) -> list[Judged]:
    """These servers, of each zone only one: a voter if there is any."""
    found, taken = [], set()
    for server in sorted(_best_first(servers), key=lambda one: not one.seen.voter):
        zone = state.zone(server)
        if zone not in taken:
            found.append(server)
            taken |= {zone} - {""}
    return found


def extra(state: State, candidates: Sequence[Judged]) -> tuple[str, ...]:
    """The candidate to be promoted although its zone has a voter: for a lost one that nobody of its zone replaces."""
    if not state.rules.zone_tag or spare(state.voters) > 0 or len(_extras(state)) >= len(_lost(state)[1]):
        return ()
    standbys = [one for one in candidates if state.zone(one) and not one.seen.voter and state.is_stable(one)]
    return tuple(server.seen.id for server in _best_first(standbys)[:1])


def superfluous(state: State) -> tuple[str, ...]:
    """A voter to be demoted: a lost one that another stands in for, or one beyond the first of its zone."""
    if not state.rules.zone_tag:
        return ()
    extras = _extras(state)
    replaced, alone = _lost(state)
    for server in [*replaced, *alone[: len(extras)], *extras[len(alone) :]]:
        left = [voter for voter in state.voters if voter is not server]
        if spare(left) >= min(1, spare(state.voters)):
            return (server.seen.id,)
    return ()


def _extras(state: State) -> list[Judged]:
    """The voters beyond the first of their zones; lost ones do not count."""
    found = []
    for servers in state.zones.values():
        voters = [server for server in servers if server.seen.voter and not state.is_lost(server)]
        found += _best_first(voters)[1:]
    return found


def _lost(state: State) -> tuple[list[Judged], list[Judged]]:
    """The lost voters: those whose zone has another voter, and the rest."""
    voters = [voter for voter in state.voters if not voter.seen.read_replica]
    there = {state.zone(voter) for voter in voters if not state.is_lost(voter)} - {""}
    lost = [voter for voter in voters if state.is_lost(voter)]
    replaced = [voter for voter in lost if state.zone(voter) in there]
    return replaced, [voter for voter in lost if voter not in replaced]


def _best_first(servers: Sequence[Judged]) -> list[Judged]:
    """The leader, then the healthy, then who has most of the log."""
    return sorted(servers, key=lambda one: (not one.seen.leader, not one.healthy, -one.seen.last_index, one.seen.id))
