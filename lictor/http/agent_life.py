"""`/v1/agent` to change the agent: reload, maintenance, join, leave, force-leave, tokens."""

from typing import Any

import msgspec

from lictor.http.agent_services import read_enable
from lictor.http.api import Api
from lictor.http.bodies import read_record
from lictor.http.reply import Reply, text_reply
from lictor.http.request import Request
from lictor.http.routes import Family
from lictor.model.authorizer import WRITE

family = Family()


class AgentToken(msgspec.Struct, frozen=True, rename="pascal"):
    """The body that sets a token."""

    token: str = ""


@family.action("PUT", "/v1/agent/reload")
async def reload(api: Api, request: Request) -> Any:
    """Read the configuration anew; the answer's text names what needs a restart, and is empty where nothing does."""
    request.require("agent", api.agent.node_name, WRITE)
    refused = await api.agent.reload()
    if not refused:
        return Reply()
    return text_reply(f"Reloaded; these keys need a restart to take effect: {', '.join(refused)}\n")


@family.action("PUT", "/v1/agent/maintenance")
async def maintenance(api: Api, request: Request) -> Any:
    """Put the node into maintenance (`enable`, `reason`) or out of it."""
    enable = read_enable(request)
    request.require("node", api.agent.node_name, WRITE)
    await api.agent.set_node_maintenance(request.get("reason") if enable else None)
    return Reply()


@family.action("PUT", "/v1/agent/join/:address")
async def join(api: Api, request: Request) -> Any:
    """Join the agent at an address; with `wan` the pool of all datacenters' servers."""
    request.require("agent", api.agent.node_name, WRITE)
    await api.agent.join(request.vars["address"], wan=bool(request.get("wan")))
    return Reply()


@family.action("PUT", "/v1/agent/leave")
async def leave(api: Api, request: Request) -> Any:
    """Leave the cluster and end, once this is answered."""
    request.require("agent", api.agent.node_name, WRITE)
    await api.agent.leave()
    return Reply()


@family.action("PUT", "/v1/agent/force-leave/:node")
async def force_leave(api: Api, request: Request) -> Any:
    """Have a failed member count as left; with `prune`, be forgotten; with `wan`, in the pool between datacenters."""
    request.require("operator", "", WRITE)
    await api.agent.force_leave(request.vars["node"], prune=request.flag("prune"), wan=request.flag("wan"))
    return Reply()


@family.action("PUT", "/v1/agent/token/:name")
async def token(api: Api, request: Request) -> Any:
    """Set one of the agent's own tokens, under its name of today or one of before."""
    agent = api.agent
    if not agent.config.acl.enabled:
        return text_reply("ACL support disabled", 401)
    request.require("agent", agent.node_name, WRITE)
    agent.set_token(request.vars["name"], read_record(request, AgentToken).token)
    return Reply()
