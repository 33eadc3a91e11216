"""`lictor watch` against agents: printing once, and running a program at each change."""

from __future__ import annotations

import json
import signal
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.command_line import CommandLine
from tests.contract.servers import NODE, Server
from tests.patience import PATIENCE, eventually


def put(agent: Server, key: str, value: str) -> None:
    assert agent.api.request("PUT", f"/v1/kv/{key}", body=value.encode()).status == 200


@pytest.fixture
def key() -> str:
    return f"watch-{uuid.uuid4()}"


def test_without_a_child_the_present_state_is_printed_once(cli: CommandLine, agent: Server, key: str) -> None:
    put(agent, key, "1")
    done = cli.run("watch", "-type=key", f"-key={key}")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith('{\n    "')
    assert json.loads(done.out)["Value"] == "MQ=="


@pytest.mark.parametrize(
    ("args", "check"),
    [
        (["-type=key", "-key=missing"], lambda value: value is None),
        (["-type=keyprefix", "-prefix=missing"], lambda value: value is None),
        (["-type=services"], lambda value: value.get("consul") == []),
        (["-type=nodes"], lambda value: value[0]["Node"] == NODE),
        (["-type=nodes", "-stale"], lambda value: value[0]["Node"] == NODE),
        (["-type=nodes", "-datacenter=dc1"], lambda value: value[0]["Node"] == NODE),
        (["-type=service", "-service=consul"], lambda value: value[0]["Service"]["Service"] == "consul"),
        (["-type=service", "-service=consul", "-passingonly=true"], lambda value: len(value) == 1),
        (["-type=service", "-service=consul", "-tag=nope"], lambda value: value == []),
        (["-type=checks"], lambda value: any(check["CheckID"] == "serfHealth" for check in value)),
        (["-type=checks", "-state=passing"], lambda value: len(value) >= 1),
        (["-type=checks", "-service=consul"], lambda value: value == []),
        (["-type=event", "-name=never-fired"], lambda value: value == []),
    ],
)
def test_every_type_prints_its_view(cli: CommandLine, args: list[str], check: Callable[[object], bool]) -> None:
    done = cli.run("watch", *args)
    assert (done.code, done.err) == (0, "")
    assert check(json.loads(done.out)), done.out


def test_a_child_runs_at_each_change_until_a_signal_comes(
    cli: CommandLine, agent: Server, key: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    process = cli.start("watch", "-type=key", f"-key={key}", f"cat >> {out}; echo $CONSUL_INDEX >> {out}")

    def lines() -> list[str]:
        return out.read_text().splitlines() if out.exists() else []

    eventually(lambda: len(lines()) == 2, "the program ran with what there was")
    assert lines()[0] == "null"
    put(agent, key, "a")
    eventually(lambda: len(lines()) == 4, "it ran again")
    entry = json.loads(lines()[2])
    assert (entry["Value"], str(entry["ModifyIndex"])) == ("YQ==", lines()[3])
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == 0


def test_a_failing_child_ends_the_watch(cli: CommandLine) -> None:
    done = cli.run("watch", "-type=nodes", "exit 3")
    assert done == (1, "", "Error executing handler: exit status 3\n")
    done = cli.run("watch", "-type=nodes", "-shell=false", "/nonexistent")
    assert done == (1, "", "Error starting handler: fork/exec /nonexistent: no such file or directory\n")
    done = cli.run("watch", "-type=nodes", "-shell=false", "no-such-program")
    assert done == (1, "", 'Error starting handler: exec: "no-such-program": executable file not found in $PATH\n')


@pytest.mark.parametrize(
    ("args", "text"),
    [
        ([], "Watch type must be specified\n\nUsage: lictor watch"),
        (["-type=key"], "Must specify a single key to watch\n"),
        (["-type=bogus"], "Unsupported watch type: bogus\n"),
        (["-type=connect_leaf"], "Type connect_leaf is not supported in the CLI tool\n"),
        (["-type=key", "-key=a", "-state=passing"], "Invalid parameters: [state]\n"),
        (["-type=key", "-key=a", "-passingonly=true"], "Invalid parameters: [passingonly]\n"),
        (["-type=checks", "-service=a", "-state=any"], "Cannot specify service and state\n"),
        (
            ["-type=service", "-service=a", "-passingonly=maybe"],
            'Failed to parse passingonly flag: strconv.ParseBool: parsing "maybe": invalid syntax\n',
        ),
    ],
)
def test_a_wrong_watch_is_refused_before_the_agent_is_asked(nobody: CommandLine, args: list[str], text: str) -> None:
    done = nobody.run("watch", *args)
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith(text)


def test_without_an_agent_it_says_so(nobody: CommandLine) -> None:
    done = nobody.run("watch", "-type=nodes")
    assert done.code == 1
    assert done.err.startswith('Error querying Consul agent: Get "http://127.0.0.1:1/v1/agent/self": dial tcp')
