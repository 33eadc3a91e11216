"""`lictor lock`: exclusion, semaphores, what is left behind, and that Consul's own command is excluded too."""

from __future__ import annotations

import base64
import json
import os
import signal
import uuid
from pathlib import Path
from typing import Any

import pytest

from lictor.cli.kv_lock import LOCK_FLAGS, SEMAPHORE_FLAGS
from tests.cli.command_line import CommandLine
from tests.contract.servers import Server
from tests.patience import PATIENCE, eventually

REFERENCE = os.environ.get("LICTOR_REFERENCE_CONSUL", "")
OTHER_PROGRAMS = [
    pytest.param("", id="lictor"),
    pytest.param(
        REFERENCE,
        id="consul",
        marks=pytest.mark.skipif(not REFERENCE, reason="LICTOR_REFERENCE_CONSUL is not set (path of a Consul binary)"),
    ),
]


@pytest.fixture
def prefix() -> str:
    return f"lock-{uuid.uuid4()}"


def entries(agent: Server, prefix: str) -> dict[str, Any]:
    answer = agent.api.request("GET", f"/v1/kv/{prefix}?recurse")
    return {entry["Key"]: entry for entry in answer.json()} if answer.status == 200 else {}


def sessions(agent: Server, word: str) -> int:
    return sum(word in session["Name"] for session in agent.api.request("GET", "/v1/session/list").json())


def holding(gate: Path) -> str:
    """A script that says that it holds the lock, and holds it until it is let go."""
    return f"touch {gate}.held; while [ ! -e {gate}.go ]; do sleep 0.02; done"


def test_it_tells_each_step_and_cleans_up(cli: CommandLine, agent: Server, prefix: str) -> None:
    done = cli.run("lock", "-verbose", prefix, "echo $CONSUL_LOCK_HELD")
    assert done == (
        0,
        f"Setting up lock at path: {prefix}/.lock\nAttempting lock acquisition\nStarting handler\ntrue\n"
        "Child terminated, releasing lock\nCleanup succeeded\n",
        "",
    )
    assert entries(agent, prefix) == {}
    assert sessions(agent, prefix) == 0


@pytest.mark.parametrize("holder", OTHER_PROGRAMS)
@pytest.mark.parametrize("waiter", OTHER_PROGRAMS)
def test_a_lock_excludes_whoever_holds_and_whoever_waits(
    cli: CommandLine, agent: Server, prefix: str, tmp_path: Path, holder: str, waiter: str
) -> None:
    gate = tmp_path / "gate"
    first = cli.start("lock", prefix, holding(gate), program=holder)
    eventually(Path(f"{gate}.held").exists, "the lock is held")
    assert entries(agent, prefix)[f"{prefix}/.lock"]["Flags"] == LOCK_FLAGS
    refused = cli.run("lock", "-timeout=300ms", prefix, "echo never", program=waiter)
    assert refused == (1, "", "Shutdown triggered or timeout during lock acquisition\n")
    second = cli.start("lock", prefix, f"test -e {gate}.go && echo mine", program=waiter)
    Path(f"{gate}.go").touch()
    assert first.wait(PATIENCE) == 0
    out, err = second.communicate(timeout=PATIENCE)
    assert (second.returncode, out, err) == (0, "mine\n", "")
    assert entries(agent, prefix) == {}


@pytest.mark.parametrize("other", OTHER_PROGRAMS)
def test_a_semaphore_has_room_for_some(
    cli: CommandLine, agent: Server, prefix: str, tmp_path: Path, other: str
) -> None:
    gates = [tmp_path / "a", tmp_path / "b"]
    first = cli.start("lock", "-n=2", prefix, holding(gates[0]))
    second = cli.start("lock", "-n=2", prefix, holding(gates[1]), program=other)
    eventually(lambda: all(Path(f"{gate}.held").exists() for gate in gates), "both hold it")
    semaphore = entries(agent, prefix)[f"{prefix}/.lock"]
    assert semaphore["Flags"] == SEMAPHORE_FLAGS
    content = json.loads(base64.b64decode(semaphore["Value"]))
    assert content["Limit"] == 2
    assert set(entries(agent, prefix)) == {f"{prefix}/.lock", *(f"{prefix}/{holder}" for holder in content["Holders"])}
    full = cli.run("lock", "-n=2", "-timeout=300ms", prefix, "echo never", program=other)
    assert (full.code, full.out) == (1, "")
    Path(f"{gates[0]}.go").touch()
    assert first.wait(PATIENCE) == 0
    assert cli.run("lock", "-n=2", prefix, "echo room").out == "room\n"
    Path(f"{gates[1]}.go").touch()
    assert second.wait(PATIENCE) == 0
    # A contender of Consul's own command that was refused leaves its key until its session's TTL.
    assert f"{prefix}/.lock" not in entries(agent, prefix)


def test_a_key_of_another_kind_is_not_taken(cli: CommandLine, prefix: str, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    holder = cli.start("lock", "-n=2", prefix, holding(gate))
    eventually(Path(f"{gate}.held").exists, "the lock is held")
    done = cli.run("lock", prefix, "echo never")
    assert done == (1, "", "Lock acquisition failed: Existing key does not match lock use\n")
    done = cli.run("lock", "-n=3", prefix, "echo never")
    assert done == (1, "", "Lock acquisition failed: semaphore limit conflict (lock: 2, local: 3)\n")
    Path(f"{gate}.go").touch()
    assert holder.wait(PATIENCE) == 0


def test_the_childs_failure_is_an_exit_code_only_where_that_is_wanted(cli: CommandLine, prefix: str) -> None:
    assert cli.run("lock", prefix, "exit 7") == (0, "", "Error running handler: exit status 7\n")
    assert cli.run("lock", "-child-exit-code", prefix, "exit 7").code == 2
    assert cli.run("lock", "-child-exit-code", prefix, "true").code == 0
    done = cli.run("lock", "-shell=false", prefix, "/nonexistent")
    assert done.err == "Error starting handler: fork/exec /nonexistent: no such file or directory\n"


def test_the_childs_standard_input(cli: CommandLine, prefix: str) -> None:
    assert cli.run("lock", "-pass-stdin", prefix, "cat", stdin="hello").out == "hello"
    assert cli.run("lock", prefix, "cat", stdin="hello").out == ""


def test_a_lost_lock_ends_the_child(cli: CommandLine, agent: Server, prefix: str, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    process = cli.start("lock", "-verbose", "-child-exit-code", prefix, holding(gate))
    eventually(Path(f"{gate}.held").exists, "the lock is held")
    session = entries(agent, prefix)[f"{prefix}/.lock"]["Session"]
    assert agent.api.request("PUT", f"/v1/session/destroy/{session}").status == 200
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2
    assert "Lock lost, killing child" in out
    assert err == "Error running handler: signal: terminated\n"


def test_a_signal_ends_the_child_and_frees_the_lock(
    cli: CommandLine, agent: Server, prefix: str, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    process = cli.start("lock", prefix, holding(gate))
    eventually(Path(f"{gate}.held").exists, "the lock is held")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=PATIENCE)
    assert entries(agent, prefix) == {}
    session = agent.api.put("/v1/session/create", {"LockDelay": "0s"}).json()["ID"]
    answer = agent.api.put(f"/v1/kv/{prefix}/.lock?acquire={session}")
    assert answer.json() is True, "a lock that was given back has no lock delay"
    agent.api.put(f"/v1/session/destroy/{session}")


@pytest.mark.parametrize(
    ("args", "text"),
    [
        ([], "Key prefix and child command must be specified\n"),
        (["x"], "Key prefix and child command must be specified\n"),
        (["-n=0", "x", "y"], "Lock holder limit must be positive\n"),
        (["-timeout=-1s", "x", "y"], "Timeout must be positive\n"),
        (["-try=x", "x", "y"], "Error parsing try option: time: invalid duration"),
        (["-monitor-retry=-1", "x", "y"], "Number for 'monitor-retry' must be >= 0\n"),
    ],
)
def test_wrong_arguments_are_refused_before_the_agent_is_asked(nobody: CommandLine, args: list[str], text: str) -> None:
    done = nobody.run("lock", *args)
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith(text)
