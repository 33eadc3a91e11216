"""`lictor catalog datacenters`: the datacenters, nearest first."""

from __future__ import annotations

from lictor.cli import api
from lictor.cli.command import Io, at_most
from lictor.model.goflags import FlagSet

SYNOPSIS = "Lists all known datacenters"

HELP = """\
Usage: lictor catalog datacenters [options]

  Prints the names of all known datacenters, nearest first: they are ordered by
  the round trip time from this datacenter's servers.

      $ lictor catalog datacenters"""


def flags() -> FlagSet:
    """The HTTP API options."""
    flags = FlagSet("catalog datacenters", HELP)
    api.client_flags(flags)
    api.server_flags(flags)
    return flags


def run(args: list[str], io: Io) -> int:
    """Print the names, one a line."""
    options = flags()
    at_most(options.parse(args), 0)
    client = api.connect(options, io)
    with api.failing("Error listing datacenters"):
        names = client.get("/v1/catalog/datacenters").json()
    for name in names:
        io.out(name)
    return 0
