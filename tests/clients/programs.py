"""Other people's programs on this machine: where they are, and the reason a test gives where they are not."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))


def needed(name: str, remedy: str) -> str:
    """The program's path; skips the test where it is not installed, saying how to get it."""
    found = shutil.which(name, path=PATH)
    if found is None:
        pytest.skip(f"{name} is not installed ({remedy})")
    return found


def fetched(command: Sequence[str], folder: Path, what: str, seconds: float) -> None:
    """Run a command that downloads `what` into `folder`; skips the test where that fails, with its last words."""
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip(f"{what} could not be fetched within {seconds:.0f} s")
    if done.returncode != 0:
        pytest.skip(f"{what} could not be fetched: {(done.stderr or done.stdout).strip()[-300:]}")


@contextmanager
def running(command: Sequence[str], folder: Path, env: dict[str, str] | None = None) -> Iterator[Path]:
    """A program that runs until the block ends; yields the file that it writes to."""
    output = folder / "output"
    with output.open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=None if env is None else {**os.environ, **env},
        )
    try:
        yield output
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(30)
