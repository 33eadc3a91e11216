"""Envoy's role-based access control as its documentation has it: what rules say of a request."""

from __future__ import annotations

import re
from typing import Any

import msgspec


class Call(msgspec.Struct, frozen=True):
    """A request, with who makes it and what its tokens say by provider."""

    source: str
    path: str = "/"
    method: str = "GET"
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    tokens: dict[str, dict[str, Any]] = msgspec.field(default_factory=dict)


def allows(rules: Any, call: Call) -> bool:
    """Whether rules let a request through."""
    matched = any(
        any(_permits(one, call) for one in policy.permissions) and any(_is(one, call) for one in policy.principals)
        for policy in rules.policies.values()
    )
    return bool(matched == (rules.action == rules.Action.ALLOW))


def _is(principal: Any, call: Call) -> bool:
    kind = principal.WhichOneof("identifier")
    if kind == "authenticated":
        return _text(principal.authenticated.principal_name, call.source)
    if kind == "and_ids":
        return all(_is(one, call) for one in principal.and_ids.ids)
    if kind == "any":
        return True
    assert kind == "not_id", kind
    return not _is(principal.not_id, call)


def _permits(permission: Any, call: Call) -> bool:
    kind = permission.WhichOneof("rule")
    if kind == "any":
        return True
    if kind == "and_rules":
        return all(_permits(one, call) for one in permission.and_rules.rules)
    if kind == "or_rules":
        return any(_permits(one, call) for one in permission.or_rules.rules)
    if kind == "not_rule":
        return not _permits(permission.not_rule, call)
    if kind == "url_path":
        return _text(permission.url_path.path, call.path.partition("?")[0])
    if kind == "header":
        return _header(permission.header, call)
    assert kind == "sourced_metadata", kind
    return _metadata(permission.sourced_metadata.metadata_matcher, call)


def _header(matcher: Any, call: Call) -> bool:
    value = {":method": call.method, **call.headers}.get(matcher.name.lower())
    if matcher.WhichOneof("header_match_specifier") == "present_match":
        return ((value is not None) == bool(matcher.present_match)) != bool(matcher.invert_match)
    return value is not None and _text(matcher.string_match, value) != bool(matcher.invert_match)


def _metadata(matcher: Any, call: Call) -> bool:
    found: Any = {f"jwt_payload_{provider}": claims for provider, claims in call.tokens.items()}
    for segment in matcher.path:
        if not isinstance(found, dict) or segment.key not in found:
            return False
        found = found[segment.key]
    if matcher.value.WhichOneof("match_pattern") == "list_match":
        wanted = matcher.value.list_match.one_of.string_match
        return isinstance(found, list) and any(_text(wanted, one) for one in found)
    return isinstance(found, str) and _text(matcher.value.string_match, found)


def _text(matcher: Any, value: str) -> bool:
    kind = matcher.WhichOneof("match_pattern")
    if kind == "safe_regex":
        return re.fullmatch(matcher.safe_regex.regex, value) is not None
    wanted = getattr(matcher, kind)
    if matcher.ignore_case:
        wanted, value = wanted.lower(), value.lower()
    return bool(
        {"exact": value == wanted, "prefix": value.startswith(wanted), "suffix": value.endswith(wanted)}.get(
            kind, wanted in value
        )
    )
