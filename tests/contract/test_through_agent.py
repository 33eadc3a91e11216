"""Plays every scenario through a client agent: it answers what a server answers, but for what is said here.

Of the numbers of indexes and ids only that they are there is compared, because the server's own node has some as well;
`test_scenarios.py` compares them.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator

import pytest

from tests.contract import deliberate, player, through_agent
from tests.contract.scenario import Scenario, load_all
from tests.contract.servers import NODE
from tests.contract.through_agent import BEHIND, AgentWithServer

TWO_NODES = "there are two nodes, the agent's and its server's, where the recording has one"
SERVER_ELSEWHERE = "the server, and what there is of it, is on the other node"
NO_WAN = "a client agent is in no pool between datacenters, as in Consul"

# Whole scenarios that are about one lone server.
LEFT_OUT = {
    "catalog/fresh": "a catalog with one node in it: that of the server",
    "operator/operator": "what servers say of themselves; through an agent they are asked in tests/cluster",
}

# Requests, by scenario, whose answers differ.
DIFFERENT: dict[str, dict[str, str]] = {
    "agent/agent": {
        "GET /v1/agent/members": TWO_NODES,
        "GET /v1/agent/members?wan": TWO_NODES,
        "GET /v1/agent/members?wan=1": NO_WAN,
        "GET /v1/agent/members?segment=_all": TWO_NODES,
        "GET /v1/agent/members?dc=nowhere": TWO_NODES,
    },
    "agent/filters": {"GET /v1/agent/members?filter=Name == contract": SERVER_ELSEWHERE},
    "coordinate/coordinate": {"GET /v1/coordinate/datacenters": SERVER_ELSEWHERE},
    "http/blocking-refusals": {"GET /v1/health/state/any?wait=-5s&index=1": TWO_NODES},
    "http/tuned": {"GET /v1/catalog/nodes": TWO_NODES, "GET /v1/catalog/node/contract": SERVER_ELSEWHERE},
    "ui/ui": {"GET /v1/internal/ui/services": SERVER_ELSEWHERE},
}

# Headers that a client agent adds to discovery reads, which it answers itself (docs/operations.md).
ADDED = re.compile(r"(X-Cache|Age): .*")
LABEL = re.compile(r"<(index|uuid):\d+>")

SCENARIOS = [scenario for scenario in load_all() if scenario.title not in LEFT_OUT]


class Agents:
    """Agents by profile, started when first asked for."""

    def __init__(self) -> None:
        self._running: dict[str, AgentWithServer] = {}

    def get(self, profile: str) -> AgentWithServer:
        """The agent of a profile."""
        if profile not in self._running:
            self._running[profile] = through_agent.start(profile)
        return self._running[profile]

    def stop(self) -> None:
        """Ends all of them."""
        for agent in self._running.values():
            agent.stop()


@pytest.fixture(scope="module")
def agents() -> Iterator[Agents]:
    """The module's agents."""
    made = Agents()
    yield made
    made.stop()


def plain(lines: list[str]) -> list[str]:
    """An answer without what the module's first lines say."""
    kept = [line for line in lines if not ADDED.fullmatch(line)]
    return [LABEL.sub(r"<\1>", line).replace(f"{BEHIND}.", f"{NODE}.") for line in kept]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=[scenario.title for scenario in SCENARIOS])
def test_an_agent_answers_as_a_server_does(scenario: Scenario, agents: Agents) -> None:
    agent = through_agent.start(scenario.profile) if scenario.fresh else agents.get(scenario.profile)
    try:
        answers = player.play(scenario, agent)
    finally:
        if scenario.fresh:
            agent.stop()
    different = DIFFERENT.get(scenario.title, {})
    findings = []
    for step, answer in zip(scenario.steps, answers, strict=True):
        request = " ".join([step.request, *step.body])
        expected, got = map(plain, deliberate.compare(scenario.title, request, step.expected, answer))
        if step.request in different:
            assert expected != got, f"{step.request} is said to differ ({different[step.request]}), and does not"
        elif expected != got:
            difference = "\n".join(difflib.unified_diff(expected, got, "expected", "got", lineterm="", n=2))
            findings.append(f"line {step.line}: {request}\n{difference}")
    if findings:
        pytest.fail(f"{scenario.path.name}: {len(findings)} answers differ\n" + "\n\n".join(findings), pytrace=False)
