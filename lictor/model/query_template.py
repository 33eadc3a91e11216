"""The template of a prepared query: texts with `${...}` in its `Service` part, filled in with the name asked for.

What may stand between the braces: `name.full`, `name.prefix` (the query's own name), `name.suffix` (what follows it),
`match(N)` (a group of the template's regular expression on the full name; empty where there is none) and
`agent.segment`. `$${` is a literal `${`.
"""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import msgspec

from lictor.model.errors import InvalidRequest
from lictor.model.prepared_query import PreparedQuery, QueryFailover, ServiceQuery
from lictor.model.regex_groups import GroupRegex, RegexError

NAME_PREFIX_MATCH = "name_prefix_match"

_PIECE = re.compile(r"\$\$\{|\$\{([^{}]*)(\}?)")
_NAME = re.compile(r"[A-Za-z_][\w.]*")
_MATCH_CALL = re.compile(r"match\(\s*(-?\d{1,9})\s*\)")

Fill = Callable[[str, str], str]
"""From the path of a text within `Service` and its template to the text."""


@lru_cache(maxsize=256)
def _regex(pattern: str) -> GroupRegex:
    return GroupRegex(pattern)


def check(query: PreparedQuery) -> None:
    """Raises InvalidRequest where the query's template cannot be used: its type, its regular expression or a text."""
    try:
        if query.template.type != NAME_PREFIX_MATCH:
            raise InvalidRequest(f"Bad Template.Type '{query.template.type}'")
        if query.template.regexp:
            try:
                _regex(query.template.regexp)
            except RegexError as e:
                raise InvalidRequest(f"Bad Regexp: error parsing regexp: {e}") from None
        render(query, query.name, "")
    except InvalidRequest as e:
        raise InvalidRequest(f"failed compiling template: {e}") from None


def render(query: PreparedQuery, name: str, segment: str) -> PreparedQuery:
    """The query as it is when `name` is asked for; `segment` is the asking agent's network segment.

    Raises InvalidRequest naming the text that cannot be filled in.
    """
    groups: list[str] = _regex(query.template.regexp).groups(name) if query.template.regexp else []
    values = {
        "name.full": name,
        "name.prefix": query.name,
        # Names are matched whatever their case, the prefix is cut off only where its case is the same too.
        "name.suffix": name.removeprefix(query.name),
        "agent.segment": segment,
    }

    def fill(path: str, text: str) -> str:
        def piece(found: re.Match[str]) -> str:
            if found[0] == "$${":
                return "${"
            inner = found[1].strip()
            call = _MATCH_CALL.fullmatch(inner)
            if found[2] and call is not None:
                number = int(call[1])
                return groups[number] if 0 <= number < len(groups) else ""
            if found[2] and inner in values:
                return values[inner]
            if found[2] and _NAME.fullmatch(inner):
                column = found.start(1) + 1
                raise InvalidRequest(
                    f"Bad evaluation for '{text}' in Service{path}: 1:{column}: unknown variable accessed: {inner}"
                )
            raise InvalidRequest(f"Bad format '{text}' in Service{path}: parse error: syntax error")

        return _PIECE.sub(piece, text) if "${" in text else text

    service = _filled(query.service, fill)
    if query.template.remove_empty_tags and service.tags:
        service = msgspec.structs.replace(service, tags=tuple(tag for tag in service.tags if tag))
    return msgspec.structs.replace(query, service=service)


def _filled(service: ServiceQuery, fill: Fill) -> ServiceQuery:
    changes: dict[str, Any] = {
        "service": fill(".Service", service.service),
        "near": fill(".Near", service.near),
        "failover": _failover(service.failover, fill),
    }
    for field, path, texts in (
        ("tags", ".Tags", service.tags),
        ("ignore_check_ids", ".IgnoreCheckIDs", service.ignore_check_ids),
    ):
        if texts is not None:
            changes[field] = tuple(fill(f"{path}[{i}]", text) for i, text in enumerate(texts))
    for field, path, pairs in (
        ("node_meta", ".NodeMeta", service.node_meta),
        ("service_meta", ".ServiceMeta", service.service_meta),
    ):
        if pairs is not None:
            changes[field] = {key: fill(f"{path}[{key}]", value) for key, value in pairs.items()}
    return msgspec.structs.replace(service, **changes)


def _failover(failover: QueryFailover, fill: Fill) -> QueryFailover:
    if not failover.datacenters:
        return failover
    filled = tuple(fill(f".Failover.Datacenters[{i}]", name) for i, name in enumerate(failover.datacenters))
    return msgspec.structs.replace(failover, datacenters=filled)
