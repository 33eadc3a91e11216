"""The core's messages between servers: those of one turn in one envelope, which also carries what leases rest on."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from lictor.model.transport import Caller, Transport
from lictor.raft import envelope
from lictor.raft.consensus import ServerRecord
from lictor.raft.core.election import TRANSFER
from lictor.raft.core.message import Message, MessageKind
from lictor.raft.core.node import Node
from lictor.raft.lease import Hold, Lease
from lictor.raft.roster import Roster
from lictor.raft.settings import RaftSettings, World

STRANGERS = 64  # servers whose address is kept before the configuration names them
VOTES = frozenset({MessageKind.VOTE, MessageKind.PRE_VOTE})

log = logging.getLogger("lictor.server.raft")


class Host(Protocol):
    """The replica, as far as it is needed here."""

    settings: RaftSettings

    @property
    def number(self) -> int: ...
    @property
    def node(self) -> Node: ...
    @property
    def roster(self) -> Roster: ...
    @property
    def hears(self) -> bool: ...
    def step(self, message: Message) -> None: ...
    def touch(self) -> None: ...


class Post:
    """What a replica does for messages. `record` is this server as it should be known; `handed_over` is told that
    another server may lead from now on.
    """

    def __init__(
        self,
        host: Host,
        transport: Transport,
        record: Callable[[], ServerRecord],
        world: World,
        handed_over: Callable[[], None],
    ) -> None:
        self._host = host
        self._transport = transport
        self._record = record
        self._clock = world.lease_clock
        self._handed_over = handed_over
        self._hold = Hold(host.settings.election_timeout)
        self._addresses: dict[int, str] = {}  # of servers that have spoken
        self.lease = Lease(0, host.settings.election_timeout)
        self.heard_at = float("-inf")  # loop time, of the leader

    def serve(self, *, restarted: bool) -> None:
        """Take messages; after a restart this server may have heard a leader just before."""
        self.lease = Lease(self._host.number, self._host.settings.election_timeout)
        self._transport.on_message(envelope.MESSAGES, self._on_messages)
        if restarted:
            self._hold.restarted(self._clock())

    # -- where servers are

    def address(self, number: int) -> str:
        """Where a server is: where it last spoke from, or as the configuration has it."""
        if number == self._host.number:
            return self._record().address
        known = self._addresses.get(number)
        if known is not None:
            return known
        record = self._host.roster.records.get(number)
        return record.address if record is not None else ""

    def locate(self, number: int, address: str) -> None:
        """A server of the configuration was met at an address."""
        if number in self._host.roster.records and number != self._host.number:
            self._addresses[number] = address

    def forget(self, number: int) -> None:
        """The configuration says where a server is."""
        self._addresses.pop(number, None)

    # -- messages

    def _on_messages(self, caller: Caller, body: bytes) -> None:
        try:
            received = envelope.decode_envelope(body)
        except envelope.UNREADABLE as error:
            log.warning("messages cannot be read: from=%s error=%s", caller.address, error)
            return
        host = self._host
        if not host.hears or received.to != host.number or received.sender == host.number:
            return
        sender = received.sender
        if sender in host.roster.records or len(self._addresses) < STRANGERS:
            self._addresses[sender] = received.address
        node, now, leads = host.node, self._clock(), False
        for message in received.messages:
            if message.sender != sender or message.to != host.number:
                continue
            if not envelope.is_plausible(message, node.term):
                log.warning("a message was refused: from=%s kind=%s", caller.address, message.kind.name)
                continue
            if message.kind in VOTES and message.context != TRANSFER and self._hold.holds(now):
                continue
            host.step(message)
            leads = leads or (message.kind in envelope.LEADER_KINDS and message.term == node.term)
        if leads and node.leader == sender:
            self._hold.hear(sender, node.term, received.sent, now)
            self.heard_at = asyncio.get_running_loop().time()
        if received.echo_term and received.echo_term == node.term and node.is_leader:
            self.lease.echoed(sender, received.echo_term, received.echo)
        host.touch()

    def send(self, to: int, messages: Sequence[Message]) -> None:
        """Send messages to a server, if it is known where it is."""
        address = self.address(to)
        if not address:
            return
        term, echo = self._hold.echo(to)
        if any(message.kind is MessageKind.TIMEOUT_NOW for message in messages):
            self.lease.give_up()
            self._handed_over()
        packed = envelope.Envelope(
            to, self._host.number, self._record().address, self._clock(), term, echo, tuple(messages)
        )
        if not self._transport.send(address, envelope.MESSAGES, envelope.encode(packed)):
            self._host.node.unreachable(to)
