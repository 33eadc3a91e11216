"""`lictor intention create`: makes intentions."""

from __future__ import annotations

import json
from typing import Any

from lictor.cli import api
from lictor.cli.api import ApiError
from lictor.cli.command import CommandError, Io, read_argument, reason
from lictor.cli.intention.lookup import BASE, EXACT, destination, find, source, split, text
from lictor.cli.values import key_values
from lictor.model.goflags import FlagSet

SYNOPSIS = "Create intentions for service connections."

HELP = """\
Usage: lictor intention create [options] SRC DST
Usage: lictor intention create [options] -file FILE...

  Lets a service connect to another one, or with -deny forbids it. Either may
  be "*", for all.

      $ lictor intention create web db
      $ lictor intention create -deny "*" db

  From files that hold an intention each in JSON; "-" stands for standard
  input:

      $ lictor intention create -file one.json two.json

  It fails where there is one between the two already, unless -replace is
  given: nothing of the old one is kept then.

  What a change would do to connections that there are, before it is made:

      $ lictor intention explain -dry-run -deny web db"""

_EDITED = "cannot use legacy intention API"


def flags() -> FlagSet:
    """The HTTP API options, and what the intention is to say."""
    flags = FlagSet("intention create", HELP)
    api.client_flags(flags)
    api.server_flags(flags)
    api.tenancy_flags(flags)
    flags.bool("allow", False, "Let those connections through. This is the default.")
    flags.bool("deny", False, "Refuse those connections.")
    flags.bool("file", False, "Read intentions from files.")
    flags.bool("replace", False, "Replace an intention that is between the two already.")
    flags.strings("meta", (), "Metadata of the intention, as key=value. May be given several times.")
    return flags


def run(args: list[str], io: Io) -> int:
    """Make each and say so; stops at the first that cannot be made."""
    options = flags()
    rest = options.parse(args)
    if options["allow"] and options["deny"]:
        raise CommandError("Only one of -allow or -deny may be specified.")
    wanted = [_from_file(path, io) for path in rest] if options["file"] else [_from_arguments(rest, options)]
    client = api.connect(options, io)
    for intention in wanted:
        if options["replace"] and _replaced(client, intention):
            continue
        with api.failing(f'Error creating intention "{text(intention)}"'):
            _create(client, intention)
        io.out(f"Created: {text(intention)}")
    return 0


def _from_arguments(args: list[str], options: FlagSet) -> dict[str, Any]:
    if len(args) != 2:
        raise CommandError("Error: Must specify two arguments: source and destination")
    source_ns, source_name = split(args[0], "source")
    destination_ns, destination_name = split(args[1], "destination")
    intention: dict[str, Any] = {
        "SourceNS": source_ns,
        "SourceName": source_name,
        "DestinationNS": destination_ns,
        "DestinationName": destination_name,
        "SourceType": "consul",
        "Action": "deny" if options["deny"] else "allow",
    }
    meta = key_values(options, "meta")
    return intention | ({"Meta": meta} if meta else {})


def _from_file(path: str, io: Io) -> dict[str, Any]:
    try:
        if path == "-":
            data = read_argument("-", io)
        else:
            with open(path, "rb") as file:
                data = file.read()
    except OSError as error:
        raise CommandError(f"Error: open {path}: {reason(error)}") from None
    try:
        intention = json.loads(data)
    except ValueError as error:
        raise CommandError(f"Error: {path}: {error}") from None
    if not isinstance(intention, dict):
        raise CommandError(f'Error: {path}: expected an object, such as {{"SourceName": "web", ...}}')
    if intention.get("Permissions"):
        raise CommandError(
            f"Error: cannot create L7 intention from file \"{path}\" using this CLI; use 'lictor config write' instead"
        )
    return intention


def _replaced(client: api.Client, intention: dict[str, Any]) -> bool:
    """Whether there was one between the two, which has been replaced."""
    ends = f'source "{source(intention)}" and destination "{destination(intention)}"'
    with api.failing(f"Error looking up intention for replacement with {ends}"):
        old = find(client, source(intention), destination(intention))
    if old is None:
        return False
    with api.failing(f"Error replacing intention with {ends}"):
        if old.get("ID"):
            client.put(f"{BASE}/{old['ID']}", body=api.encode(intention))
        else:
            _put(client, intention)
    return True


def _create(client: api.Client, intention: dict[str, Any]) -> None:
    """Make an intention that was not there. One whose destination's entry has been edited as an entry has no id."""
    try:
        client.call("POST", BASE, body=api.encode(intention))
    except ApiError as error:
        if _EDITED not in error.body:
            raise
        if find(client, source(intention), destination(intention)) is not None:
            raise ApiError(
                f"there is one from {source(intention)} to {destination(intention)} already",
                hint="Replace it with -replace, or delete it first with `lictor intention delete`.",
            ) from None
        _put(client, intention)


def _put(client: api.Client, intention: dict[str, Any]) -> None:
    try:
        client.put(EXACT, {"source": source(intention), "destination": destination(intention)}, api.encode(intention))
    except ApiError as error:
        if "Meta must not be specified" in error.body:
            error.hint = (
                f"The intentions for {destination(intention)} share the meta of their config entry: set it there, with "
                "`lictor config write`, or leave -meta out."
            )
        raise
