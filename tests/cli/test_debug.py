"""`lictor debug` against agents: what the archive holds, who may read it, what is refused."""

from __future__ import annotations

import json
import signal
import tarfile
from pathlib import Path

import pytest

from lictor.cli import debug
from tests.cli.command_line import CommandLine, here
from tests.patience import PATIENCE, eventually


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Shorter than a user may: the test must not take ten seconds."""
    monkeypatch.setattr(debug, "MIN_DURATION", 0.1)
    monkeypatch.setattr(debug, "MIN_INTERVAL", 0.1)
    monkeypatch.chdir(tmp_path)


def test_the_archive_holds_everything_and_is_its_owners(cli: CommandLine, tmp_path: Path) -> None:
    done = here("debug", "-duration=600ms", "-interval=300ms", "-output=x", env=cli.env)
    assert (done.code, done.err) == (0, "")
    assert "    Saved debug archive: x.tar.gz\n" in done.out
    archive = tmp_path / "x.tar.gz"
    assert archive.stat().st_mode & 0o777 == 0o600
    assert not (tmp_path / "x").exists()
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path / "out", filter="data")
    folder = tmp_path / "out" / "x"
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        ["index.json", "host.json", "agent.json", "cluster.json", "metrics.json", debug.LOG_NAME]
    )
    index = json.loads((folder / "index.json").read_text())
    assert index["Targets"] == list(debug.TARGETS)
    assert index["Interval"] == "300ms"
    intervals = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
    assert len(intervals) == 2
    assert all("Timestamp" in interval for interval in intervals)
    assert json.loads((folder / "agent.json").read_text())["Config"]["Version"] == index["AgentVersion"]


def test_the_directory_can_be_left_and_the_targets_chosen(cli: CommandLine, tmp_path: Path) -> None:
    args = ["debug", "-duration=100ms", "-interval=100ms", "-output=y", "-archive=false", "-capture=host"]
    done = here(*args, "-capture=members", env=cli.env)
    assert done.code == 0
    assert sorted(path.name for path in (tmp_path / "y").iterdir()) == ["cluster.json", "host.json", "index.json"]
    assert (tmp_path / "y").stat().st_mode & 0o777 == 0o700
    again = here(*args, env=cli.env)
    assert again == (1, "", "==> Capture validation failed: output directory already exists: y\n")


def test_an_interrupt_keeps_what_was_recorded(cli: CommandLine, tmp_path: Path) -> None:
    process = cli.start("debug", "-duration=10m", "-interval=10m", "-output=z", cwd=tmp_path)
    eventually(lambda: (tmp_path / "z" / "metrics.json").exists(), "it records")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    with tarfile.open(tmp_path / "z.tar.gz") as tar:
        assert "z/metrics.json" in tar.getnames()


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["-duration=1ms"], "duration must be longer than"),
        (["-interval=1ms"], "interval must be longer than"),
        (["-duration=1s", "-interval=2s"], "duration (1s) must be longer than interval (2s)"),
        (["-capture=bogus"], "target not found: bogus"),
        (["-capture=pprof"], "nothing to capture"),
        ([], "error querying target agent: "),
    ],
)
def test_what_cannot_be_captured_is_refused(nobody: CommandLine, args: list[str], text: str, tmp_path: Path) -> None:
    done = here("debug", *args, env=nobody.env)
    assert (done.code, done.out) == (1, "")
    assert f"==> Capture validation failed: {text}" in done.err
    assert list(tmp_path.iterdir()) == []
