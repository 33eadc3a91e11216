"""Scripts as real processes: exit statuses, output, timeouts that leave nothing behind."""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path

import pytest

from lictor.agent.checks.clients import Clients
from lictor.agent.checks.os_service import OsServiceCheck
from lictor.agent.checks.result import Result
from lictor.agent.checks.script import ScriptCheck
from tests.agent.checks.listening import in_time
from tests.patience import PATIENCE, soon


def shell(script: str, timeout: float = PATIENCE, output_max_size: int = 4096) -> ScriptCheck:
    """A check that runs `script` with sh."""
    return ScriptCheck(("sh", "-c", script), timeout, output_max_size)


async def gone(pid: int) -> bool:
    """Whether process `pid` ends; a zombie that its new parent has not collected has ended."""

    def ended() -> bool:
        try:
            return bool(re.search(r"^State:\s+[ZX]", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE))
        except (FileNotFoundError, ProcessLookupError):
            return True

    return bool(await soon(ended, f"process {pid} ends"))


@pytest.mark.parametrize(
    ("script", "status", "output"),
    [
        ("echo hi", "passing", "hi\n"),
        ("echo a; echo b >&2; exit 1", "warning", "a\nb\n"),
        ("exit 2", "critical", ""),
        ("exit 127", "critical", ""),
        ("kill -9 $$", "critical", ""),
        ("cat", "passing", ""),
        ("printf '\\377'", "passing", "�"),
    ],
)
async def test_the_exit_status_decides(clients: Clients, script: str, status: str, output: str) -> None:
    assert await shell(script).probe(clients) == Result(status, output)


async def test_arguments_reach_the_program_as_they_are(clients: Clients) -> None:
    check = ScriptCheck(("printf", "%s|", "a b", "$HOME", "; exit 1", "é"), timeout=PATIENCE)
    assert await check.probe(clients) == Result("passing", "a b|$HOME|; exit 1|é|")


async def test_long_output_shows_its_end(clients: Clients) -> None:
    result = await shell("seq 1 5000", output_max_size=20).probe(clients)
    assert result == Result("passing", "Captured 20 of 23893 bytes\n...\n4997\n4998\n4999\n5000\n")


@pytest.mark.parametrize(
    ("program", "output"),
    [
        ("no-such-program", 'exec: "no-such-program": executable file not found in $PATH'),
        ("/no/such/program", "fork/exec /no/such/program: no such file or directory"),
        ("/etc/passwd", "fork/exec /etc/passwd: permission denied"),
        ("/tmp", "fork/exec /tmp: permission denied"),
    ],
)
async def test_a_program_that_cannot_be_started(clients: Clients, program: str, output: str) -> None:
    assert await ScriptCheck((program,), timeout=PATIENCE).probe(clients) == Result("critical", output)


async def test_an_argument_no_program_can_be_given(clients: Clients) -> None:
    result = await ScriptCheck(("echo", "a\0b"), timeout=PATIENCE).probe(clients)
    assert result == Result("critical", "fork/exec echo: invalid argument")


async def test_a_program_that_outlasts_its_timeout_is_killed_with_its_children(clients: Clients) -> None:
    words = re.compile(r"Timed out \([0-9ms.]+s\) running check\n\n(\d+) (\d+)\n")

    async def probe(seconds: float) -> Result:
        return await shell("sleep 600 & echo $! $$; wait", timeout=seconds).probe(clients)

    result = await in_time(probe, 1.0, lambda result: words.fullmatch(result.output))
    assert result.status == "critical"
    said = words.fullmatch(result.output)
    assert said is not None, result.output
    assert await gone(int(said[1])) and await gone(int(said[2]))


async def test_a_timeout_without_output(clients: Clients) -> None:
    result = await ScriptCheck(("sleep", "600"), timeout=0.2).probe(clients)
    assert result == Result("critical", "Timed out (200ms) running check")


async def test_a_grandchild_that_holds_the_output_open_counts_as_still_running(clients: Clients) -> None:
    result = await shell("sleep 600 & exit 0", timeout=0.3).probe(clients)
    assert result == Result("critical", "Timed out (300ms) running check")


async def test_endless_output_is_bounded(clients: Clients) -> None:
    words = re.compile(r"Timed out \([0-9ms.]+s\) running check\n\nCaptured 10 of \d+ bytes\n\.\.\.\n[y\n]{10}")

    async def probe(seconds: float) -> Result:
        return await shell("yes", timeout=seconds, output_max_size=10).probe(clients)

    result = await in_time(probe, 1.0, lambda result: words.fullmatch(result.output))
    assert result.status == "critical"
    assert words.fullmatch(result.output), result.output


async def test_a_cancelled_run_leaves_no_process(clients: Clients, tmp_path: Path) -> None:
    told = tmp_path / "pid"
    task = asyncio.create_task(shell(f"echo $$ > {told}.new; mv {told}.new {told}; sleep 600").probe(clients))
    await soon(told.exists, "the program runs")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await gone(int(told.read_text()))


async def test_nothing_is_left_open(clients: Clients) -> None:
    await shell("true").probe(clients)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        await shell("echo x").probe(clients)
        await ScriptCheck(("no-such-program",), timeout=PATIENCE).probe(clients)
        await ScriptCheck(("sleep", "600"), timeout=0.05).probe(clients)
    await soon(lambda: len(os.listdir("/proc/self/fd")) <= before, "as many files are open as before")


def _stand_in(folder: Path, answer: str) -> str:
    """A program in systemctl's place, which prints `answer` when asked as systemctl is, and fails otherwise."""
    program = folder / "systemctl"
    program.write_text(
        '#!/bin/sh\n[ "$*" = "show --property=LoadState,ActiveState,SubState -- web" ] || exit 64\n'
        f"cat <<'END'\n{answer}\nEND\n"
    )
    program.chmod(0o700)
    return str(program)


@pytest.mark.parametrize(
    ("load", "active", "sub", "expected"),
    [
        ("loaded", "active", "running", Result("passing", 'Service "web" is healthy')),
        ("loaded", "reloading", "reload", Result("passing", 'Service "web" is healthy')),
        ("loaded", "activating", "start", Result("warning", 'service "web" is activating (start)')),
        ("loaded", "inactive", "dead", Result("critical", 'OS Service unhealthy: service "web" is inactive (dead)')),
        ("loaded", "failed", "failed", Result("critical", 'OS Service unhealthy: service "web" is failed (failed)')),
        (
            "not-found",
            "inactive",
            "dead",
            Result("critical", 'OS Service unhealthy: service "web" is not installed'),
        ),
    ],
)
async def test_a_unit_s_state(
    clients: Clients, tmp_path: Path, load: str, active: str, sub: str, expected: Result
) -> None:
    systemctl = _stand_in(tmp_path, f"LoadState={load}\nActiveState={active}\nSubState={sub}")
    assert await OsServiceCheck("web", systemctl=systemctl, timeout=PATIENCE).probe(clients) == expected


async def test_a_machine_without_systemd_is_told_plainly(clients: Clients) -> None:
    result = await OsServiceCheck("web", systemctl="/nonexistent/systemctl", timeout=PATIENCE).probe(clients)
    expected = "OS services cannot be checked here: /nonexistent/systemctl: no such file or directory"
    assert result == Result("critical", expected)


@pytest.mark.skipif(Path("/run/systemd/system").exists(), reason="systemd runs here")
async def test_a_machine_that_systemd_does_not_run(clients: Clients) -> None:
    result = await OsServiceCheck("web", timeout=PATIENCE).probe(clients)
    assert result.status == "critical"
    assert result.output.startswith("OS services cannot be checked here: ")
