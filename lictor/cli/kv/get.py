"""`lictor kv get`: reads a key, the keys below a prefix, or only their names."""

from __future__ import annotations

import base64

from lictor.cli import api
from lictor.cli.command import CommandError, Io, at_most
from lictor.cli.kv.pair import FOUND_OR_NOT, Pair, read_pairs, without_slash
from lictor.model.goflags import FlagSet

SYNOPSIS = "Retrieves or lists data from the KV store"

HELP = """\
Usage: lictor kv get [options] [KEY_OR_PREFIX]

  Prints the value of a key as it is stored. A key that does not exist is an
  error; a key without data prints an empty line.

      $ lictor kv get web/port

  With -detailed, prints the key's indexes, flags and lock as well:

      $ lictor kv get -detailed web/port

  With -recurse, prints every key that begins with the given text, and its
  value; with -keys only the names, down to the next separator. Without a
  prefix these two begin at the root:

      $ lictor kv get -recurse web/
      $ lictor kv get -keys web/"""

COLUMN = 17
"""Width of the column of names in -detailed."""


def flags() -> FlagSet:
    """The HTTP API options, what to read and how to print it."""
    flags = FlagSet("kv get", HELP)
    api.client_flags(flags)
    api.server_flags(flags)
    api.tenancy_flags(flags)
    flags.bool("base64", False, "Print values in base64.")
    flags.bool("detailed", False, "Print each key with its indexes, flags and session.")
    flags.bool("keys", False, "Print the names of the keys that begin with the given text, without values.")
    flags.bool("recurse", False, "Print all keys that begin with the given text.")
    flags.string("separator", "/", "With -keys: print names only up to the next occurrence of this text.")
    return flags


def run(args: list[str], io: Io) -> int:
    """Print what was asked for; 1 when a single key does not exist."""
    options = flags()
    rest = options.parse(args)
    at_most(rest, 1)
    key = without_slash(rest[0]) if rest else ""
    if not key and not (options["recurse"] or options["keys"]):
        raise CommandError("Error! Missing KEY argument")
    client = api.connect(options, io)
    if options["keys"]:
        query = {"keys": "", "separator": options["separator"]}
        answer = client.get(f"/v1/kv/{key}", query, accept=FOUND_OR_NOT)
        for name in answer.json() if answer.status == 200 else ():
            io.out(name)
        return 0
    pairs = read_pairs(client, key, options["recurse"])
    if not options["recurse"]:
        if not pairs:
            raise CommandError(f"Error! No key exists at: {key}")
        io.out(detailed(pairs[0], options["base64"]) if options["detailed"] else shown(pairs[0], options["base64"]))
    elif options["detailed"]:
        for position, pair in enumerate(pairs):
            io.out((b"\n" if position else b"") + detailed(pair, options["base64"]))
    else:
        for pair in pairs:
            io.out(pair.key.encode("utf-8", "surrogateescape") + b":" + shown(pair, options["base64"]))
    return 0


def shown(pair: Pair, encoded: bool) -> bytes:
    """A value as it is printed."""
    return base64.b64encode(pair.value) if encoded else pair.value


def detailed(pair: Pair, encoded: bool) -> bytes:
    """Everything that is known of a key, one line a fact."""
    facts = (
        ("CreateIndex", str(pair.create_index)),
        ("Flags", str(pair.flags)),
        ("Key", pair.key),
        ("LockIndex", str(pair.lock_index)),
        ("ModifyIndex", str(pair.modify_index)),
        ("Session", pair.session or "-"),
    )
    lines = [f"{name:<{COLUMN}}{value}".encode("utf-8", "surrogateescape") for name, value in facts]
    value = shown(pair, encoded)
    lines.append(f"{'Value':<{COLUMN}}".encode() + value if value else b"Value")
    return b"\n".join(lines)
