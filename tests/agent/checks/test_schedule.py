"""The schedule on virtual time: spread, steady pace, no overlap, bounded lanes."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from lictor.agent.checks.result import Lane
from lictor.agent.checks.schedule import Run, Schedule


def run_until(schedule: Schedule, end: float) -> list[tuple[float, Run]]:
    """Every run up to `end`, each over as soon as it has begun."""
    started: list[tuple[float, Run]] = []
    while True:
        due = schedule.next_due()
        if due is None or due > end:
            return started
        for run in schedule.start(due):
            started.append((due, run))
            schedule.finished(run, Lane.NETWORK)


def test_a_thousand_checks_cause_no_burst() -> None:
    schedule = Schedule(random.Random(1))
    for number in range(1000):
        schedule.add(f"check-{number}", 10.0, Lane.NETWORK, 0.0, soon=True)
    runs = run_until(schedule, 60.0)
    assert len(runs) == pytest.approx(7000, abs=1000)
    per_tenth = Counter(int(at * 10) for at, _ in runs)
    assert max(per_tenth[tenth] for tenth in range(10)) <= 150, "a hundred are expected at first"
    assert max(per_tenth[tenth] for tenth in range(11, 600)) <= 30, "ten are expected in a tenth of a second"


def test_every_check_is_run_within_a_second() -> None:
    schedule = Schedule(random.Random(9))
    for number in range(100):
        schedule.add(f"check-{number}", 3600.0, Lane.NETWORK, 50.0, soon=True)
    assert {run.check_id for _, run in run_until(schedule, 51.0)} == {f"check-{number}" for number in range(100)}


def in_phase(schedule: Schedule) -> float:
    """The first run is over; when the next one is due, which sets the phase."""
    first = schedule.next_due()
    assert first is not None and first <= 1.0
    for run in schedule.start(first):
        schedule.finished(run, Lane.NETWORK)
    phase = schedule.next_due()
    assert phase is not None
    return phase


def test_the_pace_does_not_drift() -> None:
    schedule = Schedule(random.Random(2))
    schedule.add("a", 10.0, Lane.NETWORK, 0.0, soon=True)
    first = in_phase(schedule)
    assert 0.0 <= first <= 11.0
    for turn in range(1000):
        due = schedule.next_due()
        assert due is not None and due == pytest.approx(first + turn * 10.0)
        late = due + 3.0  # the machine is slow each time
        for run in schedule.start(late):
            schedule.finished(run, Lane.NETWORK)


def test_a_check_that_still_runs_leaves_its_turn_out() -> None:
    schedule = Schedule(random.Random(3))
    schedule.add("a", 10.0, Lane.NETWORK, 0.0, soon=True)
    first = in_phase(schedule)
    [run] = schedule.start(first)
    assert schedule.start(first + 10.0) == []
    assert schedule.start(first + 20.0) == []
    schedule.finished(run, Lane.NETWORK)
    assert schedule.start(first + 25.0) == [], "and keeps to its phase afterwards"
    assert schedule.start(first + 30.0) == [run]


def test_turns_slept_through_are_made_up_for_once() -> None:
    schedule = Schedule(random.Random(4))
    schedule.add("a", 1.0, Lane.NETWORK, 0.0, soon=True)
    assert len(schedule.start(3600.5)) == 1
    due = schedule.next_due()
    assert due is not None and 3600.5 < due <= 3601.5


def test_a_full_lane_makes_checks_wait_in_order_and_leaves_the_other_lane_alone() -> None:
    schedule = Schedule(random.Random(5), {Lane.NETWORK: 10, Lane.PROCESS: 2})
    for number in range(5):
        schedule.add(f"script-{number}", 10.0, Lane.PROCESS, 0.0, soon=True)
    schedule.add("http", 10.0, Lane.NETWORK, 0.0, soon=True)
    started = schedule.start(10.0)
    scripts = [run for run in started if run.check_id != "http"]
    assert len(scripts) == 2 and len(started) == 3
    seen = [run.check_id for run in scripts]
    while scripts:
        schedule.finished(scripts.pop(), Lane.PROCESS)
        more = schedule.start(10.0)
        assert len(more) <= 1
        scripts += more
        seen += [run.check_id for run in more]
    assert sorted(seen) == [f"script-{number}" for number in range(5)]


def test_a_removed_check_does_not_run_even_from_the_line() -> None:
    schedule = Schedule(random.Random(6), {Lane.PROCESS: 1})
    schedule.add("a", 10.0, Lane.PROCESS, 0.0, soon=True)
    schedule.add("b", 10.0, Lane.PROCESS, 0.0, soon=True)
    [running] = schedule.start(10.0)
    waiting = "b" if running.check_id == "a" else "a"
    schedule.remove(waiting)
    schedule.finished(running, Lane.PROCESS)
    assert schedule.start(10.0) == []


def test_a_run_of_a_replaced_check_is_not_current_and_frees_its_place() -> None:
    schedule = Schedule(random.Random(7), {Lane.PROCESS: 1})
    schedule.add("a", 10.0, Lane.PROCESS, 0.0, soon=True)
    [old] = schedule.start(10.0)
    schedule.add("a", 10.0, Lane.PROCESS, 10.0, soon=True)
    assert not schedule.is_current(old)
    assert schedule.start(20.0) == [], "the old run still holds the lane's only place"
    schedule.finished(old, Lane.PROCESS)
    [new] = schedule.start(20.0)
    assert schedule.is_current(new)


def test_an_interval_under_a_second_is_raised_to_one() -> None:
    schedule = Schedule(random.Random(8))
    schedule.add("a", 0.001, Lane.NETWORK, 0.0, soon=True)
    assert len(run_until(schedule, 10.0)) in (10, 11, 12)


def test_a_check_that_has_a_status_is_first_run_at_its_turn() -> None:
    schedule = Schedule(random.Random(10))
    for number in range(100):
        schedule.add(f"check-{number}", 3600.0, Lane.NETWORK, 0.0, soon=False)
    assert len(run_until(schedule, 36.0)) <= 10
    assert len(run_until(schedule, 3600.0)) >= 90
