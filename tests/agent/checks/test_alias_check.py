"""The rule of alias checks."""

from __future__ import annotations

import pytest

from lictor.agent.checks.alias import AliasCheck, AliasedCheck, NodeHealth, backoff, judge
from lictor.agent.checks.result import Result


def check(check_id: str, service_id: str, status: str) -> AliasedCheck:
    """A check named after its id, whose output is its status."""
    return AliasedCheck(check_id, f"the {check_id}", service_id, status, f"is {status}")


WEB = AliasCheck("web", "")


@pytest.mark.parametrize(
    ("checks", "expected"),
    [
        pytest.param([], Result("passing", "No checks found."), id="no checks"),
        pytest.param([check("a", "web", "passing")], Result("passing", "All checks passing."), id="all pass"),
        pytest.param([check("a", "db", "critical")], Result("passing", "No checks found."), id="another service's"),
        pytest.param(
            [check("a", "web", "passing"), check("b", "web", "warning")],
            Result("warning", 'Aliased check "the b" failing: is warning'),
            id="the worst wins",
        ),
        pytest.param(
            [check("a", "web", "warning"), check("b", "web", "critical"), check("c", "web", "warning")],
            Result("critical", 'Aliased check "the b" failing: is critical'),
            id="critical over warning",
        ),
        pytest.param(
            [check("a", "web", "passing"), check("b", "", "critical")],
            Result("critical", 'Aliased check "the b" failing: is critical'),
            id="the node's checks count",
        ),
        pytest.param(
            [check("me", "", "critical"), check("a", "web", "passing")],
            Result("passing", "All checks passing."),
            id="an alias does not follow itself",
        ),
    ],
)
def test_an_alias_of_a_service(checks: list[AliasedCheck], expected: Result) -> None:
    assert judge(WEB, "me", NodeHealth(1, tuple(checks), frozenset({"web", "db"}))) == expected


def test_a_service_that_does_not_exist() -> None:
    nothing = NodeHealth(1, (), frozenset())
    expected = Result("critical", "Service web could not be found on node other")
    assert judge(AliasCheck("web", "other"), "me", nothing) == expected


def test_an_alias_of_a_node_follows_the_node_alone() -> None:
    health = NodeHealth(1, (check("a", "web", "critical"), check("b", "", "passing")), frozenset({"web"}))
    assert judge(AliasCheck("", "other"), "me", health) == Result("passing", "All checks passing.")


def test_failed_reads_are_repeated_ever_more_slowly_up_to_a_minute() -> None:
    assert [backoff(failures) for failures in (1, 2, 3, 7, 1000)] == [1.0, 2.0, 4.0, 60.0, 60.0]
