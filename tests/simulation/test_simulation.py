"""Whole servers keep their promises in a few hundred simulated lives; more with `python -m tests.simulation`."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lictor.agent.replica import PartialReplica
from lictor.raft import log_writer
from lictor.raft.core.message import HardState
from lictor.raft.once import AppliedNumbers, Proposal
from lictor.server.subscriptions import Subscriptions
from tests.simulation.__main__ import again
from tests.simulation.checks import Counts
from tests.simulation.run import Simulation, play

SEEDS = 200
CHUNK = 20
LONGEST = 4.0  # virtual seconds of faults in each


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_promises_hold_whatever_happens(first: int) -> None:
    total = Counts()
    for seed in range(first, first + CHUNK):
        result = play(seed, longest=LONGEST)
        total.add(result.counts)
        assert not result.error, f"seed {seed}: {result.error}\nagain with: {again(seed, LONGEST)}"
    assert total.terms >= CHUNK // 2, "hardly any leader was elected: the simulations test nothing"
    assert total.crashes >= CHUNK // 4, "hardly anything went wrong: the simulations test nothing"
    assert total.writes >= 5 * CHUNK, "hardly anything was written: the simulations test nothing"
    assert total.reads >= 5 * CHUNK, "hardly anything was read: the simulations test nothing"
    assert total.replica_reads >= 2 * CHUNK, "hardly any replica was looked at: the simulations test nothing"


def test_a_seed_replays_exactly_in_another_process_with_other_hashes() -> None:
    command = [sys.executable, "-m", "tests.simulation", "--seed", "11"]
    root = Path(__file__).parents[2]
    outputs = [
        subprocess.run(
            command, cwd=root, env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2")
    ]
    assert outputs[0] == outputs[1]
    assert play(11).digest in outputs[0], "after other seeds of this process, too"


def test_a_proposal_that_counts_twice_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def take(table: AppliedNumbers, proposal: Proposal) -> bool:
        return True

    monkeypatch.setattr(AppliedNumbers, "take", take)
    errors = (play(seed, longest=LONGEST).error for seed in range(20))
    assert any("was applied at" in error for error in errors)


def test_a_vote_that_is_not_durable_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_writer, "HardState", lambda term, vote, commit: HardState(term, 0, commit))
    errors = (play(seed, longest=LONGEST).error for seed in range(20))
    assert any("with a vote for 0, and voted for" in error for error in errors)


def followed() -> list[int]:
    """Seeds in which agents follow the servers."""
    return [seed for seed in range(40) if Simulation(seed).followers]


def test_a_replica_that_believes_a_server_which_has_not_asked_the_leader_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Unconfirmed:
        """A server that takes its own word for it."""

        def __init__(self, server: Any) -> None:
            self.store = server.store
            self.consensus = server.consensus

        async def confirm(self, *, quorum: bool) -> None:
            return

    made = Subscriptions.__init__

    def init(self: Subscriptions, server: Any, *rest: Any) -> None:
        made(self, server, *rest)
        self._server = Unconfirmed(server)

    monkeypatch.setattr(Subscriptions, "__init__", init)
    errors = (play(seed, longest=LONGEST).error for seed in followed())
    assert any("shows" in error for error in errors)


def test_a_replica_that_does_not_wait_for_writes_of_its_own_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def reach(replica: PartialReplica, index: int) -> None:
        return

    monkeypatch.setattr(PartialReplica, "reach", reach)
    errors = (play(seed, longest=LONGEST).error for seed in followed()[:8])
    assert any("shows own/" in error or "and reads" in error for error in errors)
