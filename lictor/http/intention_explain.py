"""`/v1/connect/intentions/explain`: which intention decides about a connection and why, what would change it, and what
a change would do to the connections that there are. Lictor's own.

Decisions are made here, from what this agent holds; the connections are asked of all agents of its datacenter over
gossip. Another datacenter answers for its own, where `dc` names it.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from lictor.agent.live_connections import ANY, Collected, Flow, Question, ask
from lictor.http.api import Api
from lictor.http.bodies import read_json
from lictor.http.config import refuse_unstorable
from lictor.http.intention_bodies import Ends, ends
from lictor.http.intentions import policy, require_mesh
from lictor.http.request import Request
from lictor.http.routes import Family
from lictor.model.authorizer import READ
from lictor.model.config_entry import UndecodableConfigEntry, decode_entry
from lictor.model.config_entry.decode import InvalidConfigEntry
from lictor.model.config_entry.intentions import ServiceIntentions
from lictor.model.errors import InvalidRequest, LictorError, Refused
from lictor.model.intention import Decision, DefaultPolicy, Intention, Verdict, decide
from lictor.model.intention_change import Change, between, changed, command, explain, written
from lictor.model.intention_effect import HTTP_LIKE, Enforced, Fate, connection_rules, fate, in_words, same_permissions
from lictor.model.spiffe import ServiceId
from lictor.store.reads import intentions
from lictor.store.reads.central import protocol_of
from lictor.store.store import View

family = Family()

MOST = 100  # connections, or pairs of services, that an answer lists
WRITE = "write"  # the change that is a whole config entry written

Tried = Callable[[list[Intention]], list[Intention]]
"""A change: the intentions of a destination as they would be after it."""


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


class Requests(msgspec.Struct, frozen=True, rename="pascal"):
    """That a service has made requests to another one at an agent's node, the last of them so many seconds ago."""

    source: str
    destination: str
    node: str
    age: int


class Judged(msgspec.Struct, frozen=True, rename="pascal"):
    """A caller whose requests would be looked at, by the steps of `permissions`: the first that a request meets
    decides. `seen` is whether it has made some lately.
    """

    source: str
    destination: str
    seen: bool
    permissions: tuple[str, ...]


class Effect(msgspec.Struct, frozen=True, rename="pascal"):
    """What a change would do; `changes` is whether it would be one at all. Each list has at most 100, and beside it
    stands how many there are in all.

    `cut` are the live connections that it would end, `restarted` those that are allowed and would end with the listener
    of an Envoy, and can be made anew. `refused` are callers that have made requests lately, all of which would be
    refused. `judged` are those whose requests would be looked at, by other permissions than now; `allowed` and `denied`
    the services whose new connections would fare otherwise. `untold` is how many live connections there was no room to
    be told of, `untold_requesters` how many callers that make requests: they may be concerned as well. `silent` are the
    agents that said nothing.
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
    restarted: list[Connections]
    restarted_connections: int
    refused: list[Requests]
    refused_callers: int
    judged: list[Judged]
    judged_callers: int
    allowed: list[Pair]
    allowed_pairs: int
    denied: list[Pair]
    denied_pairs: int
    agents: int
    untold: int
    untold_requesters: int
    silent: tuple[str, ...]


class Explained(msgspec.Struct, frozen=True, rename="pascal"):
    """Why a connection fares as it does. `shadowed` would decide in turn, were those before them not there; `protocol`
    is the destination's where requests are to be looked at, and `permissions` what becomes of these.
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
    permissions: tuple[str, ...]
    remedies: list[Remedy]
    effect: Effect | None = None


class _Trial(msgspec.Struct, frozen=True):
    """A change to be tried: its name, the command that makes it, what it makes of intentions, and whether of some it
    makes others at all.
    """

    name: str
    command: str
    after: Tried
    changes: bool


@family.action("GET", "/v1/connect/intentions/explain", elsewhere=True)
async def explained(api: Api, request: Request) -> Any:
    """See `Explained`; with `change` (allow, deny or delete) what that would do."""
    require_mesh(api)
    asked = ends(request)
    request.require("intention", asked.destination, READ)
    change = _change(request.get("change"))
    held = await _held(api, asked)
    return await _explained(api, asked, held, _trial(held, asked, change) if change is not None else None)


@family.action("PUT", "/v1/connect/intentions/explain", elsewhere=True)
async def written_entry(api: Api, request: Request) -> Any:
    """What it would do to write the `service-intentions` config entry in the body, to the connections and requests of
    one source or, by default, of all. Nothing is written.
    """
    require_mesh(api)
    body = read_json(request, "Request decoding failed: ")
    refuse_unstorable(body)
    try:
        entry = decode_entry(body)
    except UndecodableConfigEntry as error:
        raise InvalidRequest(f"Request decoding failed: {error}") from None
    if not isinstance(entry, ServiceIntentions):
        raise InvalidRequest(f'the entry must be of kind "service-intentions", not "{entry.kind}"')
    entry = entry.normalised()
    try:
        entry.validate()
    except InvalidConfigEntry as error:
        raise Refused(str(error)) from None
    asked = Ends(request.get("source") or ANY, entry.name)
    request.require("intention", asked.destination, READ)
    held = await _held(api, asked)
    after = written(held, entry)
    changes = _plain(after) != _plain(held)
    trial = _Trial(WRITE, "lictor config write", lambda rules: written(rules, entry), changes)
    return await _explained(api, asked, held, trial)


def _plain(intentions: list[Intention]) -> list[Intention]:
    """Intentions as what they decide, without when and as what they were written."""
    return [
        Intention(
            source_name=one.source_name,
            source_peer=one.source_peer,
            source_sameness_group=one.source_sameness_group,
            destination_name=one.destination_name.lower(),
            action=one.action,
            permissions=one.permissions,
            jwt=one.jwt,
        )
        for one in intentions
    ]


async def _held(api: Api, asked: Ends) -> list[Intention]:
    return (await api.agent.read(lambda view: intentions.for_destination(view, asked.destination))).value


async def _explained(api: Api, asked: Ends, held: list[Intention], trial: _Trial | None) -> Explained:
    default = policy(api)
    found = explain(held, ServiceId("", "", asked.source), default)
    decision = found.decision
    looks = decision.verdict is Verdict.NEEDS_L7
    return Explained(
        source=asked.source,
        destination=asked.destination,
        verdict=decision.verdict.value,
        allowed=decision.allowed,
        reason=decision.reason,
        rule=decision.rule,
        shadowed=found.shadowed,
        default=default.action,
        protocol=await _protocol(api, asked) if looks else "",
        permissions=_permissions(decision, default),
        remedies=_remedies(held, asked, decision, default),
        effect=await _effect(api, asked, trial, held, default) if trial is not None else None,
    )


def _permissions(decision: Decision, default: DefaultPolicy) -> tuple[str, ...]:
    """What becomes of requests, in words; nothing where they are not looked at."""
    if decision.verdict is not Verdict.NEEDS_L7 or decision.rule is None:
        return ()
    return in_words(decision.rule, default)


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


def _trial(held: list[Intention], asked: Ends, change: Change) -> _Trial:
    old = next((one for one in held if between(one, asked.source, asked.destination)), None)
    same = old is None if change is Change.DELETE else old is not None and old.action == change.value
    line = command(asked.source, asked.destination, change, exists=old is not None)
    return _Trial(change.value, line, lambda rules: _after(rules, asked, change), not same)


async def _effect(api: Api, asked: Ends, trial: _Trial, held: list[Intention], default: DefaultPolicy) -> Effect:
    collected, beside = await _collect(api, asked)
    flows = [(node, flow) for node, told in collected.told.items() for flow in told.flows]
    names = {flow.destination for _, flow in (*flows, *beside)}
    read = (await api.agent.read(lambda view: _Reach(view, asked, names))).value
    judge = _Judge(read, trial, default)
    decision = decide(trial.after(held), ServiceId("", "", asked.source), default)
    by_fate: dict[Fate, list[tuple[str, Flow]]] = {kind: [] for kind in Fate}
    for node, flow in flows:
        by_fate[judge.fate(flow)].append((node, flow))
    by_fate[Fate.ENDED] += [(node, flow) for node, flow in beside if judge.fate(flow) is Fate.ENDED]
    pairs = judge.pairs(read.sources, read.destinations)
    for _, flow in by_fate[Fate.JUDGED]:
        pairs.judged.setdefault((flow.source, flow.destination), judge.steps(flow.caller, flow.destination))
    seen = {(flow.source, flow.destination) for _, flow in flows if flow.enforced is Enforced.REQUESTS}
    judged = [Judged(*pair, pair in seen, steps) for pair, steps in pairs.judged.items()]
    refused = [Requests(flow.source, flow.destination, node, flow.age) for node, flow in by_fate[Fate.REFUSED]]
    return Effect(
        change=trial.name,
        changes=trial.changes,
        command=trial.command,
        verdict=decision.verdict.value,
        reason=decision.reason,
        rule=decision.rule,
        cut=_listed(by_fate[Fate.CUT]),
        cut_connections=_total(by_fate[Fate.CUT]),
        kept_connections=_total(by_fate[Fate.KEPT]),
        restarted=_listed(by_fate[Fate.ENDED]),
        restarted_connections=_total(by_fate[Fate.ENDED]),
        refused=sorted(refused, key=lambda one: one.age)[:MOST],
        refused_callers=len(refused),
        judged=sorted(judged, key=lambda one: not one.seen)[:MOST],
        judged_callers=len(judged),
        allowed=pairs.opened[:MOST],
        allowed_pairs=len(pairs.opened),
        denied=pairs.closed[:MOST],
        denied_pairs=len(pairs.closed),
        agents=collected.asked,
        untold=_untold(collected),
        untold_requesters=sum(told.more_requesters for told in collected.told.values()),
        silent=collected.silent,
    )


async def _collect(api: Api, asked: Ends) -> tuple[Collected, list[tuple[str, Flow]]]:
    """What goes on between the two; and the connections of other sources that a change may end with a listener."""
    pools = api.agent.pools
    question = Question(asked.destination, asked.source)
    if asked.source == ANY:
        return await ask(pools, question), []
    collected, every = await asyncio.gather(ask(pools, question), ask(pools, Question(asked.destination, ANY)))
    beside = [
        (node, flow)
        for node, told in every.told.items()
        for flow in told.flows
        if flow.enforced is Enforced.LISTENER and flow.source != asked.source
    ]
    return collected, beside


def _listed(flows: list[tuple[str, Flow]]) -> list[Connections]:
    rows = [Connections(flow.source, flow.destination, node, flow.connections) for node, flow in flows]
    return sorted(rows, key=lambda one: -one.connections)[:MOST]


def _total(flows: list[tuple[str, Flow]]) -> int:
    return sum(flow.connections for _, flow in flows)


def _untold(collected: Collected) -> int:
    return sum(told.more_connections for told in collected.told.values())


class _Reach:
    """The services that a change may be about, and the intentions and the protocols of those that are called."""

    def __init__(self, view: View, asked: Ends, called: Iterable[str]) -> None:
        mesh = _mesh(view) if ANY in (asked.source, asked.destination) else []
        self.sources = mesh if asked.source == ANY else [asked.source]
        self.destinations = mesh if asked.destination == ANY else [asked.destination]
        names = {*called, *self.destinations}
        self.held = {name: intentions.for_destination(view, name) for name in names}
        self.protocols = {name: protocol_of(view, name) for name in names}


def _mesh(view: View) -> list[str]:
    """The services that have a sidecar, by name."""
    view.saw("kind", "connect-proxy")
    rows = view.store.services.by("kind", "connect-proxy").values()
    return sorted({row.service.proxy.destination_service_name for row in rows})


class _Pairs:
    """Pairs of services whose new connections would fare otherwise: let through, refused, or looked into."""

    def __init__(self) -> None:
        self.opened: list[Pair] = []
        self.closed: list[Pair] = []
        self.judged: dict[tuple[str, str], tuple[str, ...]] = {}


class _Judge:
    """Decisions before and after a change, by destination."""

    def __init__(self, reach: _Reach, trial: _Trial, default: DefaultPolicy) -> None:
        self._before = reach.held
        self._after = {name: trial.after(rules) for name, rules in reach.held.items()}
        self._protocols = reach.protocols
        self._default = default

    def fate(self, flow: Flow) -> Fate:
        """What would become of live connections, or of requests."""
        before, after = self._both(flow.caller, flow.destination)
        return fate(before, after, flow.enforced, relisten=self._relistens(flow.destination))

    def _relistens(self, destination: str) -> bool:
        before, after = self._before.get(destination, ()), self._after.get(destination, ())
        return connection_rules(before, self._default) != connection_rules(after, self._default)

    def steps(self, caller: ServiceId, destination: str) -> tuple[str, ...]:
        """What would become of a caller's requests."""
        return _permissions(self._both(caller, destination)[1], self._default)

    def pairs(self, sources: list[str], destinations: list[str]) -> _Pairs:
        """What would be new between services."""
        found = _Pairs()
        for destination in destinations:
            for source in sources:
                caller = ServiceId("", "", source)
                before, after = self._both(caller, destination)
                was, will = self._verdict(before, destination), self._verdict(after, destination)
                if was is will and (will is not Verdict.NEEDS_L7 or same_permissions(before, after)):
                    continue
                if will is Verdict.NEEDS_L7:
                    found.judged[source, destination] = _permissions(after, self._default)
                else:
                    (found.opened if will is Verdict.ALLOWED else found.closed).append(Pair(source, destination))
        return found

    def _verdict(self, decision: Decision, destination: str) -> Verdict:
        """What a decision comes to: where nobody can look into requests, nothing is let through."""
        if decision.verdict is Verdict.NEEDS_L7 and self._protocols.get(destination) not in HTTP_LIKE:
            return Verdict.DENIED
        return decision.verdict

    def _both(self, source: ServiceId, destination: str) -> tuple[Decision, Decision]:
        before = decide(self._before.get(destination, ()), source, self._default)
        return before, decide(self._after.get(destination, ()), source, self._default)
