"""Intentions as Envoy enforces them: the same decision as everybody else's, for connections and for requests."""

from __future__ import annotations

import itertools

import pytest

from lictor.connect_proxy.envoy.intentions import DIGEST, REVOKED, connection_rules, effective, request_rules
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
from lictor.model.intention_request import HttpRequest, decide_request
from lictor.model.spiffe import ServiceId
from tests.connect_proxy.envoy.rbac import Call, allows
from tests.connect_proxy.envoy.snapshots import DOMAIN, ISSUER, PLAIN, REMOTE, changed

API = service_uri(DOMAIN, "dc1", "api")


def called(*rules: Rule, default_allow: bool = False) -> ProxySnapshot:
    """A proxy with intentions for its service."""
    return changed(PLAIN, protocol="http", rules=rules, default_allow=default_allow, jwt_providers=(ISSUER, REMOTE))


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


@pytest.mark.parametrize("default_allow", [True, False])
def test_who_is_no_service_of_here_is_not_let_in_where_all_are_kept_out(default_allow: bool) -> None:
    snapshot = called(Rule("api", "allow"), Rule("*", "deny"), default_allow=default_allow)
    for path in ("/agent/client/dc/dc1/id/n1", "/ns/other/dc/dc1/svc/api", "/ap/p/ns/default/dc/dc1/svc/api", ""):
        for rules in (connection_rules(snapshot), request_rules(snapshot)):
            assert not allows(rules, Call(f"spiffe://{DOMAIN}{path}"))
            assert allows(rules, Call(API))


@pytest.mark.parametrize("default_allow", [True, False])
def test_a_revoked_certificate_is_in_the_way_of_all_that_lets_in(default_allow: bool) -> None:
    """And there is nothing of it where nothing is revoked."""
    plain = called(Rule("api", "allow"), Rule("db", "deny"), Rule("*", "allow"), default_allow=default_allow)
    revoked = changed(plain, revoked=("ab" * 32, "cd" * 32))
    for rules_of in (connection_rules, request_rules):
        before, after = rules_of(plain), rules_of(revoked)
        assert not any(policy.HasField("condition") for policy in before.policies.values())
        condition = after.policies[REVOKED if default_allow else "lictor-intentions-layer4-api"].condition.call_expr
        if default_allow:
            assert after.policies.keys() - before.policies.keys() == {REVOKED}
        else:
            assert after.policies.keys() == before.policies.keys()
            assert all(policy.HasField("condition") for policy in after.policies.values())
            assert condition.function == "!_"
            condition = condition.args[0].call_expr
        digest, listed = condition.args
        assert condition.function == "@in"
        assert (digest.select_expr.operand.ident_expr.name, digest.select_expr.field) == ("connection", DIGEST)
        assert [one.const_expr.string_value for one in listed.list_expr.elements] == ["ab" * 32, "cd" * 32]


@pytest.mark.parametrize("default_allow", [True, False])
def test_a_service_that_is_called_any_is_one_like_others(default_allow: bool) -> None:
    action = "deny" if default_allow else "allow"
    snapshot = called(Rule("any", action), Rule("*", action), default_allow=default_allow)
    for rules in (connection_rules(snapshot), request_rules(snapshot)):
        for service in ("any", "other"):
            assert allows(rules, Call(service_uri(DOMAIN, "dc1", service))) != default_allow


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


HEADERS = (
    PermissionHeader("x", present=True),
    PermissionHeader("x", present=True, invert=True),
    PermissionHeader("x", exact="a"),
    PermissionHeader("x", exact="a", invert=True),
    PermissionHeader("x", prefix="B", ignore_case=True),
    PermissionHeader("x", suffix="c"),
    PermissionHeader("x", contains="B", ignore_case=True),
    PermissionHeader("x", regex="a.c"),
    PermissionHeader("x", regex="b", invert=True),
)


@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize("value", [None, "", "a", "A", "abc", "bca", "c"])
def test_headers_are_matched_as_the_decision_says(header: PermissionHeader, value: str | None) -> None:
    permissions = (Permission("allow", http(header=(header,))),)
    request = HttpRequest("GET", "/", {} if value is None else {"x": value})
    check(Intention(source_name="api", destination_name="web", permissions=permissions), request)


TOKENS: tuple[dict[str, dict[str, object]], ...] = (
    {},
    {"okta": {"iss": "https://issuer.example"}},
    {"okta": {"iss": "https://issuer.example", "perms": {"role": "admin"}, "groups": ["a", "b"]}},
    {"remote": {"iss": "https://remote.example", "perms": {"role": "admin"}}},
)
NEEDS = (
    None,
    JWTRequirement((JWTRequirementProvider("okta"),)),
    JWTRequirement((JWTRequirementProvider("okta", (JWTClaim(("perms", "role"), "admin"),)),)),
    JWTRequirement((JWTRequirementProvider("okta", (JWTClaim(("groups",), "b"),)),)),
    JWTRequirement((JWTRequirementProvider("okta", (JWTClaim(("groups",), "c"),)), JWTRequirementProvider("remote"))),
    JWTRequirement((JWTRequirementProvider("nobody"),)),
)


@pytest.mark.parametrize("whole", NEEDS)
@pytest.mark.parametrize("one", NEEDS)
@pytest.mark.parametrize("action", ["allow", "deny"])
def test_tokens_are_asked_for_as_the_decision_says(
    whole: JWTRequirement | None, one: JWTRequirement | None, action: str
) -> None:
    permissions = (
        Permission(action, http(path_prefix="/a"), one),
        Permission("deny" if action == "allow" else "allow", http(path_prefix="/a/b")),
        Permission("allow", http(path_exact="/c"), NEEDS[1]),
    )
    intention = Intention(source_name="api", destination_name="web", permissions=permissions, jwt=whole)
    for path, tokens in itertools.product(("/a", "/a/b", "/c", "/d"), TOKENS):
        check(intention, HttpRequest("GET", path, tokens=tokens))


def check(intention: Intention, request: HttpRequest) -> None:
    """What Envoy does with a request is what the decision on it is."""
    rule = Rule(intention.source_name, intention.action, intention.permissions, intention.jwt)
    call = Call(
        API, request.path, request.method, dict(request.headers), {k: dict(v) for k, v in request.tokens.items()}
    )
    for allow in (True, False):
        wanted = decide_request(intention, request, DefaultPolicy(allow)).allowed
        rules = request_rules(called(rule, default_allow=allow))
        assert allows(rules, call) == wanted, f"default allow: {allow}, {request}"
