"""`client.intentions`: who may connect to whom through the mesh. What makes connections is `client.connect`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from lictor.client.calls import OR_NOTHING, Call, F, Family, Reply, call, get, path, put, read, reads, reads_or_none
from lictor.client.records import IntentionRow

_rows = reads(list[IntentionRow])
_row = reads_or_none(IntentionRow | None)
_matches = reads(dict[str, list[IntentionRow] | None])
_allowed = reads(dict[str, bool])
_done = reads(bool)
_object = reads(dict[str, Any])


def _first(reply: Reply) -> list[IntentionRow]:
    found: dict[str, list[IntentionRow] | None] = _matches(reply)
    return [row for rows in found.values() for row in rows or ()]


class Intentions(Family[F]):
    """Intentions, by the names of the services at both ends; `*` is any."""

    @read
    def match(
        self, name: str, *, by: Literal["destination", "source"] = "destination", dc: str = ""
    ) -> Call[list[IntentionRow]]:
        """Those for connections to a service, or from it, in the order in which they are considered."""
        return get(path("connect", "intentions", "match"), _first, by=by, name=name, dc=dc)

    @read
    def check(self, source: str, destination: str, *, dc: str = "") -> Call[bool]:
        """Whether a connection would be let through that nobody looks into."""
        found = path("connect", "intentions", "check")
        return get(found, lambda reply: bool(_allowed(reply)["Allowed"]), source=source, destination=destination, dc=dc)

    @read
    def get(self, source: str, destination: str, *, dc: str = "") -> Call[IntentionRow | None]:
        """The one with just these ends; None where there is none."""
        found = path("connect", "intentions", "exact")
        return get(found, _row, OR_NOTHING, source=source, destination=destination, dc=dc)

    @call
    def put(
        self,
        source: str,
        destination: str,
        action: Literal["allow", "deny", ""] = "",
        *,
        permissions: Sequence[Mapping[str, Any]] = (),
        description: str = "",
        dc: str = "",
    ) -> Call[bool]:
        """Put the one with these ends, whatever was there: with an action, or permissions as the API writes them."""
        body: dict[str, Any] = {"Action": action, "Description": description}
        if permissions:
            body["Permissions"] = [dict(one) for one in permissions]
        found = path("connect", "intentions", "exact")
        return put(found, _done, body, safe=True, source=source, destination=destination, dc=dc)

    @call
    def delete(self, source: str, destination: str, *, dc: str = "") -> Call[bool]:
        """Remove the one with these ends; there need not be one."""
        found = path("connect", "intentions", "exact")
        return put(found, _done, method="DELETE", safe=True, source=source, destination=destination, dc=dc)

    @call
    def explain(
        self, source: str, destination: str, *, change: Literal["", "allow", "deny", "delete"] = ""
    ) -> Call[dict[str, Any]]:
        """Which intention decides and why, as the API writes it; with `change` what that would do. Agents of Lictor's
        alone know this.
        """
        found = path("connect", "intentions", "explain")
        return get(found, _object, source=source, destination=destination, change=change)

    @read
    def list(self, *, filter: str = "", dc: str = "") -> Call[list[IntentionRow]]:
        """Every intention, those that are considered first before others."""
        return get(path("connect", "intentions"), _rows, filter=filter, dc=dc)
