"""`/v1/agent/lookup`: the map in which programs of this machine look services up by themselves. Lictor's own."""

from typing import Any

from lictor.agent.lookup_map import LookupMap
from lictor.http.api import Api
from lictor.http.request import Request
from lictor.http.routes import Family
from lictor.model.authorizer import READ
from lictor.model.errors import NotFound

family = Family()


def _lookup_map(api: Api) -> LookupMap:
    found = api.agent.lookup_map
    if found is None:
        raise NotFound("This agent publishes no lookup map: see lookup_map in its configuration")
    return found


@family.action("GET", "/v1/agent/lookup")
async def lookup_map(api: Api, request: Request) -> Any:
    """Where the map is, and what is in it."""
    request.require("agent", api.agent.node_name, READ)
    found = _lookup_map(api)
    return {"Path": str(found.path), "Size": found.size, "Services": found.services()}


@family.action("PUT", "/v1/agent/lookup/:service")
async def publish(api: Api, request: Request) -> Any:
    """Have a service in the map from now on: where it is, and the generation of what is there now."""
    name = request.vars["service"]
    request.require("service", name, READ)
    return await _lookup_map(api).publish(name)
