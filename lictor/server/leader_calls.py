"""Calls that only the leader can answer, made from any server.

Where this server leads, the handler runs here; else the call goes to the leader, and again to the next one while there
is none. A call that may take effect twice is not sent again once it may have arrived.
"""

import asyncio
from collections.abc import Awaitable, Callable

from lictor.model.errors import NoLeader, NotLeader, Refused
from lictor.model.transport import UNREADABLE, Caller, Transport, Unreachable
from lictor.raft.consensus import Consensus

FIRST_PAUSE = 0.05  # seconds before a call is made again
LONGEST_PAUSE = 0.5
PREFIX = "leader."  # of the methods on the wire

Handler = Callable[[bytes], Awaitable[bytes]]


class LeaderCalls:
    """The calls, by name. `transport` is None for a server that is always alone; `hold` is for how many seconds a
    leader is waited for.
    """

    def __init__(self, consensus: Consensus, transport: Transport | None, hold: float) -> None:
        self._consensus = consensus
        self._transport = transport
        self._hold = hold
        self._handlers: dict[str, Handler] = {}
        self._repeatable: set[str] = set()
        self._changed: asyncio.Event = asyncio.Event()
        consensus.on_peers(self._peers_changed)
        consensus.on_leadership(lambda leading: self._peers_changed())

    def register(self, name: str, handler: Handler, *, repeatable: bool) -> None:
        """Have calls of a name handled while this server leads. `repeatable` are those that do no harm twice."""
        self._handlers[name] = handler
        if repeatable:
            self._repeatable.add(name)
        if self._transport is not None:

            async def answer(caller: Caller, body: bytes) -> bytes:
                return await self._handle(name, body)

            self._transport.on_call(PREFIX + name, answer)

    async def call(self, name: str, body: bytes, *, patience: float = 0.0) -> bytes:
        """Have the leader handle a call, which may take it `patience` seconds where that is longer than a leader is
        waited for. Returns its answer. Raises `NoLeader` where none is found in time, `Refused` where it is not known
        whether the call took effect, and what the handler raised.
        """
        loop = asyncio.get_running_loop()
        deadline, pause = loop.time() + self._hold, FIRST_PAUSE
        while True:
            changed = self._changed
            try:
                return await self._try(name, body, max(deadline - loop.time(), patience))
            except NotLeader:
                pass
            except Unreachable as error:
                if name not in self._repeatable:
                    raise Refused(f"rpc error making call: {error}") from None
            left = deadline - loop.time()
            if left <= 0:
                raise NoLeader
            try:
                async with asyncio.timeout(min(pause, left)):
                    await changed.wait()
            except TimeoutError:
                pause = min(2 * pause, LONGEST_PAUSE)

    async def _try(self, name: str, body: bytes, timeout: float) -> bytes:
        """Make a call once. Raises `NotLeader` where it came to somebody who does not lead."""
        if self._consensus.is_leader:
            return await self._handle(name, body)
        leader = self._consensus.leader
        if not leader or self._transport is None or timeout <= 0:
            raise NotLeader
        try:
            return await self._transport.call(leader, PREFIX + name, body, timeout)
        except Refused as error:
            raise Refused(f"rpc error making call: {error}") from None

    async def _handle(self, name: str, body: bytes) -> bytes:
        if not self._consensus.is_leader:
            raise NotLeader(self._consensus.leader)
        try:
            return await self._handlers[name](body)
        except NotLeader:
            if name in self._repeatable:
                raise
            raise Refused("leadership lost while committing log") from None
        except UNREADABLE as error:
            raise Refused(f"the call cannot be read: {error}") from None

    def _peers_changed(self) -> None:
        """There may be another leader: whoever waits tries again."""
        self._changed.set()
        self._changed = asyncio.Event()
