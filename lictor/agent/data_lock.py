"""One agent at a time in a data folder: two that wrote into one log would both lose what they hold.

A lock of the kernel's (`flock`) on the file `lock`, which ends with the process however that ends; the file stays, and
holds the process's id for whoever is refused.
"""

import contextlib
import fcntl
import os
from pathlib import Path

from lictor.agent.logs import logger
from lictor.agent.persistence import make_folder

NAME = "lock"

log = logger("agent")


class DataLock:
    """Holds a folder from its making until `close`. Raises `OSError`, also where another process holds it."""

    def __init__(self, folder: Path) -> None:
        make_folder(folder)
        self._file = os.fdopen(os.open(folder / NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = self._file.read(32).strip()
            self._file.close()
            which = f" (process {holder})" if holder.isdigit() else ""
            raise OSError(f"another agent{which} uses the data directory {folder}: end it, or set data_dir") from None
        except OSError as error:
            # Some file systems of networks know no locks; to refuse them would help nobody.
            log.warn("the data directory cannot be locked: run only one agent in it", error=str(error))
            return
        with contextlib.suppress(OSError):  # it is for people: a full disk keeps no agent from starting
            os.ftruncate(self._file.fileno(), os.pwrite(self._file.fileno(), f"{os.getpid()}\n".encode(), 0))

    async def close(self) -> None:
        """Let others have the folder."""
        self._file.close()
