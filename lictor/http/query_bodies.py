"""The definition of a prepared query, as clients write it, checked."""

import msgspec

from lictor.http.bodies import read_record
from lictor.http.request import Request
from lictor.model import query_template
from lictor.model.duration import parse_duration
from lictor.model.errors import InvalidRequest, Refused
from lictor.model.ids import looks_like_id
from lictor.model.prepared_query import PreparedQuery, ServiceQuery

HIDDEN_TOKEN = "<hidden>"


def decode_query(request: Request) -> PreparedQuery:
    """The definition in a body, unchecked. Raises `InvalidRequest`."""
    return read_record(request, PreparedQuery)


def check_query(query: PreparedQuery) -> PreparedQuery:
    """The query as it may be stored. Raises `Refused` with the API's text where it may not.

    Whether its name is free and its session exists is for the store to say.
    """
    if not (query.template.type or query.name or query.session):
        raise _refused("Must be bound to a session")
    if query.token == HIDDEN_TOKEN:
        raise _refused(
            f"Bad Token '{query.token}', it looks like a query definition with a redacted token was submitted"
        )
    _check_service(query.service)
    if query.dns.ttl:
        try:
            ttl = parse_duration(query.dns.ttl)
        except ValueError as error:
            raise _refused(f"Bad DNS TTL '{query.dns.ttl}': {error}") from None
        if ttl < 0:
            raise _refused(f"DNS TTL '{round(ttl * 1e9)}', must be >=0")
    if query.session and not looks_like_id(query.session):
        raise Refused("invalid session: index error: UUID must be 36 characters")
    if query.template.type or query.template.regexp:
        try:
            query_template.check(query)
        except InvalidRequest as error:
            raise Refused(str(error)) from None
    return msgspec.structs.replace(query, session=query.session.lower())


def _refused(problem: str) -> Refused:
    return Refused(f"Invalid prepared query: {problem}")


def _check_service(service: ServiceQuery) -> None:
    failover = service.failover
    if not service.service:
        raise _refused("Must provide a Service name to query")
    if failover.nearest_n < 0:
        raise _refused(f"Bad NearestN '{failover.nearest_n}', must be >= 0")
    if failover.targets:
        if failover.nearest_n or failover.datacenters:
            raise _refused("Targets cannot be populated with NearestN or Datacenters")
        for target in failover.targets:
            if target.peer and target.datacenter:
                raise _refused("Failover target can specify only one of Peer and Datacenter")
    for name, meta in (("NodeMeta", service.node_meta), ("ServiceMeta", service.service_meta)):
        if meta and len(meta) > 64:
            raise _refused(f"{name} has more than 64 pairs")
