"""The connections into this agent's services, as their proxies tell of them, and the same of all agents of the pool.

A proxy says at most once a second who is connected to its service, and again every half minute; what is not said again
within 90 seconds is forgotten. Of a service whose requests are looked at, it is told who made requests lately. Other
agents ask with a query over gossip, whose answers have about 1 KB of room: the callers with most connections, then the
latest requests, are told first, and of the rest how much is left out. Pure, but for `ask`.

    connections = LiveConnections(lambda: local.services)
    connections.report("web-sidecar-proxy", "web", [Inbound("spiffe://...", 3)], now)
    found = await ask(pools, Question("db", "*"))
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Container, Iterable
from typing import TYPE_CHECKING, Annotated

import msgspec

from lictor.model.intention_effect import Enforced
from lictor.model.spiffe import NAMESPACE, BadSpiffeId, ServiceId, parse_spiffe_id

if TYPE_CHECKING:
    from lictor.agent.pools import Pools

KEPT = 90.0  # seconds
QUERY = "lictor:connections"
ANY = "*"
MAX_SOURCES = 2_000  # of one report
MAX_REPORTERS = 256  # programs that tell of one service by its name
MAX_TEXT = 512  # characters of a name in a question or an answer

Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 31)]
Text = Annotated[str, msgspec.Meta(max_length=MAX_TEXT)]


class Inbound(msgspec.Struct, frozen=True):
    """A caller, by its SPIFFE id, and how many connections it has."""

    source: str
    connections: Count


class Seen(msgspec.Struct, frozen=True):
    """A caller, by its SPIFFE id, that made a request, and when that was last, by the event loop's clock."""

    source: str
    time: float


class Report(msgspec.Struct, frozen=True):
    """What a proxy said last; `time` is the event loop's. `callers` are the services among those who are connected,
    `requesters` among those who made requests, with the time of the last one. `enforced` is what becomes of the
    connections when intentions change.
    """

    destination: str
    inbound: tuple[Inbound, ...]
    callers: tuple[tuple[ServiceId, int], ...]
    time: float
    enforced: Enforced = Enforced.CONNECTIONS
    requests: tuple[Seen, ...] = ()
    requesters: tuple[tuple[ServiceId, float], ...] = ()


class Question(msgspec.Struct, frozen=True, array_like=True):
    """Which connections are asked for, by the names of the services at both ends; `*` for all."""

    destination: Text
    source: Text


class Flow(msgspec.Struct, frozen=True):
    """The connections from one service to another; where requests are what is looked at, that there were some, and how
    many seconds ago the last one was (`age`). The namespace and the partition are the source's.
    """

    destination: str
    source: str
    connections: int
    namespace: str = NAMESPACE
    partition: str = ""
    enforced: Enforced = Enforced.CONNECTIONS
    age: int = 0

    @property
    def caller(self) -> ServiceId:
        """The source as decisions see it."""
        return ServiceId("", "", self.source, self.namespace, self.partition)


class Told(msgspec.Struct, frozen=True):
    """An agent's answer: flows, and how many flows, connections and sources of requests there was no room for."""

    flows: tuple[Flow, ...]
    more_flows: int = 0
    more_connections: int = 0
    more_requesters: int = 0


class _Caller(msgspec.Struct, frozen=True, array_like=True):
    """A flow among those to one destination: its connections or, where those are requests, the seconds since the last
    one. What is the default may be left out at its end.
    """

    source: Text
    number: Count
    namespace: Text = NAMESPACE
    partition: Text = ""


class _Answer(msgspec.Struct, frozen=True, array_like=True):
    """An answer as it is sent: each destination's name stands in it once for each way of being enforced."""

    callers: dict[Text, tuple[_Caller, ...]]
    more_flows: Count = 0
    more_connections: Count = 0
    at_listeners: dict[Text, tuple[_Caller, ...]] = {}
    requests: dict[Text, tuple[_Caller, ...]] = {}
    more_requesters: Count = 0


_encode = msgspec.msgpack.Encoder().encode
_decode_question = msgspec.msgpack.Decoder(Question).decode
_decode_answer = msgspec.msgpack.Decoder(_Answer).decode


class LiveConnections:
    """What the proxies of this agent have said. `registered` tells which there are: of others nothing is kept."""

    def __init__(self, registered: Callable[[], Container[str]]) -> None:
        self._registered = registered
        self._reports: dict[str, Report] = {}
        self._programs: dict[str, dict[str, Report]] = {}  # by service's id, of those who told of it beside each other

    def report(
        self,
        proxy: str,
        destination: str,
        inbound: Iterable[Inbound],
        now: float,
        *,
        enforced: Enforced = Enforced.CONNECTIONS,
        requests: Iterable[Seen] = (),
    ) -> None:
        """A proxy says who is connected to its service: all of them, in the place of what it said before."""
        self._reports[proxy] = _report(destination, inbound, now, enforced, requests)

    def report_beside(
        self, proxy: str, reporter: str, destination: str, inbound: Iterable[Inbound], now: float
    ) -> bool:
        """The same of one program among several of one service. Returns whether it is kept: of too many it is not."""
        told = self._programs.setdefault(proxy, {})
        for old in [name for name, one in told.items() if now - one.time > KEPT or name == reporter]:
            del told[old]
        made = _report(destination, inbound, now, Enforced.CONNECTIONS, ())
        room = len(told) < MAX_REPORTERS
        if made.inbound and room:
            told[reporter] = made
        if not told:
            del self._programs[proxy]
        return room

    def reports(self, now: float) -> dict[str, Report]:
        """What has been said of late, by proxy."""
        there = self._registered()
        self._reports = {
            proxy: one for proxy, one in sorted(self._reports.items()) if now - one.time <= KEPT and proxy in there
        }
        self._programs = {
            proxy: kept
            for proxy, told in self._programs.items()
            if proxy in there and (kept := {name: one for name, one in told.items() if now - one.time <= KEPT})
        }
        found = dict(self._reports)
        for proxy, told in self._programs.items():
            found[proxy] = _together([*([found[proxy]] if proxy in found else []), *told.values()])
        return found

    def flows(self, question: Question, now: float) -> list[Flow]:
        """What is asked for: connections, the most first, then requests, the latest first. Callers whose id is no
        service's are passed over.
        """
        counts: dict[tuple[str, Enforced, ServiceId], int] = {}
        lately: dict[tuple[str, ServiceId], float] = {}
        wanted = question.destination.lower()
        for one in self.reports(now).values():
            if wanted not in (ANY, one.destination.lower()):
                continue
            for caller, count in one.callers:
                if question.source in (ANY, caller.service):
                    key = (one.destination, one.enforced, _anywhere(caller))
                    counts[key] = counts.get(key, 0) + count
            for caller, when in one.requesters:
                if question.source in (ANY, caller.service):
                    at = (one.destination, _anywhere(caller))
                    lately[at] = max(lately.get(at, when), when)
        flows = [
            Flow(to, caller.service, count, caller.namespace, caller.partition, enforced)
            for (to, enforced, caller), count in counts.items()
        ]
        flows += [
            Flow(to, caller.service, 0, caller.namespace, caller.partition, Enforced.REQUESTS, max(0, int(now - when)))
            for (to, caller), when in lately.items()
        ]
        return sorted(flows, key=lambda flow: (-flow.connections, flow.age, flow.destination, flow.source))

    def answer(self, payload: bytes, room: int, now: float) -> bytes | None:
        """The answer to another agent's question, of at most `room` bytes; None for a question that cannot be read."""
        try:
            question = _decode_question(payload)
        except (msgspec.DecodeError, RecursionError):
            return None
        flows = self.flows(question, now)
        told: dict[Enforced, dict[str, list[tuple[str | int, ...]]]] = {kind: {} for kind in Enforced}
        kept = 0
        # What an answer takes that tells nothing, and lengths.
        used = len(_encode(({}, 1 << 31, 1 << 31, {}, {}, 1 << 31))) + 8
        for flow in flows:
            caller, callers = _wire(flow), told[flow.enforced]
            size = len(_encode(caller))
            if flow.destination not in callers:
                size += len(_encode(flow.destination)) + 3
            if used + size > room:
                break
            used += size
            kept += 1
            callers.setdefault(flow.destination, []).append(caller)
        rest = flows[kept:]
        requesters = sum(flow.enforced is Enforced.REQUESTS for flow in rest)
        connections = min(sum(flow.connections for flow in rest), 1 << 31)
        short = (told[Enforced.CONNECTIONS], len(rest) - requesters, connections)
        more = (told[Enforced.LISTENER], told[Enforced.REQUESTS], requesters)
        return _encode((*short, *more) if any(more) else short)


def _report(
    destination: str, inbound: Iterable[Inbound], now: float, enforced: Enforced, requests: Iterable[Seen]
) -> Report:
    live = tuple(one for one in inbound if one.connections)
    seen = tuple(requests)
    # Whose ids these are is found out once, and not for each question.
    callers = tuple((caller, one.connections) for one in live if (caller := _service(one.source)) is not None)
    requesters = tuple((caller, one.time) for one in seen if (caller := _service(one.source)) is not None)
    return Report(destination, live, callers, now, enforced, seen, requesters)


def _together(reports: list[Report]) -> Report:
    """What several have told of one service."""
    counts: dict[str, int] = {}
    for report in reports:
        for one in report.inbound:
            counts[one.source] = counts.get(one.source, 0) + one.connections
    inbound = [Inbound(source, min(count, 1 << 31)) for source, count in counts.items()]
    latest = max(report.time for report in reports)
    return _report(reports[0].destination, inbound, latest, reports[0].enforced, reports[0].requests)


def _anywhere(caller: ServiceId) -> ServiceId:
    """A caller without what intentions do not look at."""
    return ServiceId("", "", caller.service, caller.namespace, caller.partition)


def _wire(flow: Flow) -> tuple[str | int, ...]:
    number = flow.age if flow.enforced is Enforced.REQUESTS else flow.connections
    if flow.namespace == NAMESPACE and not flow.partition:
        return (flow.source, number)
    return (flow.source, number, flow.namespace, flow.partition)


def read_answer(payload: bytes) -> Told:
    """Another agent's answer. Raises `ValueError` for what is none."""
    try:
        answer = _decode_answer(payload)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"the answer cannot be read: {error}") from None
    flows = [
        *_flows(answer.callers, Enforced.CONNECTIONS),
        *_flows(answer.at_listeners, Enforced.LISTENER),
        *_flows(answer.requests, Enforced.REQUESTS),
    ]
    return Told(tuple(flows), answer.more_flows, answer.more_connections, answer.more_requesters)


def _flows(told: dict[str, tuple[_Caller, ...]], enforced: Enforced) -> Iterable[Flow]:
    for destination, callers in told.items():
        for one in callers:
            where = (one.namespace, one.partition, enforced)
            if enforced is Enforced.REQUESTS:
                yield Flow(destination, one.source, 0, *where, one.number)
            else:
                yield Flow(destination, one.source, one.number, *where)


def _service(uri: str) -> ServiceId | None:
    try:
        found = parse_spiffe_id(uri)
    except BadSpiffeId:
        return None
    return found if isinstance(found, ServiceId) and len(found.service) <= MAX_TEXT else None


class Collected(msgspec.Struct, frozen=True):
    """What the agents of the pool have answered, by node: `asked` is how many were alive, `silent` are the names of
    those that did not answer.
    """

    told: dict[str, Told]
    asked: int
    silent: tuple[str, ...] = ()


async def ask(pools: Pools, question: Question) -> Collected:
    """Ask every agent of the datacenter. Ends when all have answered, or after the time that queries have."""
    await pools.ready()
    if pools.lan is None:
        return Collected({}, 0)
    answers, alive = await pools.lan.query(QUERY, _encode(question))
    told = {}
    for node, payload in sorted(answers.items()):
        with contextlib.suppress(ValueError):
            told[node] = read_answer(payload)
    return Collected(told, len(alive), tuple(name for name in alive if name not in told))
