"""Failover: the leader is killed under a trickle of writes; how long until the survivors acknowledge one again.

A write is begun every `PACE` through each survivor in turn, each with a connection of its own and patience enough to
outlast the change of leader; what counts is the first that is acknowledged. Then the killed server comes back, and the
next round begins once the cluster is whole.
"""

import statistics
import threading
import time

from bench.clusters import Cluster, Server, clusters
from bench.harness import Options

PACE = 0.02  # seconds between two writes
PATIENCE = 30.0  # seconds
BEFORE = 1.0  # seconds of writing before the kill


def _failover(cluster: Cluster) -> float:
    """Seconds from the kill to the first acknowledged write."""
    leader = cluster.wait_until_whole()
    survivors = [server for server in cluster.servers if server is not leader]
    acknowledged = threading.Event()
    killed = threading.Event()
    took = [PATIENCE]
    at = [0.0]

    def write(server: Server, number: int) -> None:
        after = killed.is_set()
        if cluster.write(server, f"failover{number}", b"x" * 64, PATIENCE) and after and not acknowledged.is_set():
            took[0] = time.monotonic() - at[0]
            acknowledged.set()

    threads = []
    started = time.monotonic()
    number = 0
    while not acknowledged.is_set() and time.monotonic() - started < BEFORE + PATIENCE:
        if not killed.is_set() and time.monotonic() - started >= BEFORE:
            at[0] = time.monotonic()
            leader.kill()
            killed.set()
        thread = threading.Thread(target=write, args=(survivors[number % len(survivors)], number))
        thread.start()
        threads.append(thread)
        number += 1
        time.sleep(PACE)
    for thread in threads:
        thread.join()
    leader.start()
    return took[0]


def run(options: Options) -> None:
    """Measure and print."""
    for multiplier in (0, 1):
        started = clusters(multiplier)
        times: dict[str, list[float]] = {one.name: [] for one in started}
        try:
            for _ in range(options.rounds):
                for one in started:
                    times[one.name].append(_failover(one))
        finally:
            for one in started:
                one.close()
        setting = f"raft_multiplier {multiplier}" if multiplier else "default settings"
        print(f"\n## Leader killed to first acknowledged write, {setting}\n")
        print("| server | seconds, median | best | worst |\n| --- | --- | --- | --- |")
        for name, seconds in times.items():
            print(
                f"| {name} | {statistics.median(seconds):.2f} | {min(seconds):.2f} | {max(seconds):.2f} |", flush=True
            )
