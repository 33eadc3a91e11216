"""From calls to requests on the wire, and when a failed one is tried again: what both flavours of client share.

Nothing here waits or touches the network.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any, Generic, TypeVar
from urllib.parse import urlencode

import msgspec

from lictor.client.calls import Answer, Call, Reply, blocking
from lictor.client.errors import (
    ApiError,
    BadAnswer,
    ClientError,
    NoAgent,
    NoLeader,
    ServerError,
    TooMany,
    api_error,
)
from lictor.client.settings import Options, Settings

T = TypeVar("T")

LONGEST_TEXT = 500  # characters of an answer that an error shows
WATCH_LONGEST = 10.0  # seconds between two tries of a watch
PASSING_STATUS = frozenset({502, 503, 504})


class Target(msgspec.Struct, frozen=True):
    """A request on the wire. `timeout` is how long to wait for its answer, in seconds."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    timeout: float


def target(call: Call[Any], settings: Settings, options: Options) -> Target:
    """The request that makes a call."""
    pairs: list[tuple[str, str]] = []
    bare: list[str] = []
    for name, value in call.query.items():
        if value is True:
            bare.append(name)
        elif isinstance(value, str):
            if value:
                pairs.append((name, value))
        elif value:
            pairs += [(name, one) for one in value]
    if options.datacenter and not call.query.get("dc") and not call.path.startswith("/v1/agent/"):
        pairs.append(("dc", options.datacenter))
    if call.method == "GET" and options.consistency in ("stale", "consistent"):
        bare.append(options.consistency)
    query = "&".join([*bare, *([urlencode(pairs)] if pairs else [])])
    headers = {"Accept-Encoding": "identity"}
    token = options.token or settings.token
    if token:
        headers["X-Consul-Token"] = token
    if settings.basic_auth:
        headers["Authorization"] = "Basic " + base64.b64encode(settings.basic_auth.encode()).decode()
    path = settings.address.prefix + call.path + (f"?{query}" if query else "")
    # The agent lengthens waits by up to a sixteenth, so that not all queries end at once.
    return Target(call.method, path, headers, call.body, options.timeout + call.wait * 17 / 16)


def check(call: Call[Any], reply: Reply) -> Reply:
    """The reply, where its status is one that the call accepts. Raises `ApiError`."""
    if reply.status in call.accept:
        return reply
    text = " ".join(reply.body[:LONGEST_TEXT].decode("utf-8", "replace").split())
    raise api_error(reply.status, text, f"{call.method} {call.path}")


def no_agent(settings: Settings, why: str, *, begun: bool) -> NoAgent:
    """The error for an agent that does not answer."""
    url = settings.address.url
    if begun:
        return NoAgent(f"the agent at {url} was asked and did not answer: {why}", begun=True)
    return NoAgent(
        f"no agent at {url}: {why}. Is it running there? LICTOR_HTTP_ADDR, or the client's address, says where it is"
    )


class Tries:
    """Whether and when a call is tried again."""

    def __init__(self, call: Call[Any], options: Options, chance: Callable[[], float]) -> None:
        self._call = call
        self._retry = options.retry
        self._chance = chance
        self._failures = 0

    def pause(self, error: ClientError) -> float:
        """Seconds to wait before the next try. Raises the error where there is to be none."""
        self._failures += 1
        if self._failures >= self._retry.tries or not self._again(error):
            raise error
        return self._retry.pause(self._failures, self._chance())

    def _again(self, error: ClientError) -> bool:
        if isinstance(error, NoAgent):
            return not error.begun or self._call.safe
        if isinstance(error, TooMany):
            return True
        passing = isinstance(error, NoLeader) or (isinstance(error, ServerError) and error.status in PASSING_STATUS)
        return passing and self._call.method == "GET"


class Cursor(Generic[T]):
    """A watch's place: which query is next, and whether an answer is news."""

    def __init__(self, call: Call[T], wait: float, options: Options, chance: Callable[[], float]) -> None:
        self._call = call
        self._wait = wait
        self._options = options
        self._chance = chance
        self._index = 0
        self._failures = 0

    def next(self) -> Call[T]:
        """The query to make now."""
        return blocking(self._call, self._index, self._wait)

    def take(self, answer: Answer[T]) -> bool:
        """Whether an answer shows something new. Raises `BadAnswer` for what cannot be watched."""
        self._failures = 0
        index, before = answer.index, self._index
        if not index:
            raise BadAnswer(f"{self._call.method} {self._call.path} cannot be watched: its answers have no index")
        # One that went backwards is of another state: what it is compared with must not be waited for.
        self._index = index if index >= before else 0
        return index != before

    def pause(self, error: ClientError) -> float:
        """Seconds to wait after a failure. Raises the error where waiting does not help."""
        if isinstance(error, ApiError) and not isinstance(error, NoLeader | ServerError | TooMany):
            raise error
        if isinstance(error, BadAnswer):
            raise error
        self._failures += 1
        return min(WATCH_LONGEST, self._options.retry.pause(self._failures, self._chance()))
