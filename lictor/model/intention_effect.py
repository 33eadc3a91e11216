"""What becomes of what goes on, connections and requests, when intentions change; and permissions in words. Pure.

It depends on who enforces them: connections are cut one by one, or, at an Envoy that carries connections, all with its
listener, those that are allowed with the others; at an Envoy that understands requests the connections stay, and each
request meets the new intentions.

    fate(before, after, Enforced.REQUESTS)      # before, after: the decisions on the caller
"""

import enum
from collections.abc import Iterable, Sequence

from lictor.model.config_entry.entry import WILDCARD
from lictor.model.config_entry.intentions import HTTPPermission, JWTRequirement, PermissionHeader
from lictor.model.intention import Decision, DefaultPolicy, Intention, Verdict, decision_of

HTTP_LIKE = ("http", "http2", "grpc")
LONGEST_WORDS = 500  # characters of one permission in words


class Enforced(enum.Enum):
    """By what intentions are enforced, which is what they end when they change."""

    CONNECTIONS = "connections"
    LISTENER = "listener"
    REQUESTS = "requests"


class Fate(enum.Enum):
    """What becomes of a live connection, or of the requests of a caller. `ENDED`: it is allowed, and ends all the same;
    a new one can be made. `JUDGED`: each request is looked at, by other permissions than now.
    """

    KEPT = "kept"
    CUT = "cut"
    ENDED = "ended"
    REFUSED = "refused"
    JUDGED = "judged"


def fate(before: Decision, after: Decision, enforced: Enforced, *, relisten: bool = False) -> Fate:
    """What a change makes of what goes on. `relisten` is whether it changes what connections are decided by at all."""
    if enforced is Enforced.REQUESTS:
        return _of_requests(before, after)
    if before.allowed and not after.allowed:
        return Fate.CUT
    return Fate.ENDED if enforced is Enforced.LISTENER and relisten and after.allowed else Fate.KEPT


def _of_requests(before: Decision, after: Decision) -> Fate:
    if after.verdict is Verdict.DENIED:
        return Fate.REFUSED if before.verdict is not Verdict.DENIED else Fate.KEPT
    if after.verdict is Verdict.NEEDS_L7 and not same_permissions(before, after):
        return Fate.JUDGED
    return Fate.KEPT


def same_permissions(one: Decision, other: Decision) -> bool:
    """Whether two decisions look at requests alike."""
    first, second = one.rule, other.rule
    if one.verdict is not other.verdict:
        return False
    if one.verdict is not Verdict.NEEDS_L7 or first is None or second is None:
        return True
    return (first.action, first.permissions, first.jwt) == (second.action, second.permissions, second.jwt)


def connection_rules(intentions: Iterable[Intention], default: DefaultPolicy) -> dict[str, bool]:
    """By what a proxy that carries connections decides: whether each source may connect, where that is not the default.
    Where a rule for all others is not the default either, every source that is no part of these is among them.
    """
    found: dict[str, bool] = {}
    for one in intentions:
        if one.source_peer or one.source_sameness_group:
            continue
        found.setdefault(one.source_name, decision_of(one).allowed)
        if one.source_name == WILDCARD:
            break
    if found.get(WILDCARD, default.allow) != default.allow:
        return found
    return {source: allowed for source, allowed in found.items() if allowed != default.allow}


def in_words(intention: Intention, default: DefaultPolicy) -> tuple[str, ...]:
    """What becomes of requests by an intention that looks at them: its steps, of which the first that a request meets
    decides.
    """
    steps = [f"deny: {_lacking(intention.jwt)}"] if intention.jwt is not None and intention.jwt.providers else []
    if not intention.permissions:
        return (*steps, f"{intention.action}: everything else")
    for one in intention.permissions:
        parts = [] if one.http is None else _conditions(one.http)
        if one.jwt is not None and one.jwt.providers:
            parts.append(f"with {_token(one.jwt)}")
        steps.append(f"{one.action}: {', '.join(parts)}")
    steps.append(f"{default.action}: everything else, by default")
    return tuple(step[:LONGEST_WORDS] for step in steps)


def _conditions(http: HTTPPermission) -> list[str]:
    parts = [",".join(http.methods)] if http.methods else []
    for name, path in (
        ("PathExact", http.path_exact),
        ("PathPrefix", http.path_prefix),
        ("PathRegex", http.path_regex),
    ):
        if path:
            parts.append(f"{name} {path}")
    return parts + [_header(one) for one in http.header]


def _header(header: PermissionHeader) -> str:
    wanted = {
        "Exact": header.exact,
        "Prefix": header.prefix,
        "Suffix": header.suffix,
        "Contains": header.contains,
        "Regex": header.regex,
    }
    condition = "Present" if header.present else next((f"{how} {what}" for how, what in wanted.items() if what), "")
    return f"Header {header.name} {'not ' if header.invert else ''}{condition}"


def _token(requirement: JWTRequirement) -> str:
    named = []
    for provider in requirement.providers:
        claims: Sequence[str] = [f"{'.'.join(claim.path)}={claim.value}" for claim in provider.verify_claims]
        named.append(provider.name + (f" ({', '.join(claims)})" if claims else ""))
    return f"a token of {' or '.join(named)}"


def _lacking(requirement: JWTRequirement) -> str:
    return f"whatever comes without {_token(requirement)}"
