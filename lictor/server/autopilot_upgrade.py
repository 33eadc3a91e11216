"""Autopilot's upgrade migration: from the servers of older versions to those of the newest. Pure.

Where some servers are of a newer version, their promotion waits until they are as many as the voters of older versions
(one for each redundancy zone, where there are zones); then they vote, one of them is made the leader, and the older
ones vote no more. Being able to lose a server comes before that: whoever is stable is promoted while the voters cannot
lose one, and when the servers of a small cluster are upgraded one by one in their places, the last ones go on voting.
"""

from collections.abc import Sequence
from enum import Enum

import msgspec

from lictor.model.member import ALIVE
from lictor.server.autopilot_config import Rules
from lictor.server.autopilot_state import Judged, Seen, State, spare
from lictor.server.autopilot_zones import one_each, ready


class Status(Enum):
    """How far it is; the values are those of the API."""

    DISABLED = "disabled"
    IDLE = "idle"
    AWAIT_NEW_VOTERS = "await-new-voters"
    PROMOTING = "promoting"
    LEADER_TRANSFER = "leader-transfer"
    DEMOTING = "demoting"
    AWAIT_NEW_SERVERS = "await-new-servers"
    AWAIT_SERVER_REMOVAL = "await-server-removal"


class Upgrade(msgspec.Struct, frozen=True):
    """A migration. `target` is the newest version, as text; `new` are the servers of it, `old` those of others; `ids`
    are those to be promoted, to lead or to be demoted now.
    """

    status: Status
    target: str = ""
    new: tuple[Judged, ...] = ()
    old: tuple[Judged, ...] = ()
    ids: tuple[str, ...] = ()


def upgrade(state: State) -> Upgrade:
    """How far the migration is, and what comes next."""
    rules = state.rules
    known = [server for server in state.servers if server.seen.version]
    newest = max(
        (server for server in known if server.seen.status == ALIVE and not server.seen.read_replica),
        key=lambda server: _version(server.seen, rules),
        default=None,
    )
    if newest is None:
        return Upgrade(Status.IDLE if rules.migrate else Status.DISABLED)
    version = _version(newest.seen, rules)
    old = tuple(server for server in known if _version(server.seen, rules) < version)
    new = tuple(server for server in known if server not in old)
    status: Status = Status.DISABLED
    ids: tuple[str, ...] = ()
    if rules.migrate:
        capable = state.capable
        status, ids = _next(state, [one for one in old if one in capable], [one for one in new if one in capable])
    return Upgrade(status, _target(newest.seen, old, rules), new, old, ids)


def _next(state: State, old: Sequence[Judged], new: Sequence[Judged]) -> tuple[Status, tuple[str, ...]]:
    if not old:
        return Status.IDLE, ()
    old_voters = [server for server in old if server.seen.voter]
    usable = [server for server in new if server.healthy and (server.seen.voter or state.is_stable(server))]
    if len(one_each(state, usable)) < len(one_each(state, old_voters)):
        return Status.AWAIT_NEW_VOTERS, ()
    promoted = ready(state, new, new)
    if promoted:
        return Status.PROMOTING, promoted
    new_voters = [server for server in usable if server.seen.voter]
    if not new_voters:
        return Status.AWAIT_NEW_VOTERS, ()
    if any(server.seen.leader for server in old_voters):
        return Status.LEADER_TRANSFER, (furthest(new_voters),)
    for server in sorted(old_voters, key=lambda one: one.healthy):
        left = [voter for voter in state.voters if voter is not server]
        if spare(left) >= min(1, spare(state.voters)):
            return Status.DEMOTING, (server.seen.id,)
    return (Status.AWAIT_NEW_SERVERS if old_voters or len(new) < len(old) else Status.AWAIT_SERVER_REMOVAL), ()


def furthest(servers: Sequence[Judged]) -> str:
    """The id of the server that has most of the log."""
    return max(servers, key=lambda server: server.seen.last_index).seen.id


def version_text(seen: Seen, rules: Rules) -> str:
    """A server's version as the tag has it; empty where no tag is set."""
    return seen.meta.get(rules.version_tag, "") if rules.version_tag else ""


def _target(newest: Seen, old: Sequence[Judged], rules: Rules) -> str:
    if rules.version_tag:
        return version_text(newest, rules)
    same = any(server.seen.version == newest.version for server in old)
    return f"{newest.version}+{newest.build}" if same else newest.version


_Version = tuple[tuple[int, ...], bool, str]


def _version(seen: Seen, rules: Rules) -> tuple[_Version, ...]:
    """What a server's version is told from, in the order of versions."""
    if rules.version_tag:
        return (_ordered(version_text(seen, rules)),)
    return _ordered(seen.version), _ordered(seen.build)


def _ordered(text: str) -> _Version:
    """A version in the order of versions: what has a suffix after `-` comes before what has none."""
    text = text[:64].partition("+")[0]
    numbers, dash, suffix = text.partition("-")
    parts = [int(part) if part.isascii() and part.isdigit() else 0 for part in numbers.split(".")]
    while parts and parts[-1] == 0:
        parts.pop()
    return tuple(parts), not dash, suffix
