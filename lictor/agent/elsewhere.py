"""What the doors look up in other datacenters: instances and nodes for DNS, and instances for prepared queries that
find none here. A server asks the other datacenter's servers itself, any other agent has a server of its own do so.

What is answered are rows, not bytes: how they are shown is a matter of the agent that was asked.
"""

import random
from typing import TYPE_CHECKING, Annotated

import msgspec

from lictor.agent.logs import logger
from lictor.model.authorizer import READ, require
from lictor.model.errors import InvalidRequest, LictorError, NoPath, NotFound
from lictor.model.node import Node
from lictor.model.prepared_query import PreparedQuery
from lictor.model.transport import UNREADABLE, Caller, Transport
from lictor.server.datacenters import Origin
from lictor.store.reads import catalog, gateways, health, prepared_queries
from lictor.store.reads.health import CheckServiceNode
from lictor.store.reads.prepared_queries import Execution
from lictor.store.store import View

if TYPE_CHECKING:
    from lictor.agent.agent import Agent
    from lictor.agent.wan import Wan

LOOKUP = "datacenter.lookup"
SECONDS = 5.0  # for one datacenter to answer
MOST_TRIED = 32  # datacenters that one query fails over to
SERVICE, CONNECT, INGRESS, NODE, QUERY, EXECUTE, FAILOVER = (
    "service",
    "connect",
    "ingress",
    "node",
    "query",
    "execute",
    "failover",
)
UNKNOWN, FAILED = "unknown", "failed"

Text = Annotated[str, msgspec.Meta(max_length=4096)]
log = logger("agent")


class Lookup(msgspec.Struct, frozen=True, array_like=True):
    """What is looked up, and in which datacenter: the instances of a service, to connect to one, or of its ingress
    gateways; a node; what a prepared query of that datacenter comes to (`query`), or one that is given as `definition`
    (`execute`), or that one in the first datacenter that it fails over to and that has instances (`failover`).
    `limit` is how many instances at most, 0 all. Without `stale` the servers there confirm that theirs is the newest
    state.
    """

    kind: Text
    datacenter: Text
    name: Text = ""
    tag: Text = ""
    definition: bytes = b""
    connect: bool = False
    limit: int = 0
    stale: bool = True
    token: Text = ""


class Found(msgspec.Struct, frozen=True, array_like=True):
    """What came of it. `datacenter` is where it was found, `failovers` how many were tried, `service` and `ttl` what
    the prepared query says. `problem` is UNKNOWN where there is no such datacenter or query, FAILED where nobody
    answered.
    """

    rows: list[CheckServiceNode] = []
    node: Node | None = None
    datacenter: str = ""
    failovers: int = 0
    service: str = ""
    ttl: str = ""
    in_order: bool = False
    problem: str = ""


encode = msgspec.msgpack.Encoder().encode
_decode_lookup = msgspec.msgpack.Decoder(Lookup).decode
_decode_found = msgspec.msgpack.Decoder(Found).decode
_decode_query = msgspec.msgpack.Decoder(PreparedQuery).decode


def failover_of(query: PreparedQuery, *, connect: bool, limit: int, stale: bool, token: str = "") -> Lookup | None:
    """What to look up where a query has found nothing here; None where it fails over to nowhere."""
    failover = query.service.failover
    if failover.nearest_n <= 0 and not failover.datacenters and not failover.targets:
        return None
    return Lookup(FAILOVER, "", "", "", encode(query), connect, limit, stale, token)


class Elsewhere:
    """See above."""

    def __init__(self, agent: "Agent") -> None:
        self._agent = agent
        self._random = random.Random()

    async def ask(self, lookup: Lookup) -> Found:
        """Have it looked up. What is in the way is told in the answer."""
        agent = self._agent
        try:
            if agent.client is not None:
                return _decode_found(await agent.client.call(LOOKUP, encode(lookup)))
            return await self._asked(lookup)
        except NoPath:
            return Found(problem=UNKNOWN)
        except (LictorError, *UNREADABLE) as error:
            log.debug("a datacenter does not answer", datacenter=lookup.datacenter, error=str(error))
            return Found(problem=FAILED)

    def serve(self, transport: Transport, wan: "Wan") -> None:
        """On a server: look up for agents of this datacenter, and answer other datacenters, from now on."""

        async def for_agent(caller: Caller, body: bytes) -> bytes:
            return encode(await self.ask(_decoded(body)))

        async def for_datacenter(origin: Origin, body: bytes) -> bytes:
            return encode(await self._here(_decoded(body)))

        transport.on_call(LOOKUP, for_agent, agents=True)
        wan.datacenters.on_call(LOOKUP, for_datacenter)

    # -- on a server that asks ----------------------------------------------------------------------------------------

    async def _asked(self, lookup: Lookup) -> Found:
        wan = self._agent.wan
        if wan is None:
            raise NoPath
        if lookup.kind == FAILOVER:
            return await self._fail_over(wan, lookup)
        answer = await wan.datacenters.call(lookup.datacenter, LOOKUP, encode(lookup), SECONDS)
        return _decode_found(answer)

    async def _fail_over(self, wan: "Wan", lookup: Lookup) -> Found:
        """What a query comes to in the first of its datacenters that has instances; else what the last one said."""
        tried = candidates(definition_of(lookup), wan.by_distance())
        result, asked = Found(datacenter=self._agent.datacenter), 0
        for datacenter in tried:
            asked += 1
            there = msgspec.structs.replace(lookup, kind=EXECUTE, datacenter=datacenter)
            try:
                result = await self._asked(there)
            except (LictorError, *UNREADABLE) as error:
                log.debug("failed querying for service in datacenter", datacenter=datacenter, error=str(error))
                continue
            if result.rows:
                break
        return msgspec.structs.replace(result, failovers=asked)

    # -- on a server that is asked ------------------------------------------------------------------------------------

    async def _here(self, lookup: Lookup) -> Found:
        agent = self._agent
        if not lookup.stale:
            await agent.confirm(False)
        authorizer = agent.authorizer(lookup.token)
        if lookup.kind == QUERY:
            return await self._query(lookup)
        if lookup.kind == EXECUTE:
            query = definition_of(lookup)
            require(authorizer, "service", query.service.service, READ)
            rows = agent.store.read(prepared_queries.instances, query, lookup.connect).value
            self._random.shuffle(rows)
            return self._rows(rows[: lookup.limit or None])
        require(authorizer, "node" if lookup.kind == NODE else "service", lookup.name, READ)
        if lookup.kind == NODE:
            return Found(node=agent.store.read(catalog.find_node, lookup.name).value, datacenter=agent.datacenter)
        return self._rows(agent.store.read(_instances, lookup).value)

    def _rows(self, rows: list[CheckServiceNode]) -> Found:
        return Found(rows, datacenter=self._agent.datacenter)

    async def _query(self, lookup: Lookup) -> Found:
        """What a query of this datacenter comes to, here or where it fails over to."""
        agent = self._agent
        how = Execution(agent.datacenter, "", agent.config.segment, limit=lookup.limit, connect=lookup.connect)
        try:
            ranked = agent.store.read(prepared_queries.rank, lookup.name, how, self._random).value
        except NotFound:
            return Found(problem=UNKNOWN)
        found = self._rows(ranked.rows)
        beyond = failover_of(
            ranked.query, connect=lookup.connect, limit=lookup.limit, stale=lookup.stale, token=lookup.token
        )
        if not ranked.rows and beyond is not None:
            found = await self._asked(beyond)
        return msgspec.structs.replace(
            found, service=ranked.query.service.service, ttl=ranked.query.dns.ttl, in_order=ranked.by_distance
        )


def candidates(query: PreparedQuery, by_distance: list[str]) -> list[str]:
    """The datacenters that a query fails over to, in order: as many of the nearest as it says, then those it names.
    `by_distance` are all that are known, the own one first.
    """
    failover, others = query.service.failover, by_distance[1:]
    named = [*(failover.datacenters or ()), *(target.datacenter for target in failover.targets or ())]
    found = dict.fromkeys(others[: max(0, failover.nearest_n)])
    found.update(dict.fromkeys(name for name in named if name in others))
    return list(found)[:MOST_TRIED]


def definition_of(lookup: Lookup) -> PreparedQuery:
    """The prepared query that a lookup gives. Raises `InvalidRequest` where it gives none."""
    try:
        return _decode_query(lookup.definition)
    except UNREADABLE as error:
        raise InvalidRequest(f"the query of a lookup cannot be read: {error}") from None


def _decoded(body: bytes) -> Lookup:
    try:
        return _decode_lookup(body)
    except UNREADABLE as error:
        raise InvalidRequest(f"the lookup cannot be read: {error}") from None


def _instances(view: View, lookup: Lookup) -> list[CheckServiceNode]:
    if lookup.kind == SERVICE:
        return health.service(view, lookup.name, (lookup.tag,) if lookup.tag else (), {})
    if lookup.kind == CONNECT:
        return health.connect(view, lookup.name, (), {})
    if lookup.kind == INGRESS:
        return gateways.listing_gateways(view, lookup.name)
    raise InvalidRequest(f"nobody looks up {lookup.kind!r}")
