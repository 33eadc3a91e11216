"""`lictor kv export`: prints a tree of keys as JSON that `kv import` reads."""

from __future__ import annotations

import base64
import json

from lictor.cli import api
from lictor.cli.command import Io, at_most
from lictor.cli.kv.pair import read_pairs, without_slash
from lictor.model.goflags import FlagSet

SYNOPSIS = "Exports a tree from the KV store as JSON"

HELP = """\
Usage: lictor kv export [options] [PREFIX]

  Prints all keys that begin with the given text, with their values and flags,
  as JSON that "lictor kv import" reads, in this cluster or another.

      $ lictor kv export web/ > web.json"""


def flags() -> FlagSet:
    """The HTTP API options."""
    flags = FlagSet("kv export", HELP)
    api.client_flags(flags)
    api.server_flags(flags)
    api.tenancy_flags(flags)
    return flags


def run(args: list[str], io: Io) -> int:
    """Print the tree; an empty one is an empty list."""
    options = flags()
    rest = options.parse(args)
    at_most(rest, 1)
    prefix = without_slash(rest[0]) if rest else ""
    pairs = read_pairs(api.connect(options, io), prefix, recurse=True)
    entries = [{"key": pair.key, "flags": pair.flags, "value": base64.b64encode(pair.value).decode()} for pair in pairs]
    io.out(json.dumps(entries, indent="\t", ensure_ascii=False))
    return 0
