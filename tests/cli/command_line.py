"""Running the `lictor` command as a user does, in a process of its own, or in this one where only its words matter."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from lictor.cli.command import Io
from lictor.cli.main import main
from tests.patience import PATIENCE

ROOT = Path(__file__).resolve().parents[2]


class Outcome(NamedTuple):
    """How one run ended."""

    code: int
    out: str
    err: str


class CommandLine:
    """The command with one agent's address. `close` ends what still runs."""

    def __init__(self, address: str) -> None:
        self.address = address
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("CONSUL_", "LICTOR_", "COMP_"))}
        self.env = {**clean, "CONSUL_HTTP_ADDR": address, "PYTHONPATH": str(ROOT), "SHELL": "/bin/sh"}
        self._started: list[subprocess.Popen[str]] = []

    def run(self, *args: str, stdin: str = "", cwd: Path | None = None, program: str = "") -> Outcome:
        """Run the command (or another program that takes the same arguments) to its end."""
        process = self.start(*args, cwd=cwd, program=program)
        try:
            out, err = process.communicate(stdin, timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            raise AssertionError(f"lictor {' '.join(args)} did not end; it said:\n{out}\n{err}") from None
        return Outcome(process.returncode, out, err)

    def start(self, *args: str, cwd: Path | None = None, program: str = "") -> subprocess.Popen[str]:
        """Start the command and leave it running."""
        prefix = [program] if program else [sys.executable, "-m", "lictor"]
        process = subprocess.Popen(
            [*prefix, *args],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.env,
            cwd=cwd,
        )
        self._started.append(process)
        return process

    def close(self) -> None:
        """End every process that still runs."""
        for process in self._started:
            if process.poll() is None:
                process.kill()
            process.communicate()


def here(*args: str, env: Mapping[str, str] | None = None, stdin: bytes = b"") -> Outcome:
    """Run the command in this process, with streams of its own."""
    out, err = io.BytesIO(), io.BytesIO()
    code = main(args, Io(io.BytesIO(stdin), out, err, env or {}))
    return Outcome(code, out.getvalue().decode(), err.getvalue().decode())
