"""`lictor config read`: one config entry as JSON."""

from __future__ import annotations

import json

from lictor.cli import api
from lictor.cli.command import Io
from lictor.cli.config.naming import add_naming, naming
from lictor.model.goflags import FlagSet

SYNOPSIS = "Read a config entry"

HELP = """\
Usage: lictor config read [options] -kind <config kind> -name <config name>

  Prints a config entry as JSON, which "lictor config write" takes.

      $ lictor config read -kind proxy-defaults -name global"""


def flags() -> FlagSet:
    """The HTTP API options, and which entry."""
    flags = FlagSet("config read", HELP)
    api.client_flags(flags)
    api.server_flags(flags)
    api.tenancy_flags(flags)
    add_naming(flags)
    return flags


def run(args: list[str], io: Io) -> int:
    """Print the entry; 1 when there is none."""
    options = flags()
    options.parse(args)
    kind, name = naming(options)
    client = api.connect(options, io)
    with api.failing(f"Error reading config entry {kind}/{name}"):
        entry = client.get(f"/v1/config/{kind}/{name}").json()
    io.out(json.dumps(entry, indent=4, ensure_ascii=False))
    return 0
