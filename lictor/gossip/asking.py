"""Questions to the pool and the answers of this node: users' queries, keyring operations, and who owns a name.

A query spreads like an event; its answers come straight to the asker, on request through a few others as well, for
networks that lose some. Part of `Serf`, which hands in what arrives.
"""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

from lictor.gossip import codec, key_queries
from lictor.gossip.broadcasts import BroadcastQueue
from lictor.gossip.codec import WireError
from lictor.gossip.effects import Severity
from lictor.gossip.key_queries import INTERNAL, KeyOperation
from lictor.gossip.lamport import LamportClock
from lictor.gossip.messages import Address, ip_text
from lictor.gossip.pool_events import KeyringChanged, NameConflictLost, QueryProgressed, QueryReceived
from lictor.gossip.queries import PendingQuery, SeenQueries, filters, passes
from lictor.gossip.roster import Status
from lictor.gossip.serf_messages import (
    FLAG_ACK,
    FLAG_NO_BROADCAST,
    MemberRecord,
    Query,
    QueryResponse,
    SerfKind,
    UdpAddress,
    encode,
    encode_relay,
)

if TYPE_CHECKING:
    from lictor.gossip.serf import Serf

CONFLICT = INTERNAL + "conflict"
_RELAY_VERSION = 5
_NANOSECONDS = 1_000_000_000
_LONGEST_QUERY = 3600.0


class GossipError(ValueError):
    """An operation that the pool cannot do, in words for the caller."""


class Queries:
    """The queries of one node, its own and those of others."""

    def __init__(self, serf: Serf, queue: BroadcastQueue, least_time: int, rng: random.Random) -> None:
        self._serf = serf
        self._queue = queue
        self._rng = rng
        self._seen = SeenQueries(serf.settings.query_buffer, least_time)
        self._pending: dict[int, PendingQuery] = {}
        self._resolving: PendingQuery | None = None

    @property
    def clock(self) -> LamportClock:
        """The queries' clock."""
        return self._seen.clock

    def timeout(self) -> float:
        """How long a query of this pool waits for answers unless told otherwise, in seconds."""
        rounds = self._serf.settings.query_timeout_mult * math.ceil(math.log10(self._serf.swim.alive_count() + 1))
        return self._serf.swim.settings.gossip_interval * rounds

    def ask(
        self,
        name: str,
        payload: bytes,
        now: float,
        *,
        nodes: tuple[str, ...] = (),
        tags: dict[str, str] | None = None,
        ask_acks: bool = False,
        relay_factor: int = 0,
        timeout: float = 0.0,
    ) -> PendingQuery:
        """Asks the pool; `QueryProgressed` tells of what comes back. Raises GossipError when it is too long."""
        self._serf.tell_time(now)
        seconds = timeout or self.timeout()
        me = self._serf.swim.me
        query = Query(
            self.clock.time,
            self._rng.getrandbits(31),
            me.addr,
            me.port,
            self._serf.name,
            filters(nodes, tags or {}),
            FLAG_ACK if ask_acks else 0,
            relay_factor,
            int(seconds * _NANOSECONDS),
            name,
            payload,
        )
        encoded = encode(SerfKind.QUERY, query)
        if len(encoded) > self._serf.settings.query_size_limit:
            raise GossipError(f"query exceeds limit of {self._serf.settings.query_size_limit} bytes")
        pending = PendingQuery(query, now + seconds)
        self._pending[query.l_time] = pending
        self._serf.swim.timers.at(pending.deadline, lambda _: self._over(pending))
        self.arrived(query, now)
        self._serf.gossip(self._queue, encoded)
        return pending

    def _over(self, pending: PendingQuery) -> None:
        if self._pending.get(pending.l_time) is pending:
            del self._pending[pending.l_time]
        pending.finished = True
        if pending is self._resolving:
            self._resolve_conflict(pending)
        else:
            self._serf.emit(QueryProgressed(pending))

    def arrived(self, query: Query, now: float) -> bool:
        """A query; whether it is to be passed on. Raises WireError."""
        if not self._seen.is_new(query):
            return False
        again = not query.flags & FLAG_NO_BROADCAST
        source = Address(ip_text(query.addr), query.port)
        if not passes(query.filters, self._serf.name, self._serf.tags):
            return again
        seconds = min(max(query.timeout / _NANOSECONDS, 0.0), _LONGEST_QUERY)
        received = QueryReceived(query, source, now + seconds)
        try:
            if query.flags & FLAG_ACK:
                self._answer(received, QueryResponse(query.l_time, query.id, self._serf.name, FLAG_ACK))
            if query.name.startswith(INTERNAL):
                self._internal(received)
            else:
                self._serf.emit(received)
        except GossipError as error:
            self._serf.notice(Severity.ERROR, f"Failed to answer query '{query.name}': {error}")
        return again

    def respond(self, received: QueryReceived, payload: bytes, now: float) -> None:
        """Answers a query. Raises GossipError when it is too late or the answer too long."""
        self._serf.tell_time(now)
        if now > received.deadline:
            raise GossipError("response is past the deadline")
        query = received.query
        self._answer(received, QueryResponse(query.l_time, query.id, self._serf.name, 0, payload))

    def _answer(self, received: QueryReceived, response: QueryResponse) -> None:
        limit = self._serf.settings.query_response_size_limit
        encoded = encode(SerfKind.QUERY_RESPONSE, response)
        if len(encoded) > limit:
            raise GossipError(f"response exceeds limit of {limit} bytes")
        self._serf.swim.send_user(received.source, encoded)
        query = received.query
        if not query.relay_factor or len(self._serf.roster.members) < query.relay_factor + 1:
            return
        relayed = encode_relay(UdpAddress(query.addr, query.port), query.source_node, encoded)
        if len(relayed) > limit:
            raise GossipError(f"relayed response exceeds limit of {limit} bytes")
        helpers = [
            m
            for m in self._serf.roster.with_status(Status.ALIVE)
            if m.name != self._serf.name and m.vsn and m.vsn[1] >= _RELAY_VERSION
        ]
        for helper in self._rng.sample(helpers, min(query.relay_factor, len(helpers))):
            self._serf.swim.send_user(helper.address, relayed)

    def answered(self, response: QueryResponse) -> None:
        """An answer to a query of this node's, perhaps."""
        pending = self._pending.get(response.l_time)
        if pending is not None and pending.take(response) and pending is not self._resolving:
            self._serf.emit(QueryProgressed(pending))

    def _internal(self, received: QueryReceived) -> None:
        query = received.query
        try:
            operation = KeyOperation(query.name)
        except ValueError:
            if query.name == CONFLICT:
                self._say_who(received)
            return
        done = key_queries.perform(operation, query.payload, self._serf.keyring)
        if done.result and operation is not KeyOperation.LIST:
            self._serf.emit(KeyringChanged())
        room = self._serf.settings.query_response_size_limit - len(self._serf.name.encode()) - 64
        payload = key_queries.answer(done, room)
        self._answer(received, QueryResponse(query.l_time, query.id, self._serf.name, 0, payload))

    def ask_who_i_am(self, now: float) -> None:
        """Asks the pool whom it knows by this node's name; what it says is looked at when the query's time is over."""
        if self._resolving is None:
            self._resolving = self.ask(CONFLICT, self._serf.name.encode(), now)

    def _say_who(self, received: QueryReceived) -> None:
        name = received.query.payload.decode(errors="replace")
        if name == self._serf.name:
            return
        member = self._serf.roster.members.get(name)
        payload = bytes((SerfKind.CONFLICT_RESPONSE,)) + codec.pack(None if member is None else member.as_record())
        query = received.query
        self._answer(received, QueryResponse(query.l_time, query.id, self._serf.name, 0, payload))

    def _resolve_conflict(self, pending: PendingQuery) -> None:
        self._resolving = None
        responses = matching = 0
        for payload in pending.responses.values():
            try:
                record = codec.unpack(MemberRecord, payload[1:])
                here = Address(ip_text(record.addr), record.port)
            except WireError:
                continue
            responses += 1
            matching += here == self._serf.swim.me.address
        majority = responses // 2 + 1
        if matching >= majority:
            self._serf.notice(Severity.INFO, f"majority in name conflict resolution [{matching} / {responses}]")
            return
        self._serf.notice(Severity.WARN, f"minority in name conflict resolution, quiting [{matching} / {responses}]")
        self._serf.emit(NameConflictLost(matching, responses))
