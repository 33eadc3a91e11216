"""An agent as what proxies are configured from."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Collection
from typing import TypeVar

from lictor.agent.agent import Agent
from lictor.agent.far_services import far_services
from lictor.agent.leaves_book import Leaf
from lictor.connect_proxy.envoy.place import Place
from lictor.model.intention import default_policy
from lictor.model.service import ExposePath, NodeService
from lictor.store.reads.health import CheckServiceNode
from lictor.store.store import Answer, View

T = TypeVar("T")


class AgentSource:
    """What is read of it, and followed."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._elsewhere = far_services(agent)

    def follow(self, function: Callable[[View], T]) -> AsyncGenerator[Answer[T], None]:
        """The answer of a read, and each that takes its place."""
        return self._agent.follow(function)

    def leaf(self, service: str) -> AsyncGenerator[Leaf, None]:
        """A service's leaf, and each that takes its place."""
        return self._agent.leaves.follow(service)

    def registration(self, view: View, proxy_id: str) -> NodeService | None:
        """A service of this agent, by its id."""
        view.saw("agent", "service", proxy_id)
        return self._agent.local.service(proxy_id)

    def exposed(self, view: View, proxy_id: str) -> tuple[ExposePath, ...]:
        """What a proxy of this agent lets through for the checks of its service."""
        return self._agent.exposing.paths(view, proxy_id)

    async def hold_elsewhere(self, holder: object, wanted: Collection[tuple[str, str]]) -> bool:
        """Know the instances of services of other datacenters (datacenter, name) for a holder, and of no others.
        Returns whether there are some that were not known: what was read of them is about to be read anew.
        """
        self._elsewhere.hold(holder, wanted)
        return await self._elsewhere.first(wanted)

    def release_elsewhere(self, holder: object) -> None:
        """They are not needed any more."""
        self._elsewhere.hold(holder, ())

    def elsewhere(self, view: View, datacenter: str, service: str) -> list[CheckServiceNode]:
        """The instances of a service of another datacenter, where they are held."""
        return self._elsewhere.instances(view, datacenter, service)

    async def close(self) -> None:
        """Ask other datacenters no more."""
        await self._elsewhere.close()

    @property
    def place(self) -> Place:
        """Where the agent is."""
        config = self._agent.config
        acl = config.acl.default_policy if config.acl.enabled else "allow"
        return Place(
            config.datacenter, default_policy(config.default_intention_policy, acl).allow, self._agent.advertise
        )
