"""Clusters of three servers on this machine, each with a data folder on the disk: this program's, Consul's, etcd's.

All of a cluster's servers are one thing to measure: their CPU time is added up.
"""

import json
import os
import shutil
import sys
import tempfile
import time
import urllib.error
import urllib.request
from base64 import b64encode

from bench.harness import Options, Peer, Visit, free_ports, wrk

SIZE = 3
PATIENCE = 120.0  # seconds for a cluster to form, or to be whole again


class Server(Peer):
    """One server of a cluster; `api` is host:port of its HTTP interface, `peering` of what other servers talk to."""

    def __init__(self, name: str, command: list[str], folder: str, api: str, peering: str) -> None:
        self.api = api
        self.peering = peering
        super().__init__(name, command, lambda: True, folder)

    @property
    def url(self) -> str:
        """Where its HTTP interface is."""
        return f"http://{self.api}"


class Cluster:
    """Three servers that are one."""

    name = ""

    def __init__(self) -> None:
        self.servers: list[Server] = []

    def cpu(self) -> float:
        """Seconds of CPU time that all servers have used."""
        return sum(server.cpu() for server in self.servers)

    def close(self) -> None:
        """End all servers."""
        for server in self.servers:
            server.close()

    def write(self, server: Server, key: str, value: bytes, timeout: float = 10.0) -> bool:
        """Write through one server. Returns whether that was acknowledged."""
        raise NotImplementedError

    def leader(self) -> Server | None:
        """The server that all who run take for the leader; None while they do not agree."""
        seen = {self.leader_by(server) for server in self.servers if server.process.poll() is None}
        return seen.pop() if len(seen) == 1 else None

    def leader_by(self, server: Server) -> Server | None:
        """Whom one server takes for the leader."""
        raise NotImplementedError

    def wait_until_whole(self) -> Server:
        """Wait until all servers run, agree on a leader, and take writes. Returns the leader."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and all(server.process.poll() is None for server in self.servers):
            leader = self.leader()
            if leader is not None and all(self.write(server, "ready", b"1") for server in self.servers):
                return leader
            time.sleep(0.1)
        logs = "\n".join(server.log.read_text()[-1500:] for server in self.servers)
        raise SystemExit(f"{self.name}: no cluster within {PATIENCE:.0f} s:\n{logs}")

    def load(self, servers: list[Server], value: bytes, options: Options) -> Visit:
        """Writes of keys that are new, over connections spread evenly over some of the servers."""
        ports = ", ".join(f'"{server.api.rpartition(":")[2]}"' for server in servers)
        before, after = map(_quoted, self.parts(value))
        script = _SCRIPT % (ports, before, after)
        return wrk(servers[0].url, options, script, threads=len(servers))

    def parts(self, value: bytes) -> tuple[bytes, bytes]:
        """What comes before and after the 16 characters of a key in the request of a write."""
        raise NotImplementedError


# A thread loads one server. Keys are 16 digits: base64, as etcd's gateway wants its keys, leaves them as they are.
_SCRIPT = """
local ports, threads = {%s}, 0
function setup(thread)
   threads = threads + 1
   thread.addr = wrk.lookup("127.0.0.1", ports[threads])[1]
   thread:set("first", (os.time() %% 1000000) * 10000000 + threads * 1000000)
end
local n = 0
function request()
   n = n + 1
   return %s .. string.format("%%016.0f", first + n) .. %s
end
"""


def _quoted(data: bytes) -> str:
    """Bytes as Lua writes them."""
    return '"' + "".join([f"\\{byte:03d}" for byte in data]) + '"'


def ask(url: str, body: bytes | None = None, method: str = "GET", timeout: float = 10.0) -> bytes:
    """The body of an answer; empty where there was none, or it was not 200."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, method=method), timeout=timeout) as answer:
            return bytes(answer.read())
    except (OSError, urllib.error.URLError, ValueError):
        return b""


class Agents(Cluster):
    """Servers with Consul's command line and HTTP API. `multiplier` is their `raft_multiplier`, 0 for the default."""

    def __init__(self, name: str, program: list[str], join_port: str, multiplier: int = 0) -> None:
        super().__init__()
        self.name = name
        ports = [dict(zip(("http", "server", "serf-lan", "serf-wan"), free_ports(4), strict=True)) for _ in range(SIZE)]
        for number, own in enumerate(ports):
            folder = tempfile.mkdtemp(prefix=f"bench-{name}-")
            command = [*program, "agent", "-server", f"-bootstrap-expect={SIZE}", f"-data-dir={folder}/data"]
            command += [f"-node=bench{number}", "-bind=127.0.0.1", "-client=127.0.0.1", "-log-level=warn"]
            command += [f"-{key}-port={port}" for key, port in own.items()] + ["-dns-port=-1", "-grpc-port=-1"]
            command += [f"-retry-join=127.0.0.1:{other[join_port]}" for other in ports if other is not own]
            # A load comes from one address.
            command.append("-hcl=limits { http_max_conns_per_client = 1000 }")
            if multiplier:
                command.append(f"-hcl=performance {{ raft_multiplier = {multiplier} }}")
            api, peering = f"127.0.0.1:{own['http']}", f"127.0.0.1:{own['server']}"
            self.servers.append(Server(name, command, folder, api, peering))

    def write(self, server: Server, key: str, value: bytes, timeout: float = 10.0) -> bool:
        """A PUT of a key."""
        return ask(f"{server.url}/v1/kv/{key}", value, "PUT", timeout).strip() == b"true"

    def leader_by(self, server: Server) -> Server | None:
        """Whom one server takes for the leader."""
        address = ask(f"{server.url}/v1/status/leader").strip().strip(b'"').decode()
        return next((one for one in self.servers if one.peering == address), None)

    def parts(self, value: bytes) -> tuple[bytes, bytes]:
        """A PUT of a key as curl sends it."""
        head = " HTTP/1.1\r\nHost: 127.0.0.1:8500\r\nUser-Agent: bench\r\nAccept: */*\r\nContent-Length: "
        return b"PUT /v1/kv/", f"{head}{len(value)}\r\n\r\n".encode() + value

    def fill(self, prefix: str, count: int) -> None:
        """Write the keys `prefix/1` to `prefix/count`."""
        for start in range(1, count + 1, 64):
            keys = [f"{prefix}/{n}" for n in range(start, min(start + 64, count + 1))]
            operations = [{"KV": {"Verb": "set", "Key": key, "Value": "eHh4eHh4eHg="}} for key in keys]
            ask(f"{self.servers[0].url}/v1/txn", json.dumps(operations).encode(), "PUT")


class Etcd(Cluster):
    """etcd's servers. Writes go to the JSON gateway, which is HTTP like the others' interface."""

    name = "etcd"

    def __init__(self) -> None:
        super().__init__()
        ports = [free_ports(2) for _ in range(SIZE)]
        everyone = ",".join(f"bench{number}=http://127.0.0.1:{peer}" for number, (_, peer) in enumerate(ports))
        for number, (client, peer) in enumerate(ports):
            folder = tempfile.mkdtemp(prefix="bench-etcd-")
            command = ["etcd", f"--name=bench{number}", f"--data-dir={folder}/data", "--log-level=warn"]
            command += ["--logger=zap", f"--initial-cluster={everyone}"]
            for flag, port in (("client", client), ("peer", peer)):
                command.append(f"--listen-{flag}-urls=http://127.0.0.1:{port}")
            command += [f"--advertise-client-urls=http://127.0.0.1:{client}"]
            command += [f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}"]
            self.servers.append(Server(self.name, command, folder, f"127.0.0.1:{client}", f"127.0.0.1:{peer}"))

    def write(self, server: Server, key: str, value: bytes, timeout: float = 10.0) -> bool:
        """A put through the gateway."""
        body = json.dumps({"key": b64encode(key.encode()).decode(), "value": b64encode(value).decode()})
        return b"revision" in ask(f"{server.url}/v3/kv/put", body.encode(), "POST", timeout)

    def leader_by(self, server: Server) -> Server | None:
        """Whom one server takes for the leader."""
        members = {}
        for one in self.servers:
            status = ask(f"{one.url}/v3/maintenance/status", b"{}", "POST")
            if status:
                members[json.loads(status)["header"]["member_id"]] = one
        status = ask(f"{server.url}/v3/maintenance/status", b"{}", "POST")
        return members.get(json.loads(status).get("leader", "")) if status else None

    def parts(self, value: bytes) -> tuple[bytes, bytes]:
        """A put through the gateway. The length counts what stands around the key, and the key."""
        before, after = b'{"key":"', b'","value":"%b"}' % b64encode(value)
        size = len(before) + 16 + len(after)
        head = " HTTP/1.1\r\nHost: 127.0.0.1:2379\r\nUser-Agent: bench\r\nAccept: */*\r\nContent-Length: "
        return b"POST /v3/kv/put" + f"{head}{size}\r\n\r\n".encode() + before, after


def clusters(multiplier: int = 0) -> list[Cluster]:
    """This program's cluster and those of the peers that are installed, whole. With a `raft_multiplier` only of those
    that have one.
    """
    found: list[Cluster] = [Agents("lictor", [sys.executable, "-m", "lictor"], "server", multiplier)]
    reference = os.environ.get("LICTOR_REFERENCE_CONSUL") or shutil.which("consul")
    if reference:
        found.append(Agents("consul", [reference], "serf-lan", multiplier))
    else:
        print("consul: not installed (LICTOR_REFERENCE_CONSUL), left out")
    if not multiplier:
        if shutil.which("etcd"):
            found.append(Etcd())
        else:
            print("etcd: not installed, left out")
    try:
        for cluster in found:
            cluster.wait_until_whole()
    except BaseException:
        for cluster in found:
            cluster.close()
        raise
    return found
