"""Alias check: has the health of another service or node, here or elsewhere.

`judge` is the pure rule; where the checks come from (this agent's own, or the catalog's for another node) is the
runner's affair.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import msgspec

from lictor.agent.checks.result import Result, critical
from lictor.model.check import CRITICAL, PASSING, WARNING

REFRESH_INTERVAL = 60.0
"""Seconds after which an alias of something local is looked at again even when nothing was heard of a change."""

MAX_READ_WAIT = 60.0
"""Seconds that a read of another node's checks waits for a change."""

QUIET_FAILURES = 1
"""Failed reads in a row that are not told yet: a leader election is no reason to turn a service critical."""

MAX_BACKOFF = 60.0


class AliasCheck(msgspec.Struct, frozen=True, gc=False):
    """Follows service `service_id`, or without one the node itself; of this agent when `node` is empty."""

    service_id: str = ""
    node: str = ""


class AliasedCheck(msgspec.Struct, frozen=True, gc=False):
    """A check that an alias may follow; `service_id` is empty for a check of the node."""

    check_id: str
    name: str
    service_id: str
    status: str
    output: str


class Health(Protocol):
    """A node's checks and services, as an alias sees them: this agent's own, or a `NodeHealth` that was read."""

    def checks_of(self, service_id: str) -> Iterable[AliasedCheck]:
        """The checks of one service; with an empty id, those of the node itself."""
        ...

    def has_service(self, service_id: str) -> bool:
        """Whether the node has an instance of that id."""
        ...


class NodeHealth(msgspec.Struct, frozen=True, gc=False):
    """The health of another node as the catalog has it; `index` is what a later read waits from."""

    index: int
    checks: tuple[AliasedCheck, ...]
    service_ids: frozenset[str]

    def checks_of(self, service_id: str) -> Iterable[AliasedCheck]:
        """The checks of one service; with an empty id, those of the node itself."""
        return [check for check in self.checks if check.service_id == service_id]

    def has_service(self, service_id: str) -> bool:
        """Whether the node has an instance of that id."""
        return service_id in self.service_ids


class RemoteHealth(Protocol):
    """Reads another node's health from the catalog: returns when it has changed since `index`, or after `wait`
    seconds. Any exception means that it could not be read."""

    async def __call__(self, node: str, index: int, wait: float) -> NodeHealth: ...


def judge(alias: AliasCheck, own_id: str, health: Health) -> Result:
    """The worst status among the checks of the service and those of its node, and the first check that has it.

    `own_id` names the alias itself, which does not follow itself.
    """
    if alias.service_id and not health.has_service(alias.service_id):
        return critical(f"Service {alias.service_id} could not be found on node {alias.node}")
    scopes = ("", alias.service_id) if alias.service_id else ("",)
    followed = [check for scope in scopes for check in health.checks_of(scope) if check.check_id != own_id]
    for status in (CRITICAL, WARNING):
        worst = _first(followed, status)
        if worst is not None:
            return Result(status, f'Aliased check "{worst.name}" failing: {worst.output}')
    return Result(PASSING, "All checks passing." if followed else "No checks found.")


def read_failed(reason: object) -> Result:
    """The result when another node's checks cannot be read."""
    return critical(f"Failure checking aliased node or service: {reason}")


def backoff(failures: int) -> float:
    """Seconds to wait before reading again after `failures` failed reads in a row (1 or more)."""
    return min(2.0 ** min(failures - 1, 16), MAX_BACKOFF)


def _first(checks: Iterable[AliasedCheck], status: str) -> AliasedCheck | None:
    return next((check for check in checks if check.status == status), None)
