"""`lictor connect ca get-config`: how the mesh's authority is configured."""

from __future__ import annotations

import json

from lictor.cli import api
from lictor.cli.command import Io, at_most
from lictor.model.goflags import FlagSet

SYNOPSIS = "Display the current certificate authority configuration"

HELP = """\
Usage: lictor connect ca get-config [options]

  Prints the configuration of the mesh's certificate authority as JSON, without
  keys and tokens. "lictor connect ca set-config" takes it back.

      $ lictor connect ca get-config > ca.json"""

PATH = "/v1/connect/ca/configuration"


def flags() -> FlagSet:
    """The HTTP API options."""
    flags = FlagSet("connect ca get-config", HELP)
    api.client_flags(flags)
    api.server_flags(flags)
    return flags


def run(args: list[str], io: Io) -> int:
    """Print it."""
    options = flags()
    at_most(options.parse(args), 0)
    with api.failing("Error querying CA configuration"):
        found = api.connect(options, io).get(PATH).json()
    io.out(json.dumps(found, indent="\t", ensure_ascii=False))
    return 0
