"""The prepared query commands. What a query answers is a read, in `reads.prepared_queries`."""

import msgspec

from lictor.model.errors import Refused
from lictor.model.prepared_query import PreparedQuery
from lictor.store.store import Store


def put(store: Store, query: PreparedQuery) -> str:
    """Create or replace a query; its name must be free and its session exist. Returns its id."""
    old = store.queries.get(query.id)
    if query.name:
        for index in ("name", "template"):
            for other in store.queries.by(index, query.name.lower()).values():
                if other.id != query.id:
                    raise Refused(f"name '{query.name}' aliases an existing query name")
        if store.queries.get(query.name.lower()) is not None:
            raise Refused(f"name '{query.name}' aliases an existing query ID")
    elif query.template.type:
        for other in store.queries.by("template", "").values():
            if other.id != query.id:
                raise Refused("a query template with an empty name already exists")
    if query.session and store.sessions.get(query.session) is None:
        raise Refused(f'invalid session "{query.session}"')
    created = old.create_index if old is not None else store.index
    store.queries.put(msgspec.structs.replace(query, create_index=created, modify_index=store.index))
    store.touch("query", query.id)
    store.touch("queries")
    return query.id


def delete(store: Store, query_id: str) -> bool:
    """Delete a query. Returns whether there was one."""
    if store.queries.delete(query_id) is None:
        return False
    store.depart("query", query_id)
    store.touch("queries")
    return True
