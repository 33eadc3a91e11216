"""Plays every scenario against both servers and compares each answer with the recorded one."""

from __future__ import annotations

import difflib

import pytest

from tests.contract import deliberate, player
from tests.contract.conftest import Servers
from tests.contract.scenario import Scenario, load_all

SCENARIOS = load_all()


@pytest.mark.parametrize("scenario", SCENARIOS, ids=[scenario.title for scenario in SCENARIOS])
def test_answers_are_those_recorded(scenario: Scenario, kind: str, pool: Servers) -> None:
    """Every answer is the recorded one, but for the differences in deliberate.py."""
    server = pool.start(kind, scenario.profile) if scenario.fresh else pool.get(kind, scenario.profile)
    try:
        answers = player.play(scenario, server)
    finally:
        if scenario.fresh:
            server.stop()
    findings = []
    for step, answer in zip(scenario.steps, answers, strict=True):
        expected, got = step.expected, answer
        if kind == "lictor":
            request = " ".join([step.request, *step.body])
            expected, got = deliberate.compare(scenario.title, request, expected, got)
        if expected != got:
            difference = "\n".join(difflib.unified_diff(expected, got, "expected", "got", lineterm="", n=2))
            findings.append(f"line {step.line}: {step.request} {' '.join(step.body)}\n{difference}")
    if findings:
        pytest.fail(f"{scenario.path.name}: {len(findings)} answers differ\n" + "\n\n".join(findings), pytrace=False)
