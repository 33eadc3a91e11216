"""`client.status`, `client.operator`, `client.config`, `client.snapshot`: the servers, and what is set for all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lictor.client.calls import (
    OR_NOTHING,
    Call,
    F,
    Family,
    call,
    content,
    get,
    nothing,
    path,
    put,
    read,
    reads,
    reads_or_none,
)
from lictor.client.records import ClusterHealth, RaftConfiguration

_text = reads(str)
_names = reads(list[str])
_raft = reads(RaftConfiguration)
_object = reads(dict[str, Any])
_objects = reads(list[dict[str, Any]])
_entry = reads_or_none(dict[str, Any])
_health = reads(ClusterHealth)
_done = reads(bool)


class Status(Family[F]):
    """The servers, as any of them sees them."""

    @call
    def leader(self, *, dc: str = "") -> Call[str]:
        """The leader's address; empty for none."""
        return get(path("status", "leader"), _text, dc=dc)

    @call
    def peers(self, *, dc: str = "") -> Call[list[str]]:
        """The addresses of the servers that agree with each other."""
        return get(path("status", "peers"), _names, dc=dc)


class Operator(Family[F]):
    """What the operator of a cluster looks at and sets."""

    @call
    def raft_configuration(self, *, dc: str = "") -> Call[RaftConfiguration]:
        """The servers of the cluster."""
        return get(path("operator", "raft", "configuration"), _raft, dc=dc)

    @call
    def remove_peer(self, *, id: str = "", address: str = "", dc: str = "") -> Call[None]:
        """Remove a server from the cluster, by its id or address."""
        found = path("operator", "raft", "peer")
        return put(found, nothing, method="DELETE", id=id, address=address, dc=dc)

    @call
    def transfer_leader(self, *, id: str = "", dc: str = "") -> Call[None]:
        """Hand the leadership to another server, or to that with an id."""
        return put(path("operator", "raft", "transfer-leader"), nothing, method="POST", id=id, dc=dc)

    @call
    def autopilot(self, *, dc: str = "") -> Call[dict[str, Any]]:
        """Autopilot's configuration, as the API writes it."""
        return get(path("operator", "autopilot", "configuration"), _object, dc=dc)

    @call
    def set_autopilot(self, configuration: Mapping[str, Any], *, cas: int | None = None, dc: str = "") -> Call[bool]:
        """Replace autopilot's configuration; with `cas` only while it has that modify index."""
        found = path("operator", "autopilot", "configuration")
        return put(found, _set, dict(configuration), cas="" if cas is None else str(cas), dc=dc)

    @call
    def health(self, *, dc: str = "") -> Call[ClusterHealth]:
        """What autopilot knows of the servers' health, good or bad."""
        return get(path("operator", "autopilot", "health"), _health, frozenset({200, 429}), dc=dc)

    @call
    def authority(self, *, dc: str = "") -> Call[dict[str, Any]]:
        """The configuration of the mesh's certificate authority, as the API writes it, without its secrets."""
        return get(path("connect", "ca", "configuration"), _object, dc=dc)

    @call
    def set_authority(self, configuration: Mapping[str, Any], *, dc: str = "") -> Call[None]:
        """Configure the mesh's authority anew, as the API writes it; with a `ModifyIndex` in it only while it has
        that.
        """
        return put(path("connect", "ca", "configuration"), nothing, dict(configuration), dc=dc)


def _set(reply: Any) -> bool:
    return reply.body.strip() in (b"", b"true")


class Config(Family[F]):
    """Config entries, as the API writes them: objects with `Kind` and, mostly, `Name`."""

    @read
    def list(self, kind: str, *, dc: str = "") -> Call[list[dict[str, Any]]]:
        """The entries of a kind."""
        return get(path("config", kind), _objects, dc=dc)

    @read
    def get(self, kind: str, name: str, *, dc: str = "") -> Call[dict[str, Any] | None]:
        """One entry; None where there is none."""
        return get(path("config", kind, name), _entry, OR_NOTHING, dc=dc)

    @call
    def put(self, entry: Mapping[str, Any], *, cas: int | None = None, dc: str = "") -> Call[bool]:
        """Put an entry; with `cas` only while it has that modify index. Returns whether it was put."""
        return put(path("config"), _done, dict(entry), cas="" if cas is None else str(cas), dc=dc)

    @call
    def delete(self, kind: str, name: str, *, dc: str = "") -> Call[None]:
        """Delete an entry."""
        return put(path("config", kind, name), nothing, method="DELETE", safe=True, dc=dc)


class Snapshot(Family[F]):
    """The servers' whole state, as an archive. It is held in memory: for large ones there is the command."""

    @call
    def save(self, *, dc: str = "") -> Call[bytes]:
        """The archive of the state as it is now."""
        return get(path("snapshot"), content, dc=dc)

    @call
    def restore(self, archive: bytes, *, dc: str = "") -> Call[None]:
        """Replace the state by that of an archive."""
        return put(path("snapshot"), nothing, archive, dc=dc)
