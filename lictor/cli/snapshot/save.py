"""`lictor snapshot save`: writes the servers' state to a file.

The file appears under its name only when it has arrived whole and its checksums are right.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress

from lictor.cli import api
from lictor.cli.command import CommandError, Io, at_most, reason
from lictor.model.goflags import FlagError, FlagSet

SYNOPSIS = "Saves snapshot of server state"

HELP = """\
Usage: lictor snapshot save [options] FILE

  Saves the state of the servers, at one moment, into a file that only its
  owner may read.

      $ lictor snapshot save backup.snap

  Without a leader, any server's state can be saved:

      $ lictor snapshot save -stale backup.snap"""

PARTS = ("version", "dc", "node", "status")
"""What -append-filename can add to the file's name."""


def flags() -> FlagSet:
    """The HTTP API options and -append-filename."""
    flags = FlagSet("snapshot save", HELP)
    api.client_flags(flags)
    api.server_flags(flags)
    flags.string(
        "append-filename", "", f"Add these to the file's name, before its extension: any of {','.join(PARTS)}."
    )
    return flags


def run(args: list[str], io: Io) -> int:
    """Save, check, and put the file in its place."""
    options = flags()
    rest = options.parse(args)
    if not rest:
        raise CommandError("Missing FILE argument")
    at_most(rest, 1)
    client = api.connect(options, io)
    path = rest[0]
    if options["append-filename"]:
        path = with_parts(path, options["append-filename"], client)
    temporary = _temporary(path)
    try:
        _download(client, temporary)
        index = _verified_index(temporary)
        os.replace(temporary, path)
    except OSError as error:
        raise CommandError(f"Error renaming unverified snapshot file: {path}: {reason(error)}") from None
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
    io.out(f"Saved and verified snapshot to index {index}")
    return 0


def with_parts(path: str, wanted: str, client: api.Client) -> str:
    """The file's name with the parts that are wanted: `backup-1.0.0-dc1.snap`."""
    names = [name.strip() for name in wanted.split(",")]
    for name in names:
        if name not in PARTS:
            raise FlagError(f'invalid value "{wanted}" for flag -append-filename: must be any of {",".join(PARTS)}')
    with api.failing("Error saving snapshot"):
        about = client.get("/v1/agent/self").json()
    config, stats = about["Config"], about.get("Stats", {})
    known = {
        "version": config["Version"],
        "dc": config["Datacenter"],
        "node": config["NodeName"],
        "status": "leader" if stats.get("consul", {}).get("leader") == "true" else "follower",
    }
    stem, extension = os.path.splitext(path)
    return "-".join([stem, *(known[name] for name in names)]) + extension


def _temporary(path: str) -> str:
    """A new empty file beside path, which only its owner may read: a snapshot holds every secret of the store."""
    folder, name = os.path.split(path)
    try:
        handle, temporary = tempfile.mkstemp(prefix=f"{name}.unverified.tmp", dir=folder or ".")
    except OSError as error:
        where = f"{path}.unverified.tmp"
        raise CommandError(f"Error writing unverified snapshot file: open {where}: {reason(error)}") from None
    os.close(handle)
    return temporary


def _download(client: api.Client, path: str) -> None:
    with api.failing("Error saving snapshot"), client.stream("/v1/snapshot") as pieces:
        try:
            with open(path, "wb") as file:
                for piece in pieces:
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise CommandError(f"Error writing unverified snapshot file: {path}: {reason(error)}") from None


def _verified_index(path: str) -> int:
    from lictor.model.errors import InvalidRequest
    from lictor.store.archive import read_archive

    try:
        with open(path, "rb") as file:
            return read_archive(file).meta.index
    except InvalidRequest as error:
        raise CommandError(f"Error verifying snapshot file: {error}") from None
