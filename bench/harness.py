"""What every benchmark is made of: servers as processes, load from outside, CPU time from the kernel, one table.

A `Peer` is a running server; `measure` loads several in turn, round by round.
"""

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

import msgspec


class Measured(Protocol):
    """What has a name and uses CPU: a server, or several that belong together."""

    name: str

    def cpu(self) -> float:
        """Seconds of CPU time that it has used."""
        ...


P = TypeVar("P", bound=Measured)
TICKS = os.sysconf("SC_CLK_TCK")


class Options(msgspec.Struct, frozen=True):
    """How long to measure: rounds, seconds of one visit, connections of the load."""

    rounds: int = 3
    seconds: float = 1.0
    connections: int = 32


class Visit(NamedTuple):
    """What a load did: operations, their rate per second, how many failed, and their times in milliseconds where the
    load tells them.
    """

    done: int
    rate: float
    bad: int
    p50: float = 0.0
    p99: float = 0.0


class Result(msgspec.Struct):
    """A peer's figures, a value a round: microseconds of CPU per operation, operations per second, milliseconds."""

    name: str
    costs: list[float]
    rates: list[float]
    bad: int = 0
    medians: list[float] = []
    tails: list[float] = []


class Peer:
    """A server under test: its name, its processes, and the folder it may write to."""

    def __init__(self, name: str, command: list[str], ready: Callable[[], bool], folder: str) -> None:
        self.name = name
        self.folder = folder
        self.log = Path(folder) / "log"
        self._command = command
        self.start_seconds = 0.0
        self.start()
        self.wait_for(ready)

    def start(self) -> None:
        """Start the process, for the first time or again."""
        self._started = time.monotonic()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log, cwd=self.folder)

    def wait_for(self, ready: Callable[[], bool]) -> None:
        """Wait until a test says that the process is ready."""
        while not ready():
            if self.process.poll() is not None or time.monotonic() - self._started > 60:
                raise SystemExit(f"{self.name} did not start:\n{self.log.read_text()[-2000:]}")
            time.sleep(0.005)
        self.start_seconds = time.monotonic() - self._started

    def kill(self) -> None:
        """End the process as a crash would."""
        self.process.kill()
        self.process.wait()

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid

    def cpu(self) -> float:
        """Seconds of CPU time that the process has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def resident(self) -> int:
        """Bytes of memory in use."""
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text())
        return int(found[1]) * 1024 if found else 0

    def close(self) -> None:
        """End the process."""
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def http_ready(url: str) -> Callable[[], bool]:
    """A test of whether a URL answers with a body that is not empty."""

    def ready() -> bool:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return len(answer.read()) > 2
        except OSError:
            return False

    return ready


def put(url: str, body: bytes) -> bytes:
    """A PUT; returns the body of the answer. Raises OSError."""
    with urllib.request.urlopen(urllib.request.Request(url, body, method="PUT"), timeout=30) as answer:
        return bytes(answer.read())


class Agent(Peer):
    """A Consul-like agent with its HTTP and DNS ports."""

    def __init__(self, name: str, program: list[str], *flags: str) -> None:
        self.http, self.dns, self.server, self.lan, wan = free_ports(5)
        self.url = f"http://127.0.0.1:{self.http}"
        ports = {
            "http": self.http,
            "dns": self.dns,
            "server": self.server,
            "serf-lan": self.lan,
            "serf-wan": wan,
            "grpc": -1,
        }
        command = [*program, "agent", "-dev", "-node=bench", "-log-level=warn", *flags]
        command += [f"-{key}-port={port}" for key, port in {**ports, "grpc": -1}.items()]
        super().__init__(name, command, http_ready(self.url + "/v1/status/leader"), tempfile.mkdtemp(prefix="bench-"))

    def put(self, path: str, body: bytes) -> bytes:
        """A PUT to the agent; returns the body of the answer."""
        return put(self.url + path, body)


def agents(*flags: str) -> list[Agent]:
    """This program's agent, and the reference's where `LICTOR_REFERENCE_CONSUL` or PATH has one."""
    found = [Agent("lictor", [sys.executable, "-m", "lictor"], *flags)]
    reference = os.environ.get("LICTOR_REFERENCE_CONSUL") or shutil.which("consul")
    if reference:
        found.append(Agent("consul", [reference], *flags))
    else:
        print("consul: not installed (LICTOR_REFERENCE_CONSUL), left out")
    return found


def needs(*programs: str) -> bool:
    """Whether every program is on PATH; says which is not."""
    missing = [p for p in programs if shutil.which(p) is None]
    if missing:
        print(f"skipped: {', '.join(missing)} not installed")
    return not missing


_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}


def wrk(url: str, options: Options, script: str = "", threads: int = 1) -> Visit:
    """Load from wrk. An operation that failed is one whose answer was not 2xx, or that got none."""
    connections = options.connections // threads * threads
    command = ["wrk", f"-t{threads}", f"-c{connections}", f"-d{max(1, round(options.seconds))}s", "--latency"]
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        if script:
            file.write(script)
            file.flush()
            command += ["-s", file.name]
        out = subprocess.run([*command, url], capture_output=True, text=True, check=True).stdout
    done = re.search(r"(\d+) requests in", out)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", out)
    bad = sum(int(n) for n in re.findall(r"Non-2xx or 3xx responses: (\d+)", out))
    for errors in re.findall(r"Socket errors: (.*)", out):
        bad += sum(int(n) for n in re.findall(r"\d+", errors))
    times = [re.search(rf"{part}%\s+([\d.]+)(us|ms|s|m) *\n", out) for part in (50, 99)]
    if done is None or rate is None or times[0] is None or times[1] is None:
        raise SystemExit(f"wrk gave no figures:\n{out}")
    p50, p99 = [float(found[1]) * _UNITS[found[2]] for found in times if found is not None]
    return Visit(int(done[1]), float(rate[1]), bad, p50, p99)


def measure(peers: list[P], load: Callable[[P], Visit], options: Options) -> list[Result]:
    """Visit every peer in every round."""
    results = [Result(peer.name, [], []) for peer in peers]
    for _ in range(options.rounds):
        for peer, result in zip(peers, results, strict=True):
            before = peer.cpu()
            visit = load(peer)
            result.costs.append((peer.cpu() - before) / max(visit.done, 1) * 1e6)
            result.rates.append(visit.rate)
            result.bad += visit.bad
            result.medians.append(visit.p50)
            result.tails.append(visit.p99)
    return results


def table(title: str, results: list[Result]) -> str:
    """The results as a table; ratios are to the first that is not this program."""
    peers = [r for r in results if not r.name.startswith("lictor")]
    base = min(peers[0].costs) if peers else 0.0
    timed = any(results[0].medians)
    lines = [
        f"\n## {title}\n",
        "| server | CPU us/op, min | ops/s, best | ratio | failed |" + " p50 ms, best | p99 ms, best |" * timed,
        "| --- | --- | --- | --- | --- |" + " --- | --- |" * timed,
    ]
    for r in results:
        ratio = f"{min(r.costs) / base:.2f}" if base else ""
        line = f"| {r.name} | {min(r.costs):.1f} | {max(r.rates):.0f} | {ratio} | {r.bad} |"
        lines.append(line + (f" {min(r.medians):.1f} | {min(r.tails):.1f} |" if timed else ""))
    return "\n".join(lines)


def close_all(peers: list[Agent]) -> None:
    """End every peer."""
    for peer in peers:
        peer.close()
