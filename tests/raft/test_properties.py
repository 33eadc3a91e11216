"""Random schedules: what Raft promises holds whatever the network, the disks and the operators do.

A few hundred short schedules run with the suite. More, or one again:

    python -m tests.raft.test_properties --count 10000 --first 0 --steps 2000
    python -m tests.raft.test_properties --seed 48388
"""

import argparse
import sys
import time

import pytest

from tests.raft.cluster import Cluster, play
from tests.raft.simulated_server import Broken

SCHEDULES = 1200
CHUNK = 100
STEPS = 1500


@pytest.mark.parametrize("first", range(0, SCHEDULES, CHUNK))
def test_promises_hold_in_random_schedules(first: int) -> None:
    elections = committed = 0
    for seed in range(first, first + CHUNK):
        cluster = _play(seed, STEPS)
        elections += len(cluster.observer.leaders)
        committed += cluster.observer.commit
    assert elections > CHUNK, "hardly any leader was elected: the schedules test nothing"
    assert committed > 2 * CHUNK, "hardly anything was committed: the schedules test nothing"


def test_a_seed_replays_exactly() -> None:
    first, second = play(7, STEPS), play(7, STEPS)
    assert first.observer.states == second.observer.states
    assert first.observer.leaders == second.observer.leaders


def _play(seed: int, steps: int) -> Cluster:
    try:
        return play(seed, steps)
    except Exception as error:
        again = f"python -m tests.raft.test_properties --seed {seed} --steps {steps}"
        raise Broken(f"seed {seed}: {error!r}; again with: {again}") from error


def main() -> int:
    """Run many schedules, or one. Returns the number of those that failed, 100 at most."""
    parser = argparse.ArgumentParser(prog="python -m tests.raft.test_properties", description="Random Raft schedules.")
    parser.add_argument("--seed", type=int, help="run this one, and show where it fails")
    parser.add_argument("--count", type=int, default=1000, help="how many to run")
    parser.add_argument("--first", type=int, default=0, help="the first one's seed")
    parser.add_argument("--steps", type=int, default=STEPS, help="steps of each")
    arguments = parser.parse_args()
    if arguments.seed is not None:
        _play(arguments.seed, arguments.steps)
        print(f"seed {arguments.seed} holds")
        return 0
    start = time.monotonic()
    failed = elections = committed = 0
    for seed in range(arguments.first, arguments.first + arguments.count):
        try:
            cluster = _play(seed, arguments.steps)
        except Broken as error:
            failed += 1
            print(error, flush=True)
            continue
        elections += len(cluster.observer.leaders)
        committed += cluster.observer.commit
    seconds = time.monotonic() - start
    print(f"{arguments.count} schedules, {elections} terms led, {committed} entries, {failed} failed, {seconds:.0f} s")
    return min(failed, 100)


if __name__ == "__main__":
    sys.exit(main())
