"""What the catalog says of one node, as an agent follows it: its own, and those that its alias checks are about."""

import asyncio
import contextlib
from typing import TYPE_CHECKING

from lictor.agent.checks.alias import NodeHealth
from lictor.agent.following import Woken
from lictor.agent.registry import aliased
from lictor.store.reads import catalog, health
from lictor.store.store import Store
from lictor.store.watch import Topic

if TYPE_CHECKING:
    from lictor.agent.client import Client


class NodeViews:
    """See above. `client` holds what is looked at, where the store does not hold everything."""

    def __init__(self, store: Store, client: "Client | None") -> None:
        self._store = store
        self._client = client

    async def hold(self, node: str) -> None:
        """Have the store hold it. Raises `LictorError`."""
        if self._client is not None:
            await self._client.hold(lambda: self._seen(node))

    def _seen(self, node: str) -> tuple[Topic, ...]:
        services, checks = self._store.read(catalog.node_services, node), self._store.read(health.checks_of_node, node)
        return tuple({*services.seen, *checks.seen})

    async def health(self, node: str, index: int, wait: float) -> NodeHealth:
        """A node's health, once it has moved past `index` or `wait` seconds are over. Raises `LictorError`."""
        end = asyncio.get_running_loop().time() + wait
        await self.hold(node)
        while True:
            checks = self._store.read(health.checks_of_node, node)
            services = self._store.read(catalog.node_service_list, node)
            newest = max(checks.index, services.index)
            left = end - asyncio.get_running_loop().time()
            if newest > index or left <= 0:
                return NodeHealth(
                    newest, tuple(aliased(c) for c in checks.value), frozenset(s.id for s in services.value.services)
                )
            woken = Woken()
            self._store.watches.add(woken, tuple({*checks.seen, *services.seen}))
            try:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(left):
                        await woken.future
            finally:
                self._store.watches.discard(woken)
