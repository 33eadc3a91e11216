"""A duty of the leader of a datacenter that is not the primary one: keeps a copy of the primary's config entries, and
so of its intentions.

The primary is asked for what has changed since the position of the copy, a bounded part at a time; each part is written
with the position that it leads to, so the next leader goes on there. While the primary is away the copy stays.
"""

import asyncio
import logging
from collections.abc import Mapping

import msgspec

from lictor.model.command import EntriesCopy
from lictor.model.errors import LictorError, NoLeader, NotLeader, Refused
from lictor.model.transport import UNREADABLE
from lictor.server import for_secondaries as primary_calls
from lictor.server.for_secondaries import AskEntries
from lictor.server.from_primary import PACE, Primary, Trying
from lictor.server.server import Server
from lictor.store.reads.config_changes import Changed, Position
from lictor.store.settled import COPIED
from lictor.store.store import ConfigRow, config_key

log = logging.getLogger("lictor.server.primary")


class EntriesFromPrimary:
    """See above. It asks `primary`."""

    def __init__(self, server: Server, primary: Primary) -> None:
        self._server = server
        self.primary = primary
        self._position: Position | None = None  # while this server leads
        self.failure = ""  # why the last part could not be had
        self.copied = 0  # entries that were put or deleted here

    @property
    def position(self) -> Position:
        """How far the copy is; on a server that does not lead, at least."""
        return self._position if self._position is not None else self._written()

    def _written(self) -> Position:
        row = self._server.store.settings.get(COPIED)
        try:
            return msgspec.convert(row.body, Position) if row is not None else Position()
        except msgspec.ValidationError:
            return Position()

    @property
    def complete(self) -> bool:
        """Whether the copy has all that the primary had at some time."""
        position = self.position
        return bool(position.cluster) and position.place is None

    async def run(self) -> None:
        """The duty. Raises `NotLeader`."""
        trying = Trying()
        store = self._server.store
        position, base = self._written(), store.base
        try:
            while True:
                self._position = position
                try:
                    found = await self._ask(position)
                    if store.base != base:  # a restored state has another copy, and says how far that is
                        position, base = self._written(), store.base
                        continue
                    await self._take(position, found)
                except (NoLeader, NotLeader):
                    raise
                except LictorError as error:
                    self.failure, pause = self.primary.words(error), trying.failed(error)
                    if trying.telling:
                        log.warning(
                            "the config entries of the primary datacenter are not followed; those that are known hold:"
                            " datacenter=%s error=%s",
                            self.primary.datacenter,
                            self.failure,
                        )
                    await asyncio.sleep(pause)
                else:
                    if trying.succeeded():
                        log.info("the config entries of the primary datacenter are followed again")
                    self.failure = ""
                    position = found.position
                    if not found.more:
                        await asyncio.sleep(PACE)
        finally:
            self._position = None
            self.failure = ""

    async def _ask(self, position: Position) -> Changed:
        body = primary_calls.encode(AskEntries(position, self.primary.token()))
        answer = await self.primary.call(primary_calls.ENTRIES, body, primary_calls.WAIT + primary_calls.LAG)
        try:
            return primary_calls.decode_changed(answer)
        except UNREADABLE as error:
            raise Refused(f"the primary's config entries cannot be read: {error}") from None

    async def _take(self, position: Position, found: Changed) -> None:
        """Write a part. Where it changes nothing, only another place is worth a write."""
        command = to_copy(self._server.store.config.rows, found)
        if not command.put and not command.delete and found.position.place == position.place:
            return
        if found.after is not None and command.delete:
            log.warning(
                "config entries that the primary datacenter does not have are deleted: datacenter=%s entries=%d",
                self.primary.datacenter,
                len(command.delete),
            )
        [done] = await self._server.apply_leading([command])
        if isinstance(done, LictorError):
            raise done
        self.copied += len(command.put) + len(command.delete)


def to_copy(entries: Mapping[tuple[str, str], ConfigRow], found: Changed) -> EntriesCopy:
    """What makes a part of the primary's changes of a copy, whose `entries` these are; what is the same is left out."""
    delete = set(found.delete)
    if found.after is not None:
        last, kept = found.through, {config_key(kind, name) for kind, name, _ in found.put}
        delete |= {key for key in entries if key > found.after and (last is None or key <= last)} - kept
    put = []
    for kind, name, body in found.put:
        row = entries.get(config_key(kind, name))
        if row is None or row.body != body:
            put.append((kind, name, body))
    gone = tuple(sorted(key for key in delete if key in entries))
    return EntriesCopy(tuple(put), gone, msgspec.to_builtins(found.position))
