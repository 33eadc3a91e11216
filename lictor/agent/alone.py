"""What a server in memory (`-dev`) has for agents beside it: a port where they reach it, and what they follow there."""

import asyncio
import random

from lictor.agent.config.keys import RuntimeConfig
from lictor.agent.rpc_limits import network_limits
from lictor.agent.rpc_tls import rpc_tls
from lictor.rpc.network import Network
from lictor.server.for_agents import serve_agents
from lictor.server.server import Server
from lictor.server.subscriptions import Subscriptions


class ForAgents:
    """Made on a running loop. Raises `LictorError` for TLS files that cannot be used."""

    def __init__(self, config: RuntimeConfig, server: Server) -> None:
        chance = random.SystemRandom()
        self._config = config
        self.network = Network(chance, security=rpc_tls(config), limits=network_limits(config))
        serve_agents(self.network, server.store, server.apply)
        self._subscriptions = Subscriptions(server, self.network, config.datacenter, chance)

    async def listen(self) -> None:
        """Answer agents from now on. Raises `OSError`."""
        endpoint = self._config.listen.rpc
        if endpoint is not None:
            try:
                await self.network.listen(endpoint.host, endpoint.port)
            except OSError as error:
                raise OSError(f"cannot listen on {endpoint} for other agents: {error.strerror or error}") from None

    async def close(self) -> None:
        """Stop."""
        await asyncio.gather(self._subscriptions.close(), self.network.close())
