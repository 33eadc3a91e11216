"""`lictor services register`: registers services with the agent, from files or from flags."""

from __future__ import annotations

from lictor.cli import api
from lictor.cli.command import CommandError, Io
from lictor.cli.services.definitions import body, read_definitions
from lictor.cli.values import key_values
from lictor.model.goflags import FlagSet
from lictor.model.service import ServiceAddress
from lictor.model.service_definition import ServiceDefinition

SYNOPSIS = "Register services with the local agent"

HELP = """\
Usage: lictor services register [options] [FILE...]

  Registers the services that configuration files (HCL, JSON or YAML) define
  with the agent that is asked, and returns. They stay registered until
  "lictor services deregister" or its like removes them.

      $ lictor services register web.json db.hcl

  One service can also be given with flags:

      $ lictor services register -name=web -port=8080 -tag=v2"""

LARGEST_PORT = 65535


def flags() -> FlagSet:
    """The HTTP API options, and those that describe one service."""
    flags = FlagSet("services register", HELP)
    api.client_flags(flags)
    api.tenancy_flags(flags)
    flags.string("address", "", "Address of the service, where it is not the node's.")
    flags.string("id", "", "ID of the service, where it is not its name.")
    flags.string("kind", "", "Kind of the service, such as connect-proxy.")
    flags.strings("meta", (), "Metadata of the service, as key=value. May be given several times.")
    flags.string("name", "", "Name of the service.")
    flags.int("port", 0, "Port of the service.")
    flags.strings("tag", (), "Tag of the service. May be given several times.")
    flags.strings("tagged-address", (), "Address under a name, as name=host:port. May be given several times.")
    return flags


def run(args: list[str], io: Io) -> int:
    """Register everything, or nothing when a file or flag is wrong."""
    options = flags()
    files = options.parse(args)
    if not files and not options["name"]:
        raise CommandError("Service registration requires at least one argument or flags.")
    if files and options["name"]:
        raise CommandError("Service registration requires arguments or -id, not both.")
    definitions = read_definitions(files) if files else [described(options)]
    client = api.connect(options, io)
    for definition in definitions:
        with api.failing(f'Error registering service "{definition.name}"'):
            client.put("/v1/agent/service/register", body=api.encode(body(definition)))
        io.out(f"Registered service: {definition.name}")
    return 0


def described(options: FlagSet) -> ServiceDefinition:
    """The service that flags describe."""
    meta = key_values(options, "meta")
    addresses = {name: tagged_address(text) for name, text in key_values(options, "tagged-address").items()}
    return ServiceDefinition(
        kind=options["kind"],
        id=options["id"],
        name=options["name"],
        tags=options["tag"],
        address=options["address"],
        tagged_addresses=addresses,
        meta=meta,
        port=options["port"],
        namespace=options["namespace"],
        partition=options["partition"],
    )


def tagged_address(text: str) -> ServiceAddress:
    """host:port, with an IPv6 address in brackets; raises CommandError."""
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        raise CommandError(f"Invalid Tagged Address: address {text}: missing port in address")
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise CommandError(f"Invalid Tagged Address: address {text}: too many colons in address")
    if not (port.isascii() and port.isdigit()) or int(port) > LARGEST_PORT:
        raise CommandError(f'Invalid Tagged Address: "{port}" is no port')
    return ServiceAddress(address=host.removeprefix("[").removesuffix("]"), port=int(port))
