"""A prepared query: a stored service lookup with filters, failover and, as a template, a name pattern."""

import msgspec


class QueryTemplate(msgspec.Struct, frozen=True, rename="pascal"):
    """Makes the query answer for every name with a prefix; `type` is empty or `name_prefix_match`."""

    type: str = ""
    regexp: str = ""
    remove_empty_tags: bool = False


class FailoverTarget(msgspec.Struct, frozen=True, rename="pascal", omit_defaults=True):
    """A datacenter, peer or partition to fail over to."""

    datacenter: str = ""
    peer: str = ""
    partition: str = ""
    namespace: str = ""


def _nothing() -> None:
    return None


class QueryFailover(msgspec.Struct, frozen=True, rename="pascal", omit_defaults=True):
    """Where to look when the local datacenter has no healthy instance.

    Fields with default factories are always shown, as Consul shows them; the others only where they are given.
    """

    nearest_n: int = msgspec.field(default_factory=int)
    datacenters: tuple[str, ...] | None = msgspec.field(default_factory=_nothing)
    targets: tuple[FailoverTarget, ...] | None = None


class ServiceQuery(msgspec.Struct, frozen=True, rename="pascal", omit_defaults=True):
    """What is looked up and how it is filtered."""

    service: str = msgspec.field(default_factory=str)
    sameness_group: str = ""
    failover: QueryFailover = msgspec.field(default_factory=QueryFailover)
    only_passing: bool = msgspec.field(default_factory=bool)
    ignore_check_ids: tuple[str, ...] | None = msgspec.field(default_factory=_nothing, name="IgnoreCheckIDs")
    near: str = msgspec.field(default_factory=str)
    tags: tuple[str, ...] | None = msgspec.field(default_factory=_nothing)
    node_meta: dict[str, str] | None = msgspec.field(default_factory=_nothing)
    service_meta: dict[str, str] | None = msgspec.field(default_factory=_nothing)
    connect: bool = msgspec.field(default_factory=bool)


class QueryDNS(msgspec.Struct, frozen=True, rename="pascal"):
    """DNS options: the TTL (a duration) of answers made from this query."""

    ttl: str = msgspec.field(default="", name="TTL")


class PreparedQuery(msgspec.Struct, frozen=True, rename="pascal"):
    """A row of the prepared query table, encoded as the API's query definitions."""

    id: str = msgspec.field(default="", name="ID")
    name: str = ""
    session: str = ""
    token: str = ""
    template: QueryTemplate = QueryTemplate()
    service: ServiceQuery = ServiceQuery()
    dns: QueryDNS = msgspec.field(default_factory=QueryDNS, name="DNS")
    create_index: int = 0
    modify_index: int = 0
