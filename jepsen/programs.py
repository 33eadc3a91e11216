"""The programs that can be put to the test, and their command lines: Lictor, and Consul to compare it with."""

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

HTTP_PORT: Final = 8500
SERVER_PORT: Final = 8300
SERF_PORT: Final = 8301


class Program(msgspec.Struct, frozen=True):
    """A server program. `join` is the port at which servers find each other; `transfers` tells whether an operator can
    hand the leadership over.
    """

    name: str
    command: tuple[str, ...]
    join: int
    transfers: bool

    def arguments(
        self, node: str, address: str, others: Sequence[str], data: Path, config: Path, count: int
    ) -> list[str]:
        """The command line of one of `count` servers."""
        return [
            *self.command,
            "agent",
            "-server",
            f"-bootstrap-expect={count}",
            f"-node={node}",
            f"-bind={address}",
            f"-client={address}",
            f"-data-dir={data}",
            f"-config-file={config}",
            "-retry-interval=1s",
            *(f"-retry-join={other}:{self.join}" for other in others),
        ]


def configuration(multiplier: int, snapshot_entries: int) -> bytes:
    """The configuration file of every server. `snapshot_entries` is the number of log entries between two snapshots,
    and how many are kept behind one; 0 for the program's own numbers.
    """
    settings: dict[str, object] = {
        "performance": {"raft_multiplier": multiplier},
        "ports": {"dns": -1, "serf_wan": -1},
        "session_ttl_min": "1s",
        "disable_update_check": True,
        "log_level": "DEBUG",
    }
    if snapshot_entries:
        settings["raft_snapshot_threshold"] = snapshot_entries
        settings["raft_snapshot_interval"] = "1s"
        settings["raft_trailing_logs"] = snapshot_entries
    return msgspec.json.encode(settings)


def lictor() -> Program:
    """The program of this source tree."""
    return Program("lictor", (sys.executable, "-m", "lictor"), SERVER_PORT, transfers=True)


def consul() -> Program:
    """The reference. Raises `LookupError` where it is not found."""
    binary = os.environ.get("LICTOR_REFERENCE_CONSUL") or shutil.which("consul")
    if binary is None:
        raise LookupError("there is no consul on the PATH, and LICTOR_REFERENCE_CONSUL names none")
    return Program("consul", (binary,), SERF_PORT, transfers=False)


PROGRAMS: Final = {"lictor": lictor, "consul": consul}
