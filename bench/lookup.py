"""Lookups within a program: `lictor.client.lookup` by policy, beside the same question over HTTP to each agent.

What is measured is the caller's own time, a call at a time: the median and the 99th percentile of the best round, and
the CPU that the caller uses. The agents' CPU comes on top for the questions over HTTP, and for lookups there is none.
"""

import http.client
import time
from collections.abc import Callable
from functools import partial

from bench.harness import Agent, Options, agents, close_all
from lictor.client import Client
from lictor.client.choosing import Policy

POLICIES: tuple[Policy, ...] = ("random", "round_robin", "weighted", "nearest", "least_connections")
SIZES = (3, 50)
BATCH = 1000


def _fill(agent: Agent, name: str, instances: int) -> None:
    for n in range(instances):
        agent.put(
            "/v1/catalog/register",
            b'{"Node":"node%d","Address":"10.0.%d.%d","Service":{"Service":"%s","Port":80},'
            b'"Check":{"Name":"alive","Status":"passing","ServiceID":"%s"}}'
            % (n, n // 250, n % 250 + 1, name.encode(), name.encode()),
        )


def _times(call: Callable[[], object], seconds: float) -> tuple[list[int], float]:
    """The time of each call in nanoseconds, and the CPU of one in microseconds, with the clock's own part taken off."""
    clock = time.perf_counter_ns
    floor = min(-clock() + clock() for _ in range(BATCH))
    took: list[int] = []
    cpu = time.process_time()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for _ in range(BATCH if not took or took[-1] < 50_000 else 20):
            begun = clock()
            call()
            took.append(clock() - begun - floor)
    return took, (time.process_time() - cpu) / len(took) * 1e6


def _row(name: str, call: Callable[[], object], options: Options) -> str:
    rounds = []
    for _ in range(options.rounds):
        took, cpu = _times(call, options.seconds)
        took.sort()
        rounds.append((took[len(took) // 2] / 1000, took[len(took) * 99 // 100] / 1000, cpu, len(took)))
    best = [min(values) for values in zip(*rounds, strict=True)]
    return f"| {name} | {best[0]:.2f} | {best[1]:.2f} | {best[2]:.2f} | {max(r[3] for r in rounds)} |"


def _asker(agent: Agent, path: str) -> Callable[[], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", agent.http, timeout=30)

    def ask() -> bytes:
        connection.request("GET", path)
        return connection.getresponse().read()

    return ask


def run(options: Options) -> None:
    """Measure and print."""
    peers = agents()
    try:
        for size in SIZES:
            name = f"web{size}"
            for peer in peers:
                _fill(peer, name, size)
            print(f"\n## A lookup of a service with {size} instances\n")
            print("| how | p50 us | p99 us | CPU us/op of the caller | calls a round |")
            print("| --- | --- | --- | --- | --- |")
            with Client(f"127.0.0.1:{peers[0].http}") as client:
                for policy in POLICIES:
                    print(_row(f"lookup, {policy}", partial(client.lookup, name, policy), options))
            path = f"/v1/health/service/{name}?passing"
            for peer in peers:
                print(_row(f"GET {path}, {peer.name}", _asker(peer, path), options))
    finally:
        close_all(peers)
