"""The core's messages between servers: those of one turn in one envelope, which also carries what leases rest on.

What comes from the network is believed as far as it can be true, and nothing of it may end this server. Beyond that the
number of a sender is all there is to tell a member of the cluster, unless connections are secured by TLS. A server that
the configuration does not name is listened to only while there is nobody to follow: it may lead, or stand for election,
by a later configuration than is known here; while a leader is heard of, that can wait.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Protocol

from lictor.model.host_port import split_host_port
from lictor.model.seldom import Seldom
from lictor.model.transport import Caller, Transport
from lictor.raft import envelope
from lictor.raft.consensus import ServerRecord
from lictor.raft.core.election import TRANSFER
from lictor.raft.core.message import Message, MessageKind
from lictor.raft.core.node import MessageRefused, Node
from lictor.raft.lease import Hold, Lease
from lictor.raft.roster import Roster
from lictor.raft.settings import RaftSettings, World

STRANGERS = 64  # servers that the configuration does not name whose address is kept, those that spoke last
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
    def take(self, message: Message) -> None: ...
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
        self._addresses: dict[int, str] = {}  # of members that have spoken
        self._strangers: OrderedDict[int, str] = OrderedDict()  # of others
        self._seldom = Seldom(log, lambda: asyncio.get_running_loop().time())
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
        record = self._host.roster.records.get(number)
        if record is None:
            return self._strangers.get(number, "")
        return self._addresses.get(number) or self._strangers.get(number) or record.address

    def locate(self, number: int, address: str) -> None:
        """A server of the configuration was met at an address."""
        if number in self._host.roster.records and number != self._host.number:
            self._addresses[number] = address

    def forget(self, number: int) -> None:
        """The configuration says where a server is."""
        self._addresses.pop(number, None)
        self._strangers.pop(number, None)

    def _met(self, number: int, address: str) -> None:
        """A server has said where it can be reached."""
        if self._addresses.get(number) == address:
            return
        try:
            split_host_port(address, 0)
        except ValueError:
            return
        if number in self._host.roster.records:
            self._addresses[number] = address
            if len(self._addresses) > len(self._host.roster.records):
                self._addresses = {n: found for n, found in self._addresses.items() if n in self._host.roster.records}
            return
        self._strangers[number] = address
        self._strangers.move_to_end(number)
        if len(self._strangers) > STRANGERS:
            self._strangers.popitem(last=False)

    # -- messages

    def _on_messages(self, caller: Caller, body: bytes) -> None:
        try:
            received = envelope.decode_envelope(body)
        except envelope.UNREADABLE as error:
            self._seldom.warning("unreadable", "messages cannot be read: from=%s error=%s", caller.address, error)
            return
        host, now = self._host, self._clock()
        sender = received.sender
        if not host.hears or received.to != host.number or sender == host.number:
            return
        if not self._listens_to(sender, now):
            self._seldom.info(
                "stranger", "messages from a server outside the configuration are ignored: from=%s", caller.address
            )
            return
        node, leads = host.node, False
        try:
            for raw in received.messages:
                message = envelope.decode_message(raw)
                if self._can_wait(message, sender, now):
                    continue
                self._check(message)
                host.take(message)
                leads = leads or (message.kind in envelope.LEADER_KINDS and message.term == node.term)
        except (MessageRefused, *envelope.UNREADABLE) as error:
            self._seldom.warning("refused", "a message was refused: from=%s error=%s", caller.address, error)
        else:
            self._met(sender, received.address)
        if leads and node.leader == sender:
            self._hold.hear(sender, node.term, received.sent, now)
            self.heard_at = asyncio.get_running_loop().time()
        if received.echo_term and received.echo_term == node.term and node.is_leader and received.echo <= now:
            self.lease.echoed(sender, received.echo_term, received.echo)
        host.touch()

    def _listens_to(self, sender: int, now: float) -> bool:
        """Whether a server has a say: one of the configuration, the leader, anybody where there is neither."""
        host = self._host
        records = host.roster.records
        if not records or sender in records or sender == host.node.leader:
            return True
        if host.node.is_leader:
            return self.lease.until(host.node.membership.quorum, now) <= now
        return not self._hold.holds(now)

    def _can_wait(self, message: Message, sender: int, now: float) -> bool:
        """Whether a message is not for now: it is for somebody else, asks for a vote while there is a leader, or hands
        a leadership over that its sender is not known to have.
        """
        if message.sender != sender or message.to != self._host.number:
            return True
        if message.kind in VOTES:
            return message.context != TRANSFER and self._hold.holds(now)
        node = self._host.node
        return message.kind is MessageKind.TIMEOUT_NOW and (message.term != node.term or sender != node.leader)

    def _check(self, message: Message) -> None:
        """Raise `MessageRefused` for what servers do not send each other."""
        if not envelope.is_plausible(message, self._host.node.term):
            raise MessageRefused(f"{message.kind.name} of term {message.term}")

    def send(self, to: int, messages: Sequence[Message]) -> None:
        """Send messages to a server, if it is known where it is. Where it last spoke from another address than the
        configuration has, they go to both: whoever else spoke in its name must not keep them from it.
        """
        address, record = self.address(to), self._host.roster.records.get(to)
        if not address:
            return
        configured = record.address if record is not None else address
        term, echo = self._hold.echo(to)
        if any(message.kind is MessageKind.TIMEOUT_NOW for message in messages):
            self.lease.give_up()
            self._handed_over()
        own, clock = self._record().address, self._clock()
        for start in range(0, len(messages), envelope.MESSAGES_MOST):
            part = messages[start : start + envelope.MESSAGES_MOST]
            packed = envelope.pack(to, self._host.number, own, clock, term, echo, part)
            left = self._transport.send(address, envelope.MESSAGES, packed)
            if configured != address:
                left = self._transport.send(configured, envelope.MESSAGES, packed) or left
            if not left:
                self._host.node.unreachable(to)
