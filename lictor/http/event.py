"""`/v1/event`: user events, fired at every agent, and listed as this one has seen them."""

from typing import Any

from lictor.agent.events import index_of
from lictor.http.api import Api, Hashed
from lictor.http.request import Request
from lictor.http.routes import Family, ReadFunction
from lictor.model.authorizer import READ, WRITE
from lictor.model.errors import InvalidRequest
from lictor.model.ids import new_id
from lictor.model.user_event import UserEvent
from lictor.store.store import View

family = Family()


@family.action("PUT", "/v1/event/fire/:name", elsewhere=True)
async def fire(api: Api, request: Request) -> Any:
    """Fire an event; the body is its payload, `node`, `service` and `tag` say whom it is for."""
    name = request.vars["name"]
    if not name:
        raise InvalidRequest("Missing name")
    request.require("event", name, WRITE)
    event = UserEvent(
        id=new_id(),
        name=name,
        payload=request.body or None,
        node_filter=request.get("node"),
        service_filter=request.get("service"),
        tag_filter=request.get("tag"),
    )
    api.agent.fire_event(event)
    return event


@family.read_local("/v1/event/list")
def recent(api: Api, request: Request) -> ReadFunction:
    """The events of a `name`, or all, oldest first. What to wait on is derived from the last one's id."""
    name = request.get("name")

    def read(view: View) -> Any:
        view.saw("agent", "events")
        events = [e for e in api.agent.events.recent(name) if request.authorizer.allows("event", e.name, READ)]
        return Hashed(events, str(index_of(events)), "X-Consul-Index")

    return read
