"""The journal of peers on disk: appended to as things happen, rewritten when it has grown long."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TextIO

from lictor.gossip.peers import JournalKeeper, parse
from lictor.gossip.pool_events import Change, EventReceived, MemberChanged, PoolEvent, QueryReceived

_GREATEST = 64 << 20  # bytes of a journal that are read


class JournalFile:
    """An open journal. `found` is what it held when it was opened. Raises OSError when the file cannot be used."""

    def __init__(self, path: Path, rejoin_after_leave: bool) -> None:
        self._path = path
        text = ""
        with contextlib.suppress(FileNotFoundError), path.open(encoding="utf-8", errors="replace") as old:
            text = old.read(_GREATEST)
        self.found = parse(text, rejoin_after_leave)
        self._keeper = JournalKeeper(self.found)
        self._file: TextIO = self._rewritten()

    def _rewritten(self) -> TextIO:
        """The file with the shortest text; the old one stays until the new one is whole."""
        temporary = self._path.with_name(self._path.name + ".tmp")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        file = os.fdopen(descriptor, "w", encoding="utf-8")
        file.write(self._keeper.compacted())
        file.flush()
        os.fsync(descriptor)
        temporary.replace(self._path)
        return file

    def record(self, event: PoolEvent, clock: int) -> None:
        """Writes what is worth knowing in a later life; `clock` is the pool's Lamport time."""
        match event:
            case MemberChanged(Change.JOIN, member):
                line = self._keeper.alive(member.name, str(member.address))
            case MemberChanged(Change.LEAVE | Change.FAILED, member):
                line = self._keeper.gone(member.name)
            case EventReceived(user_event):
                line = self._keeper.clock("event-clock", user_event.l_time)
            case QueryReceived(query):
                line = self._keeper.clock("query-clock", query.l_time)
            case _:
                line = ""
        self._append(line + self._keeper.clock("clock", clock - 1))

    def leave(self) -> None:
        """This node leaves on purpose: it comes back only if it is told to."""
        self._append(self._keeper.leave())

    def _append(self, text: str) -> None:
        if not text:
            return
        self._file.write(text)
        self._file.flush()
        if self._keeper.too_long:
            self._file.close()
            self._file = self._rewritten()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
