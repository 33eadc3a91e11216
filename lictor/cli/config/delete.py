"""`lictor config delete`: removes a config entry."""

from __future__ import annotations

from lictor.cli import api
from lictor.cli.command import CommandError, Io
from lictor.cli.config.document import read_entry
from lictor.cli.config.naming import add_naming, naming
from lictor.model.goflags import FlagSet

SYNOPSIS = "Delete a config entry"

HELP = """\
Usage: lictor config delete [options] -kind <config kind> -name <config name>

  Removes a config entry. It is no error when there is no such entry.

      $ lictor config delete -kind service-defaults -name web

  The entry can also be named by a file that holds it:

      $ lictor config delete -filename web.service-defaults.hcl"""


def flags() -> FlagSet:
    """The HTTP API options, which entry and under which condition."""
    flags = FlagSet("config delete", HELP)
    api.client_flags(flags)
    api.server_flags(flags)
    api.tenancy_flags(flags)
    add_naming(flags)
    flags.string("filename", "", "File that holds the entry, instead of -kind and -name.")
    flags.bool("cas", False, "Remove the entry only if its ModifyIndex is the one given with -modify-index.")
    flags.uint("modify-index", 0, "ModifyIndex that the entry must have. Goes with -cas.")
    return flags


def run(args: list[str], io: Io) -> int:
    """Remove the entry; 1 when the condition did not hold."""
    options = flags()
    options.parse(args)
    if options["filename"]:
        if options["kind"] or options["name"]:
            raise CommandError("filename can't be used with kind or name")
        entry = read_entry(options["filename"], io)
        kind, name = entry["Kind"], entry["Name"]
    else:
        kind, name = naming(options)
    cas, index = options["cas"], options["modify-index"]
    if cas and not index:
        raise CommandError("Must specify a -modify-index greater than 0 with -cas")
    if index and not cas:
        raise CommandError("Cannot specify -modify-index without -cas")
    client = api.connect(options, io)
    with api.failing(f"Error deleting config entry {kind}/{name}"):
        answer = client.delete(f"/v1/config/{kind}/{name}", {"cas": str(index) if cas else None})
    if cas and answer.json() is not True:
        raise CommandError(f"Config entry not deleted: {kind}/{name}")
    io.out(f"Config entry deleted: {kind}/{name}")
    return 0
