"""What a lookup does that the map cannot answer: the agent is asked to publish the service, or else what it knows.

Flows: see `lictor.client.flows`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from lictor.client.calls import Answer, Call
from lictor.client.endpoint import Answered
from lictor.client.errors import ApiError, ClientError, NoAgent, NoMap, NotPublished
from lictor.client.families.agent import Agent
from lictor.client.families.discovery import Health
from lictor.client.flows import Flow, WithAnswer
from lictor.client.lookups import Lookups, Service
from lictor.client.records import Published, ServiceEntry
from lictor.model.check import PASSING, WARNING, aggregate
from lictor.model.lookup_layout import Instance

WITHOUT = 10.0  # seconds for which an agent that has no map for us is not asked to publish


class Asking:
    """See above. `clock` counts seconds."""

    def __init__(self, lookups: Lookups, clock: Callable[[], float]) -> None:
        self._lookups = lookups
        self._clock = clock
        self._without_until = -math.inf

    def service(self, name: str, missing: ClientError, max_age: float | None) -> Flow[Service]:
        """A service that the map does not hold (`missing` says why), from the map once the agent has published it or,
        where there is no map to be had, as the agent knows it. Raises `ClientError`.
        """
        found = yield from self._found(name, missing)
        if max_age is not None:
            self._lookups.not_older(max_age, found.source)
        return found

    def _found(self, name: str, missing: ClientError) -> Flow[Service]:
        if self._clock() >= self._without_until:
            found = yield from self._published(name, missing)
            if found is not None:
                return found
            self._without_until = self._clock() + WITHOUT
        call: Call[list[ServiceEntry]] = Health.service.describe(None, name, cached=True)
        try:
            answer: Answer[list[ServiceEntry]] = yield WithAnswer(call)
        except NoAgent as error:
            raise NoAgent(f"{error}; and {missing}", begun=error.begun) from None
        source = Answered(max(answer.age, answer.last_contact), self._clock)
        return self._lookups.answered(name, [_instance(entry) for entry in answer.value], source)

    def _published(self, name: str, missing: ClientError) -> Flow[Service | None]:
        """The service in the map, after the agent was asked to publish it; None where that cannot be."""
        call: Call[Published] = Agent.publish.describe(None, name)
        try:
            published: Published = yield call
        except NoAgent as error:
            raise NoAgent(f"{error}; and {missing}", begun=error.begun) from None
        except ApiError:
            return None
        lookups = self._lookups
        lookups.told(published.path)
        try:
            found = lookups.service(name)
        except (NotPublished, NoMap):
            return None
        # Of another agent's map nothing is known: the one that was asked says where its own is.
        return found if lookups.file.run == published.run else None


def _instance(entry: ServiceEntry) -> Instance:
    status = aggregate(entry.checks)
    service = entry.service
    weights = {PASSING: service.weights.passing, WARNING: service.weights.warning}
    return Instance(
        id=service.id,
        node=entry.node.node,
        address=service.address or entry.node.address,
        port=service.port,
        status=status,
        weight=weights.get(status, 0),
        tags=service.tags,
        meta=service.meta or {},
        datacenter=entry.node.datacenter,
    )
