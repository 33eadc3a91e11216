"""The lookup map's file, written: blocks put in place, slots turned to them, room found. The layout is in
`lictor.model.lookup_layout`; what is in the blocks is the business of `lictor.agent.lookup_map`.

The file is written with calls, not through a mapping: on a full disk a call fails, where a mapping would end the
process. Room that a block leaves is used again at once, since a reader who is late finds out by the checksum.
"""

import os
import secrets
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from lictor.model import lookup_layout as layout

FIRST_SLOTS = 256
GROW = 64 * 1024  # bytes by which the file grows at least; beyond that, by a quarter of what it is
MAX_SIZE = 256 * 1024 * 1024  # bytes
NUMBER_BITS = 52  # of numbers that are made up: JSON's readers keep no more in full
FULLEST = 0.6  # of a table's slots in use; searches get long beyond that

_WORD = struct.Struct("=Q")
_TURN = struct.Struct("=QQ")  # generation and offset
_SLOT = struct.Struct("=QQQQ")
_BLOCK = struct.Struct("=QQQ")  # what the checksum covers of a block's head: generation, index, length


class MapFull(Exception):
    """The map has the size that is allowed."""


class _Slot:
    __slots__ = ("generation", "position", "room", "where")

    def __init__(self, position: int) -> None:
        self.position = position  # offset of the slot in the file
        self.generation = 0
        self.where = 0  # the block's offset, and its bytes with what is left unused behind it
        self.room = 0


class LookupFile:
    """A new file. It is complete under `path` only after `show`, until which it is written beside it.

    `now` gives nanoseconds of the clock of `lictor.model.clock`, `wall` nanoseconds since 1970. Raises `OSError`, as
    every method does that writes: what is in the map then stays as it was, or the service is not in it any more.
    """

    def __init__(
        self, path: Path, mode: int, now: Callable[[], int], wall: Callable[[], int], max_size: int = MAX_SIZE
    ) -> None:
        self.path = path
        self.run = secrets.randbits(NUMBER_BITS) | 1
        self._now = now
        self._wall = wall
        self._max_size = max_size
        self._slots: dict[str, _Slot] = {}
        self._used = 0  # slots of the table that are or were in use
        self._count = 0
        self._free: dict[int, list[int]] = {}
        self._retired: dict[int, list[int]] = {}  # empty tables by the number of their slots
        self._end = layout.PAGE  # where nothing has been yet
        # Not from 1: what a program knows of an earlier run's file must not be taken for something of this one.
        self._generation = secrets.randbits(NUMBER_BITS) | 1 << NUMBER_BITS - 1
        self._draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        self._file = os.open(self._draft, flags, 0o600)
        try:
            os.fchmod(self._file, mode)
            self._size = 0
            self._reserve(layout.PAGE)
            self._make_table(FIRST_SLOTS)
            header = [0] * (layout.PAGE // layout.WORD)
            header[layout.H_MAGIC] = layout.MAGIC
            header[layout.H_VERSION] = layout.VERSION
            header[layout.H_STATE] = layout.LIVE
            header[layout.H_RUN] = self.run
            header[layout.H_SIZE] = self._size
            header[layout.H_TABLE] = self._table
            header[layout.H_PID] = os.getpid()
            boot = boot_id()
            header[layout.H_BOOT], header[layout.H_BOOT + 1] = _TURN.unpack(boot)
            self._write(0, struct.pack(f"={len(header)}Q", *header))
        except BaseException:
            self.abandon()
            raise

    # -- the file -----------------------------------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self._size

    def show(self) -> None:
        """Put the file in its place, and tell those who read an older one there to open this."""
        older = open_older(self.path)
        self._draft.rename(self.path)
        if older is not None:
            with os.fdopen(older, "r+b", buffering=0) as file:
                replace(file.fileno())

    def heartbeat(self, current: int) -> None:
        """Say that the agent lives, and up to when the map is known to be what the cluster has (nanoseconds, 0 for
        never).
        """
        self._write(layout.H_HEARTBEAT * layout.WORD, struct.pack("=QQQ", self._now(), current, self._wall()))

    def end(self) -> None:
        """Say that the agent has ended, and close the file; it stays for those who read it."""
        if self._file >= 0:
            try:
                self._set(layout.H_STATE, layout.ENDED)
            finally:
                self.abandon()

    def abandon(self) -> None:
        """Close the file, and remove it where it was never shown."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
            self._draft.unlink(missing_ok=True)

    # -- services -----------------------------------------------------------------------------------------------------

    def __contains__(self, key: str) -> bool:
        found = self._slots.get(key)
        return found is not None and found.generation != 0

    def __len__(self) -> int:
        return self._count

    def generation(self, key: str) -> int:
        """The generation of a service's block, 0 where it is not in the map."""
        found = self._slots.get(key)
        return found.generation if found is not None else 0

    def put(self, key: str, index: int, payload: bytes) -> int:
        """Publish a service's block; returns its generation. Raises `MapFull`."""
        slot = self._slots.get(key) or self._take_slot(key)
        room = _room(layout.BLOCK_HEAD + len(payload))
        where = self._allocate(room)
        self._generation += 1
        generation = self._generation
        covered = _BLOCK.pack(generation, index, len(payload)) + payload
        try:
            self._write(where, _WORD.pack(zlib.crc32(covered)) + covered)
            self._write(slot.position, _TURN.pack(generation, where))
        except OSError:
            self._free.setdefault(room, []).append(where)
            raise
        if slot.room:
            self._free.setdefault(slot.room, []).append(slot.where)
        if not slot.generation:
            self._count += 1
            self._set(layout.H_SERVICES, self._count)
        slot.generation, slot.where, slot.room = generation, where, room
        return generation

    def remove(self, key: str) -> None:
        """Take a service out; harmless where it is not in."""
        slot = self._slots.get(key)
        if slot is None or not slot.generation:
            return
        self._write(slot.position, _TURN.pack(0, 0))
        self._free.setdefault(slot.room, []).append(slot.where)
        slot.generation = slot.where = slot.room = 0
        self._count -= 1
        self._set(layout.H_SERVICES, self._count)

    # -- slots --------------------------------------------------------------------------------------------------------

    def _take_slot(self, key: str) -> _Slot:
        if self._used + 1 > self._size_of_table * FULLEST:
            self._rebuild()
        slot = self._place(key)
        self._write(slot.position, _SLOT.pack(0, 0, layout.KEY_USED | layout.hash_of(key), 0))
        return slot

    def _place(self, key: str) -> _Slot:
        """The next free slot for a key, taken in memory only."""
        number = layout.hash_of(key) & (self._size_of_table - 1)
        while number in self._taken:
            number = (number + 1) & (self._size_of_table - 1)
        self._taken.add(number)
        self._used += 1
        slot = _Slot(self._table + layout.TABLE_HEAD + number * layout.SLOT)
        self._slots[key] = slot
        return slot

    def _make_table(self, slots: int) -> None:
        """Begin an empty table. Its room is never used for anything but tables: somebody may still look into it, and
        takes nothing of it for what it is not, since a generation is there only once.
        """
        retired = self._retired.get(slots)
        self._table = retired.pop() if retired else self._extend(layout.TABLE_HEAD + slots * layout.SLOT)
        self._size_of_table = slots
        self._used = 0
        self._taken: set[int] = set()
        # All of it, since to look into what was never written takes room too on some file systems, and where there is
        # none, whoever looks is ended by a signal.
        self._write(self._table, _WORD.pack(slots) + bytes(layout.TABLE_HEAD - layout.WORD + slots * layout.SLOT))

    def _rebuild(self) -> None:
        """Make a table in which there is room, without the slots of services that were taken out; empty the old one."""
        slots = FIRST_SLOTS
        while (self._count + 1) * 2 > slots * FULLEST:
            slots *= 2
        before = self._table, self._size_of_table, self._used, self._taken, self._slots
        self._slots = {}
        try:
            self._make_table(slots)
            image = bytearray(slots * layout.SLOT)
            for key, old in before[4].items():
                if old.generation:
                    slot = self._place(key)
                    slot.generation, slot.where, slot.room = old.generation, old.where, old.room
                    at = slot.position - self._table - layout.TABLE_HEAD
                    word = layout.KEY_USED | layout.hash_of(key)
                    _SLOT.pack_into(image, at, slot.generation, slot.where, word, 0)
            self._write(self._table + layout.TABLE_HEAD, bytes(image))
            self._set(layout.H_TABLE, self._table)
        except (OSError, MapFull):
            self._table, self._size_of_table, self._used, self._taken, self._slots = before
            raise
        # Readers who know a place in the old table see that it does not hold any more, and look anew.
        self._write(before[0] + layout.TABLE_HEAD, bytes(before[1] * layout.SLOT))
        self._retired.setdefault(before[1], []).append(before[0])

    # -- room ---------------------------------------------------------------------------------------------------------

    def _allocate(self, room: int) -> int:
        free = self._free.get(room)
        return free.pop() if free else self._extend(room)

    def _extend(self, room: int) -> int:
        """Room at the end of the file."""
        where = self._end
        if where + room > self._size:
            grown = self._size + max(GROW, self._size // 4)
            self._reserve(max(where + room, min(grown, self._max_size)))
        self._end = where + room
        return where

    def _reserve(self, size: int) -> None:
        if size > self._max_size:
            raise MapFull(f"{self.path}: the lookup map would be over {self._max_size} bytes")
        os.truncate(self._file, size)
        self._size = size
        if size > layout.PAGE:
            self._set(layout.H_SIZE, size)

    def _set(self, word: int, value: int) -> None:
        self._write(word * layout.WORD, _WORD.pack(value))

    def _write(self, offset: int, content: bytes) -> None:
        done = os.pwrite(self._file, content, offset)
        while done < len(content):
            done += os.pwrite(self._file, content[done:], offset + done)


def _room(length: int) -> int:
    """The bytes that are set aside for a block: a power of two, so that what one leaves fits another."""
    return max(2 * layout.BLOCK_ALIGN, 1 << (length - 1).bit_length())


def boot_id() -> bytes:
    """The kernel's boot id, 16 bytes; zeros where the system has none."""
    try:
        return bytes.fromhex(Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", ""))
    except (OSError, ValueError):
        return bytes(16)


# -- an older file -----------------------------------------------------------------------------------------------------


def open_older(path: Path) -> int | None:
    """A descriptor of the map that is under a path, if it is one that may be written; None otherwise."""
    try:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        if _older_table(file) is not None:
            return file
    except OSError:
        pass
    os.close(file)
    return None


def _older_table(file: int) -> tuple[int, int] | None:
    """Offset and slots of an older map's table; None where it is no such map, or damaged."""
    header = os.pread(file, layout.PAGE, 0)
    if len(header) < layout.PAGE:
        return None
    words = struct.unpack(f"={layout.PAGE // layout.WORD}Q", header)
    table = words[layout.H_TABLE]
    if words[layout.H_MAGIC] != layout.MAGIC or words[layout.H_VERSION] != layout.VERSION or table >= MAX_SIZE:
        return None
    count = os.pread(file, layout.WORD, table)
    slots = _WORD.unpack(count)[0] if len(count) == layout.WORD else 0
    return (table, slots) if 0 < slots <= MAX_SIZE // layout.SLOT else None


def replace(file: int) -> None:
    """Tell the readers of an older map, open for writing, that there is a newer one. Raises `OSError`."""
    table = _older_table(file)
    if table is None:
        return
    os.pwrite(file, _WORD.pack(layout.REPLACED), layout.H_STATE * layout.WORD)
    length = min(table[1] * layout.SLOT, max(0, os.fstat(file).st_size - table[0] - layout.TABLE_HEAD))
    os.pwrite(file, bytes(length), table[0] + layout.TABLE_HEAD)


def older_names(path: Path) -> Iterator[str]:
    """The services that an older map holds, as far as it can be read."""
    import msgspec

    file = open_older(path)
    if file is None:
        return
    decoder = msgspec.msgpack.Decoder(layout.Payload)
    try:
        table = _older_table(file)
        offset, slots = table or (0, 0)
        content = os.pread(file, slots * layout.SLOT, offset + layout.TABLE_HEAD)
        for generation, where, _, _ in _SLOT.iter_unpack(content[: len(content) // layout.SLOT * layout.SLOT]):
            if not generation or where >= MAX_SIZE:
                continue
            head = os.pread(file, layout.BLOCK_HEAD, where)
            if len(head) < layout.BLOCK_HEAD:
                continue
            checksum, own, _, length = _SLOT.unpack(head)
            if own != generation or length > MAX_SIZE:
                continue
            payload = os.pread(file, length, where + layout.BLOCK_HEAD)
            if zlib.crc32(head[layout.WORD :] + payload) == checksum:
                try:
                    yield decoder.decode(payload).name
                except msgspec.MsgspecError:
                    continue
    except OSError:
        return
    finally:
        os.close(file)
