"""`lictor kv import`: writes keys from the JSON that `kv export` prints.

The whole input is checked before the first key is written, so a mistake in it leaves the store as it was.
"""

from __future__ import annotations

import json
from typing import NamedTuple

from lictor.cli import api
from lictor.cli.command import CommandError, Io, read_argument
from lictor.cli.kv.pair import decode_base64, without_slash
from lictor.model.goflags import FlagSet

SYNOPSIS = "Imports a tree stored as JSON to the KV store"

HELP = """\
Usage: lictor kv import [options] DATA

  Writes the keys that "lictor kv export" printed. DATA is the JSON itself,
  "@" and the name of a file that holds it, or "-" for standard input.

      $ lictor kv import @web.json
      $ lictor kv export web/ | lictor kv import -prefix=copy -"""


def flags() -> FlagSet:
    """The HTTP API options and -prefix."""
    flags = FlagSet("kv import", HELP)
    api.client_flags(flags)
    api.server_flags(flags)
    api.tenancy_flags(flags)
    flags.string("prefix", "", "Path to put before every key.")
    return flags


def run(args: list[str], io: Io) -> int:
    """Write every key and say so; stops at the first that cannot be written."""
    options = flags()
    rest = options.parse(args)
    if not rest:
        raise CommandError("Error! Missing DATA argument")
    if len(rest) > 1:
        raise CommandError(f"Error! Too many arguments (expected 1, got {len(rest)})")
    if not rest[0]:
        raise CommandError("Error! Empty DATA argument")
    try:
        data = read_argument(rest[0], io)
    except CommandError as error:
        raise CommandError(f"Error! {error}", error.hint) from None
    entries = parse(data, options["prefix"])
    client = api.connect(options, io)
    for entry in entries:
        with api.failing(f"Error! Failed writing data for key {entry.key}"):
            client.put(f"/v1/kv/{entry.key}", {"flags": str(entry.flags) if entry.flags else None}, entry.value)
        io.out(f"Imported: {entry.key}")
    return 0


class Entry(NamedTuple):
    """A key to write."""

    key: str
    flags: int
    value: bytes


def parse(data: bytes, prefix: str) -> list[Entry]:
    """The entries of exported JSON; raises CommandError naming what is wrong with which."""
    try:
        decoded = json.loads(data)
    except ValueError as error:
        raise CommandError(f"Cannot unmarshal data: {error}") from None
    if not isinstance(decoded, list):
        raise CommandError("Cannot unmarshal data: expected a list of entries, as kv export prints it")
    entries = []
    for position, item in enumerate(decoded):
        where = f"Cannot unmarshal data: entry {position}"
        if not isinstance(item, dict) or not isinstance(item.get("key"), str):
            raise CommandError(f'{where}: expected an object with a text "key"')
        flags, value = item.get("flags", 0), item.get("value", "")
        if not isinstance(flags, int) or isinstance(flags, bool) or not 0 <= flags < 2**64:
            raise CommandError(f'{where} ("{item["key"]}"): "flags" must be an unsigned 64-bit number')
        if not isinstance(value, str):
            raise CommandError(f'{where} ("{item["key"]}"): "value" must be text in base64')
        try:
            decoded_value = decode_base64(value.encode())
        except ValueError as error:
            raise CommandError(f"Error base 64 decoding value for key {item['key']}: {error}") from None
        key = without_slash(item["key"])
        entries.append(Entry(f"{prefix.strip('/')}/{key}" if prefix.strip("/") else key, flags, decoded_value))
    return entries
