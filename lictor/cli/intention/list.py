"""`lictor intention list`: every intention."""

from __future__ import annotations

from lictor.cli import api
from lictor.cli.command import Io
from lictor.cli.intention.lookup import BASE, action
from lictor.cli.table import columns
from lictor.model.goflags import FlagSet

SYNOPSIS = "List all intentions."

NONE = 2

HELP = """\
Usage: lictor intention list [options]

  Prints every intention, in the order in which they are considered.

      $ lictor intention list"""


def flags() -> FlagSet:
    """The HTTP API options."""
    flags = FlagSet("intention list", HELP)
    api.client_flags(flags)
    api.server_flags(flags)
    api.tenancy_flags(flags)
    return flags


def run(args: list[str], io: Io) -> int:
    """Print a table; 2 where there is nothing to print."""
    options = flags()
    options.parse(args)
    client = api.connect(options, io)
    with api.failing("Failed to retrieve the intentions list"):
        intentions = client.get(BASE).json()
    if not intentions:
        io.error("There are no intentions.")
        return NONE
    rows = [["ID", "Source", "Action", "Destination", "Precedence"]]
    rows += [
        [one.get("ID", ""), one["SourceName"], action(one), one["DestinationName"], str(one["Precedence"])]
        for one in intentions
    ]
    io.out(columns(rows))
    return 0
