"""The state machine: thresholds, coalescing of output, TTL, deregistration; on virtual time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lictor.agent.checks.result import Result, critical, passing, warning
from lictor.agent.checks.state import CheckState, Deregister, Effect, Push, Rules

C, W, P = "critical", "warning", "passing"


def statuses(rules: Rules, results: list[str]) -> list[str]:
    """The status after each result of a probe, one a second."""
    state = CheckState(rules, 0.0, 0.5)
    seen = []
    for second, status in enumerate(results):
        state.probed(Result(status, ""), float(second))
        seen.append(state.status)
    return seen


@pytest.mark.parametrize(
    ("rules", "results", "expected"),
    [
        pytest.param(Rules(), [P, C, W, P], [P, C, W, P], id="without thresholds every result takes effect"),
        pytest.param(Rules(success_before_passing=3), [P], [P], id="the first success takes effect at once"),
        pytest.param(
            Rules(initial_status=P, failures_before_critical=3), [C], [C], id="the first failure takes effect at once"
        ),
        pytest.param(
            Rules(failures_before_critical=3), [P, C, C, C], [P, P, P, C], id="failures in a row before critical"
        ),
        pytest.param(
            Rules(failures_before_critical=3), [P, C, C, P, C, C, C], [P, P, P, P, P, P, C], id="a success resets"
        ),
        pytest.param(
            Rules(failures_before_warning=2, failures_before_critical=4),
            [P, C, C, C, C],
            [P, P, W, W, C],
            id="warning on the way to critical",
        ),
        pytest.param(
            Rules(success_before_passing=3), [C, P, P, P], [C, C, C, P], id="successes in a row before passing"
        ),
        pytest.param(
            Rules(success_before_passing=3), [C, P, P, C, P, P, P], [C, C, C, C, C, C, P], id="a failure resets"
        ),
        pytest.param(Rules(success_before_passing=2), [C, W, W], [C, C, W], id="a warning counts as a success"),
    ],
)
def test_thresholds(rules: Rules, results: list[str], expected: list[str]) -> None:
    assert statuses(rules, results) == expected


def test_a_changed_status_is_pushed_at_once_with_its_output() -> None:
    state = CheckState(Rules(), 0.0, 0.5)
    assert state.probed(passing("fine"), 1.0) == [Push(P, "fine", True)]
    assert state.probed(critical("down"), 2.0) == [Push(C, "down", True)]


def test_the_same_result_again_is_not_pushed() -> None:
    state = CheckState(Rules(), 0.0, 0.5)
    state.probed(passing("fine"), 1.0)
    assert state.probed(passing("fine"), 2.0) == []
    assert state.next_deadline() is None


def test_changes_of_output_alone_are_pushed_together_and_late() -> None:
    state = CheckState(Rules(output_push_interval=300.0), 0.0, 0.25)
    state.probed(passing("0"), 0.0)
    for second in range(1, 100):
        assert state.probed(passing(str(second)), float(second)) == []
    assert state.output == "99", "the present output is known here before it is pushed"
    assert state.next_deadline() == 1.0 + 300.0 * 0.75
    assert state.tick(225.0) == []
    assert state.tick(226.0) == [Push(P, "99", False)]
    assert state.next_deadline() is None


def test_an_output_that_changed_back_is_not_pushed() -> None:
    state = CheckState(Rules(output_push_interval=10.0), 0.0, 0.5)
    state.probed(passing("a"), 0.0)
    state.probed(passing("b"), 1.0)
    state.probed(passing("a"), 2.0)
    assert state.tick(20.0) == []


def test_a_changed_status_takes_a_waiting_output_along() -> None:
    state = CheckState(Rules(output_push_interval=10.0), 0.0, 0.5)
    state.probed(passing("a"), 0.0)
    state.probed(passing("b"), 1.0)
    assert state.probed(warning("c"), 2.0) == [Push(W, "c", True)]
    assert state.next_deadline() is None


def test_without_an_interval_every_output_is_pushed() -> None:
    state = CheckState(Rules(output_push_interval=0.0), 0.0, 0.5)
    state.probed(passing("a"), 0.0)
    assert state.probed(passing("b"), 1.0) == [Push(P, "b", False)]


def test_an_expired_ttl_is_critical_and_quotes_the_last_output() -> None:
    state = CheckState(Rules(ttl=10.0), 0.0, 0.5)
    state.updated(passing("all well"), 5.0)
    assert state.next_deadline() == 15.0
    assert state.tick(14.9) == []
    text = "TTL expired (last output before timeout follows): all well"
    assert state.tick(15.0) == [Push(C, text, True)]
    assert state.tick(1000.0) == [], "it expires once"
    assert state.updated(passing("back"), 1001.0) == [Push(P, "back", True)]
    assert state.next_deadline() == 1011.0


def test_a_ttl_that_was_never_met_says_only_that() -> None:
    state = CheckState(Rules(ttl=10.0, initial_status=P), 0.0, 0.5)
    assert state.tick(10.0) == [Push(C, "TTL expired", True)]


def test_a_restored_ttl_goes_on_where_it_was() -> None:
    state = CheckState(Rules(ttl=10.0), 100.0, 0.5)
    state.restore(passing("fine"), 103.0)
    assert (state.status, state.output, state.next_deadline()) == (P, "fine", 103.0)
    assert state.tick(103.0) == [Push(C, "TTL expired (last output before timeout follows): fine", True)]


def test_a_service_is_deregistered_after_being_critical_for_long() -> None:
    state = CheckState(Rules(deregister_after=90.0, initial_status=C), 0.0, 0.5)
    assert state.next_deadline() is None, "the initial status is a guess and does not count"
    state.probed(critical("down"), 10.0)
    state.probed(critical("down"), 20.0)
    assert state.next_deadline() == 100.0, "counted from the first critical result"
    assert state.tick(100.0) == [Deregister(90.0)]
    assert state.tick(129.0) == []
    assert state.tick(130.0) == [Deregister(120.0)], "and again while it is still here"


def test_recovery_ends_the_wait_for_deregistration() -> None:
    state = CheckState(Rules(deregister_after=90.0), 0.0, 0.5)
    state.probed(critical("down"), 10.0)
    state.probed(passing("up"), 50.0)
    assert state.next_deadline() is None
    assert state.tick(1000.0) == []


def test_a_deregistration_sooner_than_a_minute_is_raised_to_one() -> None:
    state = CheckState(Rules(deregister_after=1.0), 0.0, 0.5)
    state.probed(critical("down"), 0.0)
    assert state.next_deadline() == 60.0


EVENTS = st.lists(
    st.tuples(st.floats(0.01, 50.0), st.sampled_from([P, W, C, "tick"]), st.sampled_from(["a", "b", "c"])), max_size=60
)


@given(
    EVENTS,
    st.builds(
        Rules,
        initial_status=st.sampled_from([P, W, C]),
        success_before_passing=st.integers(0, 4),
        failures_before_critical=st.integers(0, 4),
        output_push_interval=st.sampled_from([0.0, 10.0]),
    ),
)
def test_what_was_pushed_last_is_what_holds_once_nothing_waits(
    events: list[tuple[float, str, str]], rules: Rules
) -> None:
    state = CheckState(rules, 0.0, 0.5)
    now, pushed_status, pushed_output, last_output_push = 0.0, rules.initial_status, "", -100.0
    for pause, status, output in events:
        now += pause
        effects: list[Effect] = state.tick(now) if status == "tick" else state.probed(Result(status, output), now)
        for effect in effects:
            assert isinstance(effect, Push)
            assert effect.status_changed == (effect.status != pushed_status)
            if not effect.status_changed:
                assert now - last_output_push >= rules.output_push_interval
                last_output_push = now
            pushed_status, pushed_output = effect.status, effect.output
        assert pushed_status == state.status, "a status never waits"
        if state.next_deadline() is None:
            assert pushed_output == state.output
