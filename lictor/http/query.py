"""`/v1/query`: prepared queries, their definitions and what they answer."""

import random
from typing import Any

import msgspec

from lictor.agent.elsewhere import Found, failover_of
from lictor.http.api import Api
from lictor.http.bodies import boolean, whole
from lictor.http.freshness import DEFAULT, STALE_MODE
from lictor.http.query_bodies import check_query, decode_query
from lictor.http.reply import Headers, Reply, json_reply, text_reply
from lictor.http.request import Request
from lictor.http.routes import Family, ReadFunction
from lictor.http.translating import translated
from lictor.model.authorizer import READ, WRITE
from lictor.model.command import QueryDelete, QuerySet
from lictor.model.errors import Refused
from lictor.model.ids import looks_like_id, new_id
from lictor.store.reads import prepared_queries
from lictor.store.reads.prepared_queries import Execution
from lictor.store.store import View

family = Family(at_servers=True)

_BAD_ID = "failed prepared query lookup: index error: UUID must be 36 characters"
_random = random.Random()


@family.read("/v1/query")
def every(api: Api, request: Request) -> ReadFunction:
    """Every definition."""
    request.require("query", "", READ)
    return prepared_queries.queries


@family.action("POST", "/v1/query")
async def create(api: Api, request: Request) -> Any:
    """Define a query; returns its id."""
    query = decode_query(request)
    if query.id:
        raise Refused("ID must be empty when creating a new prepared query")
    query = check_query(query)
    request.require("query", query.name, WRITE)
    created = msgspec.structs.replace(query, id=new_id())
    return {"ID": await api.agent.apply(QuerySet(created))}


@family.read("/v1/query/:query")
def one(api: Api, request: Request) -> ReadFunction:
    """One definition, in a list; status 404 where there is none."""
    query_id = request.vars["query"]
    if not looks_like_id(query_id):
        raise Refused(_BAD_ID)
    request.require("query", query_id, READ)

    def run(view: View) -> Any:
        found = prepared_queries.query(view, query_id.lower())
        return [found] if found is not None else text_reply("Query not found", 404)

    return run


@family.action("PUT", "/v1/query/:query")
async def update(api: Api, request: Request) -> Any:
    """Replace a definition."""
    given = msgspec.structs.replace(decode_query(request), id=await _known(api, request))
    query = check_query(given)
    request.require("query", query.name, WRITE)
    await api.agent.apply(QuerySet(query))
    return Reply()


@family.action("DELETE", "/v1/query/:query")
async def delete(api: Api, request: Request) -> Any:
    """Remove a definition."""
    query_id = await _known(api, request)
    request.require("query", query_id, WRITE)
    await api.agent.apply(QueryDelete(query_id))
    return Reply()


def _ranked(api: Api, request: Request) -> ReadFunction:
    how, name = _how(api, request), request.vars["query"]
    return lambda view: prepared_queries.rank(view, name, how, _random)


@family.action("GET", "/v1/query/:query/execute", held=_ranked)
async def execute(api: Api, request: Request) -> Any:
    """The instances that a query lets through, nearest first or in random order."""
    how = _how(api, request)
    await api.confirm(request, cacheable=True)
    ranked = api.agent.store.read(prepared_queries.rank, request.vars["query"], how, _random).value
    query, found = ranked.query, Found(ranked.rows, datacenter=api.agent.datacenter)
    stale = request.consistency.mode == STALE_MODE
    beyond = failover_of(query, connect=how.connect, limit=how.limit, stale=stale, token=request.token)
    if not found.rows and beyond is not None:
        tried = await api.agent.elsewhere.ask(beyond)
        found = found if tried.problem else tried
    answer: dict[str, Any] = {
        "Service": query.service.service,
        "Nodes": translated(found.rows, request.translate_for),
        "DNS": query.dns,
        "Datacenter": found.datacenter,
        "Failovers": found.failovers,
    }
    extra: Headers = (("X-Cache", "MISS"),) if request.has("cached") else ()
    return _answer(api, request, answer, extra)


@family.action("GET", "/v1/query/:query/explain")
async def explain(api: Api, request: Request) -> Any:
    """The definition that a name means, filled in where it is a template."""
    await api.confirm(request)
    found = api.agent.store.read(prepared_queries.resolve, request.vars["query"], api.agent.config.segment)
    request.require("query", found.value.name, READ)
    return _answer(api, request, {"Query": found.value}, ())


def _answer(api: Api, request: Request, answer: dict[str, Any], extra: Headers) -> Reply:
    answer |= api.meta(0, request, request.consistency.mode)
    return json_reply(answer, pretty=request.pretty, headers=(*api.read_headers(1, request), *extra))


def _how(api: Api, request: Request) -> Execution:
    limit, connect = request.get("limit"), request.get("connect")
    try:
        number = whole(limit) if limit else 0
    except ValueError as error:
        raise Refused(f"Bad limit: {error}") from None
    try:
        mesh = boolean(connect) if connect else False
    except ValueError as error:
        raise Refused(f"Error parsing 'connect' value: {error}") from None
    far = request.from_elsewhere  # a place in another datacenter is near to nothing here
    return Execution(
        datacenter=api.agent.datacenter,
        agent_node="" if far else request.agent_node or api.agent.node_name,
        segment=api.agent.config.segment,
        source_node="_agent" if far and request.source_node else request.source_node,
        source_ip=request.peer,
        limit=number,
        connect=mesh,
    )


async def _known(api: Api, request: Request) -> str:
    """The id in the path, of a query that exists. The own store may not have it yet: that is confirmed first."""
    query_id = request.vars["query"]
    if not looks_like_id(query_id):
        raise Refused(f"Prepared Query lookup failed: {_BAD_ID}")
    await api.freshness.admit(DEFAULT)
    if api.agent.store.read(prepared_queries.query, query_id.lower()).value is None:
        raise Refused(f"Cannot modify non-existent prepared query: '{query_id}'")
    return query_id.lower()
