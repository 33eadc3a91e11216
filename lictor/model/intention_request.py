"""What an intention says of one request: its path, its headers, its method and the tokens it carries. Pure.

The first permission that matches decides; where none does, the default policy. Source of the rules: Consul's
documentation of `service-intentions`, Permissions (https://developer.hashicorp.com/consul/docs/connect/config-entries/
service-intentions), and, for how a header or a path is compared, Envoy's of `HeaderMatcher` and `PathMatcher`.

Paths are compared as they come, without what follows `?` or `#`: whoever receives requests must have settled `//`, `..`
and percent-encoding the way the service does, or a request may mean another path to the service than it does here.
"""

import functools
from collections.abc import Mapping
from typing import Any

import msgspec

from lictor.model.config_entry.intentions import ALLOW, HTTPPermission, JWTRequirement, PermissionHeader
from lictor.model.intention import Decision, DefaultPolicy, Intention, Verdict
from lictor.model.regex import Regex

MAX_CLAIMS = 64  # steps that a claim's path may have before it is found nowhere


class HttpRequest(msgspec.Struct, frozen=True):
    """A request as permissions see it. `path` begins with a slash; `headers` by name in lower case, where several of
    one name are one value joined by commas; `tokens` are the payloads of its verified JSON Web Tokens, by the name of
    the provider that vouches for each. An unverified token must not be among them.
    """

    method: str
    path: str
    headers: Mapping[str, str] = {}
    tokens: Mapping[str, Mapping[str, Any]] = {}


def decide_request(intention: Intention, request: HttpRequest, default: DefaultPolicy) -> Decision:
    """What becomes of one request on a connection whose deciding intention is `intention`."""
    rule = f"Matched L7 intention: {intention}"
    bearing = _bearing(intention.jwt, request)
    if not bearing.accepted:
        return Decision(Verdict.DENIED, intention, f"{rule}: {bearing.lacking}")
    if not intention.permissions:
        return _done(intention.action, intention, f"Matched L4 intention: {intention}")
    for at, permission in enumerate(intention.permissions):
        if permission.http is None or not _meets(permission.http, request):
            continue
        bearing = _bearing(permission.jwt, request)
        if not bearing.known:
            return Decision(Verdict.DENIED, intention, f"{rule}: Permissions[{at}]: {bearing.lacking}")
        if bearing.accepted:
            return _done(
                permission.action, intention, f"{rule}: Permissions[{at}], Action: {permission.action.upper()}"
            )
    return _done(default.action, intention, f"{rule}: no permission matches. {default.reason}")


def _done(action: str, intention: Intention, reason: str) -> Decision:
    return Decision(Verdict.ALLOWED if action == ALLOW else Verdict.DENIED, intention, reason)


def _meets(conditions: HTTPPermission, request: HttpRequest) -> bool:
    """Whether a request meets all of the conditions that there are."""
    if conditions.methods and request.method.upper() not in conditions.methods:
        return False
    if not _path_meets(conditions, request.path):
        return False
    return all(_header_meets(header, request.headers) for header in conditions.header)


def _path_meets(conditions: HTTPPermission, path: str) -> bool:
    path = path.partition("#")[0].partition("?")[0]
    if conditions.path_exact:
        return path == conditions.path_exact
    if conditions.path_prefix:
        return path.startswith(conditions.path_prefix)
    return not conditions.path_regex or _whole(conditions.path_regex).search(path)


def _header_meets(condition: PermissionHeader, headers: Mapping[str, str]) -> bool:
    """Whether the header is as it shall be. One that is missing meets no condition, inverted or not, but that it be
    missing (`Present` with `Invert`), as in Envoy.
    """
    value = headers.get(condition.name.lower())
    if condition.present:
        return (value is not None) != condition.invert
    if value is None:
        return False
    return _value_meets(condition, value) != condition.invert


def _value_meets(condition: PermissionHeader, value: str) -> bool:
    if condition.regex:  # `IgnoreCase` is not about expressions, which have `(?i)`
        return _whole(condition.regex).search(value)
    wanted = condition.exact or condition.prefix or condition.suffix or condition.contains
    if condition.ignore_case:
        value, wanted = value.lower(), wanted.lower()
    if condition.exact:
        return value == wanted
    if condition.prefix:
        return value.startswith(wanted)
    if condition.suffix:
        return value.endswith(wanted)
    return wanted in value


@functools.lru_cache(maxsize=1024)
def _whole(pattern: str) -> Regex:
    """A pattern that must match the whole text. Raises `RegexError`."""
    return Regex(rf"\A(?:{pattern})\z")


class _Bearing(msgspec.Struct, frozen=True):
    """How a request's tokens stand to what is required: whether it has one of a required provider, whether one of them
    makes the claims that it must, and what is lacking in words.
    """

    known: bool
    accepted: bool
    lacking: str = ""


def _bearing(requirement: JWTRequirement | None, request: HttpRequest) -> _Bearing:
    """Claims are conditions like a header: a permission whose claims are not made is passed over. A request without any
    of the tokens is refused.
    """
    if requirement is None or not requirement.providers:
        return _Bearing(known=True, accepted=True)
    known = False
    lacking = []
    for provider in requirement.providers:
        payload = request.tokens.get(provider.name)
        if payload is None:
            lacking.append(f'no valid token of provider "{provider.name}"')
            continue
        known = True
        wrong = [claim for claim in provider.verify_claims if not _claims(payload, claim.path, claim.value)]
        if not wrong:
            return _Bearing(known=True, accepted=True)
        path = ".".join(wrong[0].path)
        lacking.append(f'the token of provider "{provider.name}" does not claim {path} = "{wrong[0].value}"')
    return _Bearing(known, accepted=False, lacking=" and ".join(lacking))


def _claims(payload: Mapping[str, Any], path: tuple[str, ...], value: str) -> bool:
    """Whether the claim at `path` is `value`, or a list with it."""
    found: Any = payload
    if len(path) > MAX_CLAIMS:
        return False
    for step in path:
        if not isinstance(found, Mapping) or step not in found:
            return False
        found = found[step]
    return value in found if isinstance(found, list) else bool(found == value)
