"""Which intention decides, and what a connection is told."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lictor.model.config_entry import decode_entry
from lictor.model.config_entry.intentions import (
    HTTPPermission,
    JWTRequirement,
    JWTRequirementProvider,
    Permission,
    ServiceIntentions,
    precedence,
)
from lictor.model.intention import (
    DefaultPolicy,
    Intention,
    Verdict,
    content_hash,
    decide,
    default_policy,
    in_order,
    intentions_of,
)
from lictor.model.spiffe import ServiceId

ALLOWED, DENIED, NEEDS_L7 = Verdict.ALLOWED, Verdict.DENIED, Verdict.NEEDS_L7
LAYER_7 = "layer 7"


def intention(source: str, destination: str, action: str) -> Intention:
    permissions: tuple[Permission, ...] = ()
    if action == LAYER_7:
        permissions, action = (Permission("allow", HTTPPermission(path_exact="/")),), ""
    return Intention(
        source_name=source,
        destination_name=destination,
        action=action,
        permissions=permissions,
        precedence=precedence(source, destination),
    )


def caller(service: str, namespace: str = "default", partition: str = "") -> ServiceId:
    return ServiceId("any.consul", "dc9", service, namespace, partition)


CASES: list[tuple[list[tuple[str, str, str]], str, str, Verdict, int | None]] = [
    # what there is for "db", the caller, the default, the verdict, which of them decides
    ([], "web", "allow", ALLOWED, None),
    ([], "web", "deny", DENIED, None),
    ([("web", "db", "allow")], "web", "deny", ALLOWED, 0),
    ([("web", "db", "deny")], "web", "allow", DENIED, 0),
    ([("web", "db", "allow")], "Web", "deny", DENIED, None),
    ([("web", "db", "allow")], "webs", "deny", DENIED, None),
    ([("*", "db", "deny")], "web", "allow", DENIED, 0),
    ([("*", "db", "deny"), ("web", "db", "allow")], "web", "deny", ALLOWED, 1),
    ([("*", "db", "deny"), ("web", "db", "allow")], "api", "allow", DENIED, 0),
    ([("web", "*", "allow"), ("*", "db", "deny")], "web", "allow", DENIED, 1),
    ([("web", "*", "deny"), ("*", "*", "allow")], "web", "allow", DENIED, 0),
    ([("*", "*", "allow")], "web", "deny", ALLOWED, 0),
    ([("web", "*", "allow")], "api", "deny", DENIED, None),
    (
        [("*", "*", "deny"), ("web", "*", "allow"), ("*", "db", "deny"), ("web", "db", "allow")],
        "web",
        "deny",
        ALLOWED,
        3,
    ),
    ([("web", "db", LAYER_7), ("*", "db", "allow")], "web", "allow", NEEDS_L7, 0),
    ([("web", "db", LAYER_7), ("*", "db", "allow")], "api", "deny", ALLOWED, 1),
    ([("*", "db", LAYER_7), ("web", "db", "deny")], "web", "allow", DENIED, 1),
]


@pytest.mark.parametrize(("rules", "source", "default", "verdict", "rule"), CASES)
def test_the_most_exact_intention_decides(
    rules: list[tuple[str, str, str]], source: str, default: str, verdict: Verdict, rule: int | None
) -> None:
    intentions = [intention(*one) for one in rules]
    decision = decide(in_order(intentions), caller(source), default_policy(default))
    assert decision.verdict is verdict
    assert decision.rule == (None if rule is None else intentions[rule])
    assert decision.allowed == (verdict is ALLOWED)


def test_the_reason_names_the_intention() -> None:
    allow = intention("web", "db", "allow")
    assert decide([allow], caller("web"), DefaultPolicy(False)).reason == (
        "Matched L4 intention: default/web => default/db (Precedence: 9, Action: ALLOW)"
    )
    assert decide([intention("*", "db", LAYER_7)], caller("web"), DefaultPolicy(False)).reason == (
        "Matched L7 intention: default/* => default/db (Precedence: 8, Permissions: 1)"
    )


@pytest.mark.parametrize(
    ("configured", "acl_default", "allow", "reason"),
    [
        ("allow", "deny", True, "Default intention policy"),
        ("deny", "allow", False, "Default intention policy"),
        ("", "allow", True, "Default behavior configured by ACLs"),
        ("", "deny", False, "Default behavior configured by ACLs"),
    ],
)
def test_where_none_matches_the_default_decides(configured: str, acl_default: str, allow: bool, reason: str) -> None:
    decision = decide([], caller("web"), default_policy(configured, acl_default))
    assert (decision.allowed, decision.rule, decision.reason) == (allow, None, reason)


def test_callers_of_other_namespaces_partitions_and_peers_are_nobody_here() -> None:
    allow = [intention("web", "db", "allow"), intention("*", "db", "allow")]
    default = DefaultPolicy(allow=False)
    assert not decide(allow, caller("web", namespace="other"), default).allowed
    assert not decide(allow, caller("web", partition="other"), default).allowed
    of_a_peer = Intention(source_name="web", destination_name="db", action="allow", source_peer="far")
    assert not decide([of_a_peer], caller("web"), default).allowed


def test_an_allow_that_wants_a_token_is_not_for_layer_4_and_a_deny_is() -> None:
    jwt = JWTRequirement((JWTRequirementProvider("okta"),))
    for action, verdict in (("allow", NEEDS_L7), ("deny", DENIED)):
        one = Intention(source_name="web", destination_name="db", action=action, jwt=jwt)
        assert decide([one], caller("web"), DefaultPolicy(True)).verdict is verdict


NAMES = st.sampled_from(["*", "a", "b", "c"])
RULES = st.dictionaries(
    st.tuples(NAMES, st.sampled_from(["*", "db"])), st.sampled_from(["allow", "deny", LAYER_7]), max_size=8
)


@given(RULES, st.sampled_from(["a", "b", "c"]), st.booleans(), st.randoms(use_true_random=False))
def test_it_agrees_with_looking_at_each_level_in_turn(
    rules: dict[tuple[str, str], str], source: str, allow: bool, random: object
) -> None:
    intentions = [intention(*ends, action) for ends, action in rules.items()]
    random.shuffle(intentions)  # type: ignore[attr-defined]
    decision = decide(in_order(intentions), caller(source), DefaultPolicy(allow))
    expected = "allow" if allow else "deny"
    for level in ((source, "db"), ("*", "db"), (source, "*"), ("*", "*")):
        if level in rules:
            expected = rules[level]
            assert decision.rule is not None
            assert (decision.rule.source_name, decision.rule.destination_name) == level
            break
    else:
        assert decision.rule is None
    assert decision.verdict is {"allow": ALLOWED, "deny": DENIED, LAYER_7: NEEDS_L7}[expected]


def test_the_order_is_the_same_whatever_it_began_with() -> None:
    intentions = [
        intention(source, destination, "allow") for source in ("*", "a", "b") for destination in ("*", "x", "y")
    ]
    ends = [(one.source_name, one.destination_name) for one in in_order(intentions)]
    assert ends == [
        ("a", "x"), ("a", "y"), ("b", "x"), ("b", "y"), ("*", "x"), ("*", "y"), ("a", "*"), ("b", "*"), ("*", "*"),
    ]  # fmt: skip
    for shuffled in itertools.islice(itertools.permutations(intentions), 0, 362_880, 9_973):
        assert [(one.source_name, one.destination_name) for one in in_order(shuffled)] == ends


def test_a_config_entry_holds_an_intention_for_each_source() -> None:
    entry = decode_entry(
        {
            "Kind": "service-intentions",
            "Name": "db",
            "Meta": {"team": "x"},
            "Sources": [{"Name": "*", "Action": "deny"}, {"Name": "web", "Action": "allow", "Description": "d"}],
        }
    )
    assert isinstance(entry, ServiceIntentions)
    web, anyone = intentions_of(entry, 3, 4)
    assert (web.source_name, web.precedence, web.description, web.meta) == ("web", 9, "d", {"team": "x"})
    assert (anyone.source_name, anyone.precedence, anyone.create_index, anyone.modify_index) == ("*", 8, 3, 4)
    assert (web.id, web.hash, web.created_at, web.default_addr) == ("", "", "", None)


def test_the_hash_is_consuls() -> None:
    known = Intention(
        id="4a13f22f-78ff-1f0f-cfaa-f7b012fcd144",
        description="d",
        source_name="web",
        destination_name="db",
        action="allow",
        meta={"a": "b"},
    )
    assert content_hash(known) == "3lwBgErcdMcwYCtLs/9AxFO11C8tbiaD2NRZADgRkpo="
