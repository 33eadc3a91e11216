"""`lictor connect ca rotate`: another root takes the place of the present one."""

from __future__ import annotations

from lictor.cli import api
from lictor.cli.command import Io, at_most
from lictor.cli.connect.ca.get_config import PATH
from lictor.model.goflags import FlagSet

SYNOPSIS = "Have another root take the place of the present one"

HELP = """\
Usage: lictor connect ca rotate [options]

  Has the servers make another root for the mesh, with a new key that never
  leaves them. The former root signs the new one, and is trusted until every
  certificate under it has ended: no connection fails.

      $ lictor connect ca rotate

  A root that you gave is replaced by one that the servers make. With Vault,
  have Vault make another root: see docs/ca.md."""

GIVEN = ("RootCert", "PrivateKey")


def flags() -> FlagSet:
    """The HTTP API options."""
    flags = FlagSet("connect ca rotate", HELP)
    api.client_flags(flags)
    api.server_flags(flags)
    return flags


def run(args: list[str], io: Io) -> int:
    """Have it made; 1 when it is refused, or somebody else has changed the configuration meanwhile."""
    options = flags()
    at_most(options.parse(args), 0)
    client = api.connect(options, io)
    with api.failing("Error querying CA configuration"):
        found = client.get(PATH).json()
    config = {key: value for key, value in (found["Config"] or {}).items() if key not in GIVEN}
    changed = {
        "Provider": found["Provider"],
        "Config": config,
        "ModifyIndex": found["ModifyIndex"],
        "NewRoot": True,
    }
    with api.failing("Error rotating the CA"):
        client.put(PATH, {}, api.encode(changed))
        roots = client.get("/v1/connect/ca/roots").json()
    io.out(f"New root: {roots['ActiveRootID']}")
    return 0
