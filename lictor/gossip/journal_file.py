"""The journal of peers on disk: appended to as things happen, rewritten when it has grown long.

The pool does without it. Where there is no room for a line the journal is behind from then on, and is written anew as
soon as there is; what stays meanwhile is older, and a line that was cut off is passed over.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from pathlib import Path

from lictor.gossip.peers import JournalKeeper, parse
from lictor.gossip.pool_events import Change, EventReceived, MemberChanged, PoolEvent, QueryReceived

_GREATEST = 64 << 20  # bytes of a journal that are read
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})

log = logging.getLogger("lictor.gossip")


class JournalFile:
    """An open journal. `found` is what it held when it was opened. Raises OSError when the file cannot be used; that
    there is no room for it is only logged.
    """

    def __init__(self, path: Path, rejoin_after_leave: bool) -> None:
        self._path = path
        text = ""
        with contextlib.suppress(FileNotFoundError), path.open(encoding="utf-8", errors="replace") as old:
            text = old.read(_GREATEST)
        self.found = parse(text, rejoin_after_leave)
        self._keeper = JournalKeeper(self.found)
        self._file = -1  # none while the journal is behind
        self._told = False
        try:
            self._rewrite()
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            self._fall_behind(error)

    def _rewrite(self) -> None:
        """Go on in a file with the shortest text; the old one stays until the new one is whole."""
        temporary = self._path.with_name(self._path.name + ".tmp")
        file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            _write(file, self._keeper.compacted())
            os.fsync(file)
            temporary.replace(self._path)
        except OSError:
            os.close(file)
            with contextlib.suppress(OSError):  # what stays is written over
                temporary.unlink()
            raise
        self.close()
        self._file = file
        if self._told:
            self._told = False
            log.warning("the journal of peers is written again: %s", self._path)

    def _fall_behind(self, error: OSError) -> None:
        self.close()
        if not self._told:
            self._told = True
            log.error(
                "the journal of peers cannot be written: %s: %s; free some space on its file system",
                self._path,
                error.strerror or error,
            )

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
        try:
            if self._file < 0 or self._keeper.too_long:
                self._rewrite()
            _write(self._file, text)
        except OSError as error:
            self._fall_behind(error)

    def close(self) -> None:
        """Closes the file."""
        if self._file >= 0:
            file, self._file = self._file, -1
            os.close(file)


def _write(file: int, text: str) -> None:
    """All of a text. Raises OSError; a part of it may have been written then."""
    left = text.encode()
    while left:
        left = left[os.write(file, left) :]
