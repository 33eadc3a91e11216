"""Every session of `sessions`, run with the reference's command against its own agent, and again with Lictor's command
and Lictor's agent in place of either or both: what is printed and the exit codes must be the same.

Skipped where LICTOR_REFERENCE_CONSUL does not name the reference's binary.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.command_line import CommandLine, Outcome, here
from tests.cli.sessions import FILES, SESSIONS
from tests.contract import player, servers
from tests.contract.servers import Server
from tests.patience import eventually

REFERENCE = os.environ.get("LICTOR_REFERENCE_CONSUL", "")

Run = Callable[[list[str]], Outcome]

LATER_COLUMNS = {
    ("members",): {"Partition"},
    ("operator", "raft", "list-peers"): {"Commit Index", "Trails Leader By"},
}
"""Columns that later releases print and the reference does not."""

LOOSENED = (
    (r"\b(1\.8\.7|1\.20\.0)\b", "<version>"),  # each agent has its own
    (r", consul-version=<version>", ""),  # metadata that later releases add
    (r'strconv\.\w+: parsing ".*": invalid syntax', "parse error"),  # names the inside of Go
    (r"failed session lookup: index error: UUID must be 36 characters", 'invalid session "foo"'),  # later releases
    (r"Cannot unmarshal data: .*", "Cannot unmarshal data"),  # names the inside of Go
    (r"Failed to decode config entry input: .*", "Failed to decode config entry input"),
    (r"Error (reading|deleting) the intention: ", "Error with the intention: "),  # the reference reads, it says
    (r"Unexpected response 400: (.*)", r"Unexpected response code: 400 (\1)"),
    (r"\w+day, \d\d-\w{3}-\d\d \d\d:\d\d:\d\d \w+", "<time>"),
    (r"nodes reported failure.*", "nodes reported failure"),
    (r'\n *"(TransparentProxy|AccessLogs)": {},', ""),  # fields that later releases add
    (
        r'Unknown service ID ("\w+")\. Ensure that the service ID is passed, not the service name\.',
        r"No service registered with ID \1",
    ),
    (r'((?:Create|Modify)Index"?:? +)\d+', r"\1<index>"),
    (r"snapshot to index \d+", "snapshot to index <index>"),
    (r"\.unverified\.tmp\w*", ".unverified.tmp"),
    (r"lookup (\S+) on \S+: no such host", r"lookup \1: no such host"),
    (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "<uuid>"),
)
"""What is replaced in both outputs: what differs from run to run, from release to release, or tells of the inside."""


@pytest.fixture(scope="module")
def both() -> Iterator[dict[str, Server]]:
    """The reference's agent and Lictor's."""
    if not REFERENCE:
        pytest.skip("LICTOR_REFERENCE_CONSUL is not set (path of a Consul 1.8.7 binary)")
    running = {}
    try:
        for kind in ("reference", "lictor"):
            running[kind] = servers.start(kind, "plain")
        yield running
    finally:
        for server in running.values():
            server.stop()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the sessions' files."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize("name", SESSIONS)
@pytest.mark.parametrize("pair", ["lictor to reference", "consul to lictor", "lictor to lictor"])
def test_says_what_the_reference_says(name: str, pair: str, both: dict[str, Server], folder: Path) -> None:
    program, _, kind = pair.partition(" to ")
    expected = play(name, "consul", both["reference"], folder)
    actual = play(name, program, both[kind], folder)
    differences = [
        f"{' '.join(words)}\n  reference: {wanted}\n  {pair}: {got}"
        for words, wanted, got in zip(SESSIONS[name], expected, actual, strict=True)
        if wanted != got
    ]
    assert not differences, "\n".join(differences)


def play(name: str, program: str, server: Server, folder: Path) -> list[Outcome]:
    """The outcomes of a session's command lines, without what differs from run to run."""
    player.sweep(server)
    command = CommandLine(f"127.0.0.1:{server.ports['http']}")
    outcomes = []
    for words in SESSIONS[name]:
        if words[:1] == ["catalog"]:
            until_catalog_knows(server)
        args = [word.format(dir=folder) for word in words]
        got = command.run(*args, program=REFERENCE) if program == "consul" else here(*args, env=command.env)
        outcomes.append(settled(words, got, server))
    return outcomes


def until_catalog_knows(server: Server) -> None:
    """Wait until the catalog shows what the agent has: registration takes a moment to get there."""

    def known() -> bool:
        local = set(server.api.get("/v1/agent/services").json() or {})
        node = server.api.get(f"/v1/catalog/node/{servers.NODE}").json() or {}
        return set(node.get("Services", {})) - {"consul"} == local

    eventually(known, "the agent's services are in the catalog")


def settled(words: list[str], outcome: Outcome, server: Server) -> Outcome:
    """An outcome with names in place of what differs from run to run and, of errors, the first line alone: what
    follows it is the usage or a hint."""
    first = outcome.err.lstrip("\n").split("\n")[0]
    out = outcome.out
    for command, columns in LATER_COLUMNS.items():
        if tuple(words[: len(command)]) == command and outcome.code == 0:
            out = without_columns(out, columns)
    return Outcome(outcome.code, loosened(out, server), loosened(first, server))


def loosened(text: str, server: Server) -> str:
    """Text after all replacements."""
    for name, port in server.ports.items():
        text = text.replace(f"127.0.0.1:{port}", f"127.0.0.1:<{name}>")
    text = text.replace(server.node_id, "<node id>").replace(server.node_id[:8], "<node>")
    for pattern, replacement in LOOSENED:
        text = re.sub(pattern, replacement, text)
    return text.replace("consul", "lictor").replace("Consul", "Lictor")


def without_columns(table: str, unwanted: set[str]) -> str:
    """A table's cells, one space apart, without the columns that have these titles."""
    lines = [re.split(r" {2,}", line) for line in table.splitlines()]
    kept = [index for index, title in enumerate(lines[0]) if title not in unwanted]
    return "\n".join(" ".join(line[index] for index in kept if index < len(line)) for line in lines)
