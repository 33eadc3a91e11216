"""What can go wrong with the disk while a server runs, told apart by what the server must do about it."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lictor.raft.disk import DamagedLog

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})


class DiskFull(Exception):
    """There is no room. Nothing of what was asked for was done, and all that was durable is there; try again later."""


class DiskFailed(Exception):
    """The disk refused to write or to sync. What it holds is unknown from now on: the process must end."""


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turn the system's errors into `DiskFull` and `DiskFailed` that name the file."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise DiskFull(f"{path}: {error.strerror}; free some space on its file system") from error
        raise DiskFailed(f"{path}: {error.strerror or error}; check the disk, then start again") from error


@contextmanager
def syncing(path: Path) -> Iterator[None]:
    """For syncs: every error is fatal, a full disk too, since the system may have dropped what it could not write."""
    try:
        yield
    except OSError as error:
        raise DiskFailed(f"{path}: cannot sync: {error.strerror or error}; check the disk, then start again") from error


def damaged(path: Path, offset: int, what: str) -> DamagedLog:
    """The refusal to start from a file that lost something which was durable once."""
    return DamagedLog(
        f"{path}: damaged at offset {offset}: {what}. Nothing was changed. If the other servers of the cluster are "
        "well, remove this one from the cluster, move its raft folder away and let it join anew; otherwise restore "
        "the data directory from a backup"
    )
