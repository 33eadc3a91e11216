"""`lictor services deregister`: removes services from the agent."""

from __future__ import annotations

from lictor.cli import api
from lictor.cli.command import CommandError, Io
from lictor.cli.services.definitions import read_definitions
from lictor.model.goflags import FlagSet

SYNOPSIS = "Deregister services with the local agent"

HELP = """\
Usage: lictor services deregister [options] [FILE...]

  Removes the services that configuration files (HCL, JSON or YAML) define
  from the agent that is asked.

      $ lictor services deregister web.json db.hcl

  Or one service by its ID:

      $ lictor services deregister -id=web

  The agent must be the one with which the services were registered."""


def flags() -> FlagSet:
    """The HTTP API options and -id."""
    flags = FlagSet("services deregister", HELP)
    api.client_flags(flags)
    api.tenancy_flags(flags)
    flags.string("id", "", "ID of the service to remove, instead of files.")
    return flags


def run(args: list[str], io: Io) -> int:
    """Remove everything that was named; stops at the first that cannot be."""
    options = flags()
    files = options.parse(args)
    if not files and not options["id"]:
        raise CommandError("Service deregistration requires at least one argument or -id.")
    if files and options["id"]:
        raise CommandError("Service deregistration requires arguments or -id, not both.")
    ids = [definition.service_id for definition in read_definitions(files)] if files else [options["id"]]
    client = api.connect(options, io)
    for service_id in ids:
        with api.failing(f'Error deregistering service "{service_id}"'):
            client.put(f"/v1/agent/service/deregister/{service_id}")
        io.out(f"Deregistered service: {service_id}")
    return 0
