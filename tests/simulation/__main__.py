"""Runs simulations: `python -m tests.simulation --count 1000`, or one again: `--seed 123 --verbose`."""

import argparse
import gc
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import islice

from tests.simulation.checks import Counts
from tests.simulation.run import Result, play

BATCH = 100  # seeds to a line
LONGEST = 20.0


def main() -> int:
    """Returns the number of seeds that failed, 100 at most."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description="Simulates whole clusters.")
    parser.add_argument("--seed", type=int, help="run this one")
    parser.add_argument("--verbose", action="store_true", help="with --seed: show everything that happens")
    parser.add_argument("--count", type=int, default=100, help="how many to run")
    parser.add_argument("--start", type=int, default=0, help="the first one's seed")
    parser.add_argument("--jobs", type=int, default=1, help="how many processes work on it")
    parser.add_argument("--longest", type=float, default=LONGEST, help="for how many virtual seconds faults go on")
    arguments = parser.parse_args()
    gc.collect()
    gc.freeze()  # what each seed collects is its own, and not what was imported
    if arguments.seed is not None:
        result = play(arguments.seed, print if arguments.verbose else None, arguments.longest)
        print(f"seed {result.seed}: {result.counts}, trace {result.digest}")
        return _report(result, arguments.longest)
    seeds = range(arguments.start, arguments.start + arguments.count)
    one = partial(_one, arguments.longest)
    if arguments.jobs == 1:
        return _run(map(one, seeds), arguments.longest)
    with ProcessPoolExecutor(arguments.jobs) as pool:
        return _run(pool.map(one, seeds, chunksize=5), arguments.longest)


def _one(longest: float, seed: int) -> Result:
    return play(seed, longest=longest)


def _run(results: Iterable[Result], longest: float) -> int:
    """Run all, and print a line of counts for each batch."""
    total, failed = Counts(), 0
    iterator = iter(results)
    begun = time.monotonic()
    while batch := list(islice(iterator, BATCH)):
        for result in batch:
            total.add(result.counts)
            failed += _report(result, longest)
        print(f"{total}, failed {failed}, real seconds {time.monotonic() - begun:.0f}", flush=True)
    return min(failed, 100)


def _report(result: Result, longest: float) -> int:
    """Show what broke; returns 1 if anything did."""
    if not result.error:
        return 0
    print(f"seed {result.seed}: {result.error}\n  again with: {again(result.seed, longest)}", flush=True)
    return 1


def again(seed: int, longest: float) -> str:
    """The command that replays a seed."""
    more = "" if longest == LONGEST else f" --longest {longest:g}"
    return f"python -m tests.simulation --seed {seed}{more} --verbose"


if __name__ == "__main__":
    sys.exit(main())
