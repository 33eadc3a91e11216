"""Two client agents beside a server: from a change on one node to the DNS answer on the other, lookups on the node, and
what an agent costs while nobody asks. Consul the same way.
"""

import json
import os
import shutil
import socket
import statistics
import sys
import tempfile
import time

from bench.dns import dnsperf
from bench.harness import Agent, Options, Peer, Visit, free_ports, http_ready, measure, put, table, wrk

NAME = b"\x03web\x07service\x06consul\x00\x00\x21\x00\x01"  # a question for SRV records
PATIENCE = 60.0
CHANGES = 50  # a round
POLL = 0.0005  # seconds between two questions
IDLE = 30.0  # seconds for which nobody asks


class Client(Peer):
    """A client agent beside a server."""

    def __init__(self, name: str, program: list[str], server_lan: int, node: str, *flags: str) -> None:
        self.http, self.dns, lan = free_ports(3)
        self.url = f"http://127.0.0.1:{self.http}"
        folder = tempfile.mkdtemp(prefix="bench-")
        command = [*program, "agent", f"-data-dir={folder}/data", f"-node={node}", "-bind=127.0.0.1"]
        command += ["-client=127.0.0.1", "-log-level=warn", f"-retry-join=127.0.0.1:{server_lan}"]
        command += [f"-http-port={self.http}", f"-dns-port={self.dns}", f"-serf-lan-port={lan}", *flags]
        super().__init__(name, command, http_ready(self.url + "/v1/catalog/nodes"), folder)


class Datacenter:
    """A server and two client agents; measured are the agents."""

    def __init__(self, name: str, program: list[str]) -> None:
        self.name = name
        self.server = Agent(name, program, "-bind=127.0.0.1")
        self.changed = Client(name, program, self.server.lan, "changed")
        self.asked = Client(name, program, self.server.lan, "asked")

    def cpu(self) -> float:
        """Seconds of CPU time of the agent that is asked."""
        return self.asked.cpu()

    def close(self) -> None:
        """End all of it."""
        for peer in (self.asked, self.changed, self.server):
            peer.close()


def programs() -> list[tuple[str, list[str]]]:
    """How this program is run, and the reference where it is installed, by their names."""
    found = [("lictor", [sys.executable, "-m", "lictor"])]
    reference = os.environ.get("LICTOR_REFERENCE_CONSUL") or shutil.which("consul")
    if reference:
        found.append(("consul", [reference]))
    else:
        print("consul: not installed (LICTOR_REFERENCE_CONSUL), left out")
    return found


def datacenters() -> list[Datacenter]:
    """This program's, and the reference's where it is installed."""
    return [Datacenter(name, program) for name, program in programs()]


def _ports(udp: socket.socket) -> set[int]:
    """The ports in the answer to a question for SRV records."""
    udp.send(bytes.fromhex("000701000001000000000000") + NAME)
    answer = udp.recv(4096)
    count, at, found = int.from_bytes(answer[6:8], "big"), 12 + len(NAME), set()
    for _ in range(count):
        while answer[at] and answer[at] < 0xC0:
            at += answer[at] + 1
        at += 2 if answer[at] >= 0xC0 else 1
        size = int.from_bytes(answer[at + 8 : at + 10], "big")
        found.add(int.from_bytes(answer[at + 14 : at + 16], "big"))
        at += 10 + size
    return found


def change(datacenter: Datacenter, port: int) -> float:
    """Seconds from a registration with one agent until the other's DNS tells of it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.settimeout(1.0)
        udp.connect(("127.0.0.1", datacenter.asked.dns))
        body = json.dumps({"Name": "web", "Port": port}).encode()
        started = time.monotonic()
        put(f"{datacenter.changed.url}/v1/agent/service/register", body)
        while time.monotonic() - started < PATIENCE:
            try:
                if port in _ports(udp):
                    return time.monotonic() - started
            except TimeoutError:
                continue
            time.sleep(POLL)
    raise SystemExit(f"{datacenter.name}: the change has not arrived within {PATIENCE:.0f} s")


def run(options: Options) -> None:
    """Measure and print."""
    found = datacenters()
    try:
        times: dict[str, list[float]] = {datacenter.name: [] for datacenter in found}
        for number in range(options.rounds * CHANGES):
            for datacenter in found:
                times[datacenter.name].append(change(datacenter, 2000 + number) * 1000)
        print("\n## From a change on one node to the DNS answer on another\n")
        print("| agents | p50 ms | p99 ms | worst ms |\n| --- | --- | --- | --- |")
        for name, values in times.items():
            p99 = statistics.quantiles(values, n=100)[98]
            print(f"| {name} | {statistics.median(values):.1f} | {p99:.1f} | {max(values):.1f} |")
        for path in ("/v1/health/service/web?passing", "/v1/health/service/web?passing&cached"):

            def load(datacenter: Datacenter, path: str = path) -> Visit:
                return wrk(datacenter.asked.url + path, options)

            print(table(f"GET {path} on a client agent", measure(found, load, options)))
        with tempfile.NamedTemporaryFile("w") as queries:
            queries.write("web.service.consul A\n")
            queries.flush()
            results = measure(found, lambda d: dnsperf(d.asked.dns, queries.name, options), options)
        print(table("A of a service on a client agent", results))
        _idle(found)
    finally:
        for datacenter in found:
            datacenter.close()


def _idle(found: list[Datacenter]) -> None:
    before = [datacenter.cpu() for datacenter in found]
    time.sleep(IDLE)
    print("\n## A client agent that nobody asks\n")
    print("| agent | % of a core | resident MB |\n| --- | --- | --- |")
    for datacenter, used in zip(found, before, strict=True):
        share = (datacenter.cpu() - used) / IDLE * 100
        print(f"| {datacenter.name} | {share:.2f} | {datacenter.asked.resident() / 1e6:.0f} |")
