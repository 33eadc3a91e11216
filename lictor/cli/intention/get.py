"""`lictor intention get`: all about one intention."""

from __future__ import annotations

import datetime
import json
import re
from typing import Any

from lictor.cli import api
from lictor.cli.command import Io
from lictor.cli.intention.lookup import destination, named, source
from lictor.cli.table import columns
from lictor.model.goflags import FlagSet

SYNOPSIS = "Show information about an intention."

HELP = """\
Usage: lictor intention get [options] SRC DST
Usage: lictor intention get [options] ID

  Prints an intention, by its source and destination or by its id.

      $ lictor intention get web db"""


def flags() -> FlagSet:
    """The HTTP API options."""
    flags = FlagSet("intention get", HELP)
    api.client_flags(flags)
    api.server_flags(flags)
    api.tenancy_flags(flags)
    return flags


def run(args: list[str], io: Io) -> int:
    """Print it as a table, and its permissions as JSON; 1 where there is none."""
    options = flags()
    rest = options.parse(args)
    intention = named(api.connect(options, io), rest)
    io.out(columns(rows(intention)))
    if intention.get("Permissions"):
        io.out("Permissions:\n" + json.dumps(intention["Permissions"], indent=2, ensure_ascii=False))
    return 0


def rows(intention: dict[str, Any]) -> list[list[str]]:
    """What there is to say, a line each."""
    found = [["Source:", source(intention)], ["Destination:", destination(intention)]]
    for title, key in (("Action:", "Action"), ("ID:", "ID"), ("Description:", "Description")):
        if intention.get(key):
            found.append([title, str(intention[key])])
    found += [[f"Meta[{key}]:", value] for key, value in sorted((intention.get("Meta") or {}).items())]
    if intention.get("CreatedAt"):
        found.append(["Created At:", _local(intention["CreatedAt"])])
    return found


def _local(stamp: str) -> str:
    """A time of the API in this machine's time zone, in the form of RFC 850."""
    seconds = re.sub(r"\.(\d{6})\d*", r".\1", stamp)
    try:
        time = datetime.datetime.fromisoformat(seconds).astimezone()
    except ValueError:
        return stamp
    return time.strftime("%A, %d-%b-%y %H:%M:%S %Z")
