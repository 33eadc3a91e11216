"""`lictor snapshot inspect`: checks a snapshot file and shows what is in it, without an agent."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, NamedTuple

from lictor.cli.command import CommandError, Io, at_most, reason
from lictor.cli.table import columns
from lictor.model.errors import InvalidRequest
from lictor.model.goflags import FlagSet
from lictor.store.archive import Archive, Meta, read_archive

SYNOPSIS = "Displays information about a snapshot file"

HELP = """\
Usage: lictor snapshot inspect [options] FILE

  Checks a snapshot file's checksums and prints at which index it was taken
  and how much of what it holds.

      $ lictor snapshot inspect backup.snap

  How much room the parts of the KV store take:

      $ lictor snapshot inspect -kvdetails -kvdepth=1 backup.snap"""

FORMATS = ("pretty", "json")
GAP = " " * 6
KV_GAP = " " * 12
RULE = "----"
UNITS = ("B", "KB", "MB", "GB", "TB")

NAMES = {"kv": "KVS"}
"""Tables that the output has always called by another name."""


def flags() -> FlagSet:
    """How to print, and how far to take the KV store apart."""
    flags = FlagSet("snapshot inspect", HELP)
    flags.string("format", "pretty", "Output format: pretty or json.")
    flags.int("kvdepth", 2, "With -kvdetails: how many parts of a key, separated by slashes, to tell apart.")
    flags.bool("kvdetails", False, "Print how much room the keys take, by their first parts.")
    flags.string("kvfilter", "", "With -kvdetails: only keys that begin with this text.")
    return flags


class Share(NamedTuple):
    """How much there is of something: its name, bytes and number."""

    name: str
    size: int
    number: int


def run(args: list[str], io: Io) -> int:
    """Print what is in the file; 1 when it is damaged."""
    options = flags()
    rest = options.parse(args)
    if not rest:
        raise CommandError("Missing FILE argument")
    at_most(rest, 1)
    if options["format"] not in FORMATS:
        raise CommandError(
            f"Error outputting enhanced snapshot data: Unknown format: {options['format']}",
            "The formats are pretty and json.",
        )
    archive = opened(rest[0])
    try:
        tables = rows_by_table(archive)
    except InvalidRequest as error:
        tables = {}
        io.error(f"The archive is whole, but what it holds cannot be counted: {error}")
    stats = largest_first(Share(NAMES.get(name, name), sum(sizes), len(sizes)) for name, sizes in sizes_of(tables))
    keys = kv_shares(tables, options["kvdepth"], options["kvfilter"]) if options["kvdetails"] else None
    io.out(as_json(archive.meta, stats, keys) if options["format"] == "json" else pretty(archive.meta, stats, keys))
    return 0


def opened(path: str) -> Archive:
    """The archive in a file; raises CommandError when it cannot be read or is damaged."""
    try:
        with open(path, "rb") as file:
            return read_archive(file)
    except OSError as error:
        raise CommandError(f"Error opening snapshot file: open {path}: {reason(error)}") from None
    except InvalidRequest as error:
        raise CommandError(f"Error verifying snapshot: {error}") from None


def rows_by_table(archive: Archive) -> dict[str, list[Any]]:
    """The rows of every table that has some; raises InvalidRequest for a state that is not Lictor's."""
    from lictor.store.snapshot import decode

    _, rows = decode(archive.state)
    return {name: found for name, found in rows.items() if found}


def sizes_of(tables: dict[str, list[Any]]) -> Iterable[tuple[str, list[int]]]:
    """Each table's rows as their sizes in bytes."""
    import msgspec

    encode = msgspec.msgpack.Encoder().encode
    for name, rows in tables.items():
        yield name, [len(encode(row)) for row in rows]


def kv_shares(tables: dict[str, list[Any]], depth: int, prefix: str) -> list[Share]:
    """The KV store's rows, put together by the first `depth` parts of their keys."""
    import msgspec

    encode = msgspec.msgpack.Encoder().encode
    shares: dict[str, Share] = {}
    for entry in tables.get("kv", ()):
        if entry.key.startswith(prefix):
            name = "/".join(entry.key.split("/")[: max(depth, 1)])
            share = shares.get(name, Share(name, 0, 0))
            shares[name] = Share(name, share.size + len(encode(entry)), share.number + 1)
    return largest_first(shares.values())


def largest_first(shares: Iterable[Share]) -> list[Share]:
    """In order of size, and of name where that is equal."""
    return sorted(shares, key=lambda share: (-share.size, share.name))


def pretty(meta: Meta, stats: list[Share], keys: list[Share] | None) -> str:
    """Tables for people."""
    facts = [
        ["ID", meta.id],
        ["Size", str(meta.size)],
        ["Index", str(meta.index)],
        ["Term", str(meta.term)],
        ["Version", str(meta.version)],
    ]
    tables = [columns(facts, gap=GAP)]
    if stats:
        tables.append(columns(_with_total("Type", stats), gap=GAP))
    if keys is not None:
        tables.append(columns(_with_total("Key Name", keys), gap=KV_GAP))
    return "\n\n".join("\n".join(f" {line}".rstrip() for line in table.split("\n")) for table in tables)


def _with_total(title: str, shares: list[Share]) -> list[list[str]]:
    total = sum(share.size for share in shares)
    rows = [[share.name, str(share.number), human(share.size)] for share in shares]
    return [[title, "Count", "Size"], [RULE] * 3, *rows, [RULE] * 3, ["Total", "", human(total)]]


def human(size: int) -> str:
    """Bytes in the largest unit of which there is one: 1536 is "1.5KB"."""
    if not size:
        return "0"
    power = min((size.bit_length() - 1) // 10, len(UNITS) - 1)
    return f"{size / 1024**power:.1f}".removesuffix(".0") + UNITS[power]


def as_json(meta: Meta, stats: list[Share], keys: list[Share] | None) -> str:
    """The same for programs."""
    shown = {
        "Meta": {
            "ID": meta.id,
            "Size": meta.size,
            "Index": meta.index,
            "Term": meta.term,
            "Version": meta.version,
        },
        "Stats": [_share_json(share) for share in stats],
        "StatsKV": None if keys is None else [_share_json(share) for share in keys],
        "TotalSize": sum(share.size for share in stats),
        "TotalSizeKV": sum(share.size for share in keys or ()),
    }
    return json.dumps(shown, indent=3)


def _share_json(share: Share) -> dict[str, Any]:
    return {"Name": share.name, "Sum": share.size, "Count": share.number}
