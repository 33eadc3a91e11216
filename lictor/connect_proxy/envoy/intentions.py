"""Intentions as Envoy enforces them (RBAC), for connections and for requests.

Rules come highest precedence first, and the first one for a source decides. Envoy's policies have no order: each says
who it is about, so that a rule for any source leaves out those that have one of their own. Where the default is to
deny, the policies are what is allowed; where it is to allow, what is denied.

Permissions look at requests: the first that matches decides, and where none does, the default, as in
`lictor.model.intention_request`. At a service that has no requests (`tcp`), permissions let nothing through.

Who shows a revoked certificate is let through by none of it: where policies allow, each has the condition that the
certificate is another one; where they deny, one more denies all who show such a one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from envoy.config.rbac.v3 import rbac_pb2
from envoy.config.route.v3 import route_components_pb2
from envoy.type.matcher.v3 import metadata_pb2, path_pb2, regex_pb2, string_pb2, value_pb2
from google.api.expr.v1alpha1 import syntax_pb2

from lictor.connect_proxy.envoy import names
from lictor.connect_proxy.envoy.snapshot import ProxySnapshot, Rule
from lictor.model.config_entry.intentions import ALLOW, HTTPPermission, JWTRequirement, Permission, PermissionHeader

JWT_FILTER = "envoy.filters.http.jwt_authn"
ANY_SOURCE = "*"
REVOKED = "lictor-revoked"  # the policy that denies whoever shows a revoked certificate
DIGEST = "sha256_peer_certificate_digest"


def effective(rules: Iterable[Rule]) -> list[Rule]:
    """The rules that can decide: the first of each source, and nothing after the first for any source."""
    found: dict[str, Rule] = {}
    for rule in rules:
        found.setdefault(rule.source, rule)
        if rule.source == ANY_SOURCE:
            break
    return list(found.values())


def connection_rules(snapshot: ProxySnapshot) -> rbac_pb2.RBAC:
    """Who may connect, for a service whose requests cannot be looked at."""
    policies = _Policies(snapshot)
    for rule in policies.rules:
        needs_requests = rule.permissions or (rule.jwt is not None and rule.jwt.providers)
        allows = rule.action == ALLOW and not needs_requests
        if allows != snapshot.default_allow:
            policies.add(rule, [rbac_pb2.Permission(any=True)])
    return policies.made()


def request_rules(snapshot: ProxySnapshot) -> rbac_pb2.RBAC:
    """Who may make which requests."""
    policies = _Policies(snapshot)
    issuers = {provider.name: provider.issuer for provider in snapshot.jwt_providers}
    for rule in policies.rules:
        conditions = _deciding(_steps(rule, issuers), not snapshot.default_allow)
        if conditions:
            policies.add(rule, conditions)
    return policies.made()


class _Policies:
    """Policies in the making, by the names of their sources."""

    def __init__(self, snapshot: ProxySnapshot) -> None:
        self.rules = effective(snapshot.rules)
        self._domain = snapshot.trust_domain
        action = rbac_pb2.RBAC.Action.DENY if snapshot.default_allow else rbac_pb2.RBAC.Action.ALLOW
        self._made = rbac_pb2.RBAC(action=action)
        self._revoked = snapshot.revoked

    def add(self, rule: Rule, permissions: Sequence[rbac_pb2.Permission]) -> None:
        """What is allowed, or denied, to a rule's source."""
        others = [other.source for other in self.rules if other.source != ANY_SOURCE]
        everybody = rule.source == ANY_SOURCE and self._made.action == rbac_pb2.RBAC.Action.DENY
        # What is allowed to any service is for services alone; what is denied to any, for agents and all others too.
        principal = rbac_pb2.Principal(any=True) if everybody else self._source(rule.source)
        if rule.source == ANY_SOURCE and others:
            left_out = [rbac_pb2.Principal(not_id=self._source(source)) for source in others]
            principal = rbac_pb2.Principal(and_ids=rbac_pb2.Principal.Set(ids=[principal, *left_out]))
        layer = "layer7" if rule.permissions else "layer4"
        name = f"lictor-intentions-{layer}-{rule.source}"  # each rule's own: no service is called `*`
        self._made.policies[name].CopyFrom(rbac_pb2.Policy(permissions=permissions, principals=[principal]))

    def _source(self, source: str) -> rbac_pb2.Principal:
        pattern = string_pb2.StringMatcher(
            safe_regex=regex_pb2.RegexMatcher(regex=names.source_pattern(self._domain, source))
        )
        return rbac_pb2.Principal(authenticated=rbac_pb2.Principal.Authenticated(principal_name=pattern))

    def made(self) -> rbac_pb2.RBAC:
        """All of them, with what keeps revoked certificates out."""
        if self._revoked and self._made.action == rbac_pb2.RBAC.Action.DENY:
            anybody = rbac_pb2.Policy(
                permissions=[rbac_pb2.Permission(any=True)], principals=[rbac_pb2.Principal(any=True)]
            )
            anybody.condition.CopyFrom(_shows(self._revoked))
            self._made.policies[REVOKED].CopyFrom(anybody)
        elif self._revoked:
            condition = _call("!_", _shows(self._revoked))
            for policy in self._made.policies.values():
                policy.condition.CopyFrom(condition)
        return self._made


def _shows(fingerprints: Sequence[str]) -> syntax_pb2.Expr:
    """The condition that a connection's certificate is one of these, as CEL: `connection.sha256_... in [...]`."""
    digest = syntax_pb2.Expr(
        select_expr=syntax_pb2.Expr.Select(
            operand=syntax_pb2.Expr(ident_expr=syntax_pb2.Expr.Ident(name="connection")), field=DIGEST
        )
    )
    listed = [syntax_pb2.Expr(const_expr=syntax_pb2.Constant(string_value=one)) for one in fingerprints]
    many = syntax_pb2.Expr(list_expr=syntax_pb2.Expr.CreateList(elements=listed))
    return _call("@in", digest, many)


def _call(function: str, *arguments: syntax_pb2.Expr) -> syntax_pb2.Expr:
    return syntax_pb2.Expr(call_expr=syntax_pb2.Expr.Call(function=function, args=arguments))


def _steps(rule: Rule, issuers: Mapping[str, str]) -> list[tuple[rbac_pb2.Permission, bool]]:
    """Conditions, and whether a request is let through for which they are the first to hold.

    A permission with tokens refuses a request that has none of them, and is passed over by one whose tokens lack the
    claims; the tokens of the rule itself are needed by all requests.
    """
    steps = []
    if rule.jwt is not None and rule.jwt.providers:
        steps.append((_not(_tokens(rule.jwt, issuers)), False))
    for permission in rule.permissions or (Permission(rule.action),):
        request = _request(permission.http)
        need = permission.jwt
        if need is None or not need.providers:
            steps.append((request, permission.action == ALLOW))
            continue
        steps.append((_all([request, _not(_tokens(need, issuers, claims=False))]), False))
        steps.append((_all([request, _tokens(need, issuers)]), permission.action == ALLOW))
    return steps


def _deciding(steps: Sequence[tuple[rbac_pb2.Permission, bool]], wanted: bool) -> list[rbac_pb2.Permission]:
    """The conditions of the steps that decide as wanted, each with those before it that decide otherwise left out."""
    found = []
    before: list[rbac_pb2.Permission] = []
    for condition, decision in steps:
        if decision == wanted:
            found.append(_all([condition, *before]))
        else:
            before.append(_not(condition))
    return found


def _all(parts: Sequence[rbac_pb2.Permission]) -> rbac_pb2.Permission:
    narrow = [part for part in parts if not part.any]
    if len(narrow) < 2:
        return narrow[0] if narrow else rbac_pb2.Permission(any=True)
    return rbac_pb2.Permission(and_rules=rbac_pb2.Permission.Set(rules=narrow))


def _either(parts: Sequence[rbac_pb2.Permission]) -> rbac_pb2.Permission:
    return parts[0] if len(parts) == 1 else rbac_pb2.Permission(or_rules=rbac_pb2.Permission.Set(rules=parts))


def _not(permission: rbac_pb2.Permission) -> rbac_pb2.Permission:
    return rbac_pb2.Permission(not_rule=permission)


def _request(http: HTTPPermission | None) -> rbac_pb2.Permission:
    """The requests that a permission is about."""
    if http is None:
        return rbac_pb2.Permission(any=True)
    parts = []
    if http.path_exact:
        parts.append(_path(string_pb2.StringMatcher(exact=http.path_exact)))
    elif http.path_prefix:
        parts.append(_path(string_pb2.StringMatcher(prefix=http.path_prefix)))
    elif http.path_regex:
        parts.append(_path(_regex(http.path_regex)))
    parts += [_header(header) for header in http.header]
    if http.methods:
        methods = [
            rbac_pb2.Permission(
                header=route_components_pb2.HeaderMatcher(
                    name=":method", string_match=string_pb2.StringMatcher(exact=method)
                )
            )
            for method in http.methods
        ]
        parts.append(_either(methods))
    return _all(parts)


def _regex(pattern: str) -> string_pb2.StringMatcher:
    return string_pb2.StringMatcher(safe_regex=regex_pb2.RegexMatcher(regex=pattern))


def _path(matcher: string_pb2.StringMatcher) -> rbac_pb2.Permission:
    return rbac_pb2.Permission(url_path=path_pb2.PathMatcher(path=matcher))


def _header(header: PermissionHeader) -> rbac_pb2.Permission:
    """A condition on a header; where it is missing, only the inverted condition that it be there holds."""
    found = route_components_pb2.HeaderMatcher(name=header.name, invert_match=header.invert)
    if header.present:
        found.present_match = True
    elif header.regex:
        found.string_match.CopyFrom(_regex(header.regex))
    else:
        for kind in ("exact", "prefix", "suffix", "contains"):
            value = getattr(header, kind)
            if value:
                matcher = string_pb2.StringMatcher(**{kind: value}, ignore_case=header.ignore_case)
                found.string_match.CopyFrom(matcher)
                break
    return rbac_pb2.Permission(header=found)


def _tokens(requirement: JWTRequirement, issuers: Mapping[str, str], *, claims: bool = True) -> rbac_pb2.Permission:
    """A token of one of the providers, with all the claims that are asked for; where none is known, nothing will do."""
    found = []
    for provider in requirement.providers:
        if provider.name not in issuers:
            continue
        space = payload_key(provider.name)
        parts = [_claim(space, ("iss",), issuers[provider.name])]
        if claims:
            parts += [_claim(space, claim.path, claim.value) for claim in provider.verify_claims]
        found.append(_all(parts))
    return _either(found) if found else _not(rbac_pb2.Permission(any=True))


def payload_key(provider: str) -> str:
    """Under which name what a provider's token says is kept for the rules."""
    return f"jwt_payload_{provider}"


def _claim(space: str, path: Sequence[str], value: str) -> rbac_pb2.Permission:
    """A claim is there: as the value itself, or in a list."""
    exact = value_pb2.ValueMatcher(string_match=string_pb2.StringMatcher(exact=value))
    kinds: list[Any] = [exact]
    if tuple(path) != ("iss",):
        kinds.append(value_pb2.ValueMatcher(list_match=value_pb2.ListMatcher(one_of=exact)))
    segments = [metadata_pb2.MetadataMatcher.PathSegment(key=key) for key in (space, *path)]
    matchers = [metadata_pb2.MetadataMatcher(filter=JWT_FILTER, path=segments, value=kind) for kind in kinds]
    return _either([rbac_pb2.Permission(sourced_metadata=_of_request(matcher)) for matcher in matchers])


def _of_request(matcher: metadata_pb2.MetadataMatcher) -> rbac_pb2.SourcedMetadata:
    """What filters before have found out about a request."""
    return rbac_pb2.SourcedMetadata(metadata_matcher=matcher, metadata_source=rbac_pb2.MetadataSource.DYNAMIC)
