"""A large catalog: 10,000 nodes with 172,000 instances of 1,000 services. What it takes to register them, the memory of
the server that holds them, and how long it takes to tell of one service.
"""

import json
import time
from collections.abc import Iterator
from itertools import islice
from typing import Any

from bench.harness import Options, agents, close_all, http_ready

NODES = 10_000
INSTANCES = 172_000
SERVICES = 1_000
AT_ONCE = 128  # operations that a transaction may have


def _operations() -> Iterator[dict[str, Any]]:
    for node in range(NODES):
        address = f"10.{node >> 16 & 255}.{node >> 8 & 255}.{node & 255}"
        yield {"Node": {"Verb": "set", "Node": {"Node": f"node{node}", "Address": address}}}
        alive = {"Node": f"node{node}", "CheckID": "serfHealth", "Name": "Serf Health Status", "Status": "passing"}
        yield {"Check": {"Verb": "set", "Check": alive}}
    for number in range(INSTANCES):
        name = f"node{number % NODES}"
        service = {"ID": f"s{number}", "Service": f"service{number % SERVICES}", "Port": 1024 + number % 60000}
        yield {"Service": {"Verb": "set", "Node": name, "Service": {**service, "Tags": ["v1", "primary"]}}}
        check = {"Node": name, "CheckID": f"service:s{number}", "Name": "alive", "Status": "passing"}
        yield {"Check": {"Verb": "set", "Check": {**check, "ServiceID": f"s{number}"}}}


def run(options: Options) -> None:
    """Measure and print."""
    peers = agents("-hcl=limits { txn_max_req_len = 1048576 }")
    print(f"\n## {NODES:,} nodes with {INSTANCES:,} instances of {SERVICES:,} services\n")
    print("| server | seconds to register | CPU seconds | resident MB | one service asked for, ms |")
    print("| --- | --- | --- | --- | --- |")
    try:
        for peer in peers:
            started, used = time.monotonic(), peer.cpu()
            operations = _operations()
            while part := list(islice(operations, AT_ONCE)):
                peer.put("/v1/txn", json.dumps(part).encode())
            took, used = time.monotonic() - started, peer.cpu() - used
            begun = time.monotonic()
            if not http_ready(f"{peer.url}/v1/health/service/service7?passing")():
                raise SystemExit(f"{peer.name} does not know service7")
            asked = (time.monotonic() - begun) * 1000
            print(f"| {peer.name} | {took:.0f} | {used:.0f} | {peer.resident() / 1e6:.0f} | {asked:.1f} |")
    finally:
        close_all(peers)
