"""`lictor operator raft transfer-leader`: hands leadership to another server."""

from __future__ import annotations

from lictor.cli import api
from lictor.cli.command import CommandError, Io
from lictor.model.goflags import FlagSet

SYNOPSIS = "Transfer raft leadership to another node"

HELP = """\
Usage: lictor operator raft transfer-leader [options]

  Makes the leader hand over to another server: the one named with -id, or
  the one that is furthest along."""


def flags() -> FlagSet:
    """The HTTP API options and -id."""
    flags = FlagSet("operator raft transfer-leader", HELP)
    api.client_flags(flags)
    api.server_flags(flags)
    flags.string("id", "", "ID of the server that shall lead, as list-peers shows it.")
    return flags


def run(args: list[str], io: Io) -> int:
    """Ask for the transfer and wait for it."""
    options = flags()
    options.parse(args)
    client = api.connect(options, io)
    failure = "Error transferring leadership: Failed to transfer leadership"
    with api.failing(failure):
        answer = client.call("POST", "/v1/operator/raft/transfer-leader", {"id": options["id"] or None}).json()
    if not answer.get("Success"):
        raise CommandError(failure)
    io.out("Success")
    return 0
