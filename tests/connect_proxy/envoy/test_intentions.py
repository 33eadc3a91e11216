"""Intentions as Envoy enforces them: the same decision as everybody else's, for connections and for requests."""

from __future__ import annotations

import itertools

import pytest

from lictor.connect_proxy.envoy.intentions import connection_rules, effective, request_rules
from lictor.connect_proxy.envoy.names import service_uri
from lictor.connect_proxy.envoy.snapshot import ProxySnapshot, Rule
from lictor.model.config_entry.intentions import (
    HTTPPermission,
    JWTClaim,
    JWTRequirement,
    JWTRequirementProvider,
    Permission,
    PermissionHeader,
)
from lictor.model.intention import DefaultPolicy, Intention, decide, in_order
from lictor.model.spiffe import ServiceId
from tests.connect_proxy.envoy.rbac import Call, allows
from tests.connect_proxy.envoy.snapshots import DOMAIN, ISSUER, PLAIN, changed

API = service_uri(DOMAIN, "dc1", "api")


def called(*rules: Rule, default_allow: bool = False) -> ProxySnapshot:
    """A proxy with intentions for its service."""
    return changed(PLAIN, protocol="http", rules=rules, default_allow=default_allow, jwt_providers=(ISSUER,))


ENDS = [("api", "web", 9), ("*", "web", 8), ("api", "*", 6), ("*", "*", 5)]


@pytest.mark.parametrize("default_allow", [True, False])
@pytest.mark.parametrize("actions", list(itertools.product(["", "allow", "deny"], repeat=len(ENDS))))
def test_connections_are_let_through_as_the_decision_says(actions: tuple[str, ...], default_allow: bool) -> None:
    intentions = in_order(
        Intention(source_name=source, destination_name=destination, action=action, precedence=precedence)
        for (source, destination, precedence), action in zip(ENDS, actions, strict=True)
        if action
    )
    snapshot = called(*(Rule(one.source_name, one.action) for one in intentions), default_allow=default_allow)
    for service in ("api", "other", "apis", "a.i"):
        identity = ServiceId(DOMAIN, "dc1", service)
        wanted = decide(intentions, identity, DefaultPolicy(default_allow)).allowed
        for rules in (connection_rules(snapshot), request_rules(snapshot)):
            assert allows(rules, Call(identity.uri)) == wanted, f"{service} is {'let' if wanted else 'kept'}"


def test_a_certificate_of_another_trust_domain_is_nobodys_source() -> None:
    rules = connection_rules(called(Rule("*", "allow")))
    assert allows(rules, Call(API))
    for stranger in ("22222222" + API[len("spiffe://11111111") :], API.replace("spiffe://", "spiffe://x"), API + "x/y"):
        assert not allows(rules, Call(stranger))


def test_a_service_without_requests_takes_no_permission_for_leave() -> None:
    permission = Permission("allow", HTTPPermission(path_prefix="/"))
    for default_allow in (True, False):
        snapshot = called(Rule("api", permissions=(permission,)), default_allow=default_allow)
        assert not allows(connection_rules(snapshot), Call(API))


def test_rules_after_the_first_for_any_source_are_never_considered() -> None:
    rules = [Rule("api", "allow"), Rule("*", "deny"), Rule("api", "deny"), Rule("db", "allow")]
    assert [rule.source for rule in effective(rules)] == ["api", "*"]


def http(**fields: object) -> HTTPPermission:
    """Conditions of a permission."""
    return HTTPPermission(**fields)  # type: ignore[arg-type]


PERMISSIONS = (
    Permission("deny", http(path_prefix="/admin", methods=("POST", "PUT"))),
    Permission("allow", http(path_prefix="/admin")),
    Permission("deny", http(path_exact="/secret")),
    Permission("allow", http(path_regex="/v[0-9]+/.*", header=(PermissionHeader("x-team", prefix="a"),))),
    Permission("allow", http(methods=("OPTIONS",))),
    Permission("deny", http(header=(PermissionHeader("x-debug", exact="ON", ignore_case=True),))),
)


@pytest.mark.parametrize(
    ("call", "action"),
    [
        (Call(API, "/admin/x"), "allow"),
        (Call(API, "/admin/x", "POST"), "deny"),
        (Call(API, "/secret"), "deny"),
        (Call(API, "/secret?a=b"), "deny"),
        (Call(API, "/secret", "OPTIONS"), "deny"),
        (Call(API, "/secrets", "OPTIONS"), "allow"),
        (Call(API, "/v1/x", headers={"x-team": "ab"}), "allow"),
        (Call(API, "/v1/x", headers={"x-team": "ba"}), ""),
        (Call(API, "/v1/x", headers={"x-team": "ba", "x-debug": "on"}), "deny"),
        (Call(API, "/v1/x", headers={"x-team": "ab", "x-debug": "on"}), "allow"),
        (Call(API, "/"), ""),
    ],
)
def test_the_first_permission_that_matches_decides_and_else_the_default(call: Call, action: str) -> None:
    for default_allow in (True, False):
        rules = request_rules(called(Rule("api", permissions=PERMISSIONS), default_allow=default_allow))
        wanted = default_allow if not action else action == "allow"
        assert allows(rules, call) == wanted, f"default allow: {default_allow}"


@pytest.mark.parametrize(
    ("header", "value", "matches"),
    [
        (PermissionHeader("x", present=True), "", True),
        (PermissionHeader("x", present=True), None, False),
        (PermissionHeader("x", suffix="b"), "ab", True),
        (PermissionHeader("x", contains="B", ignore_case=True), "abc", True),
        (PermissionHeader("x", regex="A.c", ignore_case=True), "abc", True),
        (PermissionHeader("x", regex="b"), "abc", False),
        (PermissionHeader("x", exact="a", invert=True), "b", True),
        (PermissionHeader("x", exact="a", invert=True), "a", False),
        (PermissionHeader("x", exact="a", invert=True), None, True),
        (PermissionHeader("x", present=True, invert=True), None, True),
    ],
)
def test_headers_are_matched_in_every_way(header: PermissionHeader, value: str | None, matches: bool) -> None:
    rules = request_rules(called(Rule("api", permissions=(Permission("allow", http(header=(header,))),))))
    assert allows(rules, Call(API, headers={} if value is None else {"x": value})) == matches


TOKEN = {"okta": {"iss": "https://issuer.example", "perms": {"role": "admin"}, "groups": ["a", "b"]}}
NEEDED = JWTRequirement((JWTRequirementProvider("okta", (JWTClaim(("perms", "role"), "admin"),)),))
GROUP = JWTRequirement((JWTRequirementProvider("okta", (JWTClaim(("groups",), "b"),)),))
UNKNOWN = JWTRequirement((JWTRequirementProvider("nobody"),))


@pytest.mark.parametrize("default_allow", [True, False])
@pytest.mark.parametrize(
    ("requirement", "tokens", "let"),
    [
        (NEEDED, TOKEN, True),
        (GROUP, TOKEN, True),
        (NEEDED, {}, False),
        (NEEDED, {"okta": {"iss": "https://issuer.example", "perms": {"role": "guest"}}}, False),
        (GROUP, {"okta": {"iss": "https://issuer.example", "groups": ["a"]}}, False),
        (NEEDED, {"okta": {"iss": "https://another.example", "perms": {"role": "admin"}}}, False),
        (NEEDED, {"remote": TOKEN["okta"]}, False),
        (UNKNOWN, TOKEN, False),
    ],
)
def test_what_allows_with_a_token_allows_only_with_the_token(
    requirement: JWTRequirement, tokens: dict[str, dict[str, object]], let: bool, default_allow: bool
) -> None:
    permission = Permission("allow", http(path_prefix="/"), requirement)
    for rule in (Rule("api", permissions=(permission,)), Rule("api", "allow", jwt=requirement)):
        rules = request_rules(called(rule, default_allow=default_allow))
        assert allows(rules, Call(API, tokens=tokens)) == let
