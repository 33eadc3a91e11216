"""What a server that belongs to no cluster yet should do, given what it knows of the others. Pure.

A cluster is formed by promise. The *founder*, the first of `bootstrap_expect` blank servers in the order of their node
ids, binds itself to a list of servers and asks each of the others to bind itself to the same list. When all have, the
founder forms the cluster, and so does each of the others as soon as it learns that any of the list has. That keeps two
clusters from sharing a server:

- a server holds one promise at a time, on disk before anybody is told of it;
- the cluster of a promise begins with its founder, which must have all promises then, its own among them;
- whoever promised lets go of it only when its founder, asked after the promise was given, says that it neither holds
  the promise any more nor has formed the cluster. Promises have an id that is used once: what the founder let go of
  can never be formed;
- a server that once asked to join a cluster gives no promise any more, and while it holds one it joins nothing.

A founder that forms nothing for lack of answers lets go and begins anew.
"""

from collections.abc import Sequence
from enum import Enum

import msgspec

from lictor.raft.consensus import ServerRecord
from lictor.server.hello import Hello

RANK_PATIENCE = 10.0  # seconds that each server gives those before it to found the cluster


class Promise(msgspec.Struct, frozen=True):
    """To form a cluster of exactly these servers, with the one of that number as founder, and no other meanwhile."""

    id: str
    founder: int
    servers: tuple[ServerRecord, ...]


class Standing(msgspec.Struct, frozen=True):
    """What a server has bound itself to: a promise; joining a cluster (it has asked, and may be added at any time);
    staying away from one that it left. A promise stays when its cluster is formed, as the proof of it.
    """

    promise: Promise | None = None
    joining: bool = False
    left: bool = False


class Sight(msgspec.Struct, frozen=True):
    """Another server's answer. `address` is where it was asked, `asked_at` when, in seconds of the loop's clock."""

    hello: Hello
    address: str
    asked_at: float


class Own(msgspec.Struct, frozen=True):
    """This server: `alone` if it forms a cluster by itself (`bootstrap`), `expect` as configured."""

    record: ServerRecord
    datacenter: str
    expect: int = 0
    alone: bool = False
    read_replica: bool = False


class Step(Enum):
    """What to do."""

    WAIT = "wait"
    FOUND = "found"  # have `servers` promise
    FORM = "form"  # the cluster of the promise that is held, or of `servers`
    RELEASE = "release"  # let go of the promise
    JOIN = "join"  # the cluster of the servers at `leaders`, the likeliest first


class Plan(msgspec.Struct, frozen=True):
    """The step to take, and why, for the log."""

    step: Step
    reason: str = ""
    servers: tuple[ServerRecord, ...] = ()
    leaders: tuple[str, ...] = ()


def plan_blank(
    own: Own,
    standing: Standing,
    sights: Sequence[Sight],
    *,
    promised_at: float = 0.0,
    formed: bool = False,
    waited: float = 0.0,
    silent: Sequence[str] = (),
    lonely: bool = False,
) -> Plan:
    """What a blank server should do. `sights` are recent, one for each server; `promised_at` is when the promise was
    given or the process began, whichever was later; `formed` whether any server said that the promised cluster is
    there; `waited` for how many seconds enough servers have been seen without a cluster coming of it; `silent` tells of
    addresses that do not answer; `lonely` whether the configuration names no other address than this server's own.
    """
    if standing.promise is not None:
        return _plan_bound(own, standing.promise, sights, promised_at, formed)
    if own.alone and not standing.joining:
        return Plan(Step.FORM, "bootstrap is set: this server forms a cluster of its own", (own.record,))
    others, strange = _sorted_out(own, sights)
    clustered = [sight for sight in others if not sight.hello.blank]
    if clustered:
        return _plan_join(clustered, strange)
    waiting = f"; no answer from {', '.join(silent)}" if silent else ""
    waiting += f"; {'; '.join(strange)}" if strange else ""
    if lonely and not others:
        waiting += "; retry_join names only this server: name the others too, if they do not name it"
    if standing.joining:
        return Plan(Step.WAIT, f"this server has asked to join a cluster, and no server of it answers{waiting}")
    if own.read_replica:
        return Plan(Step.WAIT, f"a read replica waits for a cluster to join{waiting}")
    if own.expect == 0:
        return Plan(Step.WAIT, f"bootstrap_expect is not set: waiting for a cluster to join{waiting}")
    return _plan_founding(own, others, waited, waiting)


def _plan_bound(own: Own, promise: Promise, sights: Sequence[Sight], promised_at: float, formed: bool) -> Plan:
    numbers = {server.number for server in promise.servers}
    by_number = {sight.hello.number: sight for sight in sights}
    there = any(
        sight.hello.number in numbers and not sight.hello.blank and sight.hello.promise == promise.id
        for sight in sights
    )
    if formed or there:
        return Plan(Step.FORM, "the promised cluster is there", promise.servers)
    if promise.founder == own.record.number:
        # Answers to a founder that ended in between are lost; it has formed nothing, or it would not be blank.
        return Plan(Step.RELEASE, "this server was interrupted while it founded a cluster")
    founder = by_number.get(promise.founder)
    if founder is not None and founder.asked_at >= promised_at and founder.hello.promise != promise.id:
        return Plan(Step.RELEASE, f"{founder.hello.node} has given up founding the promised cluster")
    record = next((server for server in promise.servers if server.number == promise.founder), None)
    name = f"{record.node} at {record.address}" if record is not None else "unknown"
    text = f"this server has promised to form a cluster that {name} founds: waiting for it; if it is gone for good, "
    text += "end this server, remove raft/standing.json from its data folder, and start it again"
    return Plan(Step.WAIT, text)


def _sorted_out(own: Own, sights: Sequence[Sight]) -> tuple[list[Sight], list[str]]:
    """The servers that could be in a cluster with this one, and what is wrong with the rest."""
    others, strange = [], []
    for sight in sights:
        hello = sight.hello
        who = f"{hello.node} at {sight.address}"
        if hello.number == own.record.number:
            continue
        if hello.datacenter != own.datacenter:
            strange.append(f"{who} is of datacenter {hello.datacenter}, this server of {own.datacenter}: refused")
        elif hello.id == own.record.id:
            strange.append(f"{who} has this server's node id {hello.id}: give each its own")
        elif sight.address != hello.address:
            strange.append(f"{who} says that it is at {hello.address}, where it does not answer: check advertise_addr")
        else:
            others.append(sight)
    return sorted(others, key=lambda sight: sight.hello.id), strange


def _plan_join(clustered: Sequence[Sight], strange: Sequence[str]) -> Plan:
    leaders = [sight for sight in clustered if sight.hello.is_leader]
    led = {sight.hello.cluster: sight for sight in clustered if sight.hello.leader}
    if len(led) > 1:
        some = " and ".join(f"{sight.hello.node} at {sight.address}" for sight in led.values())
        return Plan(Step.WAIT, f"{some} belong to different clusters: take those of one out of retry_join")
    claims = [sight.address for sight in leaders] + [sight.hello.leader for sight in clustered if sight.hello.leader]
    seen = ", ".join(f"{sight.hello.node} at {sight.address}" for sight in clustered)
    more = f"; {'; '.join(strange)}" if strange else ""
    if not claims:
        return Plan(Step.WAIT, f"there is a cluster ({seen}), but it has no leader: waiting for one{more}")
    return Plan(Step.JOIN, f"there is a cluster: {seen}{more}", leaders=tuple(dict.fromkeys(claims)))


def _plan_founding(own: Own, others: Sequence[Sight], waited: float, waiting: str) -> Plan:
    candidates = [sight.hello for sight in others if not sight.hello.read_replica]
    names = ", ".join([own.record.node, *(hello.node for hello in candidates)])
    seen = f"expecting {own.expect} servers, see {len(candidates) + 1}: {names}"
    for hello in candidates:
        if hello.expect not in (0, own.expect):
            text = f"{hello.node} has bootstrap_expect = {hello.expect}, this server {own.expect}: set the same on all"
            return Plan(Step.WAIT, f"{seen}; {text}{waiting}")
        if hello.joining:
            return Plan(Step.WAIT, f"{seen}; {hello.node} is joining a cluster: waiting to learn of it{waiting}")
    if len(candidates) + 1 < own.expect:
        return Plan(Step.WAIT, f"{seen}{waiting}")
    bound = [hello.node for hello in candidates if hello.promise]
    if bound:
        return Plan(Step.WAIT, f"{seen}; promised to form a cluster already: {', '.join(bound)}{waiting}")
    records = [ServerRecord(hello.id, hello.node, hello.address, hello.number) for hello in candidates]
    chosen = sorted([*records, own.record], key=lambda record: record.id)[: own.expect]
    if len({record.id for record in chosen}) < len(chosen) or len({record.address for record in chosen}) < len(chosen):
        return Plan(Step.WAIT, f"{seen}; two of them have the same node id or address: give each its own{waiting}")
    unable = {hello.id for hello in candidates if hello.expect == 0}
    founders = [record for record in chosen if record.id not in unable]
    rank = next((rank for rank, record in enumerate(founders) if record.id == own.record.id), None)
    if rank is None or waited < rank * RANK_PATIENCE:
        first = founders[0].node if founders else "a server with bootstrap_expect"
        return Plan(Step.WAIT, f"{seen}; waiting for {first} to found the cluster{waiting}")
    return Plan(Step.FOUND, seen, tuple(chosen))


def refuse_promise(own: Own, standing: Standing, promise: Promise, *, blank: bool) -> str:
    """Why this server must not give a promise; empty if it may."""
    if not blank:
        return "belongs to a cluster already"
    if standing.promise is not None:
        return "" if standing.promise == promise else "has promised to form another cluster"
    if standing.joining:
        return "has asked to join another cluster"
    if own.alone:
        return "has bootstrap set, and forms a cluster of its own"
    if own.read_replica:
        return "is a read replica"
    if own.expect not in (0, len(promise.servers)):
        return f"has bootstrap_expect = {own.expect}, not {len(promise.servers)}"
    if own.record not in promise.servers:
        return "is not known by its present name, address and number"
    return ""
