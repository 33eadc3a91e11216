"""A disk in memory that does all that a real one may do to what was not synced.

Programs see what they wrote. A crash of the machine (`lose_power`) keeps what was synced; of each write since, any
sectors may be there and others not, and a sector may be torn; lengths and names that were not synced may be the old or
the new ones. A sync that fails leaves what it was to write visible and marks it as written, as Linux does: a later
sync of the same file succeeds and does not write it; only lengths are not forgotten. The end of the process alone
(`reopen`) loses nothing.

What is named in `refuse` (create, allocate, write, truncate, sync, replace) finds no room, whatever the capacity; where
`refuse_in` is set, only for files whose path has this part.

`fuse` counts operations down and then ends the program in the midst of one, with `Crash`; until `lose_power` or
`reopen`, nothing can be done any more.
"""

import errno
import random
from collections.abc import Callable
from pathlib import Path

SECTOR = 512


class Crash(BaseException):
    """The program has ended here."""


def no_room() -> OSError:
    """What a full disk answers."""
    return OSError(errno.ENOSPC, "No space left on device")


class _Node:
    """A file's content, as it is seen and as it would be after a loss of power."""

    def __init__(self) -> None:
        self.seen = bytearray()
        self.durable = bytearray()
        self.pending: list[tuple[int, bytes] | int] = []  # writes, and lengths
        self.forgotten = False  # whether a failed sync left something out for good


class SimFile:
    """An open file."""

    def __init__(self, disk: "SimDisk", node: _Node, path: Path) -> None:
        self._disk = disk
        self._node = node
        self._path = path

    def size(self) -> int:
        self._disk.alive()
        return len(self._node.seen)

    def read(self, offset: int, length: int) -> bytes:
        self._disk.alive()
        return bytes(self._node.seen[offset : offset + length])

    def write(self, offset: int, data: bytes) -> None:
        self._disk.step(lambda: self._write(offset, data[: self._disk.rng.randrange(len(data) + 1)]))
        if self._disk.room_for(max(0, offset + len(data) - len(self._node.seen))):
            raise no_room()
        if self._disk.refuses("write", self._path):
            self._write(offset, data[: self._disk.rng.randrange(len(data) + 1)])
            raise no_room()
        self._write(offset, data)

    def _write(self, offset: int, data: bytes) -> None:
        _put(self._node.seen, offset, data)
        self._node.pending.append((offset, data))

    def truncate(self, length: int) -> None:
        self._disk.step(lambda: None)
        if self._disk.refuses("truncate", self._path):
            raise no_room()
        _resize(self._node.seen, length)
        self._node.pending.append(length)

    def allocate(self, length: int) -> None:
        self._disk.step(lambda: None)
        former = len(self._node.seen)
        if length > former:
            if self._disk.room_for(length - former):
                raise no_room()
            refused = self._disk.refuses("allocate", self._path)
            self._grow(self._disk.rng.randrange(former, length) if refused else length)
            if refused:
                raise no_room()

    def _grow(self, length: int) -> None:
        _resize(self._node.seen, length)
        self._node.pending.append(length)

    def sync(self) -> None:
        node, disk = self._node, self._disk
        disk.step(lambda: disk.settle(node))
        disk.syncs += 1
        if disk.fail_syncs or disk.refuses("sync", self._path):
            disk.settle(node)
            if not disk.fail_syncs:
                raise no_room()
            disk.fail_syncs -= 1
            raise OSError(errno.EIO, "Input/output error")
        if node.forgotten:
            _write_back(node)
        else:
            node.durable = bytearray(node.seen)
        node.pending.clear()
        node.forgotten = node.durable != node.seen

    def close(self) -> None:
        pass


class SimDisk:
    """A `Files` in memory. `capacity` is in bytes; None has no end."""

    def __init__(self, rng: random.Random, capacity: int | None = None) -> None:
        self.rng = rng
        self.capacity = capacity
        self.fuse: int | None = None
        self.fail_syncs = 0
        self.refuse: frozenset[str] = frozenset()
        self.refuse_in = ""
        self.syncs = 0
        self.steps = 0
        self._dead = False
        self._names: dict[Path, _Node] = {}
        self._durable_names: dict[Path, _Node] = {}
        self._pending_names: list[Callable[[dict[Path, _Node]], None]] = []

    def make_folder(self, folder: Path) -> None:
        self.alive()

    def names(self, folder: Path) -> list[str]:
        self.alive()
        return [path.name for path in self._names if path.parent == folder]

    def create(self, path: Path) -> SimFile:
        self.step(lambda: None)
        if self.refuses("create", path):
            raise no_room()
        node = _Node()
        self._change(lambda names: names.__setitem__(path, node))
        return SimFile(self, node, path)

    def open(self, path: Path) -> SimFile:
        self.alive()
        if path not in self._names:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path))
        return SimFile(self, self._names[path], path)

    def replace(self, source: Path, target: Path) -> None:
        self.step(lambda: None)
        if self.refuses("replace", target):
            raise no_room()
        node = self._names[source]

        def change(names: dict[Path, _Node]) -> None:
            names.pop(source, None)
            names[target] = node

        self._change(change)

    def remove(self, path: Path) -> None:
        self.step(lambda: None)

        def change(names: dict[Path, _Node]) -> None:
            names.pop(path, None)

        self._change(change)

    def sync_folder(self, folder: Path) -> None:
        self.step(lambda: None)
        self.syncs += 1
        if self.fail_syncs:
            self.fail_syncs -= 1
            raise OSError(errno.EIO, "Input/output error")
        self._durable_names = dict(self._names)
        self._pending_names.clear()

    def room(self, folder: Path) -> int:
        self.step(lambda: None)
        return 1 << 40

    def reopen(self) -> None:
        """The program starts again; only it had ended."""
        self._dead = False
        self.fuse = None
        self.fail_syncs = 0

    def lose_power(self) -> None:
        """The machine starts again, and what was not synced is there or not."""
        self.reopen()
        for change in self._pending_names:
            if self.rng.random() < 0.5:
                change(self._durable_names)
        self._pending_names.clear()
        self._names = dict(self._durable_names)
        for node in dict.fromkeys(self._names.values()):
            self.settle(node)
            node.seen = bytearray(node.durable)
            node.pending.clear()
            node.forgotten = False

    def settle(self, node: _Node) -> None:
        """Let any part of what is unsynced reach the disk; the rest is forgotten and will never be written."""
        chance = self.rng.choice((0.0, 0.5, 0.9, 1.0))
        for change in node.pending:
            if isinstance(change, int):
                if self.rng.random() < chance:
                    _resize(node.durable, change)
                continue
            offset, data = change
            at = offset
            while at < offset + len(data):
                end = min(offset + len(data), (at // SECTOR + 1) * SECTOR)
                if self.rng.random() < chance:
                    if self.rng.random() < 0.05:
                        end = self.rng.randrange(at, end + 1)
                    _put(node.durable, at, data[at - offset : end - offset])
                at = (at // SECTOR + 1) * SECTOR
        # Lengths are the file system's own affair, which it does not forget.
        node.pending = [change for change in node.pending if isinstance(change, int)]
        node.forgotten = node.durable != node.seen

    def flip(self, path: Path, offset: int, bit: int = 0x10) -> None:
        """Damage one byte, durably."""
        node = self._names[path]
        node.seen[offset] ^= bit
        node.durable[offset] ^= bit

    def cut(self, path: Path, length: int) -> None:
        """Shorten a file, durably."""
        _resize(self._names[path].seen, length)
        _resize(self._names[path].durable, length)

    def content(self, path: Path) -> bytes:
        """What a program would read."""
        return bytes(self._names[path].seen)

    def paths(self) -> list[Path]:
        """All files."""
        return sorted(self._names)

    def forget(self, path: Path) -> None:
        """Remove a file, durably, as an operator does."""
        del self._names[path]
        self._durable_names.pop(path, None)

    def used(self) -> int:
        """Bytes of all files."""
        return sum(len(node.seen) for node in self._names.values())

    def room_for(self, more: int) -> bool:
        """Whether so many bytes more are too many."""
        return self.capacity is not None and self.used() + more > self.capacity

    def refuses(self, what: str, path: Path) -> bool:
        """Whether there is no room for an operation on a file."""
        return what in self.refuse and (not self.refuse_in or any(self.refuse_in in part for part in path.parts))

    def alive(self) -> None:
        """A program that has ended does nothing."""
        if self._dead:
            raise Crash

    def step(self, half: Callable[[], None]) -> None:
        """One operation that changes something; when the fuse burns down, only the half of it happens."""
        self.alive()
        self.steps += 1
        if self.fuse is not None:
            self.fuse -= 1
            if self.fuse < 0:
                half()
                self._dead = True
                raise Crash

    def _change(self, change: Callable[[dict[Path, _Node]], None]) -> None:
        change(self._names)
        self._pending_names.append(change)


def _put(content: bytearray, offset: int, data: bytes) -> None:
    if data:
        _resize(content, max(len(content), offset + len(data)))
        content[offset : offset + len(data)] = data


def _resize(content: bytearray, length: int) -> None:
    if length < len(content):
        del content[length:]
    else:
        content.extend(bytes(length - len(content)))


def _write_back(node: _Node) -> None:
    """What a sync makes durable after one that failed: only what was written since."""
    for change in node.pending:
        if isinstance(change, int):
            _resize(node.durable, change)
        else:
            _put(node.durable, *change)
