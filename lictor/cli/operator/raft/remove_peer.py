"""`lictor operator raft remove-peer`: removes a server that is gone for good from the consensus."""

from __future__ import annotations

from lictor.cli import api
from lictor.cli.command import CommandError, Io
from lictor.model.goflags import FlagSet

SYNOPSIS = "Remove a server from the Raft configuration"

HELP = """\
Usage: lictor operator raft remove-peer [options]

  Removes a server from the consensus, so that it no longer counts for the
  quorum. This is for a server that is gone but was left behind there; one
  that "lictor members" still shows is removed with "lictor force-leave"."""


def flags() -> FlagSet:
    """The HTTP API options, and which server."""
    flags = FlagSet("operator raft remove-peer", HELP)
    api.client_flags(flags)
    api.server_flags(flags)
    flags.string("address", "", "Address of the server, as list-peers shows it.")
    flags.string("id", "", "ID of the server, as list-peers shows it.")
    return flags


def run(args: list[str], io: Io) -> int:
    """Remove the server."""
    options = flags()
    options.parse(args)
    address, server_id = options["address"], options["id"]
    if not address and not server_id:
        raise CommandError("Error removing peer: an address or id is required for the peer to remove")
    if address and server_id:
        raise CommandError("Error removing peer: cannot give both an address and id")
    client = api.connect(options, io)
    with api.failing("Error removing peer"):
        client.delete("/v1/operator/raft/peer", {"address": address or None, "id": server_id or None})
    named = f'address "{address}"' if address else f'id "{server_id}"'
    io.out(f"Removed peer with {named}")
    return 0
