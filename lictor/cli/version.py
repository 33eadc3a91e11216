"""`lictor version`: the version of the program and of the protocol it speaks."""

from __future__ import annotations

import json

from lictor import __version__
from lictor.cli.command import CommandError, Io
from lictor.model.goflags import FlagSet

SYNOPSIS = "Prints the version"

HELP = """\
Usage: lictor version [options]

  Prints the version of this program and the versions of the gossip protocol
  that it speaks."""

PROTOCOL_DEFAULT = 2
PROTOCOL_LOWEST = 2
PROTOCOL_HIGHEST = 3

FORMATS = ("pretty", "json")


def flags() -> FlagSet:
    """-format."""
    flags = FlagSet("version", HELP)
    flags.string("format", "pretty", "Output format: pretty or json.")
    return flags


def run(args: list[str], io: Io) -> int:
    """Print the version in the format that was asked for."""
    options = flags()
    options.parse(args)
    if options["format"] not in FORMATS:
        raise CommandError(f"Unknown format: {options['format']}", "The formats are pretty and json.")
    if options["format"] == "json":
        io.out(json.dumps(described(), indent="\t"))
    else:
        io.out(
            f"Lictor v{__version__}\n"
            f"Protocol {PROTOCOL_DEFAULT} spoken by default, understands {PROTOCOL_LOWEST} to {PROTOCOL_HIGHEST}\n"
        )
    return 0


def described() -> dict[str, object]:
    """The version in the fields of Consul's JSON."""
    release, _, prerelease = __version__.partition("-")
    return {
        "Version": release,
        "Revision": "",
        "Prerelease": prerelease,
        "RPC": {"Default": PROTOCOL_DEFAULT, "Min": PROTOCOL_LOWEST, "Max": PROTOCOL_HIGHEST},
    }
