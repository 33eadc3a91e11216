"""`lictor connect ca set-config`: configures the mesh's authority anew."""

from __future__ import annotations

import json
from typing import Any

from lictor.cli import api
from lictor.cli.command import CommandError, Io, at_most, reason
from lictor.cli.connect.ca.get_config import PATH
from lictor.model.goflags import FlagSet

SYNOPSIS = "Modify the current certificate authority configuration"

HELP = """\
Usage: lictor connect ca set-config [options]

  Has the mesh's certificate authority go by another configuration, a file with
  JSON or "-" for standard input. Where that means another key, root or
  provider, certificates are signed under another root from then on, which the
  former one signs in turn, so that no connection fails. A key that no such
  provider has is kept without effect, and told.

      $ lictor connect ca set-config -config-file ca.json"""


def flags() -> FlagSet:
    """The HTTP API options, and where the configuration is."""
    flags = FlagSet("connect ca set-config", HELP)
    api.client_flags(flags)
    api.server_flags(flags)
    flags.string("config-file", "", 'File with the configuration; "-" is standard input.', placeholder="value")
    flags.bool(
        "force-without-cross-signing",
        False,
        "Take another root although the present authority cannot sign it. Connections may fail until every agent "
        "has heard of it.",
    )
    return flags


def run(args: list[str], io: Io) -> int:
    """Send the configuration; 1 when it is refused."""
    options = flags()
    at_most(options.parse(args), 0)
    path = options["config-file"]
    if not path:
        raise CommandError("The -config-file flag is required")
    given = _parse(_read(path, io))
    if options["force-without-cross-signing"]:
        given["ForceWithoutCrossSigning"] = True
    with api.failing("Error setting CA configuration"):
        api.connect(options, io).put(PATH, {}, api.encode(given))
    for text in _strange(given):
        io.error(f"warning: {text}")
    io.out("Configuration updated!")
    return 0


def _strange(given: dict[str, Any]) -> list[str]:
    """What to tell of keys that are kept without effect."""
    from lictor.ca.known_keys import unknown_keys

    kind, config = given.get("Provider"), given.get("Config")
    return unknown_keys(kind, config) if isinstance(kind, str) and isinstance(config, dict) else []


def _parse(data: bytes) -> dict[str, Any]:
    try:
        given = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CommandError(f"Error parsing config file: {error}") from None
    if not isinstance(given, dict):
        raise CommandError("Error parsing config file: expected an object")
    return given


def _read(path: str, io: Io) -> bytes:
    if path == "-":
        return io.stdin.read()
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise CommandError(f"Error reading config file: open {path}: {reason(error)}") from None
