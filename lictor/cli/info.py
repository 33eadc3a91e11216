"""`lictor info`: what the agent says of itself, section by section."""

from __future__ import annotations

from lictor.cli import api
from lictor.cli.command import CommandError, Io
from lictor.model.goflags import FlagSet

SYNOPSIS = "Provides debugging information for operators."

HELP = """\
Usage: lictor info [options]

  Prints the agent's own figures: its checks and services, its part in the
  consensus and in gossip, and those of its process."""


def flags() -> FlagSet:
    """The HTTP API options."""
    flags = FlagSet("info", HELP)
    api.client_flags(flags)
    return flags


def run(args: list[str], io: Io) -> int:
    """Print the sections in order of their names, each with its figures."""
    options = flags()
    options.parse(args)
    client = api.connect(options, io)
    with api.failing("Error querying agent"):
        stats = client.get("/v1/agent/self").json().get("Stats")
    if not isinstance(stats, dict):
        raise CommandError("Agent response did not contain 'Stats' key: has the token read access to the agent?")
    for section in sorted(stats):
        io.out(f"{section}:")
        for name in sorted(stats[section]):
            io.out(f"\t{name} = {stats[section][name]}")
    return 0
