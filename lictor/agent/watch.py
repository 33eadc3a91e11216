"""Watches: what to look at, how to ask for it, and when the answer is news.

This file is the pure half: a `WatchPlan` is a validated watch (from the command line or from `watches = [...]`), and a
`Progress` follows one plan through its blocking queries. It is told of each answer and of each failure, and says what
to do: hand a `Change` to the handler, ask again, or wait. No socket and no clock; `watch_runner` (the agent) and
`lictor watch` (the command line) are the shells.

Rules of the index, from the documentation of blocking queries: the first answer is always news; an answer with the
index already seen is not; an index that went backwards starts over from 0; an answer equal to the one before is not
news though its index moved.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

import msgspec

from lictor.model.duration import format_duration, parse_duration

RETRY_SECONDS = 5.0
MAX_BACKOFF_SECONDS = 180.0
UNBLOCKED_SECONDS = 1.0
DEFAULT_HTTP_TIMEOUT = 10.0
SHELL_SYNTAX = frozenset("|&;<>()$`*?[]#~!{}\n")
"""What a `handler` string may not hold outside quotes, because only a shell would give it a meaning."""


class WatchError(Exception):
    """A watch that cannot be: the text says which parameter is wrong and what it should be."""


class ScriptHandler(msgspec.Struct, frozen=True):
    """Run a program: the payload on its standard input, the index in CONSUL_INDEX and LICTOR_INDEX."""

    args: tuple[str, ...]


class HttpHandler(msgspec.Struct, frozen=True):
    """Send the payload to a URL, the index in X-Consul-Index. `timeout` in seconds."""

    path: str
    method: str = "POST"
    timeout: float = DEFAULT_HTTP_TIMEOUT
    header: tuple[tuple[str, str], ...] = ()
    tls_skip_verify: bool = False


Handler = ScriptHandler | HttpHandler


class WatchPlan(msgspec.Struct, frozen=True):
    """One watch: the request that answers it, and who is told. Equal plans watch the same thing the same way.

    `path` begins with /v1/; `query` holds the parameters that never change. A `by_hash` plan blocks on the content
    hash of the answer, every other on its index.
    """

    type: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    token: str = ""
    handler: Handler | None = None
    by_hash: bool = False


class Change(msgspec.Struct, frozen=True):
    """News for a handler: the answer, and the index that it had."""

    index: int
    value: Any

    def payload(self) -> bytes:
        """The answer as one line of JSON, as handlers read it."""
        return msgspec.json.encode(self.value) + b"\n"


# -- reading a watch -----------------------------------------------------------------------------------------------


class _Parameters:
    """The parameters of one watch, taken out one by one; what is left at the end was not known."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._left = dict(values)

    def text(self, name: str) -> str:
        value = self._left.pop(name, "")
        if not isinstance(value, str):
            raise WatchError(f"Expecting {name} to be a string")
        return value

    def truth(self, name: str) -> bool:
        value = self._left.pop(name, False)
        if not isinstance(value, bool):
            raise WatchError(f"Expecting {name} to be a boolean")
        return value

    def texts(self, name: str) -> list[str]:
        value = self._left.pop(name, [])
        if isinstance(value, str):
            return [value]
        if not isinstance(value, (list, tuple)):
            raise WatchError(f"Expecting {name} to be a string or []string")
        for index, item in enumerate(value):
            if not isinstance(item, str):
                raise WatchError(f"Index {index} of {name} expected to be string")
        return list(value)

    def raw(self, name: str) -> Any:
        return self._left.pop(name, None)

    def left(self) -> list[str]:
        return sorted(self._left)


_Request = tuple[str, list[tuple[str, str]]]


def _key(parameters: _Parameters) -> _Request:
    key = parameters.text("key")
    if not key:
        raise WatchError("Must specify a single key to watch")
    return f"/v1/kv/{quote(key.lstrip('/'))}", []


def _keyprefix(parameters: _Parameters) -> _Request:
    prefix = parameters.text("prefix")
    if not prefix:
        raise WatchError("Must specify a single prefix to watch")
    return f"/v1/kv/{quote(prefix.lstrip('/'))}", [("recurse", "")]


def _services(_parameters: _Parameters) -> _Request:
    return "/v1/catalog/services", []


def _nodes(_parameters: _Parameters) -> _Request:
    return "/v1/catalog/nodes", []


def _service(parameters: _Parameters) -> _Request:
    service = parameters.text("service")
    tags = parameters.texts("tag")
    passing_only = parameters.truth("passingonly")
    if not service:
        raise WatchError("Must specify a single service to watch")
    query = [("tag", tag) for tag in tags]
    if passing_only:
        query.append(("passing", "1"))
    return f"/v1/health/service/{quote(service, safe='')}", query


def _checks(parameters: _Parameters) -> _Request:
    service = parameters.text("service")
    state = parameters.text("state")
    if service and state:
        raise WatchError("Cannot specify service and state")
    if service:
        return f"/v1/health/checks/{quote(service, safe='')}", []
    return f"/v1/health/state/{quote(state or 'any', safe='')}", []


def _event(parameters: _Parameters) -> _Request:
    name = parameters.text("name")
    return "/v1/event/list", [("name", name)] if name else []


def _connect_roots(_parameters: _Parameters) -> _Request:
    return "/v1/agent/connect/ca/roots", []


def _connect_leaf(parameters: _Parameters) -> _Request:
    service = parameters.text("service")
    if not service:
        raise WatchError("Must specify a single service to watch")
    return f"/v1/agent/connect/ca/leaf/{quote(service, safe='')}", []


def _agent_service(parameters: _Parameters) -> _Request:
    return f"/v1/agent/service/{quote(parameters.text('service_id'), safe='')}", []


TYPES: dict[str, Callable[[_Parameters], _Request]] = {
    "key": _key,
    "keyprefix": _keyprefix,
    "services": _services,
    "nodes": _nodes,
    "service": _service,
    "checks": _checks,
    "event": _event,
    "connect_roots": _connect_roots,
    "connect_leaf": _connect_leaf,
    "agent_service": _agent_service,
}


def parse_plan(values: Mapping[str, Any], handler: Handler | None = None) -> WatchPlan:
    """The plan for a watch's parameters under their configuration names. Raises WatchError with Consul's texts."""
    parameters = _Parameters(values)
    datacenter = parameters.text("datacenter")
    token = parameters.text("token")
    kind = parameters.text("type")
    if not kind:
        raise WatchError("Watch type must be specified")
    request = TYPES.get(kind)
    if request is None:
        raise WatchError(f"Unsupported watch type: {kind}")
    # The agent answers these from itself, so there is no server to be stale about.
    stale = kind not in ("event", "connect_roots", "connect_leaf", "agent_service") and parameters.truth("stale")
    path, query = request(parameters)
    if parameters.left():
        raise WatchError(f"Invalid parameters: [{' '.join(parameters.left())}]")
    if datacenter:
        query.append(("dc", datacenter))
    if stale:
        query.append(("stale", ""))
    return WatchPlan(kind, path, tuple(query), token, handler, by_hash=kind == "agent_service")


def parse_agent_watch(values: Mapping[str, Any]) -> WatchPlan:
    """The plan for one entry of the agent's `watches`, which must have exactly one handler.

    Raises WatchError; the caller adds which file and entry it was.
    """
    kind = values.get("type")
    if isinstance(kind, str) and kind.startswith("connect_"):
        raise WatchError(f"Watch type {kind} is not allowed in agent config")
    left = dict(values)
    handler_type = left.pop("handler_type", "script")
    if not isinstance(handler_type, str):
        raise WatchError("Expecting handler_type to be a string")
    string_handler, args = left.pop("handler", None), left.pop("args", None)
    http_config = left.pop("http_handler_config", None) if handler_type == "http" else None
    try:
        if handler_type == "http" and http_config is None:
            raise WatchError("Handler type 'http' requires 'http_handler_config' to be set")
        http = read_http_handler(http_config) if http_config is not None else None
        plan = parse_plan(left)
    except WatchError as error:
        raise WatchError(f"Failed to parse watch {_shown(values)}: {error}") from None
    if handler_type not in ("script", "http"):
        raise WatchError(f"Handler type '{handler_type}' not recognized")
    if sum(given is not None for given in (string_handler, args, http)) > 1:
        raise WatchError("Only one watch handler allowed")
    return msgspec.structs.replace(plan, handler=http or _script_handler(string_handler, args))


def _script_handler(string_handler: Any, args: Any) -> ScriptHandler:
    if args is not None:
        if isinstance(args, str):
            args = [args]
        if not isinstance(args, (list, tuple)) or not all(isinstance(arg, str) for arg in args):
            raise WatchError("Watch args must be a list of strings")
        if not args:
            raise WatchError("Must define a watch handler")
        return ScriptHandler(tuple(args))
    if string_handler is None:
        raise WatchError("Must define a watch handler")
    # Consul's configuration reader takes a list of one string for a string.
    if isinstance(string_handler, (list, tuple)) and len(string_handler) == 1:
        string_handler = string_handler[0]
    if not isinstance(string_handler, str):
        raise WatchError("Watch handler must be a string")
    return ScriptHandler(split_handler(string_handler))


def split_handler(text: str) -> tuple[str, ...]:
    """A `handler` string as the arguments of one program; no shell ever reads it.

    Raises WatchError when the string means something only to a shell: run differently than it was written, it could
    do harm.
    """
    advice = f'use args = ["sh", "-c", {msgspec.json.encode(text).decode()}] instead'
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise WatchError(f"Watch handler {text!r} cannot be split into arguments ({error}); {advice}") from None
    if not words:
        raise WatchError("Must define a watch handler")
    if "=" in words[0] or _has_shell_syntax(text.strip()):
        raise WatchError(f"Watch handler {text!r} needs a shell, which handlers are not run with; {advice}")
    return tuple(words)


def _has_shell_syntax(text: str) -> bool:
    quoted_by = ""
    escaped = False
    for char in text:
        if escaped:
            escaped = False
        elif char == "\\" and quoted_by != "'":
            escaped = True
        elif char == quoted_by:
            quoted_by = ""
        elif quoted_by:
            if quoted_by == '"' and char in "$`":
                return True
        elif char in "'\"":
            quoted_by = char
        elif char in SHELL_SYNTAX:
            return True
    return False


def read_http_handler(config: Any) -> HttpHandler:
    """`http_handler_config` as a handler. Raises WatchError with Consul's texts."""
    if isinstance(config, (list, tuple)) and len(config) == 1:
        config = config[0]  # an HCL block reads as a list of one
    try:
        return _http_handler(config)
    except WatchError as error:
        raise WatchError(f"Failed to parse 'http_handler_config': {error}") from None


def _http_handler(config: Any) -> HttpHandler:
    if not isinstance(config, Mapping):
        raise WatchError("expected a map")
    parameters = _Parameters(config)
    path, method = parameters.text("path"), parameters.text("method")
    timeout, header = parameters.raw("timeout"), parameters.raw("header")
    skip_verify = parameters.truth("tls_skip_verify")
    if parameters.left():
        raise WatchError(f"unknown key {parameters.left()[0]!r}")
    if not path:
        raise WatchError("Requires 'path' to be set")
    if not path.startswith(("http://", "https://")):
        raise WatchError(f"'path' must be a URL beginning with http:// or https://, got {path!r}")
    return HttpHandler(path, method.upper() or "POST", _timeout(timeout), _header(header), skip_verify)


def _timeout(raw: Any) -> float:
    if raw is None:
        return DEFAULT_HTTP_TIMEOUT
    if not isinstance(raw, str):
        raise WatchError(f'Failed to parse timeout: expected a duration such as "10s", got {raw!r}')
    try:
        seconds = parse_duration(raw)
    except ValueError as error:
        raise WatchError(f"Failed to parse timeout: {error}") from None
    if seconds <= 0:
        raise WatchError(f"Failed to parse timeout: must be positive, got {format_duration(seconds)}")
    return seconds


def _header(raw: Any) -> tuple[tuple[str, str], ...]:
    if raw is None:
        return ()
    if isinstance(raw, (list, tuple)) and len(raw) == 1:
        raw = raw[0]
    if not isinstance(raw, Mapping):
        raise WatchError("'header' must be a map of names to lists of values")
    pairs = []
    for name, values in raw.items():
        for value in [values] if isinstance(values, str) else values if isinstance(values, (list, tuple)) else [None]:
            if not isinstance(value, str) or "\n" in value or "\r" in value:
                raise WatchError(f"the values of header {name!r} must be strings of one line")
            pairs.append((str(name), value))
    return tuple(pairs)


def _shown(values: Mapping[str, Any]) -> str:
    """A watch as an error shows it: as JSON, its token hidden."""
    visible = {key: "<hidden>" if key == "token" and value else value for key, value in values.items()}
    return "(" + msgspec.json.encode(visible, order="sorted", enc_hook=repr).decode() + ")"


# -- following a watch ---------------------------------------------------------------------------------------------


class Progress:
    """Where one plan stands: what to ask next, and whether an answer is news.

    The shell asks with `query()`, gives the answer to `absorb()` or the failure to `failed()`, waits `pause()`, and
    repeats.
    """

    def __init__(self, plan: WatchPlan) -> None:
        self.plan = plan
        self.failures = 0
        self._seen = False
        self._index = 0
        self._hash = ""
        self._last: Any = None
        self._last_event = ""

    def query(self) -> list[tuple[str, str]]:
        """The parameters of the next request."""
        query = list(self.plan.query)
        if self.plan.by_hash and self._hash:
            query.append(("hash", self._hash))
        elif self._index:
            query.append(("index", str(self._index)))
        return query

    def pause(self) -> float:
        """Seconds to wait before the next request though nothing failed: without an index or a hash to wait on, the
        agent answers at once, and asking at once again would only spin."""
        return 0.0 if self._index or self._hash or not self._seen else UNBLOCKED_SECONDS

    def absorb(self, status: int, headers: Mapping[str, str], body: bytes) -> Change | None:
        """Take an answer; a Change when it is news. Raises WatchError when it is no answer to the question.

        `headers` must find X-Consul-Index whatever its case.
        """
        missing = status == 404 and self.plan.type in ("key", "keyprefix")
        if status != 200 and not missing:
            text = body[:1000].decode("utf-8", "replace").strip()
            raise WatchError(f"Unexpected response code: {status} ({text})")
        try:
            value = None if missing else msgspec.json.decode(body)
            index = int(headers.get("X-Consul-Index") or 0)
        except (ValueError, RecursionError) as error:
            raise WatchError(f"Unexpected answer from the agent: {error}") from None
        if self.plan.type == "key" and isinstance(value, list):
            value = value[0] if value else None
        self.failures = 0
        if self.plan.by_hash:
            return self._news_by_hash(headers.get("X-Consul-ContentHash") or "", index, value)
        if self.plan.type == "event":
            return self._news_of_events(index, value)
        return self._news(index, value)

    def failed(self) -> float:
        """Take a failure; the seconds to wait before the next request."""
        self.failures += 1
        return min(RETRY_SECONDS * self.failures**2, MAX_BACKOFF_SECONDS)

    def _news(self, index: int, value: Any) -> Change | None:
        if self._seen and index == self._index:
            return None
        self._index = 0 if index < self._index else index
        return self._unless_same(index, value)

    def _news_by_hash(self, digest: str, index: int, value: Any) -> Change | None:
        if self._seen and digest and digest == self._hash:
            return None
        self._hash = digest
        return self._unless_same(index, value)

    def _news_of_events(self, index: int, value: Any) -> Change | None:
        """Events have no order of indexes: each index is made from the newest event's id. Hand on what came since."""
        events = [event for event in value if isinstance(event, dict)] if isinstance(value, list) else []
        first = not self._seen
        self._seen, self._index = True, index
        ids = [event.get("ID", "") for event in events]
        if self._last_event in ids:
            events = events[ids.index(self._last_event) + 1 :]
        self._last_event = ids[-1] if ids else self._last_event
        return Change(index, events) if first or events else None

    def _unless_same(self, index: int, value: Any) -> Change | None:
        if self._seen and value == self._last:
            return None
        self._seen, self._last = True, value
        return Change(index, value)
