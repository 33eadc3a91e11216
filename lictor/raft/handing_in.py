"""Handing in proposals: a follower sends its own to the leader; a leader puts what has come into its log, all of one
turn as one entry. See `proposing` for what waits meanwhile.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from lictor.model.errors import LictorError, NoLeader, NotLeader
from lictor.model.seldom import Seldom
from lictor.model.transport import Caller, Transport
from lictor.raft import envelope
from lictor.raft.core.node import Node, ProposalDropped
from lictor.raft.once import Proposal
from lictor.raft.proposing import Busy, LeaderQueue, Origin
from lictor.raft.settings import RaftSettings

AHEAD = 2  # own entries that are not committed yet; what comes meanwhile waits, and shares the next entry
PROPOSED_BYTES = 4 * 1024 * 1024  # of proposals in one message to the leader
HARD_LIMIT = 60.0  # seconds after which a proposal is given up, whatever the leader says
WAITING = 65536  # own proposals at once

log = logging.getLogger("lictor.server.raft")


class Host(Protocol):
    """The replica, as far as it is needed here."""

    settings: RaftSettings

    @property
    def number(self) -> int: ...
    @property
    def node(self) -> Node: ...
    @property
    def running(self) -> bool: ...
    @property
    def full(self) -> bool: ...
    @property
    def is_leader(self) -> bool: ...
    @property
    def leader(self) -> str: ...
    def address(self, number: int) -> str: ...
    def touch(self) -> None: ...


class HandingIn:
    """What a replica does for proposals. `origin` names this run of this server; `awaited` is told the index of an
    entry that other servers wait for.
    """

    def __init__(self, host: Host, transport: Transport, origin: int, awaited: Callable[[int], None]) -> None:
        self._host = host
        self._transport = transport
        self._awaited = awaited
        self._origin = Origin(origin)
        self._queue = LeaderQueue(host.settings.queued_bytes)
        self._seldom = Seldom(log, lambda: asyncio.get_running_loop().time())
        self._unsent = False  # whether proposals could not leave
        self._bound: set[int] = set()  # own proposals that end with this leadership

    def serve(self) -> None:
        """Take those of the others."""
        self._transport.on_message(envelope.PROPOSE, self._on_proposed)

    # -- proposing

    async def propose(self, proposal: bytes, timeout: float) -> Any:
        """Have a proposal applied once; see `Consensus`."""
        if not self._host.running:
            raise NoLeader
        if len(self._origin) >= WAITING:
            raise Busy
        number, done = self._origin.add(proposal, asyncio.get_running_loop().time(), timeout)
        self._host.touch()
        try:
            return await done
        finally:
            self._origin.drop(number)

    async def propose_leading(self, proposal: bytes) -> Any:
        """Have a proposal applied in this leadership, or not at all; see `Consensus`."""
        if not self._host.is_leader:
            raise NotLeader(self._host.leader)
        number, done = self._origin.add(proposal, asyncio.get_running_loop().time(), HARD_LIMIT)
        self._bound.add(number)
        self._host.touch()
        try:
            return await done
        finally:
            self._bound.discard(number)
            self._origin.drop(number)

    # -- on their way

    def hand_in(self) -> None:
        """Send own proposals to the leader; as the leader, put what has come into the log."""
        node, now = self._host.node, asyncio.get_running_loop().time()
        if self._origin.has_unsent and self._has_leader():
            proposals = self._origin.take_unsent(now)
            if node.is_leader:
                self._queue.add(proposals)
            else:
                self._send(node.leader, proposals)
        while self._queue and node.is_leader and not self._host.full and not self._is_ahead():
            proposals = self._queue.take(self._host.settings.entry_bytes)
            try:
                node.propose(envelope.encode(proposals))
            except ProposalDropped:
                self._queue.put_back(proposals)
                break
            if any(proposal.origin != self._origin.origin for proposal in proposals):
                self._awaited(node.last_index)

    def _has_leader(self) -> bool:
        return self._host.running and self._host.node.leader != 0 and not self._host.full

    def _is_ahead(self) -> bool:
        """Whether enough is on its way."""
        return self._host.node.last_index - self._host.node.committed >= AHEAD

    def _send(self, leader: int, proposals: Sequence[Proposal]) -> None:
        address, start, size = self._host.address(leader), 0, 0
        for end, proposal in enumerate(proposals):
            size += len(proposal.body)
            if size >= PROPOSED_BYTES or end == len(proposals) - 1:
                body = envelope.encode(envelope.Proposed(leader, tuple(proposals[start : end + 1])))
                if not self._transport.send(address, envelope.PROPOSE, body):
                    self._unsent = True
                start, size = end + 1, 0

    def _on_proposed(self, caller: Caller, body: bytes) -> None:
        try:
            proposed = envelope.decode_proposed(body)
        except envelope.UNREADABLE as error:
            self._seldom.warning("unreadable", "proposals cannot be read: from=%s error=%s", caller.address, error)
            return
        host = self._host
        if host.running and proposed.to == host.number and host.node.is_leader:
            self._queue.add(proposed.proposals)
            host.touch()

    def tick(self, now: float, leaderless_since: float) -> None:
        """Give up what waits for a leader that does not come, or takes too long; send again what got no answer."""
        if len(self._origin):
            leaderless = None if self._has_leader() else leaderless_since
            self._origin.fail(self._origin.hopeless(now, leaderless, HARD_LIMIT), NoLeader())
        # A leader has passed over its own, too, where too much was waiting.
        self._origin.send_again(float("inf") if self._unsent else now - self._host.settings.election_timeout)
        self._unsent = False

    # -- what becomes of them

    def applied(self, proposal: Proposal) -> None:
        """A proposal came out of the log."""
        self._queue.applied(proposal)

    def result(self, proposal: Proposal, result: object) -> None:
        """What the machine returned for it."""
        if proposal.origin == self._origin.origin:
            self._origin.applied(proposal.number, result)

    def led_by(self, address: str) -> None:
        """There is another leader or term: whoever is at an address, or nobody."""
        self._queue.clear()
        self._origin.fail(self._bound, NotLeader(address))
        self._origin.send_again()

    def waiting(self) -> list[int]:
        """The numbers of own proposals whose result is not known."""
        return self._origin.numbers()

    def lose(self, numbers: Sequence[int], has: Callable[[int, int], bool], error: LictorError) -> None:
        """The results of those of these that `has` says were applied will never be known here."""
        self._origin.fail([number for number in numbers if has(self._origin.origin, number)], error)

    def close(self) -> None:
        """Nothing will be applied any more."""
        self._origin.fail(self._origin.numbers(), NoLeader())
