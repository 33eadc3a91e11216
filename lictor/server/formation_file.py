"""What a server has bound itself to, as a file of its raft folder: written aside, synced, renamed, synced again."""

from pathlib import Path

import msgspec

from lictor.raft.wal import DamagedLog, Files
from lictor.raft.wal.errors import naming, syncing, syncing_aside
from lictor.server.formation_plan import Standing

NAME = "standing.json"
MAX_BYTES = 1024 * 1024


def read_standing(folder: Path, files: Files) -> Standing:
    """What is kept in a raft folder. Blocks. Raises `DamagedLog`, `DiskFailed`."""
    path = folder / NAME
    with naming(folder):
        files.make_folder(folder)
        if NAME not in files.names(folder):
            return Standing()
    with naming(path):
        file = files.open(path)
        data = file.read(0, MAX_BYTES)
    # It may be in the system's memory only: the process was killed before its sync.
    with syncing(path):
        file.sync()
        file.close()
        files.sync_folder(folder)
    try:
        return msgspec.json.decode(data, type=Standing)
    except msgspec.MsgspecError as error:
        raise DamagedLog(
            f"{path}: it cannot be read ({error}); if this server is in a cluster that is well, remove it from the "
            "cluster, move its raft folder away and let it join anew; otherwise restore the file from a backup"
        ) from None


def write_standing(folder: Path, files: Files, standing: Standing) -> None:
    """Keep it from now on. Blocks. Raises `DiskFull`, `DiskFailed`."""
    path, aside = folder / NAME, folder / f"{NAME}-new"
    with naming(aside):
        file = files.create(aside)
    try:
        with naming(aside):
            file.write(0, msgspec.json.encode(standing) + b"\n")
        with syncing_aside(aside):
            file.sync()
    finally:
        file.close()
    with naming(path):
        files.replace(aside, path)
    with syncing(path):
        files.sync_folder(folder)
