"""The agents that the command line is tested against, Lictor's own and the reference, and the command itself.

The reference takes part when LICTOR_REFERENCE_CONSUL names its binary: what the command does with Lictor's agent it
must do with Consul's too.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cli.command_line import CommandLine
from tests.contract import servers
from tests.contract.servers import NotAvailable, Server

servers.PROFILES.setdefault("cli", {"log_level": "warn", "disable_remote_exec": False})


@pytest.fixture(scope="session", params=["lictor", "consul"])
def agent(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A running agent in development mode, one for all tests of a kind."""
    try:
        server = servers.start(request.param, "cli")
    except NotAvailable as error:
        pytest.skip(str(error))
    yield server
    server.stop()


@pytest.fixture
def cli(agent: Server) -> Iterator[CommandLine]:
    """The `lictor` command, talking to the agent."""
    command = CommandLine(f"127.0.0.1:{agent.ports['http']}")
    yield command
    command.close()


@pytest.fixture
def nobody() -> Iterator[CommandLine]:
    """The `lictor` command, talking to an address where no agent is."""
    command = CommandLine("127.0.0.1:1")
    yield command
    command.close()
