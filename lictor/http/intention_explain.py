"""`/v1/connect/intentions/explain`: which intention decides about a connection and why, what would change it, and what
a change would do to the connections that there are. Lictor's own.

Decisions are made here, from what this agent holds; the connections are asked of all agents over gossip.
"""

from collections.abc import Iterable
from typing import Any

import msgspec

from lictor.agent.live_connections import ANY, Collected, Flow, Question, ask
from lictor.http.api import Api
from lictor.http.intention_bodies import Ends, ends
from lictor.http.intentions import policy, require_mesh
from lictor.http.request import Request
from lictor.http.routes import Family
from lictor.model.authorizer import READ
from lictor.model.errors import InvalidRequest, LictorError
from lictor.model.intention import Decision, DefaultPolicy, Intention, Verdict, decide
from lictor.model.intention_change import Change, between, changed, command, explain
from lictor.model.spiffe import ServiceId
from lictor.store.reads import intentions
from lictor.store.reads.central import protocol_of
from lictor.store.store import View

family = Family()

MOST = 100  # connections, or pairs of services, that an answer lists


class Remedy(msgspec.Struct, frozen=True, rename="pascal"):
    """A change that would make another verdict of it: the command, the verdict, and what would give it."""

    command: str
    verdict: str
    reason: str


class Connections(msgspec.Struct, frozen=True, rename="pascal"):
    """Live connections from one service to another, into an agent's node."""

    source: str
    destination: str
    node: str
    connections: int


class Pair(msgspec.Struct, frozen=True, rename="pascal"):
    """Two services of the mesh between which connections would fare otherwise."""

    source: str
    destination: str


class Effect(msgspec.Struct, frozen=True, rename="pascal"):
    """What a change would do; `changes` is whether it would be one at all. `cut` are the live connections that it would
    end, `allowed` and `denied` the services whose new connections would fare otherwise than now; each list has at most
    100, and beside it stands how many there are in all. `untold` is how many live connections there was no room to be
    told of: they may be cut as well. `silent` are the agents that said nothing.
    """

    change: str
    changes: bool
    command: str
    verdict: str
    reason: str
    rule: Intention | None
    cut: list[Connections]
    cut_connections: int
    kept_connections: int
    allowed: list[Pair]
    allowed_pairs: int
    denied: list[Pair]
    denied_pairs: int
    agents: int
    untold: int
    silent: tuple[str, ...]


class Explained(msgspec.Struct, frozen=True, rename="pascal"):
    """Why a connection fares as it does. `shadowed` would decide in turn, were those before them not there; `protocol`
    is the destination's where requests are to be looked at.
    """

    source: str
    destination: str
    verdict: str
    allowed: bool
    reason: str
    rule: Intention | None
    shadowed: tuple[Intention, ...]
    default: str
    protocol: str
    remedies: list[Remedy]
    effect: Effect | None = None


@family.action("GET", "/v1/connect/intentions/explain")
async def explained(api: Api, request: Request) -> Any:
    """See `Explained`; with `change` (allow, deny or delete) what that would do."""
    require_mesh(api)
    asked = ends(request)
    request.require("intention", asked.destination, READ)
    change = _change(request.get("change"))
    default = policy(api)
    held = (await api.agent.read(lambda view: intentions.for_destination(view, asked.destination))).value
    found = explain(held, ServiceId("", "", asked.source), default)
    decision = found.decision
    return Explained(
        source=asked.source,
        destination=asked.destination,
        verdict=decision.verdict.value,
        allowed=decision.allowed,
        reason=decision.reason,
        rule=decision.rule,
        shadowed=found.shadowed,
        default=default.action,
        protocol=await _protocol(api, asked) if decision.verdict is Verdict.NEEDS_L7 else "",
        remedies=_remedies(held, asked, decision, default),
        effect=await _effect(api, asked, change, held, default) if change is not None else None,
    )


async def _protocol(api: Api, asked: Ends) -> str:
    """What the destination speaks, empty where that is not known here while the servers are away."""
    try:
        return (await api.agent.read(lambda view: protocol_of(view, asked.destination))).value
    except LictorError:
        return ""


def _change(text: str) -> Change | None:
    if not text:
        return None
    try:
        return Change(text)
    except ValueError:
        raise InvalidRequest(f'change must be allow, deny or delete, not "{text}"') from None


def _remedies(held: list[Intention], asked: Ends, now: Decision, default: DefaultPolicy) -> list[Remedy]:
    """The changes between just these two that would make another verdict of it."""
    exists = any(between(one, asked.source, asked.destination) for one in held)
    found = []
    for change in Change:
        if change is Change.DELETE and not exists:
            continue
        after = decide(_after(held, asked, change), ServiceId("", "", asked.source), default)
        if after.verdict is not now.verdict:
            line = command(asked.source, asked.destination, change, exists=exists)
            found.append(Remedy(line, after.verdict.value, after.reason))
    return found


def _after(held: list[Intention], asked: Ends, change: Change) -> list[Intention]:
    return changed(held, asked.source, asked.destination, change)


async def _effect(api: Api, asked: Ends, change: Change, held: list[Intention], default: DefaultPolicy) -> Effect:
    collected = await ask(api.agent.pools, Question(asked.destination, asked.source))
    flows = [flow for told in collected.told.values() for flow in told.flows]
    names = {flow.destination for flow in flows}
    read = (await api.agent.read(lambda view: _Reach(view, asked, names))).value
    judge = _Judge(read.held, asked, change, default)
    decision = decide(_after(held, asked, change), ServiceId("", "", asked.source), default)
    cut = [
        Connections(flow.source, flow.destination, node, flow.connections)
        for node, told in collected.told.items()
        for flow in told.flows
        if judge.cuts(flow)
    ]
    opened, closed = judge.pairs(read.sources, read.destinations)
    cut_connections = sum(one.connections for one in cut)
    old = next((one for one in held if between(one, asked.source, asked.destination)), None)
    same = old is None if change is Change.DELETE else old is not None and old.action == change.value
    return Effect(
        change=change.value,
        changes=not same,
        command=command(asked.source, asked.destination, change, exists=old is not None),
        verdict=decision.verdict.value,
        reason=decision.reason,
        rule=decision.rule,
        cut=sorted(cut, key=lambda one: -one.connections)[:MOST],
        cut_connections=cut_connections,
        kept_connections=sum(flow.connections for flow in flows) - cut_connections,
        allowed=opened[:MOST],
        allowed_pairs=len(opened),
        denied=closed[:MOST],
        denied_pairs=len(closed),
        agents=collected.asked,
        untold=_untold(collected),
        silent=collected.silent,
    )


def _untold(collected: Collected) -> int:
    return sum(told.more_connections for told in collected.told.values())


class _Reach:
    """The services that a change may be about, and the intentions of those that are called."""

    def __init__(self, view: View, asked: Ends, called: Iterable[str]) -> None:
        mesh = _mesh(view) if ANY in (asked.source, asked.destination) else []
        self.sources = mesh if asked.source == ANY else [asked.source]
        self.destinations = mesh if asked.destination == ANY else [asked.destination]
        names = {*called, *self.destinations}
        self.held = {name: intentions.for_destination(view, name) for name in names}


def _mesh(view: View) -> list[str]:
    """The services that have a sidecar, by name."""
    view.saw("kind", "connect-proxy")
    rows = view.store.services.by("kind", "connect-proxy").values()
    return sorted({row.service.proxy.destination_service_name for row in rows})


class _Judge:
    """Decisions before and after a change, by destination."""

    def __init__(self, held: dict[str, list[Intention]], asked: Ends, change: Change, default: DefaultPolicy) -> None:
        self._before = held
        self._after = {name: _after(rules, asked, change) for name, rules in held.items()}
        self._asked = asked
        self._default = default

    def cuts(self, flow: Flow) -> bool:
        """Whether live connections would be ended: they are let in now, and would not be."""
        before, after = self._both(flow.caller, flow.destination)
        return before is not Verdict.DENIED and after is Verdict.DENIED

    def pairs(self, sources: list[str], destinations: list[str]) -> tuple[list[Pair], list[Pair]]:
        """Those whose connections would be let through and are not now, and the other way round."""
        opened, closed = [], []
        for destination in destinations:
            for source in sources:
                before, after = self._both(ServiceId("", "", source), destination)
                if before is after:
                    continue
                if after is Verdict.ALLOWED:
                    opened.append(Pair(source, destination))
                elif after is Verdict.DENIED:
                    closed.append(Pair(source, destination))
        return opened, closed

    def _both(self, source: ServiceId, destination: str) -> tuple[Verdict, Verdict]:
        before = decide(self._before.get(destination, ()), source, self._default)
        after = decide(self._after.get(destination, ()), source, self._default)
        return before.verdict, after.verdict
