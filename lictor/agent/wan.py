"""The other datacenters, as a server reaches them: who their servers are is told by the pool between datacenters, and
each datacenter has a network of its own, on which certificates are for that datacenter's servers.

So nothing that is said in that pool changes whom this server takes for a server of its own datacenter.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from typing import TYPE_CHECKING

from lictor.agent.config.keys import RuntimeConfig
from lictor.agent.pools import Pools
from lictor.model.member import ALIVE, LEFT
from lictor.model.transport import Caller, Transport
from lictor.server.datacenters import Datacenters, Place

if TYPE_CHECKING:
    from lictor.rpc.network import Network
    from lictor.rpc.security import Security


class Wan:
    """See above. `datacenters` makes the calls, and answers them."""

    def __init__(self, config: RuntimeConfig, node_id: str, pools: Pools) -> None:
        self._config = config
        self._pools = pools
        self._chance = random.SystemRandom()
        self._security: Security | None = None  # read when it is first needed
        self._networks: dict[str, Network] = {}
        self.datacenters = Datacenters(
            config.datacenter, node_id, self._servers, self._way, self._chance, self._speaks_for
        )

    def _servers(self) -> Iterable[Place]:
        wan = self._pools.wan
        for one in wan.servers() if wan is not None else ():
            if one.status != LEFT:
                yield Place(one.datacenter, one.id, one.address, one.status == ALIVE)

    def _way(self, datacenter: str) -> Transport:
        network = self._networks.get(datacenter)
        if network is None:
            # It takes a while to import, and a server in memory that is alone does without.
            from lictor.agent.rpc_limits import network_limits
            from lictor.agent.rpc_tls import toward
            from lictor.rpc.network import Network

            security = toward(self._own_security(), self._config, datacenter)
            network = Network(self._chance, security=security, limits=network_limits(self._config))
            self._networks[datacenter] = network
        return network

    def _speaks_for(self, caller: Caller, datacenter: str) -> bool:
        from lictor.agent.rpc_tls import speaks_for

        return speaks_for(caller, self._own_security(), self._config, datacenter)

    def _own_security(self) -> Security:
        if self._security is None:
            from lictor.agent.rpc_tls import rpc_tls

            self._security = rpc_tls(self._config)
        return self._security

    def reload(self, config: RuntimeConfig, security: Security) -> None:
        """Use what the certificate files hold now, and the keys of TLS and limits."""
        from lictor.agent.rpc_limits import network_limits
        from lictor.agent.rpc_tls import toward

        self._config, self._security = config, security
        for datacenter, network in self._networks.items():
            network.configure(toward(security, config, datacenter), network_limits(config))

    async def close(self) -> None:
        """End all connections."""
        await asyncio.gather(*(network.close() for network in self._networks.values()))
