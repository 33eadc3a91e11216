"""What permissions say of requests."""

from typing import Any

import pytest

from lictor.model.config_entry import decode_entry
from lictor.model.config_entry.intentions import ServiceIntentions
from lictor.model.intention import DefaultPolicy, Intention, Verdict, intentions_of
from lictor.model.intention_request import HttpRequest, decide_request


def of(*permissions: dict[str, Any], jwt: dict[str, Any] | None = None) -> Intention:
    """The intention web => db with such permissions, as a config entry gives it."""
    source = {"Name": "web", "Permissions": list(permissions)} if permissions else {"Name": "web", "Action": "allow"}
    document: dict[str, Any] = {"Kind": "service-intentions", "Name": "db", "Sources": [source]}
    entry = decode_entry(document | ({"JWT": jwt} if jwt else {}))
    assert isinstance(entry, ServiceIntentions)
    return intentions_of(entry)[0]


def allowed(http: dict[str, Any], request: HttpRequest) -> bool:
    """Whether a request meets the conditions: there is one permission, and all else is denied."""
    decision = decide_request(of({"Action": "allow", "HTTP": http}), request, DefaultPolicy(allow=False))
    inverse = decide_request(of({"Action": "deny", "HTTP": http}), request, DefaultPolicy(allow=True))
    assert decision.allowed != inverse.allowed
    return decision.allowed


def get(path: str = "/", **headers: str) -> HttpRequest:
    return HttpRequest("GET", path, {name.replace("_", "-"): value for name, value in headers.items()})


@pytest.mark.parametrize(
    ("http", "path", "meets"),
    [
        ({"PathExact": "/a"}, "/a", True),
        ({"PathExact": "/a"}, "/a?x=/b", True),
        ({"PathExact": "/a"}, "/a#x", True),
        ({"PathExact": "/a"}, "/a/", False),
        ({"PathExact": "/a"}, "/A", False),
        ({"PathPrefix": "/a"}, "/ab", True),
        ({"PathPrefix": "/a/"}, "/a", False),
        ({"PathPrefix": "/"}, "/anything", True),
        ({"PathPrefix": "/b"}, "/a?/b", False),
        ({"PathRegex": "/v[0-9]+/x"}, "/v12/x", True),
        ({"PathRegex": "/v[0-9]+"}, "/v1/x", False),
        ({"PathRegex": "/a|/b"}, "/bc", False),
        ({"PathRegex": "/a|/b"}, "/b", True),
    ],
)
def test_paths(http: dict[str, Any], path: str, meets: bool) -> None:
    assert allowed(http, get(path)) == meets


@pytest.mark.parametrize(
    ("condition", "value", "meets"),
    [
        ({"Present": True}, "", True),
        ({"Present": True}, None, False),
        ({"Present": True, "Invert": True}, None, True),
        ({"Present": True, "Invert": True}, "v", False),
        ({"Exact": "v"}, "v", True),
        ({"Exact": "v"}, "V", False),
        ({"Exact": "v", "IgnoreCase": True}, "V", True),
        ({"Exact": "v", "Invert": True}, "w", True),
        ({"Exact": "v", "Invert": True}, "v", False),
        ({"Exact": "v", "Invert": True, "IgnoreCase": True}, "V", False),
        ({"Exact": "v"}, None, False),
        ({"Exact": "v", "Invert": True}, None, False),
        ({"Prefix": "ab"}, "abc", True),
        ({"Prefix": "ab"}, "cab", False),
        ({"Prefix": "AB", "IgnoreCase": True}, "abc", True),
        ({"Suffix": "bc"}, "abc", True),
        ({"Suffix": "bc"}, "bcd", False),
        ({"Suffix": "bc", "IgnoreCase": True}, "ABC", True),
        ({"Contains": "b"}, "abc", True),
        ({"Contains": "d"}, "abc", False),
        ({"Contains": "B", "IgnoreCase": True}, "abc", True),
        ({"Contains": "b", "Invert": True}, "abc", False),
        ({"Regex": "a+"}, "aaa", True),
        ({"Regex": "a+"}, "aab", False),
        ({"Regex": "A+", "IgnoreCase": True}, "aaa", False),
        ({"Regex": "a+", "Invert": True}, "b", True),
    ],
)
def test_headers(condition: dict[str, Any], value: str | None, meets: bool) -> None:
    request = get(**({} if value is None else {"x_team": value}))
    assert allowed({"Header": [{"Name": "X-Team", **condition}]}, request) == meets


def test_every_condition_must_be_met() -> None:
    http = {
        "PathPrefix": "/a",
        "Methods": ["GET", "put"],
        "Header": [{"Name": "x", "Exact": "1"}, {"Name": "y", "Present": True}],
    }
    assert allowed(http, get("/a", x="1", y="2"))
    assert allowed(http, HttpRequest("put", "/a", {"x": "1", "y": "2"}))
    assert not allowed(http, HttpRequest("POST", "/a", {"x": "1", "y": "2"}))
    assert not allowed(http, get("/b", x="1", y="2"))
    assert not allowed(http, get("/a", x="1"))
    assert not allowed(http, get("/a", y="2"))


def test_the_first_permission_that_matches_decides() -> None:
    intention = of(
        {"Action": "deny", "HTTP": {"PathPrefix": "/v2/admin"}},
        {"Action": "allow", "HTTP": {"PathPrefix": "/v2"}},
        {"Action": "allow", "HTTP": {"PathExact": "/healthz", "Methods": ["GET"]}},
    )
    deny = DefaultPolicy(allow=False)
    paths = {"/v2/admin/x": False, "/v2/x": True, "/healthz": True, "/other": False}
    assert {path: decide_request(intention, get(path), deny).allowed for path in paths} == paths
    assert decide_request(intention, get("/other"), DefaultPolicy(allow=True)).allowed
    assert decide_request(intention, get("/v2/x"), deny).reason == (
        "Matched L7 intention: default/web => default/db (Precedence: 9, Permissions: 3): Permissions[1], Action: ALLOW"
    )
    assert decide_request(intention, get("/other"), deny).reason.endswith(
        "no permission matches. Default intention policy"
    )


CLAIMS = {
    "Providers": [
        {"Name": "okta", "VerifyClaims": [{"Path": ["perms", "role"], "Value": "admin"}]},
        {"Name": "own"},
    ]
}


@pytest.mark.parametrize(
    ("tokens", "verdict"),
    [
        ({}, Verdict.DENIED),
        ({"other": {}}, Verdict.DENIED),
        ({"own": {}}, Verdict.ALLOWED),
        ({"okta": {}}, Verdict.DENIED),
        ({"okta": {"perms": "role"}}, Verdict.DENIED),
        ({"okta": {"perms": {"role": "admin"}}}, Verdict.ALLOWED),
        ({"okta": {"perms": {"role": ["user", "admin"]}}}, Verdict.ALLOWED),
        ({"okta": {"perms": {"role": ["administrator"]}}}, Verdict.DENIED),
        ({"okta": {"perms": {"role": "administrator"}}, "own": {}}, Verdict.ALLOWED),
    ],
)
def test_a_token_that_is_required_of_all_requests(tokens: dict[str, Any], verdict: Verdict) -> None:
    request = HttpRequest("GET", "/", {}, tokens)
    decision = decide_request(of(jwt=CLAIMS), request, DefaultPolicy(allow=True))
    assert decision.verdict is verdict, decision.reason


def test_claims_are_conditions_of_a_permission_and_the_token_is_a_must() -> None:
    intention = of(
        {"Action": "deny", "HTTP": {"PathPrefix": "/"}, "JWT": CLAIMS | {"Providers": CLAIMS["Providers"][:1]}},
        {"Action": "allow", "HTTP": {"PathPrefix": "/"}},
    )

    def decided(tokens: dict[str, Any]) -> tuple[bool, str]:
        decision = decide_request(intention, HttpRequest("GET", "/", {}, tokens), DefaultPolicy(allow=True))
        return decision.allowed, decision.reason.partition("): ")[2]

    assert decided({"okta": {"perms": {"role": "admin"}}}) == (False, "Permissions[0], Action: DENY")
    assert decided({"okta": {"perms": {"role": "user"}}}) == (True, "Permissions[1], Action: ALLOW")
    assert decided({}) == (False, 'Permissions[0]: no valid token of provider "okta"')


def test_a_pattern_that_would_take_others_for_ever_is_quick() -> None:
    assert not allowed({"PathRegex": "/(a+)+b"}, get("/" + "a" * 5000))
