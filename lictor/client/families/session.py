"""`client.session`: the leases that hold locks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from lictor.client.calls import OR_NOTHING, Call, F, Family, Reply, call, get, path, put, read, reads, reads_or_none
from lictor.model.duration import format_duration
from lictor.model.session import Session as Row

_created = reads(dict[str, str])
_rows = reads(list[Row])
_found = reads_or_none(list[Row])
_done = reads(bool)


def _first(reply: Reply) -> Row | None:
    found = _found(reply)
    return found[0] if found else None


class Session(Family[F]):
    """Sessions."""

    @call
    def create(
        self,
        name: str = "",
        *,
        ttl: float = 0.0,
        behavior: Literal["release", "delete"] = "release",
        lock_delay: float | None = None,
        node: str = "",
        node_checks: Sequence[str] | None = None,
        dc: str = "",
    ) -> Call[str]:
        """Make a session; returns its id. `ttl` (10 to 86400) and `lock_delay` are in seconds; without a TTL it lives
        as long as its checks are not critical.
        """
        body: dict[str, Any] = {"Name": name, "Behavior": behavior}
        if ttl:
            body["TTL"] = format_duration(ttl)
        if lock_delay is not None:
            body["LockDelay"] = format_duration(lock_delay)
        if node:
            body["Node"] = node
        if node_checks is not None:
            body["NodeChecks"] = list(node_checks)
        return put(path("session", "create"), lambda reply: str(_created(reply)["ID"]), body, dc=dc)

    @call
    def destroy(self, id: str, *, dc: str = "") -> Call[bool]:
        """End a session: its locks are released, or deleted, as it says."""
        return put(path("session", "destroy", id), _done, safe=True, dc=dc)

    @call
    def renew(self, id: str, *, dc: str = "") -> Call[Row | None]:
        """Begin a session's TTL anew; None where it has ended."""
        return put(path("session", "renew", id), _first, accept=OR_NOTHING, safe=True, dc=dc)

    @read
    def info(self, id: str, *, dc: str = "") -> Call[Row | None]:
        """A session; None where there is none."""
        return get(path("session", "info", id), _first, dc=dc)

    @read
    def node(self, node: str, *, dc: str = "") -> Call[list[Row]]:
        """The sessions of a node."""
        return get(path("session", "node", node), _rows, dc=dc)

    @read
    def list(self, *, dc: str = "") -> Call[list[Row]]:
        """Every session."""
        return get(path("session", "list"), _rows, dc=dc)
