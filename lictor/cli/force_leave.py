"""`lictor force-leave`: declares a failed member gone for good."""

from __future__ import annotations

from lictor.cli import api
from lictor.cli.command import CommandError, Io
from lictor.model.goflags import FlagSet

SYNOPSIS = 'Forces a member of the cluster to enter the "left" state'

HELP = """\
Usage: lictor force-leave [options] name

  Declares a member that has failed to have left, so that nobody tries to
  reach it any more. A member that is alive after all comes back by itself.

      $ lictor force-leave web-7"""


def flags() -> FlagSet:
    """The HTTP API options and how far to go."""
    flags = FlagSet("force-leave", HELP)
    api.client_flags(flags)
    api.tenancy_flags(flags)
    flags.bool("prune", False, "Remove the member from the list of members altogether.")
    flags.bool("wan", False, "Do so in the pool between datacenters; the name ends in the datacenter's: web-7.dc2.")
    return flags


def run(args: list[str], io: Io) -> int:
    """Ask the agent to spread the word; prints nothing when all went well."""
    options = flags()
    rest = options.parse(args)
    if len(rest) != 1:
        raise CommandError("A single node name must be specified to force leave.", f"\n{options.help_text()}")
    client = api.connect(options, io)
    query = {"prune": "1" if options["prune"] else None, "wan": "1" if options["wan"] else None}
    with api.failing("Error force leaving"):
        client.put(f"/v1/agent/force-leave/{rest[0]}", query)
    return 0
