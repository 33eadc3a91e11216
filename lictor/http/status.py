"""`/v1/status`: who leads, and who the servers are."""

from typing import Any

from lictor.http.api import Api
from lictor.http.request import Request
from lictor.http.routes import Family

family = Family(at_servers=True)


@family.action("GET", "/v1/status/leader")
async def leader(api: Api, request: Request) -> Any:
    """The leader's address, empty where there is none."""
    server = api.agent.server
    return server.consensus.leader if server is not None else ""


@family.action("GET", "/v1/status/peers")
async def peers(api: Api, request: Request) -> Any:
    """The addresses of the servers."""
    server = api.agent.server
    return [peer.address for peer in server.consensus.peers()] if server is not None else []
