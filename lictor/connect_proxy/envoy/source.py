"""An agent as what proxies are configured from."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import TypeVar

from lictor.agent.agent import Agent
from lictor.agent.leaves_book import Leaf
from lictor.connect_proxy.envoy.place import Place
from lictor.model.intention import default_policy
from lictor.model.service import ExposePath, NodeService
from lictor.store.store import Answer, View

T = TypeVar("T")


class AgentSource:
    """What is read of it, and followed."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

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

    @property
    def place(self) -> Place:
        """Where the agent is."""
        config = self._agent.config
        acl = config.acl.default_policy if config.acl.enabled else "allow"
        return Place(
            config.datacenter, default_policy(config.default_intention_policy, acl).allow, self._agent.advertise
        )
