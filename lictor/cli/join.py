"""`lictor join`: makes an agent join a cluster."""

from __future__ import annotations

from lictor.cli import api
from lictor.cli.command import CommandError, Io, report
from lictor.model.goflags import FlagSet

SYNOPSIS = "Tell an agent to join a cluster"

HELP = """\
Usage: lictor join [options] address ...

  Makes the agent that is asked join the cluster that agents at the given
  addresses belong to. One of them that can be reached is enough.

      $ lictor join 10.0.0.5"""


def flags() -> FlagSet:
    """The HTTP API options and -wan."""
    flags = FlagSet("join", HELP)
    api.client_flags(flags)
    flags.bool("wan", False, "Join the pool between datacenters; the agent must be a server.")
    return flags


def run(args: list[str], io: Io) -> int:
    """Try every address; 1 when none could be joined."""
    options = flags()
    addresses = options.parse(args)
    if not addresses:
        raise CommandError("At least one address to join must be specified.", f"\n{options.help_text()}")
    client = api.connect(options, io)
    joined = 0
    hints = []
    for address in addresses:
        try:
            client.put(f"/v1/agent/join/{address}", {"wan": "1" if options["wan"] else None})
            joined += 1
        except api.ApiError as error:
            report(io, f"Error joining address '{address}': {error}", "")
            hints.append(error.hint)
    if not joined:
        raise CommandError("Failed to join any nodes.", next(filter(None, hints), ""))
    io.out(f"Successfully joined cluster by contacting {joined} nodes.")
    return 0
