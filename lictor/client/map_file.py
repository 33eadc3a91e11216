"""One lookup map, opened for reading: where a service's slot is, and what its block says. See `lookup_layout`.

Nothing here waits for the agent, and nothing that the agent does, even to be killed in the middle of a word, makes a
wrong answer: a block counts only if it has the slot's generation and its own checksum.
"""

import mmap
import os
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import msgspec

from lictor.client.errors import DamagedMap, NoMap
from lictor.model import lookup_layout as layout
from lictor.model.clock import lease_clock
from lictor.model.lookup_layout import Payload

TRIES = 50  # readings of one and the same block before it counts as damaged
ROUNDS = 100_000  # of readings altogether, each of another version
DEAD_AFTER = 5.0  # seconds without a heartbeat after which an agent is taken for dead

_decode = msgspec.msgpack.Decoder(Payload).decode


class Found(msgspec.Struct, frozen=True):
    """A service's block. While the word `slot` of `words` is `generation`, this is what the map says."""

    words: memoryview
    slot: int
    generation: int
    index: int
    payload: Payload


class MapFile:
    """An open map. Raises `NoMap` where there is none that may be read, `DamagedMap` where there is something else."""

    def __init__(
        self, path: Path, clock: Callable[[], float] = lease_clock, wall: Callable[[], int] = time.time_ns
    ) -> None:
        self.path = path
        self._clock = clock
        self._wall = wall
        try:
            self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise NoMap(f"{path}: {error.strerror}") from None
        try:
            found = os.fstat(self._file)
            self.identity = (found.st_dev, found.st_ino)
            self._map(found.st_size)
            self._check()
        except BaseException:
            os.close(self._file)
            raise

    def _map(self, size: int) -> None:
        if size < layout.PAGE:
            raise self._damaged(f"{size} bytes are too few")
        try:
            self._view = memoryview(mmap.mmap(self._file, size, access=mmap.ACCESS_READ))
        except (OSError, ValueError) as error:
            raise NoMap(f"{self.path}: {error}") from None
        self.words = self._view[: size // layout.WORD * layout.WORD].cast("Q")

    def _check(self) -> None:
        words = self.words
        if words[layout.H_MAGIC] != layout.MAGIC:
            raise self._damaged("it is no lookup map")
        if words[layout.H_VERSION] != layout.VERSION:
            raise self._damaged(f"its layout is version {words[layout.H_VERSION]}, and {layout.VERSION} is understood")
        self.run = words[layout.H_RUN]
        self._table()

    def _damaged(self, what: str) -> DamagedMap:
        return DamagedMap(f"{self.path}: not a lookup map that can be read: {what}")

    def close(self) -> None:
        """Close the file. What was found in it goes on holding, since its memory is released with the last of that."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    # -- the agent ----------------------------------------------------------------------------------------------------

    @property
    def replaced(self) -> bool:
        """Whether the agent says that there is a newer file under the path."""
        return self.words[layout.H_STATE] == layout.REPLACED

    def age(self) -> float:
        """Seconds since which something may have changed that the map does not show; infinite where even the agent did
        not know.
        """
        return self._since(layout.H_CURRENT)

    def silence(self) -> float:
        """Seconds since the agent's last sign of life, of which it gives one a second."""
        return self._since(layout.H_HEARTBEAT)

    @property
    def alive(self) -> bool:
        """Whether the agent seems to live."""
        return self.words[layout.H_STATE] == layout.LIVE and self.silence() < DEAD_AFTER

    def _since(self, word: int) -> float:
        words = self.words
        told = words[word]
        while (again := words[word]) != told:  # it was being written
            told = again
        if not told:
            return float("inf")
        if bytes(self._view[layout.H_BOOT * 8 : layout.H_BOOT * 8 + 16]) != _boot_id():
            # Written before the machine started: only the other clock still counts.
            before = max(0, words[layout.H_HEARTBEAT] - told)
            return max(0.0, (self._wall() - words[layout.H_WALL] + before) / 1e9)
        return max(0.0, self._clock() - told / 1e9)

    # -- services -----------------------------------------------------------------------------------------------------

    @property
    def count(self) -> int:
        """How many services are in the map."""
        return self.words[layout.H_SERVICES]

    def find(self, key: str) -> Found | None:
        """A service's block; None where it is not in the map. Raises `DamagedMap`."""
        hashed = layout.hash_of(key)
        wanted = layout.KEY_USED | hashed
        while True:
            table, slots = self._table()
            words = self.words
            first = (table + layout.TABLE_HEAD) // layout.WORD
            number = hashed & (slots - 1)
            for _ in range(slots):
                slot = first + number * (layout.SLOT // layout.WORD)
                used = words[slot + layout.S_KEY]
                if not used:
                    break
                if used == wanted:
                    found = self._read(slot)
                    if found is not None and found.payload.name == key:
                        return found
                number = (number + 1) & (slots - 1)
            if words[layout.H_TABLE] == table:
                return None

    def _table(self) -> tuple[int, int]:
        """Offset and slots of the table that counts."""
        for _ in range(TRIES):
            table = self.words[layout.H_TABLE]
            if table % layout.WORD == 0 and self._reach(table + layout.TABLE_HEAD):
                slots = self.words[table // layout.WORD]
                if slots and not slots & (slots - 1) and self._reach(table + layout.TABLE_HEAD + slots * layout.SLOT):
                    return table, slots
        raise self._damaged("it has no table")

    def _read(self, slot: int) -> Found | None:
        """The block that a slot names; None for none."""
        before, tries = (0, 0), 0
        for _ in range(ROUNDS):
            words = self.words
            generation, offset = words[slot], words[slot + layout.S_OFFSET]
            if not generation:
                return None
            if (generation, offset) != before:
                before, tries = (generation, offset), 0
            tries += 1
            if tries > TRIES:
                break
            found = self._block(words, slot, generation, offset)
            if found is not None:
                return found
        raise self._damaged(f"the block at {before[1]} is not what its checksum says")

    def _block(self, words: memoryview, slot: int, generation: int, offset: int) -> Found | None:
        """The block at an offset, or None where it is not whole, or of another generation."""
        if offset % layout.WORD or not self._reach(offset + layout.BLOCK_HEAD):
            return None
        at = offset // layout.WORD
        length = self.words[at + layout.B_LENGTH]
        end = offset + layout.BLOCK_HEAD + length
        if self.words[at + layout.B_GENERATION] != generation or not self._reach(end):
            return None
        content = bytes(self._view[offset + layout.WORD : end])
        if zlib.crc32(content) != self.words[at + layout.B_CHECKSUM]:
            return None
        # The checksum covers what was copied; only the copy counts from here on.
        if int.from_bytes(content[: layout.WORD], sys.byteorder) != generation:
            return None
        try:
            payload = _decode(memoryview(content)[layout.BLOCK_HEAD - layout.WORD :])
        except msgspec.MsgspecError as error:
            raise self._damaged(f"the block at {offset}: {error}") from None
        index = int.from_bytes(content[layout.WORD : 2 * layout.WORD], sys.byteorder)
        return Found(words, slot, generation, index, payload)

    def _reach(self, end: int) -> bool:
        """Whether the file has so many bytes; what it has grown by is mapped where that is needed."""
        if end <= len(self._view):
            return True
        if end > self.words[layout.H_SIZE] or self._file < 0:
            return False
        size = os.fstat(self._file).st_size
        if end > size:
            return False
        self._map(size)
        return True


def _boot_id() -> bytes:
    global _boot
    if _boot is None:
        try:
            text = Path("/proc/sys/kernel/random/boot_id").read_text()
            _boot = bytes.fromhex(text.strip().replace("-", ""))
        except (OSError, ValueError):
            _boot = bytes(16)
    return _boot


_boot: bytes | None = None
