"""A server: the full store, fed by consensus, and the way to write to it.

All commands that arrive in one turn of the loop become one proposal; each caller gets its own command's result once it
is committed and applied here. What an entry of the log changed is told right after, once.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import msgspec

from lictor.model.command import Batch, Command
from lictor.model.errors import InvalidRequest, LictorError, TooLarge
from lictor.model.transport import UNREADABLE
from lictor.raft.consensus import Consensus, Image, Machine
from lictor.server.gathering import Gathering
from lictor.server.stamps import Stamps
from lictor.store import commands, snapshot
from lictor.store.store import Store

MAX_BATCH = 512  # commands in one log entry
BATCH_BYTES = 8 * 1024 * 1024  # of the commands in one entry, unless a single one has more
MAX_COMMAND = 32 * 1024 * 1024  # bytes; longer ones would hold up what is between servers
HOLD = 7.0  # seconds in which a leader must be found


_Waiting = tuple[bytes, Callable[[Any], None]]  # a command, encoded, and whom to tell its result
log = logging.getLogger("lictor.server")


class StoreMachine:
    """The store as consensus sees it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._decoder = msgspec.msgpack.Decoder(Batch)

    def apply(self, proposals: Sequence[bytes]) -> list[Any]:
        """Apply batches, then tell their dependents. Returns, for each batch, its commands' results or errors, or one
        error for all of it.
        """
        results = [self._apply(proposal) for proposal in proposals]
        self._store.flush()
        return results

    def _apply(self, proposal: bytes) -> list[Any] | LictorError:
        try:
            batch = self._decoder.decode(proposal)
        except UNREADABLE as error:  # it is in the log: it must fail on every server alike, and end none
            return LictorError(f"a proposal cannot be read: {error}")
        return commands.apply_batch(self._store, batch)

    def image(self) -> Image:
        """The store's rows as they are now."""
        return snapshot.Image(self._store)

    def check(self, pieces: Iterator[bytes]) -> None:
        """See that a snapshot is whole and readable. Raises `InvalidRequest`."""
        snapshot.check_pieces(pieces)

    async def load(self, pieces: Iterator[bytes]) -> None:
        """Become the state of a snapshot, all at once at the end."""
        await snapshot.load_pieces(self._store, pieces)


class Server:
    """One server of the cluster. `agreement` makes its consensus, given the machine that this server is.

    `clock` gives seconds since 1970; it stamps what this server proposes. `hold` is how long a write waits for a
    leader, in seconds.
    """

    def __init__(
        self,
        store: Store,
        agreement: Callable[[Machine], Consensus],
        *,
        clock: Callable[[], float] = time.time,
        hold: float = HOLD,
    ) -> None:
        self.store = store
        self.clock = clock
        self._stamps = Stamps(clock)
        self.hold = hold
        self.consensus = agreement(StoreMachine(store))
        self._encoder = msgspec.msgpack.Encoder()
        self._gathering = Gathering[_Waiting](self._propose)
        self._proposals: set[asyncio.Task[None]] = set()
        self.applied = 0

    async def start(self) -> None:
        """Load the state from disk and begin. Raises `DamagedLog`, `DiskFull`, `DiskFailed`."""
        await self.consensus.start()

    async def close(self) -> None:
        """Finish what was accepted, where there is a leader to finish it, and stop."""
        self._gathering.go()
        if self._proposals and self.consensus.leader:
            await asyncio.wait(self._proposals, timeout=self.hold)
        await self.consensus.close()
        await asyncio.gather(*self._proposals, return_exceptions=True)

    async def confirm(self, *, quorum: bool) -> None:
        """Return once a read of the store is linearizable: it holds all that was acknowledged before. With `quorum`, a
        majority confirms the leader, else its lease is enough. Raises `NoLeader`.
        """
        await self.consensus.confirm(quorum=quorum, timeout=self.hold)

    async def apply(self, command: Command) -> Any:
        """Replicate and apply a command. Returns its result; raises what it failed with, or `NoLeader`.

        Raises `InvalidRequest` or `TooLarge` for a command that no log entry can hold.
        """
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.submit(command, partial(_settle, done))
        return await done

    def submit(self, command: Command, done: Callable[[Any], None]) -> None:
        """Do the same, and tell `done` the result, or the `LictorError` that it failed with; never within this call.

        Raises `InvalidRequest` or `TooLarge` for a command that no log entry can hold.
        """
        self._gathering.add((self._encoded(command), done))

    async def apply_leading(self, commands: Sequence[Command]) -> list[Any]:
        """Apply commands of the leader's own as one proposal, in this server's present leadership or not at all: what
        it decided is worth nothing once another leads. Returns each command's result, or the error it failed with.
        Raises `NotLeader`.
        """
        batch = (self._stamp(), [msgspec.Raw(self._encoded(command)) for command in commands])
        results: list[Any] = await self.consensus.propose_leading(self._encoder.encode(batch))
        return results

    def _stamp(self) -> float:
        return self._stamps.at(asyncio.get_running_loop().time())

    def _encoded(self, command: Command) -> bytes:
        """A command's bytes, made alone, so that one which cannot be encoded takes no others with it."""
        try:
            encoded = self._encoder.encode(command)
        except (OverflowError, TypeError, ValueError, RecursionError) as error:
            raise InvalidRequest(f"the request holds what cannot be stored: {error}") from None
        if len(encoded) > MAX_COMMAND:
            raise TooLarge(f"the request has {len(encoded)} bytes; at most {MAX_COMMAND} can be stored at once")
        return encoded

    def _propose(self, waiting: list[_Waiting]) -> None:
        task = asyncio.get_running_loop().create_task(self._commit_all(waiting))
        self._proposals.add(task)
        task.add_done_callback(self._proposals.discard)

    async def _commit_all(self, waiting: list[_Waiting]) -> None:
        parts = []
        start = size = 0
        for end, (encoded, _) in enumerate(waiting):
            if end > start and (end - start == MAX_BATCH or size + len(encoded) > BATCH_BYTES):
                parts.append(waiting[start:end])
                start, size = end, 0
            size += len(encoded)
        parts.append(waiting[start:])
        if len(parts) == 1:
            await self._commit(waiting)
        else:
            await asyncio.gather(*(self._commit(part) for part in parts))
        self._gathering.ended()

    async def _commit(self, waiting: list[_Waiting]) -> None:
        # The shape of a `Batch`, whose commands are encoded already.
        batch = (self._stamp(), [msgspec.Raw(encoded) for encoded, _ in waiting])
        try:
            found = await self.consensus.propose(self._encoder.encode(batch), self.hold)
            results = [found] * len(waiting) if isinstance(found, LictorError) else found
        except Exception as error:
            results = [error] * len(waiting)
        self.applied += len(waiting)
        for (_, done), result in zip(waiting, results, strict=True):
            known = not isinstance(result, Exception) or isinstance(result, LictorError)
            try:
                done(result if known else LictorError(str(result)))
            except Exception:
                log.exception("the answer to a write has met a mistake of this program; please report it")


def _settle(done: asyncio.Future[Any], result: object) -> None:
    if done.done():
        return
    if isinstance(result, LictorError):
        done.set_exception(result)
    else:
        done.set_result(result)
