"""Three real servers under faults, each for a few seconds: what clients were told must hold.

`python -m jepsen` does the same for hours; its README tells how.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jepsen import sandbox
from tests.patience import eventually

PATIENCE = 840  # seconds that a run may take on a machine that stalls; it then ends with all its processes
ROOT = Path(__file__).parent.parent.parent

RUNS = [
    ("register", "isolate-leader+pause-leader", 10),
    ("set", "kill-leader+kill-all", 8),
    ("set", "rolling", 3),
    ("lock", "halves+kill", 8),
    ("session", "pause-leader+transfer", 8),
    ("stale", "isolate", 8),
    ("counter", "disk-leader+remove", 6),
]


@pytest.fixture(scope="module", autouse=True)
def namespaces() -> None:
    """Skip where a run cannot have a network and disks of its own."""
    obstacle = sandbox.obstacle()
    if obstacle:
        pytest.skip(f"no sandbox: {obstacle}")


def run(workload: str, nemesis: str, seconds: int, keep: Path) -> subprocess.CompletedProcess[str]:
    """A whole run as a process."""
    arguments = ["run", workload, "--nemesis", nemesis, "--seconds", str(seconds), "--keep", str(keep)]
    return subprocess.run(
        [sys.executable, "-m", "jepsen", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE
    )


@pytest.mark.parametrize(("workload", "nemesis", "seconds"), RUNS)
def test_clients_are_told_the_truth_by(workload: str, nemesis: str, seconds: int, tmp_path: Path) -> None:
    done = run(workload, nemesis, seconds, tmp_path)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


def test_stale_reads_are_seen_to_be_stale(tmp_path: Path) -> None:
    done = run("control", "isolate", 6, tmp_path)
    assert done.returncode == 1 and "not linearizable" in done.stdout, f"{done.stdout}\n{done.stderr}"
    assert list(tmp_path.glob("failure-*.html")), "what was found is drawn"


@contextmanager
def running(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A long run in a process group of its own; it is killed at the end."""
    arguments = ["run", "set", "--nemesis", "none", "--seconds", "600", "--keep", str(folder)]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-m", "jepsen", *arguments],
        cwd=ROOT,
        stdout=pipe,
        stderr=pipe,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def working(folder: Path) -> bool:
    """Whether clients have begun."""
    history = folder / "history.jsonl"
    return history.exists() and '"text":"load"' in history.read_text()


def servers(folder: Path) -> list[str]:
    """The processes that keep their data there."""
    mark = f"-data-dir={folder}".encode()
    return [entry.name for entry in Path("/proc").iterdir() if entry.name.isdigit() and mark in _command(entry)]


def test_a_run_that_is_killed_leaves_no_process(tmp_path: Path) -> None:
    with running(tmp_path):
        eventually(lambda: len(servers(tmp_path)) >= 3, "three servers run")
    eventually(lambda: not servers(tmp_path), "no server is left")


@pytest.mark.parametrize("moment", ["the first server starts", "clients work"])
def test_ctrl_c_ends_a_run_with_all_its_servers(moment: str, tmp_path: Path) -> None:
    with running(tmp_path) as process:
        reached = working if moment == "clients work" else servers
        eventually(lambda: reached(tmp_path) or process.poll() is not None, moment)
        os.killpg(process.pid, signal.SIGINT)
        printed, said = process.communicate(timeout=PATIENCE)
        left = servers(tmp_path)
    assert (process.returncode, printed, said) == (130, "", "jepsen: interrupted; every server was ended\n")
    assert not left


def test_a_server_that_somebody_else_ends_is_told_of(tmp_path: Path) -> None:
    """Before all are up that ends the run, and later it is an accident in the history."""
    told = "was ended by SIGKILL, which was not sent by this run"
    history = tmp_path / "history.jsonl"
    with running(tmp_path) as process:
        eventually(lambda: servers(tmp_path) or process.poll() is not None, "a server starts")
        os.kill(int(servers(tmp_path)[0]), signal.SIGKILL)
        eventually(lambda: process.poll() is not None or told in history.read_text(), "it is noticed")
        said = process.communicate(timeout=PATIENCE)[1] if process.poll() is not None else history.read_text()
    assert told in said


def _command(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""
