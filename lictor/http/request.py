"""A request as endpoints see it, with the reading of the API's common parameters."""

import ipaddress
import math
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote, unquote_plus

import msgspec

from lictor.http.freshness import CONSISTENT_MODE, DEFAULT, LEADER_MODE, STALE_MODE, Consistency
from lictor.model.authorizer import ALLOW_ALL, Authorizer, require
from lictor.model.duration import parse_duration
from lictor.model.errors import InvalidRequest
from lictor.store.filter import parse

MAX_PARAMETERS = 256


class CacheControl(msgspec.Struct):
    """What a caller says of how old an answer may be, in seconds."""

    must_revalidate: bool = False
    max_age: float = math.inf
    stale_if_error: float = -1.0


class Request:
    """One request. `path` is decoded, `query` holds the parameters in order, `headers` have lower-case names.
    `agent_node` is the node of the agent that its caller asked, where that is another one than this, `translate_for`
    the datacenter for whose sake addresses of others are to be translated, `from_elsewhere` whether it comes from
    another datacenter, whose nodes are no places here.
    """

    __slots__ = (
        "_consistency",
        "agent_node",
        "authorizer",
        "body",
        "from_elsewhere",
        "headers",
        "method",
        "path",
        "peer",
        "query",
        "raw_path",
        "raw_query",
        "translate_for",
        "vars",
    )

    def __init__(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        peer: str = "",
        body: bytes = b"",
    ) -> None:
        raw_path, _, raw_query = target.partition("?")
        self.method = method
        self.raw_path = raw_path
        self.raw_query = raw_query
        self.path = _unescape(raw_path) if "%" in raw_path else raw_path
        self.query = _parse_query(raw_query) if raw_query else _NO_QUERY
        self.headers = headers
        self.peer = peer
        self.body = body
        self.agent_node = ""
        self.translate_for = ""
        self.from_elsewhere = False
        self.vars: dict[str, str] = {}
        self.authorizer: Authorizer = ALLOW_ALL
        self._consistency: Consistency | None = None

    def has(self, name: str) -> bool:
        """Whether a parameter is there, with or without a value."""
        return name in self.query

    def get(self, name: str, default: str = "") -> str:
        """A parameter's first value."""
        values = self.query.get(name)
        return values[0] if values else default

    def all(self, name: str) -> list[str]:
        """Every value of a parameter that is not empty."""
        return [v for v in self.query.get(name, ()) if v]

    def flag(self, name: str) -> bool:
        """Whether a parameter is there and not `false` or `0`."""
        return name in self.query and self.query[name][0].lower() not in ("false", "0")

    def number(self, name: str, error: str) -> int:
        """A parameter that is a whole number from 0 to 2**64-1; raises `InvalidRequest(error)` for anything else."""
        text = self.get(name)
        # Python refuses to read thousands of digits, so those who have too many are told apart first.
        if not (text.isascii() and text.isdigit()) or len(text) > 30 or int(text) >= 1 << 64:
            raise InvalidRequest(error)
        return int(text)

    @property
    def clean_path(self) -> str:
        """The path without empty, `.` and `..` segments: where it differs, the caller is sent there."""
        path = self.path
        if "//" not in path and "/." not in path:
            return path
        kept: list[str] = []
        for segment in path.split("/"):
            if segment == "..":
                del kept[-1:]
            elif segment not in ("", "."):
                kept.append(segment)
        clean = "/" + "/".join(kept)
        return clean + "/" if kept and path.endswith("/") else clean

    @property
    def pretty(self) -> bool:
        """Whether JSON is to be indented."""
        return "pretty" in self.query

    @property
    def token(self) -> str:
        """The caller's token: header, bearer or parameter."""
        token = self.headers.get("x-consul-token", "")
        if not token:
            scheme, _, value = self.headers.get("authorization", "").partition(" ")
            token = value.strip() if scheme.lower() == "bearer" else self.get("token")
        return token

    @property
    def index(self) -> int:
        """The index that a blocking query waits to be passed; 0 does not wait."""
        if "index" not in self.query or not self.get("index"):
            return 0
        return self.number("index", "Invalid index")

    @property
    def wait(self) -> float | None:
        """How long a blocking query may wait, in seconds; None where it is not said."""
        text = self.get("wait")
        if not text:
            return None
        try:
            return max(0.0, parse_duration(text))
        except ValueError:
            raise InvalidRequest("Invalid wait time") from None

    @property
    def cache_control(self) -> "CacheControl":
        """The `Cache-Control` header. Raises `InvalidRequest` where its ages are not numbers of seconds."""
        found = CacheControl()
        for directive in self.headers.get("cache-control", "").lower().split(","):
            name, _, value = directive.strip().partition("=")
            if name == "must-revalidate":
                found.must_revalidate = True
            elif name in ("max-age", "stale-if-error"):
                if not (value.isascii() and value.isdigit() and len(value) <= 12):
                    raise InvalidRequest("Invalid Cache-Control header.")
                setattr(found, name.replace("-", "_"), float(value))
        return found

    @property
    def consistency(self) -> Consistency:
        """How fresh the answer must be or, once it has been set, how fresh it is. Raises `InvalidRequest`."""
        if self._consistency is None:
            self._consistency = self._wished_consistency() if self.query else DEFAULT
        return self._consistency

    @consistency.setter
    def consistency(self, consistency: Consistency) -> None:
        self._consistency = consistency

    def _wished_consistency(self) -> Consistency:
        query = self.query
        stale, consistent = "stale" in query, "consistent" in query
        age = self._max_stale()
        stale = stale or age > 0  # a bound on the age says that there may be one
        if stale and consistent:
            raise InvalidRequest("Cannot specify ?stale with ?consistent, conflicting semantics.")
        if consistent and "cached" in query:
            raise InvalidRequest("Cannot specify ?cached with ?consistent, conflicting semantics.")
        if not (stale or consistent or "cached" in query or "leader" in query):
            return DEFAULT
        mode = STALE_MODE if stale else CONSISTENT_MODE if consistent else LEADER_MODE
        return Consistency(mode, age or math.inf, stated=True, cached="cached" in query)

    def _max_stale(self) -> float:
        """How old a stale answer may be, in seconds; 0 where there is no bound."""
        text = self.get("max_stale")
        if not text:
            return 0.0
        try:
            return max(0.0, parse_duration(text))
        except ValueError:
            raise InvalidRequest(f'Invalid max_stale value "{text}"') from None

    @property
    def node_meta(self) -> dict[str, str]:
        """The wanted node meta, from repeated `node-meta=key:value`."""
        found: dict[str, str] = {}
        for text in self.all("node-meta"):
            key, _, value = text.partition(":")
            found[key] = value
        return found

    @property
    def source_node(self) -> str:
        """The node that `near` names: a name, `_agent`, or empty."""
        return self.get("near")

    def require(self, resource: str, name: str, access: str) -> None:
        """Raise `Forbidden` unless the caller's token allows this."""
        require(self.authorizer, resource, name, access)

    def filter(self, row: type) -> Callable[[Any], bool] | None:
        """The `filter` parameter bound to a row type; None where there is none. Raises `FilterError`, an
        `InvalidRequest`.
        """
        text = self.get("filter")
        if not text:
            return None
        return parse(text).bind(row)

    def json(self) -> Any:
        """The body as JSON. Raises `InvalidRequest`."""
        try:
            return msgspec.json.decode(self.body)
        except msgspec.DecodeError as e:
            raise InvalidRequest(f"Request decode failed: {e}") from None

    def json_object(self) -> dict[str, Any]:
        """The body as a JSON object; an empty body is an empty object."""
        if not self.body.strip():
            return {}
        value = self.json()
        if not isinstance(value, dict):
            raise InvalidRequest(f"Request decode failed: expected an object, got {type(value).__name__}")
        return value

    @property
    def address(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
        """The caller's address; None over a unix socket."""
        try:
            return ipaddress.ip_address(self.peer)
        except ValueError:
            return None


_NO_QUERY: dict[str, list[str]] = {}


_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


def _unescape(path: str) -> str:
    if _BAD_ESCAPE.search(path):
        raise InvalidRequest("400 Bad Request: the path has a % that two hexadecimal digits do not follow")
    try:
        return unquote(path, errors="strict")
    except UnicodeDecodeError:
        raise InvalidRequest("400 Bad Request: the path is not UTF-8 once its escapes are undone") from None


def _parse_query(text: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    parts = text.split("&")
    if len(parts) > MAX_PARAMETERS:
        raise InvalidRequest(f"more than {MAX_PARAMETERS} query parameters")
    for part in parts:
        if not part:
            continue
        name, _, value = part.partition("=")
        if "%" in part or "+" in part:
            try:
                name, value = unquote_plus(name, errors="strict"), unquote_plus(value, errors="strict")
            except UnicodeDecodeError:
                raise InvalidRequest("400 Bad Request: the query is not UTF-8 once its escapes are undone") from None
        found.setdefault(name, []).append(value)
    return found
