"""`lictor intention check`: whether a service may connect to another one."""

from __future__ import annotations

from lictor.cli import api
from lictor.cli.command import CommandError, Io
from lictor.cli.intention.lookup import BASE
from lictor.model.goflags import FlagSet

SYNOPSIS = "Check whether a connection between two services is allowed."

ALLOWED, DENIED, FAILED = 0, 1, 2

HELP = """\
Usage: lictor intention check [options] SRC DST

  Prints whether a connection would be let through, and ends with 0 where it
  would, with 1 where it would not, with 2 where that cannot be found out.
  "lictor intention explain" says why.

      $ lictor intention check web db"""


def flags() -> FlagSet:
    """The HTTP API options."""
    flags = FlagSet("intention check", HELP)
    api.client_flags(flags)
    api.server_flags(flags)
    api.tenancy_flags(flags)
    return flags


def run(args: list[str], io: Io) -> int:
    """Print `Allowed` or `Denied`."""
    options = flags()
    rest = options.parse(args)
    if len(rest) != 2:
        raise CommandError("Error: command requires exactly two arguments: src and dst", code=FAILED)
    try:
        client = api.connect(options, io)
        with api.failing("Error checking the connection"):
            ends = {"destination": rest[1], "source": rest[0], "source-type": "consul"}
            answer = client.get(f"{BASE}/check", ends).json()
    except CommandError as error:
        raise CommandError(str(error), error.hint, FAILED) from None
    io.out("Allowed" if answer["Allowed"] else "Denied")
    return ALLOWED if answer["Allowed"] else DENIED
