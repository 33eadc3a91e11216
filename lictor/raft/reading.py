"""Reads that must be confirmed: a server asks the leader, and a leader its quorum, from which index on a state is new
enough. See `confirming` for how questions share their answers.
"""

import asyncio
from functools import partial
from typing import Protocol

from lictor.model.errors import LictorError, NoLeader, NotLeader, Refused
from lictor.model.transport import Caller, Transport
from lictor.raft import envelope
from lictor.raft.applied import AppliedIndex
from lictor.raft.confirming import LeaderReads, Rounds
from lictor.raft.core.node import Node
from lictor.raft.settings import RaftSettings


class Host(Protocol):
    """The replica, as far as it is needed here."""

    settings: RaftSettings
    applied_index: AppliedIndex

    @property
    def number(self) -> int: ...
    @property
    def node(self) -> Node: ...
    @property
    def leader(self) -> str: ...
    @property
    def running(self) -> bool: ...
    def leased(self) -> bool: ...
    def address(self, number: int) -> str: ...
    def touch(self) -> None: ...
    def hasten(self) -> None: ...


class Reading:
    """What a replica does for reads."""

    def __init__(self, host: Host, transport: Transport) -> None:
        self._host = host
        self._transport = transport
        self._quorum = LeaderReads(host.settings.election_timeout / 2)
        self._rounds = {
            quorum: Rounds(partial(self._ask, quorum), host.applied_index, host.settings.tick)
            for quorum in (False, True)
        }

    def serve(self) -> None:
        """Answer the others."""
        self._transport.on_call(envelope.INDEX, self._on_asked)

    async def close(self) -> None:
        """Stop; who waits is not told."""
        for rounds in self._rounds.values():
            await rounds.close()

    async def confirm(self, quorum: bool, timeout: float) -> None:
        """Return once the own state is new enough; see `Consensus.confirm`."""
        try:
            async with asyncio.timeout(timeout):
                await self._rounds[quorum].join()
        except TimeoutError:
            raise NoLeader from None

    # -- for the core

    def begin(self) -> None:
        """As the leader, have the quorum asked what is to be asked."""
        node = self._host.node
        context = self._quorum.begin(asyncio.get_running_loop().time()) if node.is_leader else None
        if context is not None:
            node.read_index(context)

    def confirmed(self, context: bytes, index: int) -> None:
        """The quorum has answered."""
        self._quorum.confirmed(context, index)

    def lead_no_more(self, error: LictorError) -> None:
        """The quorum will not answer."""
        self._quorum.fail(error)

    # -- asking

    async def _ask(self, quorum: bool) -> int:
        host = self._host
        if host.node.is_leader:
            return await self._leader_index(quorum)
        leader = host.node.leader
        if not leader:
            raise NoLeader
        asked = envelope.encode(envelope.IndexAsked(leader, quorum))
        answer = await self._transport.call(host.address(leader), envelope.INDEX, asked, host.settings.election_timeout)
        try:
            return envelope.decode_index(answer)
        except envelope.UNREADABLE as error:
            raise LictorError(f"the leader's answer cannot be read: {error}") from None

    async def _leader_index(self, quorum: bool) -> int:
        host = self._host
        if not quorum and host.leased():
            return host.node.committed
        done = self._quorum.join()
        host.touch()
        try:
            async with asyncio.timeout(host.settings.election_timeout):
                return await done
        except TimeoutError:
            raise NoLeader from None

    async def _on_asked(self, caller: Caller, body: bytes) -> bytes:
        host = self._host
        try:
            asked = envelope.decode_asked(body)
        except envelope.UNREADABLE as error:
            raise Refused(f"the call cannot be read: {error}") from None
        if not host.running or asked.to != host.number or not host.node.is_leader:
            raise NotLeader(host.leader)
        index = await self._leader_index(asked.quorum)
        host.hasten()
        return envelope.encode(index)
