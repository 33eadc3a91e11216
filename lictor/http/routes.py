"""The table of endpoints: which function answers which method and path.

A pattern is a path whose segments may be `:name` (one segment) or, last, `*name` (the rest, slashes and all). An
endpoint is

- a **read**: `function(api, request)` checks the parameters and returns a function of the store's `View`; the door
runs it,
  waits with it where the caller asks, and remembers its answer;
- a **local read**: the same, about the agent's own state: no consistency and no index, but a content hash to wait on;
- a **write**: `function(api, request)` checks the parameters and returns a command; its result is the answer;
- an **action**: `async function(api, request)`, which does something else and returns a value or a reply.

Some are about the agent itself, the others are *at the servers*: a client agent has those answered by a server, or from
what it holds of the servers' state (see `forwarding`). Most of these can be asked of another datacenter too, which the
parameter `dc` names, or the body.
"""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import msgspec

from lictor.http.request import Request
from lictor.model.command import Command
from lictor.store.store import View

if TYPE_CHECKING:
    from lictor.http.api import Api

ReadFunction = Callable[[View], Any]
ReadEndpoint = Callable[["Api", Request], ReadFunction]
WriteEndpoint = Callable[["Api", Request], Command]
ActionEndpoint = Callable[["Api", Request], Awaitable[Any]]
Held = Callable[..., ReadFunction]

READ = "read"
LOCAL = "local"
WRITE = "write"
ACTION = "action"

DEFAULT_BODY_LIMIT = 2 * 1024 * 1024  # bytes


class Endpoint(msgspec.Struct, frozen=True):
    """One entry of the table. `body_limit` is in bytes, or the name of the field of `HttpSettings` that says it: no
    more than that is held of a body. `cacheable` reads take `?cached`. `lenient` reads are answered from the own store
    where nobody leads. Those that are `dated` tell the store's age in their bodies. `at_servers` is whether it is about
    the servers' state, `streamed` whether its answer is sent a piece at a time; `held` gives what such an action reads,
    where a client agent can do it with what it holds while no server answers. `elsewhere` is whether another
    datacenter can be asked, and `named_in_body` whether the body may name it; what is `at_primary` is done by the
    primary datacenter, whichever is named.
    """

    kind: str
    method: str
    pattern: str
    function: Callable[..., Any]
    body_limit: int | str = DEFAULT_BODY_LIMIT
    cacheable: bool = False
    lenient: bool = False
    dated: bool = False
    at_servers: bool = False
    streamed: bool = False
    held: "Held | None" = None
    elsewhere: bool = False
    named_in_body: bool = False
    at_primary: bool = False


class Family:
    """The endpoints of one file; `at_servers` is what holds for those that do not say it themselves."""

    def __init__(self, *, at_servers: bool = False) -> None:
        self._at_servers = at_servers
        self.endpoints: list[Endpoint] = []

    def read(
        self, pattern: str, *, cacheable: bool = False, lenient: bool = False, dated: bool = False
    ) -> Callable[[ReadEndpoint], ReadEndpoint]:
        """Mark a read of the store."""
        return self._add(READ, "GET", pattern, cacheable=cacheable, lenient=lenient, dated=dated)

    def read_local(self, pattern: str) -> Callable[[ReadEndpoint], ReadEndpoint]:
        """Mark a read of the agent's own state."""
        return self._add(LOCAL, "GET", pattern)

    def write(
        self, method: str, pattern: str, *, body_limit: int | str = DEFAULT_BODY_LIMIT
    ) -> Callable[[WriteEndpoint], WriteEndpoint]:
        """Mark a write of the store."""
        return self._add(WRITE, method, pattern, body_limit=body_limit)

    def action(
        self,
        method: str,
        pattern: str,
        *,
        body_limit: int | str = DEFAULT_BODY_LIMIT,
        at_servers: bool | None = None,
        streamed: bool = False,
        held: "Held | None" = None,
        elsewhere: bool | None = None,
        named_in_body: bool = False,
        at_primary: bool = False,
    ) -> Callable[[ActionEndpoint], ActionEndpoint]:
        """Mark an action. What is at the servers can be asked elsewhere too, where nothing else is said."""
        options: dict[str, Any] = {"held": held}
        if at_servers is not None:
            options["at_servers"] = at_servers
        if elsewhere is not None:
            options["elsewhere"] = elsewhere
        return self._add(
            ACTION,
            method,
            pattern,
            body_limit=body_limit,
            streamed=streamed,
            named_in_body=named_in_body,
            at_primary=at_primary,
            **options,
        )

    def _add(self, kind: str, method: str, pattern: str, **options: Any) -> Callable[[Any], Any]:
        options.setdefault("at_servers", self._at_servers)
        options.setdefault("elsewhere", options["at_servers"])

        def mark(function: Any) -> Any:
            self.endpoints.append(Endpoint(kind, method, pattern, function, **options))
            return function

        return mark


class _Node:
    __slots__ = ("children", "methods", "rest", "variable")

    def __init__(self) -> None:
        self.children: dict[str, _Node] = {}
        self.variable: _Node | None = None
        self.rest: _Node | None = None
        self.methods: dict[str, tuple[Endpoint, tuple[str, ...]]] = {}


class Routes:
    """Every family's endpoints, found by path."""

    def __init__(self, *families: Family) -> None:
        self._root = _Node()
        for family in families:
            for endpoint in family.endpoints:
                self._insert(endpoint)

    def _insert(self, endpoint: Endpoint) -> None:
        node: _Node = self._root
        names: list[str] = []
        for segment in endpoint.pattern.strip("/").split("/"):
            if segment.startswith(":"):
                names.append(segment[1:])
                node.variable = node.variable or _Node()
                node = node.variable
            elif segment.startswith("*"):
                names.append(segment[1:])
                node.rest = node.rest or _Node()
                node = node.rest
            else:
                node = node.children.setdefault(segment, _Node())
        if endpoint.method in node.methods:
            raise ValueError(f"two endpoints for {endpoint.method} {endpoint.pattern}")
        node.methods[endpoint.method] = (endpoint, tuple(names))

    def find(self, path: str) -> tuple[dict[str, tuple[Endpoint, tuple[str, ...]]], list[str]] | None:
        """The methods of a path and the values of its variables; None where nothing answers there."""
        node = self._root
        values: list[str] = []
        segments = path[1:].split("/")
        for position, segment in enumerate(segments):
            fixed, variable = node.children.get(segment), node.variable
            if fixed is not None:
                node = fixed
            elif variable is not None and node.rest is None:
                node = variable
                # What follows a last variable belongs to it: names may hold slashes.
                if not variable.children and variable.variable is None and variable.rest is None:
                    values.append("/".join(segments[position:]))
                    break
                values.append(segment)
            elif node.rest is not None:
                values.append("/".join(segments[position:]))
                node = node.rest
                break
            else:
                return None
        return (node.methods, values) if node.methods else None
