"""`client.agent` and `client.event`: the agent's own services, checks and affairs, and user events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from lictor.client.calls import (
    OR_NOTHING,
    Call,
    F,
    Family,
    call,
    get,
    nothing,
    path,
    put,
    read,
    reads,
    reads_or_none,
    text,
)
from lictor.client.records import AgentService, CheckSpec, LookupMap, Published
from lictor.model.check import Check
from lictor.model.member import Member
from lictor.model.service import Weights
from lictor.model.user_event import UserEvent

_self = reads(dict[str, Any])
_members = reads(list[Member])
_services = reads(dict[str, AgentService])
_service = reads_or_none(AgentService)
_checks = reads(dict[str, Check])
_published = reads(Published)
_lookup_map = reads(LookupMap)
_event = reads(UserEvent)
_events = reads(list[UserEvent])


class Agent(Family[F]):
    """The agent that is asked, and what is registered with it."""

    @call
    def self(self) -> Call[dict[str, Any]]:
        """The agent's configuration, member and statistics, as the API writes them."""
        return get(path("agent", "self"), _self)

    @call
    def members(self, *, wan: bool = False) -> Call[list[Member]]:
        """The members that the agent knows: of the datacenter, or with `wan` the servers of all."""
        return get(path("agent", "members"), _members, wan="1" if wan else "")

    @call
    def metrics(self) -> Call[dict[str, Any]]:
        """The last finished interval's metrics."""
        return get(path("agent", "metrics"), _self)

    @call
    def reload(self) -> Call[str]:
        """Read the configuration anew; returns what needs a restart, as text, empty for nothing."""
        return put(path("agent", "reload"), text, safe=True)

    @call
    def maintenance(self, enable: bool, *, reason: str = "") -> Call[None]:
        """Put the node into maintenance, or out of it."""
        return put(path("agent", "maintenance"), nothing, safe=True, enable=str(enable).lower(), reason=reason)

    @call
    def join(self, address: str, *, wan: bool = False) -> Call[None]:
        """Join the agent at an address."""
        return put(path("agent", "join", address), nothing, safe=True, wan="1" if wan else "")

    @call
    def leave(self) -> Call[None]:
        """Leave the cluster and end."""
        return put(path("agent", "leave"), nothing)

    @call
    def force_leave(self, node: str, *, prune: bool = False) -> Call[None]:
        """Have a failed member count as left; with `prune`, be forgotten."""
        return put(path("agent", "force-leave", node), nothing, safe=True, prune=prune)

    # -- services -----------------------------------------------------------------------------------------------------

    @call
    def services(self, *, filter: str = "") -> Call[dict[str, AgentService]]:
        """The services of this agent, by id."""
        return get(path("agent", "services"), _services, filter=filter)

    @call
    def service(self, id: str) -> Call[AgentService | None]:
        """One of them; None where it is not here."""
        return get(path("agent", "service", id), _service, OR_NOTHING)

    @call
    def register(
        self,
        /,
        name: str,
        *,
        id: str = "",
        port: int = 0,
        address: str = "",
        tags: Sequence[str] = (),
        meta: Mapping[str, str] | None = None,
        weights: Weights | None = None,
        checks: Sequence[CheckSpec] = (),
        replace_checks: bool = False,
        **more: Any,
    ) -> Call[None]:
        """Register a service here, with its checks. `more` are further fields under the API's names."""
        body: dict[str, Any] = {"Name": name, "Port": port, "Tags": list(tags), **more}
        if id:
            body["ID"] = id
        if address:
            body["Address"] = address
        if meta:
            body["Meta"] = dict(meta)
        if weights is not None:
            body["Weights"] = weights
        if checks:
            body["Checks"] = list(checks)
        query = {"replace-existing-checks": True} if replace_checks else {}
        found = put(path("agent", "service", "register"), nothing, body, safe=True)
        return msgspec.structs.replace(found, query=query)

    @call
    def deregister(self, id: str) -> Call[None]:
        """Remove a service of this agent, with its checks."""
        return put(path("agent", "service", "deregister", id), nothing, safe=True)

    @call
    def service_maintenance(self, id: str, enable: bool, *, reason: str = "") -> Call[None]:
        """Put a service into maintenance, or out of it."""
        found = path("agent", "service", "maintenance", id)
        return put(found, nothing, safe=True, enable=str(enable).lower(), reason=reason)

    # -- checks -------------------------------------------------------------------------------------------------------

    @call
    def checks(self, *, filter: str = "") -> Call[dict[str, Check]]:
        """The checks of this agent, by id."""
        return get(path("agent", "checks"), _checks, filter=filter)

    @call
    def register_check(self, check: CheckSpec, *, service_id: str = "") -> Call[None]:
        """Register a check of the node, or of a service."""
        body: dict[str, Any] = msgspec.to_builtins(check)
        if service_id:
            body["ServiceID"] = service_id
        return put(path("agent", "check", "register"), nothing, body, safe=True)

    @call
    def deregister_check(self, id: str) -> Call[None]:
        """Remove a check."""
        return put(path("agent", "check", "deregister", id), nothing, safe=True)

    @call
    def report(
        self, check_id: str, status: Literal["passing", "warning", "critical"], *, output: str = ""
    ) -> Call[None]:
        """Say how a TTL check is."""
        body = {"Status": status, "Output": output}
        return put(path("agent", "check", "update", check_id), nothing, body, safe=True)

    # -- lookups ------------------------------------------------------------------------------------------------------

    @call
    def lookup_map(self) -> Call[LookupMap]:
        """The lookup map that this agent publishes. `NotFound` where it publishes none."""
        return get(path("agent", "lookup"), _lookup_map)

    @call
    def publish(self, service: str) -> Call[Published]:
        """Have a service in the lookup map from now on; lookups do this by themselves."""
        return put(path("agent", "lookup", service), _published, safe=True)


class Event(Family[F]):
    """User events."""

    @call
    def fire(
        self, name: str, payload: bytes = b"", *, node: str = "", service: str = "", tag: str = "", dc: str = ""
    ) -> Call[UserEvent]:
        """Send an event to every agent; `node`, `service` and `tag` are patterns of whom it is for."""
        return put(path("event", "fire", name), _event, payload, node=node, service=service, tag=tag, dc=dc)

    @read
    def list(self, name: str = "") -> Call[list[UserEvent]]:
        """The events that this agent has seen, oldest first."""
        return get(path("event", "list"), _events, name=name)
