"""Changes of intentions, judged before they are made."""

import pytest

from lictor.model.config_entry.intentions import precedence
from lictor.model.intention import DefaultPolicy, Intention, decide, in_order
from lictor.model.intention_change import Change, changed, command, explain
from lictor.model.spiffe import ServiceId

WEB = ServiceId("", "", "web")


def intention(source: str, destination: str, action: str) -> Intention:
    order = precedence(source, destination)
    return Intention(source_name=source, destination_name=destination, action=action, precedence=order)


RULES = in_order(
    [
        intention("web", "db", "allow"),
        intention("api", "db", "deny"),
        intention("*", "db", "deny"),
        intention("web", "*", "allow"),
        intention("*", "*", "deny"),
    ]
)


def test_what_the_deciding_intention_hides() -> None:
    found = explain(RULES, WEB, DefaultPolicy(True))
    assert found.decision.rule == intention("web", "db", "allow")
    hidden = [(one.source_name, one.destination_name) for one in found.shadowed]
    assert hidden == [("*", "db"), ("web", "*"), ("*", "*")]
    assert explain([], WEB, DefaultPolicy(True)).shadowed == ()


@pytest.mark.parametrize(
    ("source", "destination", "change", "allowed"),
    [
        ("web", "db", Change.DENY, False),
        ("web", "db", Change.ALLOW, True),
        ("web", "db", Change.DELETE, False),  # then "*" to "db" decides
        ("*", "db", Change.DELETE, True),
        ("*", "db", Change.ALLOW, True),
        ("web", "*", Change.DENY, True),  # "web" to "db" goes before it
        ("other", "db", Change.DENY, True),
    ],
)
def test_what_a_change_makes_of_it(source: str, destination: str, change: Change, allowed: bool) -> None:
    after = changed(RULES, source, destination, change)
    assert decide(after, WEB, DefaultPolicy(True)).allowed == allowed
    assert after == in_order(after)
    there = any((one.source_name, one.destination_name) == (source, destination) for one in after)
    assert there == (change is not Change.DELETE)


def test_a_destination_is_the_service_however_it_is_spelt() -> None:
    after = changed(RULES, "web", "DB", Change.DENY)
    assert len(after) == len(RULES)
    assert not decide(after, WEB, DefaultPolicy(True)).allowed
    assert intention("web", "db", "allow") not in changed(RULES, "web", "dB", Change.DELETE)


def test_intentions_of_other_clusters_callers_stay() -> None:
    of_a_peer = Intention(source_name="web", destination_name="db", action="allow", source_peer="far", precedence=9)
    assert of_a_peer in changed([of_a_peer, *RULES], "web", "db", Change.DELETE)


@pytest.mark.parametrize(
    ("source", "change", "exists", "line"),
    [
        ("web", Change.ALLOW, False, "lictor intention create web db"),
        ("web", Change.ALLOW, True, "lictor intention create -replace web db"),
        ("*", Change.DENY, True, "lictor intention create -deny -replace '*' db"),
        ("a b", Change.DENY, False, "lictor intention create -deny 'a b' db"),
        ("it's; rm", Change.DELETE, True, "lictor intention delete 'it'\\''s; rm' db"),
    ],
)
def test_the_command_that_makes_a_change(source: str, change: Change, exists: bool, line: str) -> None:
    assert command(source, "db", change, exists=exists) == line
