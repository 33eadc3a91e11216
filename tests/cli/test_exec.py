"""`lictor exec` with agents that run its commands, and how its output is put together."""

from __future__ import annotations

import json
import os
import re
import signal

import pytest

from lictor.cli.exec import Progress
from tests.cli.command_line import CommandLine, Outcome
from tests.contract.servers import NODE, Server
from tests.patience import PATIENCE, eventually

REFERENCE = os.environ.get("LICTOR_REFERENCE_CONSUL", "")


def keys(agent: Server) -> list[str]:
    answer = agent.api.request("GET", "/v1/kv/_rexec?keys")
    found: list[str] = answer.json() if answer.status == 200 else []
    return found


def executed(cli: CommandLine, *args: str, stdin: str = "", program: str = "") -> Outcome:
    """A run that the node was heard in. On a machine that stands still the node is given up; then it has longer."""
    for seconds in (1, 5, 30):
        done = cli.run("exec", f"-wait={seconds}s", *args, stdin=stdin, program=program)
        if f"==> {NODE}: finished with exit code" in done.out:
            break
    return done


def test_a_command_runs_on_the_nodes_and_its_output_comes_back(cli: CommandLine, agent: Server) -> None:
    done = executed(cli, "echo out; echo err >&2")
    assert (done.code, done.err) == (0, "")
    assert f"    {NODE}: out\n    {NODE}: err\n" in done.out
    assert f"==> {NODE}: finished with exit code 0\n" in done.out
    assert done.out.endswith("1 / 1 node(s) completed / acknowledged\n")
    assert keys(agent) == []


def test_a_failure_somewhere_is_exit_code_2_and_verbose_tells_each_step(cli: CommandLine) -> None:
    done = executed(cli, "-verbose", "exit 3")
    assert done.code == 2
    assert re.fullmatch(
        r"Created remote execution session: [0-9a-f-]{36}\n"
        r"Uploaded remote execution spec\n"
        r"Fired remote execution event: [0-9a-f-]{36}\n"
        rf"==> {NODE}: acknowledged\n"
        rf"(==> {NODE}: heartbeat received\n)*"
        rf"==> {NODE}: finished with exit code 3\n"
        r"1 / 1 node\(s\) completed / acknowledged\n"
        r"Completed in \d+\.\d\d seconds\n",
        done.out,
    )


def test_without_a_shell_and_with_a_script(cli: CommandLine) -> None:
    assert f"    {NODE}: $HOME\n" in executed(cli, "-shell=false", "echo", "$HOME").out
    assert f"    {NODE}: from a script\n" in executed(cli, "-", stdin="echo from a script").out


@pytest.mark.parametrize("filters", [["-node=^nope$"], ["-service=nope"], ["-service=.*", "-tag=nope"]])
def test_nodes_that_are_not_meant_do_nothing(cli: CommandLine, filters: list[str]) -> None:
    done = cli.run("exec", "-wait=300ms", *filters, "echo never")
    assert done == (0, "0 / 0 node(s) completed / acknowledged\n", "")


def test_a_long_command_is_waited_for(cli: CommandLine) -> None:
    for seconds in (1, 4, 16):  # on a machine that stands still, all of it takes longer
        done = cli.run("exec", f"-wait={seconds}s", f"sleep {2.5 * seconds}; echo late")
        if f"    {NODE}: late\n" in done.out:
            break
    assert f"    {NODE}: late\n" in done.out


def test_an_interrupt_cleans_up(cli: CommandLine, agent: Server) -> None:
    process = cli.start("exec", "-wait=60s", "sleep 60")
    eventually(lambda: any(key.endswith(f"/{NODE}/ack") for key in keys(agent)), "the node runs it")
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE) == 1
    eventually(lambda: keys(agent) == [], "nothing is left")


@pytest.mark.skipif(not REFERENCE, reason="LICTOR_REFERENCE_CONSUL is not set (path of a Consul binary)")
def test_consuls_own_command_is_served_too(cli: CommandLine) -> None:
    done = executed(cli, "echo hello; exit 4", program=REFERENCE)
    assert done.code == 2
    assert f"    {NODE}: hello\n" in done.out
    assert f"==> {NODE}: finished with exit code 4\n" in done.out


@pytest.mark.parametrize(
    ("args", "text"),
    [
        ([], "Must specify a command to execute\n\nUsage: lictor exec"),
        (["-tag=x", "uptime"], "Cannot provide tag filter without service filter.\n"),
        (["-node=(", "uptime"], "Failed to compile node filter regexp: "),
        (["-"], "Failed to read stdin: "),
        (["uptime"], 'Failed to query agent: Get "http://127.0.0.1:1/v1/agent/self"'),
    ],
)
def test_what_cannot_be_run_is_told(nobody: CommandLine, args: list[str], text: str) -> None:
    done = nobody.run("exec", *args)
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith(text)


def test_output_comes_before_the_exit_code_and_nothing_twice() -> None:
    progress = Progress("p/s/", verbose=True)
    entries = {"p/s/a/exit": b"1", "p/s/a/out/00001": b"two", "p/s/a/out/00000": b"one\n", "p/s/a/ack": b""}
    assert progress.take(entries) == [
        "==> a: acknowledged",
        "    a: one",
        "    a:",
        "    a: two",
        "==> a: finished with exit code 1",
    ]
    assert progress.take({**entries, "p/s/a/out/00002": b"", "other/x": b""}) == ["==> a: heartbeat received"]
    assert (progress.acknowledged, progress.exited, progress.failed) == (1, 1, 1)
    assert progress.take(entries) == []
    assert not progress.news


def test_strange_results_break_nothing() -> None:
    progress = Progress("p/s/", verbose=False)
    lines = progress.take(
        {"p/s/a/out/0": b"\xff\n", "p/s/b": b"", "p/s/": b"", "p/s/a/exit": b"\xff", "p/s/c/what": b""}
    )
    assert all(json.dumps(line) for line in lines)
    assert progress.failed == 1
