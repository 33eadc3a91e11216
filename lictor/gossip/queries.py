"""Queries: which ones were seen, which are for this node, and the answers to this node's own."""

from __future__ import annotations

from lictor.gossip import codec
from lictor.gossip.codec import WireError, pack
from lictor.gossip.lamport import LamportClock
from lictor.gossip.serf_messages import FLAG_ACK, FilterKind, Query, QueryResponse, TagFilter
from lictor.model.errors import InvalidRequest
from lictor.model.regex import Regex, RegexError

_MAX_AT_ONE_TIME = 1024


class PendingQuery:
    """A query of this node and what has come back. `deadline` is on the core's clock."""

    def __init__(self, query: Query, deadline: float) -> None:
        self.id = query.id
        self.l_time = query.l_time
        self.deadline = deadline
        self.acks: list[str] = []
        self.responses: dict[str, bytes] = {}
        self.finished = False

    def take(self, response: QueryResponse) -> bool:
        """Whether the response is this query's and says something new."""
        if self.finished or response.id != self.id:
            return False
        if response.flags & FLAG_ACK:
            if response.sender in self.acks:
                return False
            self.acks.append(response.sender)
            return True
        if response.sender in self.responses:
            return False
        self.responses[response.sender] = response.payload
        return True


class SeenQueries:
    """The queries' clock, and the ids seen at the last `size` times."""

    def __init__(self, size: int, least_time: int) -> None:
        self.clock = LamportClock(1)
        self.least_time = least_time
        self._size = size
        self._held: dict[int, tuple[int, set[int]]] = {}
        if least_time > 0:
            self.clock.witness(least_time - 1)

    def is_new(self, query: Query) -> bool:
        """Whether the query is seen for the first time. Raises WireError for a forged time."""
        self.clock.witness(query.l_time)
        if query.l_time < self.least_time or query.l_time + self._size < self.clock.time:
            return False
        slot = query.l_time % self._size
        time, ids = self._held.get(slot, (-1, set()))
        if time != query.l_time:
            self._held[slot] = (query.l_time, {query.id})
            return True
        if query.id in ids or len(ids) >= _MAX_AT_ONE_TIME:
            return False
        ids.add(query.id)
        return True


def filters(nodes: tuple[str, ...], tags: dict[str, str]) -> tuple[bytes, ...]:
    """What a query carries to reach only these nodes, and only those whose tags match these expressions."""
    found = []
    if nodes:
        found.append(bytes((FilterKind.NODE,)) + pack(nodes))
    found += [bytes((FilterKind.TAG,)) + pack(TagFilter(tag, expr)) for tag, expr in tags.items()]
    return tuple(found)


def passes(filter_list: tuple[bytes, ...], name: str, tags: dict[str, str]) -> bool:
    """Whether a node is meant by the filters. Raises WireError for one that cannot be read."""
    return all(_passes(f, name, tags) for f in filter_list)


def _passes(encoded: bytes, name: str, tags: dict[str, str]) -> bool:
    if not encoded:
        raise WireError("a query's filter is empty")
    kind, body = encoded[0], encoded[1:]
    if kind == FilterKind.NODE:
        return name in codec.unpack_names(body)
    if kind == FilterKind.TAG:
        wanted = codec.unpack(TagFilter, body)
        try:
            return Regex(wanted.expr).search(tags.get(wanted.tag, ""))
        except (RegexError, InvalidRequest) as error:
            raise WireError(f"failed to compile filter regex ({wanted.expr}): {error}") from None
    raise WireError(f"query has unrecognized filter type: {kind}")
