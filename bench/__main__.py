"""`python -m bench [--seconds N] [--rounds N] [NAME ...]`: runs the benchmarks and prints their tables."""

import argparse
import importlib

from bench.harness import Options

BENCHMARKS = (
    "start",
    "http_reads",
    "lookup",
    "watchers",
    "dns",
    "wal",
    "recovery",
    "cluster",
    "failover",
    "client_agents",
    "detection",
    "mesh",
    "scale",
    "followers",
)


def main() -> None:
    """Run what was named, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(BENCHMARKS)}")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of one visit")
    parser.add_argument("--rounds", type=int, default=3, help="visits to each server")
    parser.add_argument("--connections", type=int, default=32, help="connections of the load")
    given = parser.parse_args()
    unknown = set(given.names) - set(BENCHMARKS)
    if unknown:
        parser.error(f"unknown benchmark {sorted(unknown)[0]!r}; there are {', '.join(BENCHMARKS)}")
    options = Options(given.rounds, given.seconds, given.connections)
    for name in given.names or BENCHMARKS:
        importlib.import_module(f"bench.{name}").run(options)


if __name__ == "__main__":
    main()
