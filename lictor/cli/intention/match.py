"""`lictor intention match`: the intentions about a service."""

from __future__ import annotations

from lictor.cli import api
from lictor.cli.command import CommandError, Io
from lictor.cli.intention.lookup import BASE, text
from lictor.model.goflags import FlagSet

SYNOPSIS = "Show intentions that match a source or destination."

HELP = """\
Usage: lictor intention match [options] SRC|DST

  Prints the intentions for connections to a service, or from it, in the order
  in which they are considered: the first that matches decides.

      $ lictor intention match db
      $ lictor intention match -source web"""


def flags() -> FlagSet:
    """The HTTP API options, and which end is named."""
    flags = FlagSet("intention match", HELP)
    api.client_flags(flags)
    api.server_flags(flags)
    api.tenancy_flags(flags)
    flags.bool("source", False, "The service is the source.")
    flags.bool("destination", False, "The service is the destination. This is the default.")
    return flags


def run(args: list[str], io: Io) -> int:
    """Print a line for each."""
    options = flags()
    rest = options.parse(args)
    if len(rest) != 1:
        raise CommandError("Error: command requires exactly one argument: src or dst")
    if options["source"] and options["destination"]:
        raise CommandError("Error: only one of -source or -destination may be specified")
    client = api.connect(options, io)
    with api.failing("Error matching the connection"):
        by = "source" if options["source"] else "destination"
        found = client.get(f"{BASE}/match", {"by": by, "name": rest[0]}).json()
    for intention in found.get(rest[0]) or ():
        io.out(text(intention))
    return 0
