"""`lictor leave`: makes an agent leave its cluster and end."""

from __future__ import annotations

from lictor.cli import api
from lictor.cli.command import Io, at_most
from lictor.model.goflags import FlagSet

SYNOPSIS = "Gracefully leaves the cluster and shuts down"

HELP = """\
Usage: lictor leave [options]

  Makes the agent that is asked leave its cluster and end. The others take it
  as gone for good, not as failed."""


def flags() -> FlagSet:
    """The HTTP API options."""
    flags = FlagSet("leave", HELP)
    api.client_flags(flags)
    return flags


def run(args: list[str], io: Io) -> int:
    """Ask the agent to leave, and wait until it has."""
    options = flags()
    at_most(options.parse(args), 0)
    client = api.connect(options, io)
    with api.failing("Error leaving"):
        client.put("/v1/agent/leave")
    io.out("Graceful leave complete")
    return 0
