"""DNS lookups: of a service's addresses, of its SRV records, of a name that does not exist, and of names that no answer
is ready for. unbound serves the same addresses from its configuration, as the measure of what a C server needs.
"""

import functools
import re
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.harness import Agent, Options, Peer, Result, Visit, agents, close_all, free_ports, measure, needs, table

ADDRESSES = ("10.0.0.1", "10.0.0.2", "10.0.0.3")
NAME = "web.service.consul"
CLIENTS = 8
LARGE = 50
MANY = 50_000


class Unbound(Peer):
    """unbound with the service's addresses as local data."""

    def __init__(self) -> None:
        (self.dns,) = free_ports(1)
        folder = tempfile.mkdtemp(prefix="bench-unbound-")
        lines = ["server:", "interface: 127.0.0.1", f"port: {self.dns}", 'username: ""', 'chroot: ""', "num-threads: 1"]
        lines += [f'directory: "{folder}"', f'pidfile: "{folder}/pid"', "use-syslog: no", "do-daemonize: no"]
        lines += ['local-zone: "consul." static', *(f'local-data: "{NAME}. 0 IN A {a}"' for a in ADDRESSES)]
        configuration = Path(folder) / "unbound.conf"
        configuration.write_text("\n".join(lines) + "\n")
        super().__init__("unbound", ["unbound", "-c", str(configuration)], self._answers, folder)

    def _answers(self) -> bool:
        question = bytes.fromhex("000701000001000000000000") + b"\x03web\x07service\x06consul\x00\x00\x01\x00\x01"
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.settimeout(0.2)
            try:
                udp.connect(("127.0.0.1", self.dns))
                udp.send(question)
                return udp.recv(512)[:2] == b"\x00\x07"
            except OSError:
                return False


def _fill(agent: Agent) -> None:
    for number, address in enumerate(ADDRESSES):
        agent.put(
            "/v1/catalog/register",
            f'{{"Node":"node{number}","Address":"{address}","Service":{{"Service":"web","Port":80}},'
            f'"Check":{{"Name":"alive","Status":"passing","ServiceID":"web"}}}}'.encode(),
        )
    for number in range(LARGE):
        agent.put(
            "/v1/catalog/register",
            f'{{"Node":"large{number}","Address":"10.0.1.{number}","Service":{{"Service":"large","Port":80}},'
            f'"Check":{{"Name":"alive","Status":"passing","ServiceID":"large"}}}}'.encode(),
        )


def dnsperf(port: int, queries: Path | str, options: Options, *flags: str) -> Visit:
    """Load from dnsperf. A query that failed was lost."""
    seconds = str(max(1, round(options.seconds)))
    command = ["dnsperf", "-s", "127.0.0.1", "-p", str(port), "-d", str(queries), "-l", seconds, "-c", str(CLIENTS)]
    out = subprocess.run([*command, *flags], capture_output=True, text=True, check=True).stdout
    figures = [re.search(rf"Queries {what}:\s+([\d.]+)", out) for what in ("completed", "per second", "lost")]
    if figures[0] is None or figures[1] is None:
        raise SystemExit(f"dnsperf gave no figures:\n{out}")
    return Visit(int(figures[0][1]), float(figures[1][1]), int(figures[2][1]) if figures[2] else 0)


def _spellings() -> list[str]:
    """The name in spellings that differ in case, as resolvers send them that guard against forged answers."""
    letters = [at for at, char in enumerate(NAME) if char.isalpha()]
    lines = []
    for number in range(MANY):
        chars = list(NAME)
        for bit, at in enumerate(letters):
            if number >> bit & 1:
                chars[at] = chars[at].upper()
        lines.append("".join(chars) + " A")
    return lines


def _load(queries: Path, flags: tuple[str, ...], options: Options, peer: Any) -> Visit:
    return dnsperf(peer.dns, queries, options, *flags)


def _against_unbound(results: list[Result]) -> str:
    costs = {result.name: min(result.costs) for result in results}
    return f"\nlictor to unbound: {costs['lictor'] / costs['unbound']:.2f}" if "unbound" in costs else ""


def run(options: Options) -> None:
    """Measure and print."""
    if not needs("dnsperf"):
        return
    started = agents()
    peers: list[Any] = [*started]
    unbound = None
    try:
        for agent in started:
            _fill(agent)
        if needs("unbound"):
            unbound = Unbound()
            peers.append(unbound)
        with tempfile.TemporaryDirectory(prefix="bench-dns-") as folder:
            queries = Path(folder) / "queries"
            for title, lines, flags, everyone in (
                ("A of a service with three instances", [f"{NAME} A"], (), True),
                ("A of a service with three instances, EDNS", [f"{NAME} A"], ("-e",), True),
                ("SRV of a service with three instances", [f"{NAME} SRV"], ("-e",), False),
                (f"A of a service with {LARGE} instances", ["large.service.consul A"], (), False),
                ("A of a name that does not exist", ["nope.service.consul A"], (), False),
                (f"A in {MANY} spellings: no answer is ready", _spellings(), (), False),
                (f"A of {MANY} names that do not exist", [f"no{n}.service.consul A" for n in range(MANY)], (), False),
            ):
                queries.write_text("\n".join(lines) + "\n")
                loaded = peers if everyone else [*started]
                results = measure(loaded, functools.partial(_load, queries, flags, options), options)
                print(table(title, results) + _against_unbound(results))
                sys.stdout.flush()
    finally:
        close_all(started)
        if unbound is not None:
            unbound.close()
