"""What can go wrong with the disk while a server runs, told apart by what the server must do about it."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
"""The system's errors of a file system without room."""

_SPACE = "free some space on its file system"
_TRY_AGAIN = {
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: _SPACE,
    errno.EMFILE: "raise the limit of open files of this process",
    errno.ENFILE: "raise the system's limit of open files",
    errno.ENOMEM: "free some memory",
}
_FORBIDDEN = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


class DamagedLog(Exception):
    """What was durable once cannot be read. The message names file and offset, and what to do; nothing was changed."""


class DiskFull(Exception):
    """There is no room, or another means is lacking that may come back. Nothing of what was asked for was done, and all
    that was durable is there; try again later.
    """


class DiskFailed(Exception):
    """The disk refused to write or to sync. What it holds is unknown from now on: the process must end."""


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turn the system's errors into `DiskFull` and `DiskFailed` that name the file."""
    try:
        yield
    except OSError as error:
        words = error.strerror or str(error)
        remedy = _TRY_AGAIN.get(error.errno or 0)
        if remedy is not None:
            raise DiskFull(f"{path}: {words}; {remedy}") from error
        remedy = "give this program's user access to it" if error.errno in _FORBIDDEN else "check the disk"
        raise DiskFailed(f"{path}: {words}; {remedy}, then start again") from error


@contextmanager
def syncing(path: Path) -> Iterator[None]:
    """For syncs: every error is fatal, a full disk too, since the system may have dropped what it could not write."""
    try:
        yield
    except OSError as error:
        raise DiskFailed(f"{path}: cannot sync: {error.strerror or error}; check the disk, then start again") from error


@contextmanager
def syncing_aside(path: Path) -> Iterator[None]:
    """For the sync of a file that nothing counts on yet and that is removed if this fails: a full disk is just that."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_ROOM:
            raise DiskFull(f"{path}: cannot sync: {error.strerror}; {_SPACE}") from error
        with syncing(path):
            raise


def damaged(path: Path, offset: int, what: str) -> DamagedLog:
    """The refusal to start from a file that lost something which was durable once."""
    return DamagedLog(
        f"{path}: damaged at offset {offset}: {what}. Nothing was changed. If the other servers of the cluster are "
        "well, remove this one from the cluster, move its raft folder away and let it join anew; otherwise restore "
        "the data directory from a backup"
    )
