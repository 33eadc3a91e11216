"""Failure detection: one of five agents beside a server is killed; how long until `members` of each of the others says
that it has failed, and until the catalog does. Consul's agents the same way, with the same settings: the defaults.

A kill comes at a random moment, as crashes do. Then the killed agent comes back, and the next round begins once
everybody sees it.
"""

import json
import random
import statistics
import sys
import time
import urllib.request
from collections.abc import Callable
from typing import Any

from bench.client_agents import Client, programs
from bench.harness import Options, free_ports

AGENTS = 5
PATIENCE = 120.0  # seconds
POLL = 0.05  # seconds between two looks at all
ALIVE, FAILED = 1, 4


class Pool:
    """A server and the agents beside it."""

    def __init__(self, name: str, program: list[str]) -> None:
        self.name = name
        lan, server, wan = free_ports(3)
        flags = ["-server", "-bootstrap-expect=1", f"-server-port={server}", f"-serf-wan-port={wan}"]
        self.server = Client(name, program, lan, "server", *flags, f"-serf-lan-port={lan}")
        self.agents = [Client(name, program, lan, f"agent{number}") for number in range(AGENTS)]

    def close(self) -> None:
        """End all of them."""
        for peer in (*self.agents, self.server):
            peer.close()

    def seen(self, url: str, node: str) -> int:
        """A member's status as an agent tells it; 0 while it does not."""
        try:
            members = _get(f"{url}/v1/agent/members")
        except OSError:  # it has only just been started
            return 0
        return next((member["Status"] for member in members if member["Name"] == node), 0)

    def healthy(self, node: str) -> bool:
        """Whether the catalog has a node as healthy."""
        checks = _get(f"{self.server.url}/v1/health/node/{node}")
        return any(check["CheckID"] == "serfHealth" and check["Status"] == "passing" for check in checks)


def _get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.loads(answer.read())


def _until(condition: Callable[[], bool]) -> float:
    """Wait for a condition; when it came true."""
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > PATIENCE:
            raise SystemExit(f"waited {PATIENCE:.0f} s in vain")
        time.sleep(POLL)
    return time.monotonic()


def _round(pool: Pool, number: int) -> tuple[float, float, float]:
    """Seconds from a kill until the first knows, until all know, and until the catalog does."""
    killed, node = pool.agents[number % AGENTS], f"agent{number % AGENTS}"
    urls = {agent.url for agent in pool.agents if agent is not killed} | {pool.server.url}
    _until(lambda: all(pool.seen(url, node) == ALIVE for url in urls) and pool.healthy(node))
    time.sleep(random.uniform(1.0, 2.0))
    killed.kill()
    at = time.monotonic()
    _until(lambda: any(pool.seen(url, node) == FAILED for url in urls))
    first = time.monotonic() - at
    _until(lambda: all(pool.seen(url, node) == FAILED for url in urls))
    last = time.monotonic() - at
    _until(lambda: not pool.healthy(node))
    catalog = time.monotonic() - at
    killed.start()
    print(f"{pool.name}: {first:.1f} {last:.1f} {catalog:.1f}", file=sys.stderr, flush=True)
    return first, last, catalog


def run(options: Options) -> None:
    """Measure and print."""
    pools: list[Pool] = []
    times: dict[str, list[tuple[float, float, float]]] = {}
    try:
        for name, program in programs():
            pools.append(Pool(name, program))
            times[name] = []
        for number in range(options.rounds):
            for pool in pools:
                times[pool.name].append(_round(pool, number))
    finally:
        for pool in pools:
            pool.close()
    print(f"\n## An agent of {AGENTS} killed, to `members` that say so: seconds, {options.rounds} rounds\n")
    print("| agents | first knows, median | all know, median | best | worst | the catalog, median |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, rounds in times.items():
        first, last, catalog = (list(column) for column in zip(*rounds, strict=True))
        print(
            f"| {name} | {statistics.median(first):.1f} | {statistics.median(last):.1f} | {min(last):.1f} | "
            f"{max(last):.1f} | {statistics.median(catalog):.1f} |",
            flush=True,
        )
