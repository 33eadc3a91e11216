"""`lictor intention delete`: removes an intention."""

from __future__ import annotations

from lictor.cli import api
from lictor.cli.api import ApiError
from lictor.cli.command import CommandError, Io
from lictor.cli.intention.lookup import BASE, EXACT, find
from lictor.model.goflags import FlagSet

SYNOPSIS = "Delete an intention."

HELP = """\
Usage: lictor intention delete [options] SRC DST
Usage: lictor intention delete [options] ID

  Removes an intention, by its source and destination or by its id.

      $ lictor intention delete web db

  What that would do to connections that there are, before it is done:

      $ lictor intention explain -dry-run -delete web db"""


def flags() -> FlagSet:
    """The HTTP API options."""
    flags = FlagSet("intention delete", HELP)
    api.client_flags(flags)
    api.server_flags(flags)
    api.tenancy_flags(flags)
    return flags


def run(args: list[str], io: Io) -> int:
    """Remove it and say so."""
    options = flags()
    rest = options.parse(args)
    if len(rest) not in (1, 2):
        raise CommandError("Error: command requires exactly 1 or 2 arguments")
    client = api.connect(options, io)
    with api.failing("Error deleting the intention"):
        if len(rest) == 1:
            client.delete(f"{BASE}/{rest[0]}")
        else:
            _delete_exact(client, *rest)
    io.out("Intention deleted.")
    return 0


def _delete_exact(client: api.Client, source: str, destination: str) -> None:
    found = find(client, source, destination)
    if found is None:
        # Over HTTP there need not be one; whoever types a name wrong wants to know.
        raise CommandError(
            f'Error: Intention with source "{source}" and destination "{destination}" not found.',
            "Nothing was deleted. `lictor intention list` shows those that there are.",
        )
    try:
        client.delete(EXACT, {"source": source, "destination": destination})
    except ApiError as error:
        if "UUID" not in error.body:
            raise
        # An agent of Consul before 1.9 takes `exact` for an id.
        client.delete(f"{BASE}/{found['ID']}")
