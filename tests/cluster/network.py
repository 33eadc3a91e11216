"""A network of the tests' own: hosts that are network namespaces, on two switches that can be taken apart.

Nothing of it is outside: every namespace is that of a process which ends with the test run, at the latest when this
process ends, and the kernel then takes away what was in it. Packets over what was cut are lost without a word, as where
a cable or a switch is dead.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from tests.cluster.servers import Server
from tests.contract.dig import DnsAnswer, question
from tests.contract.dig import ask as dig
from tests.patience import PATIENCE, eventually

NETWORK_NAMESPACE: Final = 0x40000000  # CLONE_NEWNET
PROGRAMS: Final = ("unshare", "ip", "bridge")
SWITCHES: Final = ("left", "right")
PASSING, DEAD = 3, 0  # states of a switch's port: it forwards, it is disabled

_libc = ctypes.CDLL(None, use_errno=True)


class Namespace:
    """A network namespace, empty but for its loopback."""

    def __init__(self) -> None:
        self._holder = subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        self.pid = self._holder.pid
        own = os.readlink("/proc/self/ns/net")
        eventually(lambda: self._link() not in ("", own), "a network namespace")
        self.set_up("link set lo up")

    def _link(self) -> str:
        assert self._holder.poll() is None, "no network namespace could be made"
        try:
            return os.readlink(f"/proc/{self.pid}/ns/net")
        except OSError:
            return ""

    @contextmanager
    def inside(self) -> Iterator[None]:
        """What this thread opens in the block, and the programs that it starts there, is in the namespace."""
        outside, inside = (
            os.open(path, os.O_RDONLY) for path in ("/proc/thread-self/ns/net", f"/proc/{self.pid}/ns/net")
        )
        try:
            _enter(inside)
            try:
                yield
            finally:
                _enter(outside)
        finally:
            os.close(inside)
            os.close(outside)

    def set_up(self, *commands: str, program: str = "ip") -> None:
        """Have `ip` or `bridge` carry out commands there."""
        with self.inside():
            subprocess.run([program, "-batch", "-"], input="\n".join(commands), text=True, check=True, timeout=PATIENCE)

    def close(self) -> None:
        """End the process that holds it."""
        assert self._holder.stdin is not None
        self._holder.stdin.close()
        self._holder.wait(PATIENCE)


@dataclass(frozen=True)
class Host:
    """A host of a network, with its addresses there."""

    namespace: Namespace
    ipv4: str
    ipv6: str


class Network:
    """Hosts on two switches with a cable between them. A host's number makes its addresses."""

    def __init__(self) -> None:
        self._hub = Namespace()
        self._hosts: list[Namespace] = []
        self._hub.set_up(
            *(f"link add {switch} type bridge" for switch in SWITCHES),
            "link add to-right type veth peer name to-left",
            "link set to-right master left up",
            "link set to-left master right up",
            *(f"link set {switch} up" for switch in SWITCHES),
        )

    def host(self, switch: str = "left") -> Host:
        """One more host."""
        made = Namespace()
        self._hosts.append(made)
        number = len(self._hosts)
        self._hub.set_up(
            f"link add port{number} type veth peer name eth0 netns {made.pid}",
            f"link set port{number} master {switch} up",
        )
        host = Host(made, f"10.77.0.{number}", f"fd77::{number:x}")
        made.set_up(
            f"address add {host.ipv4}/24 dev eth0", f"address add {host.ipv6}/64 dev eth0 nodad", "link set eth0 up"
        )
        return host

    def cut(self, host: Host) -> None:
        """Nothing reaches a host, and nothing that it sends arrives."""
        self._forward(f"port{self._hosts.index(host.namespace) + 1}", DEAD)

    def mend(self, host: Host) -> None:
        """The host is reached again."""
        self._forward(f"port{self._hosts.index(host.namespace) + 1}", PASSING)

    def part(self) -> None:
        """Nothing goes from one switch to the other."""
        self._forward("to-right", DEAD)

    def join(self) -> None:
        """The two switches are one network again."""
        self._forward("to-right", PASSING)

    def _forward(self, port: str, state: int) -> None:
        self._hub.set_up(f"link set dev {port} state {state}", program="bridge")

    def close(self) -> None:
        """Take all of it away."""
        for host in [*self._hosts, self._hub]:
            host.close()


class HostedServer(Server):
    """A server on a host of its own. Its doors are on that host's loopback."""

    def __init__(self, folder: Path, name: str, on: Host, *flags: str, ipv6: bool = False) -> None:
        super().__init__(folder, name, *flags, host=on.ipv6 if ipv6 else on.ipv4)
        self.on = on
        if ipv6:
            self.door = "::1"
            self.flags.append("-client=::1")

    def spawn(self, *more: str) -> subprocess.Popen[bytes]:
        """Begin a run, without waiting for anything."""
        with self.on.namespace.inside():
            return super().spawn(*more)

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
        """A request's status and body."""
        with self.on.namespace.inside():
            return super().ask(method, path, body)

    def dig(self, name: str, kind: str) -> DnsAnswer:
        """What its DNS answers over TCP, which leaves nothing out."""
        with self.on.namespace.inside():
            return dig(self.ports["dns"], question(name, kind), tcp=True, host=self.door)


class HostedAgent(HostedServer):
    """An agent that is no server on a host of its own."""

    role = ()


def _enter(namespace: int) -> None:
    if _libc.setns(namespace, NETWORK_NAMESPACE):
        raise OSError(ctypes.get_errno(), "this thread cannot enter a network namespace")


@contextmanager
def network() -> Iterator[Network]:
    """A network for the block. The test is skipped where this process may not make one."""
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        pytest.skip(f"network namespaces: {', '.join(missing)} (util-linux, iproute2) is not installed")
    tried = subprocess.run(
        ["unshare", "--net", "ip", "link", "add", "tried", "type", "bridge"],
        capture_output=True,
        text=True,
        check=False,
    )
    if tried.returncode:
        pytest.skip(f"network namespaces: no right to make them ({tried.stderr.strip()})")
    made = Network()
    try:
        yield made
    finally:
        made.close()
