"""Three real servers under faults, each for a few seconds: what clients were told must hold.

`python -m jepsen` does the same for hours; its README tells how.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from jepsen import sandbox
from tests.patience import eventually

PATIENCE = 280  # seconds that a run may take on a machine that stalls; it then ends with all its processes
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


def test_a_run_that_is_killed_leaves_no_process(tmp_path: Path) -> None:
    def servers() -> list[str]:
        mark = f"-data-dir={tmp_path}".encode()
        return [entry.name for entry in Path("/proc").iterdir() if entry.name.isdigit() and mark in _command(entry)]

    arguments = ["run", "set", "--seconds", "600", "--keep", str(tmp_path)]
    with subprocess.Popen([sys.executable, "-m", "jepsen", *arguments], cwd=ROOT) as running:
        try:
            eventually(lambda: len(servers()) >= 3, "three servers run")
        finally:
            running.kill()
    eventually(lambda: not servers(), "no server is left")


def _command(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""
