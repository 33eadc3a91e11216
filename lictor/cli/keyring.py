"""`lictor keyring`: the keys that gossip is encrypted with."""

from __future__ import annotations

from typing import Any

from lictor.cli import api
from lictor.cli.command import CommandError, Io
from lictor.model.goflags import FlagSet

SYNOPSIS = "Manages gossip layer encryption keys"

HELP = """\
Usage: lictor keyring [options]

  Shows and changes the keys that gossip is encrypted with, in the whole
  cluster and in the pool between datacenters alike. A key is replaced by
  installing the new one, using it, and removing the old one. The agent that
  is asked must be a server.

      $ lictor keyring -list
      $ lictor keyring -install "$(lictor keygen)"

  The exit code is 1 when any node does not reply or reports a failure."""

PATH = "/v1/operator/keyring"
MOST_RELAYS = 5

CHANGES = {
    "install": ("POST", "Installing new gossip encryption key..."),
    "use": ("PUT", "Changing primary gossip encryption key..."),
    "remove": ("DELETE", "Removing gossip encryption key..."),
}
"""What changes the keyring: the flag, the request's method and what is told first."""


def flags() -> FlagSet:
    """The HTTP API options and the actions, of which one must be given."""
    flags = FlagSet("keyring", HELP)
    api.client_flags(flags)
    flags.string("install", "", "Install this key on every member.")
    flags.bool("list", False, "List the keys in use.")
    flags.bool("list-primary", False, "List the keys that messages are encrypted with.")
    flags.bool("local-only", False, "Ask the servers of this datacenter alone. Goes with -list and -list-primary.")
    flags.int("relay-factor", 0, "Let members send their replies through this many others as well, 5 at most.")
    flags.string("remove", "", "Remove this key, which must not be the primary one.")
    flags.string("use", "", "Encrypt messages with this key from now on; it must be installed.")
    return flags


def run(args: list[str], io: Io) -> int:
    """Do the one action that was asked for."""
    options = flags()
    options.parse(args)
    actions = [name for name in ("list", "list-primary", *CHANGES) if options[name]]
    if len(actions) > 1:
        raise CommandError("Only a single action is allowed")
    if not actions:
        raise CommandError(options.help_text())
    if not 0 <= options["relay-factor"] <= MOST_RELAYS:
        raise CommandError(f"Error parsing relay factor: Relay factor must be in range: [0, {MOST_RELAYS}]")
    action = actions[0]
    if options["local-only"] and action in CHANGES:
        raise CommandError("Error validating local-only: local-only can only be set for list requests")
    client = api.connect(options, io)
    query = {"relay-factor": str(options["relay-factor"]) if options["relay-factor"] else None}
    if action in CHANGES:
        method, told = CHANGES[action]
        io.out(f"==> {told}")
        with api.failing("error"):
            client.call(method, PATH, query, api.encode({"Key": options[action]}))
        return 0
    field, kind = ("PrimaryKeys", " primary") if action == "list-primary" else ("Keys", "")
    io.out(f"==> Gathering installed{kind} encryption keys...")
    query["local-only"] = "true" if options["local-only"] else None
    with api.failing("error"):
        pools = client.get(PATH, query).json()
    for pool in pools:
        io.out(f"\n{name_of(pool)}:")
        for key, count in sorted((pool.get(field) or {}).items()):
            io.out(f"  {key} [{count}/{pool['NumNodes']}]")
    return 0


def name_of(pool: dict[str, Any]) -> str:
    """A gossip pool's name in the listing."""
    if pool.get("WAN"):
        return "WAN"
    segment = f" [{pool['Segment']}]" if pool.get("Segment") else ""
    return f"{pool['Datacenter']} (LAN){segment}"
