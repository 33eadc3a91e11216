"""The other datacenters, as a server reaches them: who their servers are is told by the pool between datacenters, and
each datacenter has a network of its own, on which certificates are for that datacenter's servers.

So nothing that is said in that pool changes whom this server takes for a server of its own datacenter.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec

from lictor.agent.config.keys import RuntimeConfig
from lictor.agent.elsewhere import LOOKUP
from lictor.agent.forwarding import REQUEST, STREAM, Asked, Numbers, encode
from lictor.agent.metrics import Metrics
from lictor.agent.pools import Pools
from lictor.model.coordinate import distance
from lictor.model.member import ALIVE, LEFT
from lictor.model.transport import Caller, Transport
from lictor.server.datacenters import Datacenters, Place

if TYPE_CHECKING:
    from lictor.rpc.network import Network
    from lictor.rpc.security import Security

PASSED_ON = frozenset((REQUEST, STREAM, LOOKUP))


class Wan:
    """See above. `datacenters` makes the calls, and answers them."""

    def __init__(self, config: RuntimeConfig, node_id: str, pools: Pools, metrics: Metrics) -> None:
        self._config = config
        self._pools = pools
        self._metrics = metrics
        self._chance = random.SystemRandom()
        self._security: Security | None = None  # read when it is first needed
        self._places: tuple[Place, ...] | None = None  # as the pool tells them, until it tells something else
        self._networks: dict[str, Network] = {}
        self._numbers = Numbers(self._chance)
        self.datacenters = Datacenters(
            config.datacenter, node_id, self._servers, self._way, self._chance, self._speaks_for, PASSED_ON
        )

    def _servers(self) -> Iterable[Place]:
        if self._places is None:
            wan = self._pools.wan
            if wan is None:
                return ()
            seen = [one for one in wan.servers() if one.status != LEFT]
            self._places = tuple([Place(one.datacenter, one.id, one.address, one.status == ALIVE) for one in seen])
        return self._places

    def servers_changed(self) -> None:
        """The pool's members are others, or say something else of themselves."""
        self._places = None

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

    async def request(self, datacenter: str, asked: Asked, timeout: float) -> bytes:
        """Have a server of a datacenter answer a request; the answer is an `Answered`. One that is no GET is numbered
        here, unless an agent has. Raises what `Datacenters.call` raises.
        """
        if datacenter in self.datacenters.known():  # what callers make up is nothing to count
            self._metrics.counter("rpc.cross-dc", datacenter=datacenter).add()
        if asked.number or asked.method in ("GET", "HEAD"):
            return await self.datacenters.call(datacenter, REQUEST, encode(asked), timeout)
        number, low = self._numbers.begin()
        try:
            numbered = msgspec.structs.replace(asked, origin=self._numbers.origin, number=number, low=low)
            return await self.datacenters.call(datacenter, REQUEST, encode(numbered), timeout)
        finally:
            self._numbers.end(number)

    def by_distance(self) -> list[str]:
        """The names of all datacenters: this one, then the others by how far most of their servers are, as far as is
        known, and by name.
        """
        wan = self._pools.wan
        distances: dict[str, list[float]] = {}
        for one in wan.servers() if wan is not None else ():
            if one.status != LEFT and one.datacenter:
                assert wan is not None
                there = wan.coordinate_of(f"{one.node}.{one.datacenter}")
                far = distance(wan.coordinate, there) if there is not None else math.inf
                distances.setdefault(one.datacenter, []).append(far)
        return nearest_first(self.datacenters.own, distances)

    def reload(self, config: RuntimeConfig, security: Security) -> None:
        """Use what the certificate files hold now, and the keys of TLS and limits."""
        from lictor.agent.rpc_limits import network_limits
        from lictor.agent.rpc_tls import toward

        self._config, self._security = config, security
        for datacenter, network in self._networks.items():
            network.configure(toward(security, config, datacenter), network_limits(config))

    async def close(self) -> None:
        """End all connections."""
        await self.datacenters.close()
        await asyncio.gather(*(network.close() for network in self._networks.values()))


def nearest_first(own: str, distances: dict[str, list[float]]) -> list[str]:
    """The names of datacenters: the own one, then the others by the middle one of their servers' distances, and by
    name where that is the same.
    """
    middle = {name: sorted(found)[len(found) // 2] for name, found in distances.items() if name != own}
    return [own, *sorted(middle, key=lambda name: (middle[name], name))]
