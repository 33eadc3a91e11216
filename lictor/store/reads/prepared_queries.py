"""Reads of prepared queries: the definitions, which one a name means, and what it answers.

A name means the query of that id, else the query of that name, else the template whose name is the longest prefix of
it; names are compared whatever their case.
"""

import random
from collections.abc import Iterable, Mapping

import msgspec

from lictor.model import query_template
from lictor.model.check import CRITICAL, PASSING
from lictor.model.errors import NotFound, Refused
from lictor.model.ids import is_id
from lictor.model.prepared_query import PreparedQuery
from lictor.store.reads import catalog, health, near
from lictor.store.reads.health import CheckServiceNode
from lictor.store.store import View

_FRONT = 10  # how many of the nearest are searched for the source node itself


class Execution(msgspec.Struct, frozen=True):
    """How a query is to be executed, beside its definition.

    `source_node` is where to measure distances from, `_agent` and `_ip` included, and goes before the query's `near`;
    `source_ip` is the asking client's address, `agent_node` the name of the agent that it asked; a `limit` of 0 is
    none; `connect` asks for mesh instances whatever the query says.
    """

    datacenter: str
    agent_node: str
    segment: str = ""
    source_node: str = ""
    source_ip: str = ""
    limit: int = 0
    connect: bool = False


def query(view: View, query_id: str) -> PreparedQuery | None:
    """The query of an id."""
    view.saw("query", query_id)
    return view.store.queries.get(query_id)


def queries(view: View) -> list[PreparedQuery]:
    """Every query, by id."""
    view.saw("queries")
    return list(view.store.queries)


def resolve(view: View, name_or_id: str, segment: str) -> PreparedQuery:
    """The query that a name or an id means, filled in where it is a template.

    Raises NotFound where there is none, Refused for a template asked for by its id or one that cannot be filled in.
    """
    table = view.store.queries
    if is_id(name_or_id):
        found = query(view, name_or_id.lower())
        if found is not None:
            if found.template.type:
                raise Refused("prepared query templates can only be resolved up by name, not by ID")
            return found
    view.saw("queries")
    name = name_or_id.lower()
    for named in table.by("name", name).values():
        return named
    for length in range(len(name), -1, -1):
        for template in table.by("template", name[:length]).values():
            return query_template.render(template, name_or_id, segment)
    raise NotFound("Query not found")


class Ranked(msgspec.Struct, frozen=True):
    """What a query lets through, in the order it is to be answered in.

    `measured`: it was to be sorted by distance; `by_distance`: it could be, the source's coordinate is known;
    `by_client`: the source is the asking client.
    """

    query: PreparedQuery
    rows: list[CheckServiceNode]
    measured: bool
    by_distance: bool
    by_client: bool


def rank(view: View, name_or_id: str, how: Execution, rng: random.Random) -> Ranked:
    """The instances that a query answers with: in random order or nearest first. Raises what `resolve` raises."""
    asked = resolve(view, name_or_id, how.segment)
    rows = instances(view, asked, how.connect)
    rng.shuffle(rows)
    wanted = how.source_node or asked.service.near
    source = _source(view, wanted, how)
    known = False
    if source:
        rows = near.by_distance(view, rows, source, lambda row: row.node.node, how.segment)
        _to_front(rows, source)
        known = view.store.coordinates.get((source.lower(), how.segment)) is not None
    if how.limit > 0:
        del rows[how.limit :]
    return Ranked(asked, rows, bool(source), known, wanted == "_ip")


def instances(view: View, asked: PreparedQuery, connect: bool) -> list[CheckServiceNode]:
    """The instances that a query (no template) lets through, by node and id."""
    wanted = asked.service
    read = health.connect if wanted.connect or connect else health.service
    rows = read(view, wanted.service, (), wanted.node_meta or {})
    ignored = frozenset(wanted.ignore_check_ids or ())
    rows = [row for row in rows if _healthy(row, wanted.only_passing, ignored)]
    if wanted.service_meta:
        rows = [row for row in rows if _has(row.service.meta or {}, wanted.service_meta)]
    if wanted.tags:
        rows = [row for row in rows if _tagged(row, wanted.tags)]
    return rows


def _healthy(row: CheckServiceNode, only_passing: bool, ignored: frozenset[str]) -> bool:
    for check in row.checks:
        if check.check_id in ignored:
            continue
        if check.status == CRITICAL or (only_passing and check.status != PASSING):
            return False
    return True


def _has(meta: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    return all(meta.get(key) == value for key, value in wanted.items())


def _tagged(row: CheckServiceNode, tags: Iterable[str]) -> bool:
    own = {tag.lower() for tag in row.service.tags}
    for tag in tags:
        wanted = tag.lower()
        if wanted[1:] in own if wanted.startswith("!") else wanted not in own:
            return False
    return True


def _source(view: View, wanted: str, how: Execution) -> str:
    """The node to measure from; empty for none."""
    if wanted == "_ip":
        if how.source_ip:
            for node in catalog.nodes(view, {}):
                if node.address == how.source_ip:
                    return node.node
        return how.agent_node
    return how.agent_node if wanted == "_agent" else wanted


def _to_front(rows: list[CheckServiceNode], node: str) -> None:
    """The source's own instance goes first, even where another is as near as it."""
    for at, row in enumerate(rows[:_FRONT]):
        if row.node.node == node:
            rows[0], rows[at] = row, rows[0]
            return
