"""Having certificates signed, wherever this agent is: a server, a server in memory, or an agent that asks a server."""

from typing import TYPE_CHECKING

from lictor.model.errors import NoLeader
from lictor.server.connect_ca import SIGN, NotEnabled, decode_leaf, encode_request
from lictor.server.connect_ca_requests import SignedLeaf, SignRequest

if TYPE_CHECKING:
    from lictor.agent.agent import Agent


async def sign_leaf(agent: "Agent", request: str, token: str = "") -> SignedLeaf:
    """Have a leaf signed for a request in PEM, by the rights of a token.

    Raises `InvalidRequest` for what is no request of this mesh, `Forbidden`, `RateExceeded` where too many are asked
    for, `NoLeader` where nobody is there to sign, and `LictorError` where the authority cannot.
    """
    if not agent.config.connect.enabled:
        raise NotEnabled
    if agent.client is not None:
        body = encode_request(SignRequest(request, token))
        return decode_leaf(await agent.client.call(SIGN, body))
    if agent.leadership is None:
        raise NoLeader
    return await agent.leadership.connect_ca.sign(request, token)
