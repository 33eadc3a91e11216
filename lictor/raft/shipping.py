"""Snapshots on their way between servers: a leader sends the bytes of its latest one, piece by piece, each taken before
the next; a follower keeps what it got, over a restart too, and says from where on it wants more.

A follower takes one at a time, from the leader that it follows, if it has room for it, and lets it take the place of
its own state only when all of it was read and found whole.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import msgspec

from lictor.model.errors import LictorError, Refused
from lictor.model.transport import Caller, Transport, Unreachable
from lictor.raft import envelope
from lictor.raft.core.message import Message, MessageKind, Snapshot
from lictor.raft.core.node import MessageRefused, Node
from lictor.raft.roster import Roster
from lictor.raft.settings import RaftSettings, World
from lictor.raft.wal import DamagedLog, DiskFailed, DiskFull, Incoming, Mangled, Offer, Outgoing, SnapshotStore

PIECE_BYTES = 512 * 1024
PATIENCE = 30.0  # seconds for the answer to one piece
CHECK_PATIENCE = 600.0  # seconds in which all of it is checked
LOG_ROOM = 16 * 1024 * 1024  # bytes of the disk that a snapshot leaves

log = logging.getLogger("lictor.server.raft")
T = TypeVar("T")


class Shipping:
    """Both sides. `address` gives where a server is; `ended` is told, for each snapshot sent, whether it arrived;
    `content` raises `Mangled` for pieces that are no state; `step` gives an arrived one to the core, and may raise
    `MessageRefused`.
    """

    def __init__(
        self,
        number: int,
        settings: RaftSettings,
        world: World,
        store: SnapshotStore,
        transport: Transport,
        node: Callable[[], Node],
        address: Callable[[int], str],
        content: Callable[[Iterator[bytes]], None],
        ended: Callable[[int, bool], None],
        step: Callable[[Message], None],
    ) -> None:
        self._number = number
        self._settings = settings
        self._world = world
        self._store = store
        self._node = node
        self._content = content
        self._transport = transport
        self._address = address
        self._ended = ended
        self._step = step
        self._sending: dict[int, asyncio.Task[None]] = {}
        self._incoming: Incoming | None = None
        self._offered: envelope.Offered | None = None  # what is being received, or needs no bytes
        self._lock = asyncio.Lock()
        transport.on_call(envelope.OFFER, self._on_offer)
        transport.on_call(envelope.DATA, self._on_piece)
        transport.on_call(envelope.DONE, self._on_done)

    def send(self, message: Message) -> None:
        """Send the latest snapshot, of which the core's message tells, unless one is on its way there already."""
        if message.to not in self._sending:
            task = asyncio.get_running_loop().create_task(self._send(message))
            self._sending[message.to] = task
            task.add_done_callback(lambda _: self._sending.pop(message.to, None))

    async def close(self) -> None:
        """Stop; what arrived is kept."""
        for task in list(self._sending.values()):
            task.cancel()
        await asyncio.gather(*self._sending.values(), return_exceptions=True)
        async with self._lock:  # nothing is being written then
            if self._incoming is not None:
                self._incoming.pause()
                self._incoming = None

    # -- the leader's side

    async def _send(self, message: Message) -> None:
        peer, arrived = message.to, False
        try:
            outgoing = await self._world.snapshot_work(self._store.send)
            if outgoing is not None:
                try:
                    await self._ship(message, outgoing)
                    arrived = True
                finally:
                    outgoing.close()
        except (Unreachable, LictorError, DamagedLog, DiskFull) as error:
            log.warning("sending a snapshot failed: to=%s error=%s", self._address(peer), error)
        except DiskFailed as error:
            self._world.fatal(error)
        finally:
            self._ended(peer, arrived)

    async def _ship(self, message: Message, outgoing: Outgoing) -> None:
        address, offer = self._address(message.to), outgoing.offer
        log.info("sending a snapshot: to=%s index=%d bytes=%d", address, offer.snapshot.index, offer.size)
        offered = envelope.Offered(message.to, self._number, message.term, offer)
        at = await self._ask(address, envelope.OFFER, envelope.encode(offered), PATIENCE)
        while at < offer.size:
            data = await self._world.snapshot_work(outgoing.read, at, PIECE_BYTES)
            piece = envelope.Piece(message.to, offer.id, at, data)
            at = await self._ask(address, envelope.DATA, envelope.encode(piece), PATIENCE)
        complete = envelope.Complete(
            message.to, offer.id, msgspec.structs.replace(message, snapshot=offer.snapshot, responses=())
        )
        await self._ask(address, envelope.DONE, envelope.encode(complete), CHECK_PATIENCE)

    async def _ask(self, address: str, method: str, body: bytes, patience: float) -> int:
        answer = await self._transport.call(address, method, body, patience)
        try:
            return envelope.decode_index(answer)
        except envelope.UNREADABLE as error:
            raise Unreachable(f"{address} answered {method} with what makes no sense: {error}") from None

    # -- the follower's side

    async def _on_offer(self, caller: Caller, body: bytes) -> bytes:
        offered = _decoded(envelope.decode_offered, body)
        self._check(offered.to)
        async with self._lock:
            self._check_leader(offered.sender, offered.term)
            self._check_offer(offered.offer, offered.term)
            if self._has(offered.offer.snapshot):
                # The leader does not know how far this server is: it learns it from the answer to its message.
                await self._let_go()
                self._offered = offered
                return envelope.encode(offered.offer.size)
            if self._incoming is None or self._incoming.offer != offered.offer:
                await self._let_go()
                self._incoming = await self._work(self._begin, offered.offer)
            self._offered = offered
            return envelope.encode(self._incoming.offset)

    def _begin(self, offer: Offer) -> Incoming:
        incoming = self._store.receive(offer)
        room, needed = self._store.room(), offer.size - incoming.offset + LOG_ROOM
        if room < needed:
            incoming.drop()
            raise DiskFull(f"{needed} bytes are needed, {LOG_ROOM} of them for the log, and {room} are free")
        return incoming

    async def _let_go(self) -> None:
        """Another snapshot is offered than the one that is being received."""
        self._offered = None
        if self._incoming is not None:
            self._incoming.pause()
            self._incoming = None

    def _check_leader(self, sender: int, term: int) -> None:
        """Raise `Refused` unless a server is the leader that this one follows."""
        node = self._node()
        if node.is_leader or term != node.term or sender != node.leader:
            raise Refused("this server takes snapshots only from the leader that it follows")

    def _check_offer(self, offer: Offer, term: int) -> None:
        """Raise `Refused` for what no leader offers."""
        snapshot, most = offer.snapshot, self._settings.snapshot_most
        if not 0 < offer.size <= most:
            raise Refused(f"a snapshot of {offer.size} bytes is not taken: at most {most} are")
        if not (0 < snapshot.term <= term and 0 < snapshot.index <= self._node().last_index + envelope.INDEX_LEAP):
            raise Refused(f"there can be no snapshot of entry {snapshot.index} of term {snapshot.term}")
        if not snapshot.membership.quorum.incoming or len(snapshot.data) > envelope.ROSTER_MOST:
            raise Refused("a snapshot that does not tell who is in the cluster")
        try:
            snapshot.membership.check()
            Roster.decode(snapshot.data)
        except envelope.UNREADABLE as error:
            raise Refused(f"the configuration in the snapshot makes no sense: {error}") from None

    def _has(self, snapshot: Snapshot) -> bool:
        """Whether this server holds all that a snapshot stands for."""
        node = self._node()
        return snapshot.index <= node.committed or node.entry_term(snapshot.index) == snapshot.term

    async def _on_piece(self, caller: Caller, body: bytes) -> bytes:
        piece = _decoded(envelope.decode_piece, body)
        async with self._lock:
            incoming = self._wanted(piece.to, piece.id)
            await self._work(incoming.write, piece.offset, piece.data)
            return envelope.encode(incoming.offset)

    async def _on_done(self, caller: Caller, body: bytes) -> bytes:
        complete = _decoded(envelope.decode_complete, body)
        async with self._lock:
            self._check(complete.to)
            offered, message = self._offered, complete.message
            if offered is None or offered.offer.id != complete.id:
                raise Refused("this is not the snapshot that was offered: offer it again")
            self._check_leader(offered.sender, offered.term)
            plain = Message(
                MessageKind.SNAPSHOT, self._number, offered.sender, offered.term, snapshot=offered.offer.snapshot
            )
            if message != plain:
                raise Refused("the message is not about the snapshot that came before it")
            incoming, self._incoming, self._offered = self._incoming, None, None
            if incoming is not None:
                snapshot = await self._work(incoming.finish, self._content)
                log.info("received a snapshot: from=%s index=%d", caller.address, snapshot.index)
            elif not self._has(offered.offer.snapshot):
                raise Refused("the snapshot is needed after all: offer it again")
        try:
            self._step(message)
        except MessageRefused as error:
            raise Refused(str(error)) from None
        return envelope.encode(0)

    def _check(self, to: int) -> None:
        if to != self._number:
            raise Refused("this is meant for another server, which was here before")

    def _wanted(self, to: int, identity: int) -> Incoming:
        self._check(to)
        if self._incoming is None or self._incoming.offer.id != identity:
            raise Refused("this is not the snapshot that is being received: offer it again")
        return self._incoming

    async def _work(self, function: Callable[..., object], *args: object) -> Any:
        try:
            return await self._world.snapshot_work(function, *args)
        except (Mangled, ValueError) as error:
            self._incoming = None
            raise Refused(str(error)) from None
        except DiskFull as error:
            raise Refused(f"no room for the snapshot: {error}") from None
        except DiskFailed as error:
            self._world.fatal(error)
            raise Refused("the disk failed") from None


def _decoded(decode: Callable[[bytes], T], body: bytes) -> T:
    try:
        return decode(body)
    except envelope.UNREADABLE as error:
        raise Refused(f"the call cannot be read: {error}") from None
