"""`lictor snapshot restore`: replaces the servers' state with a saved one."""

from __future__ import annotations

from lictor.cli import api
from lictor.cli.command import CommandError, Io, at_most, reason
from lictor.model.goflags import FlagSet

SYNOPSIS = "Restores snapshot of server state"

HELP = """\
Usage: lictor snapshot restore [options] FILE

  Replaces the state of the servers with the one in the file. Everything that
  was written since is lost; this is for recovery after a disaster. A file
  that is damaged changes nothing.

      $ lictor snapshot restore backup.snap"""


def flags() -> FlagSet:
    """The HTTP API options."""
    flags = FlagSet("snapshot restore", HELP)
    api.client_flags(flags)
    api.server_flags(flags)
    return flags


def run(args: list[str], io: Io) -> int:
    """Send the file to the servers and wait until they have taken it."""
    options = flags()
    rest = options.parse(args)
    if not rest:
        raise CommandError("Missing FILE argument")
    at_most(rest, 1)
    try:
        with open(rest[0], "rb") as file:
            archive = file.read()
    except OSError as error:
        raise CommandError(f"Error opening snapshot file: open {rest[0]}: {reason(error)}") from None
    client = api.connect(options, io)
    with api.failing("Error restoring snapshot"):
        client.put("/v1/snapshot", body=archive)
    io.out("Restored snapshot")
    return 0
