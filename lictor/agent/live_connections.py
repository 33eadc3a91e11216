"""The connections into this agent's services, as their proxies tell of them, and the same of all agents of the pool.

A proxy says at most once a second who is connected to its service, and again every half minute; what is not said again
within 90 seconds is forgotten. Other agents ask with a query over gossip, whose answers have about 1 KB of room: the
callers with most connections are told first, and of the rest how much is left out. Pure, but for `ask`.

    connections = LiveConnections(lambda: local.services)
    connections.report("web-sidecar-proxy", "web", [Inbound("spiffe://...", 3)], now)
    found = await ask(pools, Question("db", "*"))
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Container, Iterable
from typing import TYPE_CHECKING, Annotated

import msgspec

from lictor.model.spiffe import NAMESPACE, BadSpiffeId, ServiceId, parse_spiffe_id

if TYPE_CHECKING:
    from lictor.agent.pools import Pools

KEPT = 90.0  # seconds
QUERY = "lictor:connections"
ANY = "*"
MAX_SOURCES = 2_000  # of one report
MAX_TEXT = 512  # characters of a name in a question or an answer

Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 31)]
Text = Annotated[str, msgspec.Meta(max_length=MAX_TEXT)]


class Inbound(msgspec.Struct, frozen=True):
    """A caller, by its SPIFFE id, and how many connections it has."""

    source: str
    connections: Count


class Report(msgspec.Struct, frozen=True):
    """What a proxy said last; `time` is the event loop's. `callers` are the services among those who are connected."""

    destination: str
    inbound: tuple[Inbound, ...]
    callers: tuple[tuple[ServiceId, int], ...]
    time: float


class Question(msgspec.Struct, frozen=True, array_like=True):
    """Which connections are asked for, by the names of the services at both ends; `*` for all."""

    destination: Text
    source: Text


class Flow(msgspec.Struct, frozen=True):
    """The connections from one service to another. The namespace and the partition are the source's."""

    destination: str
    source: str
    connections: int
    namespace: str = NAMESPACE
    partition: str = ""

    @property
    def caller(self) -> ServiceId:
        """The source as decisions see it."""
        return ServiceId("", "", self.source, self.namespace, self.partition)


class Told(msgspec.Struct, frozen=True):
    """An agent's answer: flows, and how many flows and connections there was no room for."""

    flows: tuple[Flow, ...]
    more_flows: int = 0
    more_connections: int = 0


class _Caller(msgspec.Struct, frozen=True, array_like=True):
    """A flow among those to one destination. What is the default may be left out at its end."""

    source: Text
    connections: Count
    namespace: Text = NAMESPACE
    partition: Text = ""


class _Answer(msgspec.Struct, frozen=True, array_like=True):
    """An answer as it is sent: each destination's name stands in it once."""

    callers: dict[Text, tuple[_Caller, ...]]
    more_flows: Count = 0
    more_connections: Count = 0


_encode = msgspec.msgpack.Encoder().encode
_decode_question = msgspec.msgpack.Decoder(Question).decode
_decode_answer = msgspec.msgpack.Decoder(_Answer).decode


class LiveConnections:
    """What the proxies of this agent have said. `registered` tells which there are: of others nothing is kept."""

    def __init__(self, registered: Callable[[], Container[str]]) -> None:
        self._registered = registered
        self._reports: dict[str, Report] = {}

    def report(self, proxy: str, destination: str, inbound: Iterable[Inbound], now: float) -> None:
        """A proxy says who is connected to its service: all of them, in the place of what it said before."""
        live = tuple(one for one in inbound if one.connections)
        # Whose ids these are is found out once, and not for each question.
        services = [(_service(one.source), one.connections) for one in live]
        callers = tuple((caller, count) for caller, count in services if caller is not None)
        self._reports[proxy] = Report(destination, live, callers, now)

    def reports(self, now: float) -> dict[str, Report]:
        """What has been said of late, by proxy."""
        there = self._registered()
        self._reports = {
            proxy: one for proxy, one in sorted(self._reports.items()) if now - one.time <= KEPT and proxy in there
        }
        return self._reports

    def flows(self, question: Question, now: float) -> list[Flow]:
        """The connections that are asked for, the most first. Callers whose id is no service's are passed over."""
        counts: dict[tuple[str, str, str, str], int] = {}
        wanted = question.destination.lower()
        for one in self.reports(now).values():
            if wanted not in (ANY, one.destination.lower()):
                continue
            for caller, count in one.callers:
                if question.source not in (ANY, caller.service):
                    continue
                key = (one.destination, caller.service, caller.namespace, caller.partition)
                counts[key] = counts.get(key, 0) + count
        flows = [Flow(to, source, count, *rest) for (to, source, *rest), count in counts.items()]
        return sorted(flows, key=lambda flow: (-flow.connections, flow.destination, flow.source))

    def answer(self, payload: bytes, room: int, now: float) -> bytes | None:
        """The answer to another agent's question, of at most `room` bytes; None for a question that cannot be read."""
        try:
            question = _decode_question(payload)
        except (msgspec.DecodeError, RecursionError):
            return None
        flows = self.flows(question, now)
        callers: dict[str, list[tuple[str | int, ...]]] = {}
        kept = 0
        used = len(_encode(({}, 1 << 31, 1 << 31))) + 4  # what an answer takes that tells nothing, and lengths
        for flow in flows:
            caller = _wire(flow)
            size = len(_encode(caller))
            if flow.destination not in callers:
                size += len(_encode(flow.destination)) + 3
            if used + size > room:
                break
            used += size
            kept += 1
            callers.setdefault(flow.destination, []).append(caller)
        rest = flows[kept:]
        return _encode((callers, len(rest), min(sum(flow.connections for flow in rest), 1 << 31)))


def _wire(flow: Flow) -> tuple[str | int, ...]:
    if flow.namespace == NAMESPACE and not flow.partition:
        return (flow.source, flow.connections)
    return (flow.source, flow.connections, flow.namespace, flow.partition)


def read_answer(payload: bytes) -> Told:
    """Another agent's answer. Raises `ValueError` for what is none."""
    try:
        answer = _decode_answer(payload)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"the answer cannot be read: {error}") from None
    flows = [
        Flow(destination, caller.source, caller.connections, caller.namespace, caller.partition)
        for destination, callers in answer.callers.items()
        for caller in callers
    ]
    return Told(tuple(flows), answer.more_flows, answer.more_connections)


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
