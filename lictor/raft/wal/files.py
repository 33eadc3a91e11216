"""All that the log asks of a disk, and the real one.

`Files` is small on purpose: the tests put a disk in its place that loses, tears and reorders what was not synced.
Every method may raise `OSError`.
"""

import os
from pathlib import Path
from typing import Protocol


class File(Protocol):
    """An open file."""

    def size(self) -> int:
        """Its length in bytes."""
        ...

    def read(self, offset: int, length: int) -> bytes:
        """Bytes from an offset on; fewer at the end of the file."""
        ...

    def write(self, offset: int, data: bytes) -> None:
        """Write all of the data. After an error any part of it may have been written."""
        ...

    def truncate(self, length: int) -> None:
        """Cut it off."""
        ...

    def allocate(self, length: int) -> None:
        """Have room for so many bytes; what is new reads as zeros."""
        ...

    def sync(self) -> None:
        """Make what was written durable, and the length; not the file's name."""
        ...

    def close(self) -> None:
        """Close it; says nothing about durability."""
        ...


class Files(Protocol):
    """A file system."""

    def make_folder(self, folder: Path) -> None:
        """Make a folder if it is missing, with its parents, durably; only its owner may enter."""
        ...

    def names(self, folder: Path) -> list[str]:
        """The names in a folder."""
        ...

    def create(self, path: Path) -> File:
        """A new and empty file in place of any former one; only its owner may read it."""
        ...

    def open(self, path: Path) -> File:
        """An existing file, to read and write."""
        ...

    def replace(self, source: Path, target: Path) -> None:
        """Rename a file within its folder, over any former one."""
        ...

    def remove(self, path: Path) -> None:
        """Remove a file."""
        ...

    def sync_folder(self, folder: Path) -> None:
        """Make the names in a folder durable."""
        ...

    def room(self, folder: Path) -> int:
        """How many bytes more its file system can take."""
        ...


class OsFile:
    """A file by its descriptor."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def size(self) -> int:
        return os.fstat(self._fd).st_size

    def read(self, offset: int, length: int) -> bytes:
        parts = []
        while length:
            part = os.pread(self._fd, length, offset)
            if not part:
                break
            parts.append(part)
            offset += len(part)
            length -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def write(self, offset: int, data: bytes) -> None:
        view = memoryview(data)
        while view:
            written = os.pwrite(self._fd, view, offset)
            offset += written
            view = view[written:]

    def truncate(self, length: int) -> None:
        os.ftruncate(self._fd, length)

    def allocate(self, length: int) -> None:
        os.posix_fallocate(self._fd, 0, length)

    def sync(self) -> None:
        os.fdatasync(self._fd)

    def close(self) -> None:
        if self._fd >= 0:
            # No later call may reach another file that gets the same number.
            fd, self._fd = self._fd, -1
            os.close(fd)


class OsFiles:
    """The operating system's files."""

    def make_folder(self, folder: Path) -> None:
        if not folder.is_dir():
            if not folder.parent.is_dir():
                self.make_folder(folder.parent)
            folder.mkdir(mode=0o700, exist_ok=True)
        # One that is there may have been made by a run that ended before its sync.
        self.sync_folder(folder.parent)

    def names(self, folder: Path) -> list[str]:
        return os.listdir(folder)

    def create(self, path: Path) -> File:
        return OsFile(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600))

    def open(self, path: Path) -> File:
        return OsFile(os.open(path, os.O_RDWR | os.O_CLOEXEC))

    def replace(self, source: Path, target: Path) -> None:
        os.replace(source, target)

    def remove(self, path: Path) -> None:
        os.unlink(path)

    def sync_folder(self, folder: Path) -> None:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def room(self, folder: Path) -> int:
        found = os.statvfs(folder)
        return found.f_bavail * found.f_frsize
