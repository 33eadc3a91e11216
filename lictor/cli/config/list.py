"""`lictor config list`: the names of the config entries of a kind."""

from __future__ import annotations

from lictor.cli import api
from lictor.cli.command import CommandError, Io
from lictor.model.goflags import FlagSet

SYNOPSIS = "List the names of the config entries of a kind"

HELP = """\
Usage: lictor config list [options] -kind <config kind>

  Prints the names of all config entries of a kind, one a line.

      $ lictor config list -kind service-defaults"""


def flags() -> FlagSet:
    """The HTTP API options and -kind."""
    flags = FlagSet("config list", HELP)
    api.client_flags(flags)
    api.server_flags(flags)
    api.tenancy_flags(flags)
    flags.string("kind", "", "Kind of the entries.")
    flags.string("filter", "", "Expression that selects entries.", placeholder="expression")
    return flags


def run(args: list[str], io: Io) -> int:
    """Print the names."""
    options = flags()
    options.parse(args)
    kind = options["kind"]
    if not kind:
        raise CommandError("Must specify the -kind parameter")
    client = api.connect(options, io)
    with api.failing(f'Error listing config entries for kind "{kind}"'):
        entries = client.get(f"/v1/config/{kind}", {"filter": options["filter"] or None}).json()
    for entry in entries:
        io.out(entry["Name"])
    return 0
