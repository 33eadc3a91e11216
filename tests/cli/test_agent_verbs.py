"""The verbs about an agent and its cluster, with a running one: what the sessions against the reference cannot show,
because it differs from run to run or ends the agent."""

from __future__ import annotations

import json
import select
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.command_line import CommandLine, Outcome, here
from tests.contract import servers
from tests.contract.servers import NODE, NotAvailable, Server
from tests.patience import PATIENCE, eventually


@pytest.fixture(params=["lictor", "reference"])
def own(request: pytest.FixtureRequest) -> Iterator[tuple[Server, CommandLine]]:
    """An agent for one test alone, which may end it, and the command that talks to it."""
    try:
        server = servers.start(request.param, "plain")
    except NotAvailable as error:
        pytest.skip(str(error))
    command = CommandLine(f"127.0.0.1:{server.ports['http']}")
    yield server, command
    command.close()
    server.stop()


def test_info_prints_sections_of_figures(cli: CommandLine) -> None:
    outcome = here("info", env=cli.env)
    assert (outcome.code, outcome.err) == (0, "")
    lines = outcome.out.splitlines()
    sections = [line for line in lines if not line.startswith("\t")]
    assert sections == sorted(sections) and {"agent:", "build:", "consul:", "raft:"} <= set(sections)
    assert any(line.startswith("\tapplied_index = ") for line in lines)


def test_members_detailed_shows_tags(agent: Server, cli: CommandLine) -> None:
    lines = here("members", "-detailed", env=cli.env).out.splitlines()
    assert lines[0].split() == ["Node", "Address", "Status", "Tags"]
    name, address, status, tags = lines[1].split(None, 3)
    assert (name, status) == (NODE, "alive")
    assert address == f"127.0.0.1:{agent.ports['serf-lan']}"
    assert f"id={agent.node_id}" in tags.split(",") and "role=consul" in tags.split(",")


def test_list_peers_shows_who_leads(agent: Server, cli: CommandLine) -> None:
    lines = here("operator", "raft", "list-peers", env=cli.env).out.splitlines()
    assert len(lines) == 2
    assert lines[1].split()[:5] == [NODE, agent.node_id, f"127.0.0.1:{agent.ports['server']}", "leader", "true"]


def test_the_health_of_the_servers(cli: CommandLine) -> None:
    def asked() -> Outcome | None:
        """The first answer but that it is not healthy; it is when the leader has looked at it, after some seconds."""
        outcome = here("operator", "autopilot", "health", env=cli.env)
        assert outcome.code != 2 or outcome.out.startswith("Healthy:            false\n")
        return None if outcome.code == 2 else outcome

    outcome = eventually(asked, "the server is healthy")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith("Healthy:            true\nFailure Tolerance:  0\n\nNode")
    shown = json.loads(here("operator", "autopilot", "health", "-format=json", env=cli.env).out)
    assert shown["Healthy"] is True


def test_a_snapshot_is_private_and_brings_the_state_back(cli: CommandLine, tmp_path: Path) -> None:
    path = tmp_path / "a.snap"
    assert here("kv", "put", "snap/kept", "1", env=cli.env).code == 0
    assert here("snapshot", "save", str(path), env=cli.env).code == 0
    assert path.stat().st_mode & 0o777 == 0o600
    assert here("kv", "put", "snap/lost", "1", env=cli.env).code == 0
    assert here("snapshot", "restore", str(path), env=cli.env) == (0, "Restored snapshot\n", "")
    assert here("kv", "get", "-keys", "-separator=", "snap/", env=cli.env).out == "snap/kept\n"
    inspected = here("snapshot", "inspect", str(path))
    assert inspected.code == 0
    assert inspected.out.startswith(" ID  ")


def test_a_damaged_snapshot_changes_nothing(cli: CommandLine, tmp_path: Path) -> None:
    path = tmp_path / "a.snap"
    assert here("snapshot", "save", str(path), env=cli.env).code == 0
    assert here("kv", "put", "snap/after", "1", env=cli.env).code == 0
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    outcome = here("snapshot", "restore", str(path), env=cli.env)
    assert outcome.code == 1
    assert outcome.err.startswith("Error restoring snapshot: Unexpected response code: ")
    assert here("kv", "get", "snap/after", env=cli.env).out == "1\n"


def first_line(process: subprocess.Popen[str], command: CommandLine) -> str:
    """The first line that a monitor shows. The agent is given something to log until the monitor listens."""
    printed = process.stdout
    assert printed is not None

    def shown() -> bool:
        if select.select([printed], [], [], 0.2)[0]:
            return True
        assert here("reload", env=command.env).code == 0
        return False

    eventually(shown, "the monitor shows something")
    return printed.readline()


def test_monitor_shows_the_log_until_interrupted(cli: CommandLine) -> None:
    process = cli.start("monitor", "-log-level=debug")
    assert "[" in first_line(process, cli)
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE) == 0


def test_monitor_says_that_the_agent_ended(own: tuple[Server, CommandLine]) -> None:
    server, command = own
    process = command.start("monitor", "-log-level=debug")
    assert "[" in first_line(process, command)
    server.kill()
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert out.endswith("\nThe log has ended: the agent has exited or crashed.\n")
    assert err == ""


def test_leave_ends_the_agent(own: tuple[Server, CommandLine]) -> None:
    server, command = own
    assert command.run("leave") == (0, "Graceful leave complete\n", "")
    assert server.process.wait(PATIENCE) == 0
    again = command.run("leave")
    assert again.code == 1
    assert again.err.startswith("Error leaving: Put ") and "Is the agent running there?" in again.err
