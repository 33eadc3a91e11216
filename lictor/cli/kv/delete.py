"""`lictor kv delete`: removes a key, or every key that begins with a text."""

from __future__ import annotations

from lictor.cli import api
from lictor.cli.command import CommandError, Io, at_most
from lictor.cli.kv.pair import MODIFY_INDEX_MISSING, without_slash
from lictor.model.goflags import FlagSet

SYNOPSIS = "Removes data from the KV store"

HELP = """\
Usage: lictor kv delete [options] KEY_OR_PREFIX

  Removes a key. It is no error when there is no such key.

      $ lictor kv delete web/port

  With -recurse, removes every key that begins with the given text: "web"
  stands for "web", "web/port" and "website" alike.

      $ lictor kv delete -recurse web/"""


def flags() -> FlagSet:
    """The HTTP API options, and what to delete under which condition."""
    flags = FlagSet("kv delete", HELP)
    api.client_flags(flags)
    api.server_flags(flags)
    api.tenancy_flags(flags)
    flags.bool("cas", False, "Remove the key only if its ModifyIndex is the one given with -modify-index.")
    flags.uint("modify-index", 0, "ModifyIndex that the key must have. Goes with -cas.")
    flags.bool("recurse", False, "Remove all keys that begin with the given text.")
    return flags


def run(args: list[str], io: Io) -> int:
    """Remove what was asked for; 1 when the condition did not hold."""
    options = flags()
    rest = options.parse(args)
    at_most(rest, 1)
    key = without_slash(rest[0]) if rest else ""
    recurse, cas, index = options["recurse"], options["cas"], options["modify-index"]
    if not key and not recurse:
        raise CommandError("Error! Missing KEY argument")
    if index and not cas:
        raise CommandError("Cannot specify -modify-index without -cas!")
    if cas and not index:
        raise CommandError(MODIFY_INDEX_MISSING)
    if cas and recurse:
        raise CommandError("Cannot specify both -cas and -recurse!")
    client = api.connect(options, io)
    if recurse:
        with api.failing(f"Error! Did not delete prefix {key}"):
            client.delete(f"/v1/kv/{key}", {"recurse": ""})
        io.out(f"Success! Deleted keys with prefix: {key}")
        return 0
    with api.failing(f"Error! Did not delete key {key}" if cas else f"Error deleting key {key}"):
        deleted = client.delete(f"/v1/kv/{key}", {"cas": str(index) if cas else None}).json()
    if deleted is not True:
        raise CommandError(f"Error! Did not delete key {key}: CAS failed")
    io.out(f"Success! Deleted key: {key}")
    return 0
