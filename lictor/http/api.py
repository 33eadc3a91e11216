"""What every endpoint is given, and how an endpoint's value becomes an answer."""

import html
import random
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

import msgspec

from lictor.agent.logs import logger
from lictor.http.instruments import Timings
from lictor.http.reply import Date, Encoded, Headers, Reply, Stream, encode, header_bytes, json_bytes, text_reply
from lictor.http.request import Request
from lictor.http.routes import READ, Endpoint, ReadFunction, Routes
from lictor.http.settings import HttpSettings
from lictor.http.waiting import JITTER, Waiting
from lictor.model.errors import Forbidden, InvalidRequest, LictorError, Refused
from lictor.model.service import NodeService
from lictor.store.answers import AnswerCache
from lictor.store.reads import near
from lictor.store.reads.catalog import CatalogService
from lictor.store.reads.central import centrally
from lictor.store.store import Answer, View

if TYPE_CHECKING:
    from lictor.agent.agent import Agent

Row = TypeVar("Row")
log = logger("agent.http")

MISS: Headers = (("X-Cache", "MISS"),)
HIT: Headers = (("X-Cache", "HIT"), ("Age", "0"))
ONCE_KEPT = 8192  # requests that have come once and may come again
ASKED_KEPT = 4096  # requests with `?cached` that are remembered as asked before


class Hashed(msgspec.Struct, frozen=True):
    """A local read's value with the hash of its content, which a caller can wait to see changed; and the header in
    which the caller is told of it.
    """

    value: Any
    hash: str
    header: str = "X-Consul-ContentHash"


_READ_HEAD = (
    b"X-Consul-Effective-Consistency: %b\r\nX-Consul-Index: %d\r\n"
    b"X-Consul-Knownleader: %b\r\nX-Consul-Lastcontact: %d\r\nX-Consul-Query-Backend: blocking-query\r\n"
)


class Reading:
    """A read endpoint's work for one request: run as often as its caller waits for."""

    __slots__ = ("api", "endpoint", "function", "gzip", "hash", "index", "request", "started")

    def __init__(self, api: "Api", endpoint: Endpoint, request: Request, function: ReadFunction) -> None:
        self.started = time.perf_counter()
        self.api = api
        self.endpoint = endpoint
        self.request = request
        self.function = function
        self.gzip = "gzip" in request.headers.get("accept-encoding", "")
        self.index, self.hash = 0, ""
        if request.query:
            self._read_parameters()

    def _read_parameters(self) -> None:
        request = self.request
        if self.endpoint.kind == READ:
            self.index = request.index
        else:
            # The agent's own state has no index: where a caller sends one back, it is the hash in another form.
            self.hash = request.get("hash") or (request.get("index") if request.index else "")
        # A store that leads itself is never stale: a wish for an age is checked and met.
        _ = request.wait, request.max_stale
        if self.endpoint.cacheable and request.has("cached"):
            request.check_cache_control()

    @property
    def seconds(self) -> float:
        """How long to wait: what is asked for within bounds, and a little more at random."""
        wait, settings = self.request.wait, self.api.settings
        seconds = min(wait, settings.wait_max) if wait else settings.wait_default
        return seconds + random.uniform(0, seconds / JITTER)

    def evaluate(self) -> tuple[Answer[object], bool]:
        """Run the read. Returns its answer, and whether that is past what the caller has."""
        answer = self.api.agent.store.read(self.function)
        if self.hash:
            return answer, not (isinstance(answer.value, Hashed) and answer.value.hash == self.hash)
        return answer, answer.index > self.index

    def encode(self, answer: Answer[object]) -> Encoded:
        """The answer as bytes."""
        encoded = self.encode_with(answer, self.api.cache_headers(self.request) if self.endpoint.cacheable else ())
        self.api.timings.add(self.endpoint, time.perf_counter() - self.started)
        return encoded

    def encode_with(self, answer: Answer[object], extra: Headers) -> Encoded:
        """The answer as bytes, with further headers."""
        value, api = answer.value, self.api
        if self.endpoint.kind == READ:
            extra_lines = api.read_head(answer.index, self.request)
        elif isinstance(value, Hashed):
            extra_lines = header_bytes(((value.header, value.hash),))
            value = value.value
        else:
            extra_lines = b""
        if extra:
            extra_lines += header_bytes(extra)
        return encode(api.reply(value, self.request), extra_lines + api.common_head, gzip=self.gzip)


class Api:
    """The door's shared state: the agent behind it, the table of endpoints, the cached answers, who waits."""

    def __init__(self, agent: "Agent", routes: Routes, settings: HttpSettings) -> None:
        self.agent = agent
        self.routes = routes
        self.answers: AnswerCache[Encoded] = AnswerCache(agent.store.watches, settings.answer_cache_bytes)
        self.take_settings(settings)
        self.date = Date()
        self.waiting: dict[bytes, tuple[Waiting, float]] = {}
        # Of requests that are only remembered, hashes are: their bytes are the caller's choice, and would fill memory.
        self._asked: OrderedDict[int, None] = OrderedDict()
        # Two generations: the younger one fills, the older one is dropped whole when it takes its place.
        self._once: set[int] = set()
        self._once_before: set[int] = set()
        self.timings = Timings(agent.metrics)
        self.hits = 0
        self.misses = 0

    def take_settings(self, settings: HttpSettings) -> None:
        """Go by these settings from now on; what was answered by others is forgotten."""
        self.answers.clear()
        self.settings = settings
        headers = (("X-Consul-Default-Acl-Policy", settings.default_policy), *settings.response_headers)
        if settings.translate_wan_addrs:
            headers = (*headers, ("X-Consul-Translate-Addresses", "true"))
        self.common_head = header_bytes(headers)

    # -- reads --------------------------------------------------------------------------------------------------------

    def prepare(self, endpoint: Endpoint, names: tuple[str, ...], values: list[str], request: Request) -> Reading:
        """Check a read's parameters. Raises `LictorError` where they are wrong."""
        self.admit(endpoint, names, values, request)
        if request.consistency.mode == "consistent" and not self.agent.leads_alone:
            raise Refused("a consistent read must go through `confirm`")
        return Reading(self, endpoint, request, endpoint.function(self, request))

    def admit(self, endpoint: Endpoint, names: tuple[str, ...], values: list[str], request: Request) -> None:
        """Give the request its path variables and its caller's rights, and refuse what configuration refuses."""
        if names:
            request.vars = dict(zip(names, values, strict=True))
        if not request.path.isprintable() and not self.settings.any_characters:
            raise InvalidRequest("")
        request.authorizer = self.agent.authorizer(request.token)
        datacenter = request.get("dc") if request.query else ""
        if datacenter and datacenter != self.agent.datacenter and not request.path.startswith("/v1/agent/"):
            raise Refused("No path to datacenter")
        blocked = self.settings.block_endpoints
        if blocked and request.path.startswith(blocked):
            raise Forbidden("Endpoint is blocked by agent configuration")
        allowed = self.settings.allow_write_from
        if allowed and request.method != "GET":
            address = request.address
            if address is not None and not any(address in network for network in allowed):
                raise Forbidden("Access is restricted")

    def cache_headers(self, request: Request) -> Headers:
        """What a caller who takes cached answers is told: a miss the first time, then a hit, whose age is none, since
        what is kept is dropped when it changes.
        """
        if not request.has("cached") or not self.settings.use_cache:
            return ()
        asked = hash((request.raw_path, request.raw_query))
        if asked in self._asked:
            return HIT
        if len(self._asked) >= ASKED_KEPT:
            self._asked.popitem(last=False)
        self._asked[asked] = None
        return MISS

    def remember(self, key: bytes, reading: Reading, answer: Answer[object], encoded: Encoded) -> None:
        """Keep a read's answer under its request's bytes, once these have come a second time: what is asked for only
        once would cost its place and push out what is asked for again.
        """
        mark = hash(key)
        if mark not in self._once and mark not in self._once_before:
            self._once.add(mark)
            if len(self._once) >= ONCE_KEPT:
                self._once, self._once_before = set(), self._once
            return
        if reading.request.has("cached") and reading.endpoint.cacheable:
            encoded = reading.encode(answer)
        self.answers.put(key, encoded, encoded.size, answer.seen)

    def read_headers(self, index: int, request: Request) -> Headers:
        """The headers that every answer from the store carries."""
        contact, known = self.agent.leader_contact()
        return (
            ("X-Consul-Effective-Consistency", request.consistency.mode),
            ("X-Consul-Index", str(index)),
            ("X-Consul-Knownleader", "true" if known else "false"),
            ("X-Consul-Lastcontact", str(contact)),
            ("X-Consul-Query-Backend", "blocking-query"),
        )

    def read_head(self, index: int, request: Request) -> bytes:
        """The same as header lines."""
        contact, known = self.agent.leader_contact()
        return _READ_HEAD % (
            request.consistency.mode.encode(),
            index,
            b"true" if known else b"false",
            contact,
        )

    def near(self, view: Any, request: Request, rows: list[Row], node_of: Callable[[Row], str]) -> list[Row]:
        """Rows in order of distance from the node that `near` names; as they are where it names none."""
        source = request.source_node
        if not source:
            return rows
        if source == "_agent":
            source = self.agent.node_name
        elif source == "_ip":
            return rows
        return near.by_distance(view, rows, source, node_of)

    def service_centrally(self, view: View, service: NodeService) -> NodeService:
        """A service with what `service-defaults` and `proxy-defaults` say of it merged into its proxy block."""
        return centrally(view, service)

    def centrally(self, view: View, row: CatalogService) -> CatalogService:
        """The same for a flat instance."""
        service = NodeService(kind=row.service_kind, service=row.service_name, proxy=row.service_proxy)
        return msgspec.structs.replace(row, service_proxy=centrally(view, service).proxy)

    def start_waiting(self, key: bytes | None, reading: Reading, answer: Answer[object]) -> Waiting:
        """Begin to wait with a read whose answer the caller has already. With a key, later callers whose requests are
        these same bytes join; without one it waits for itself alone.
        """
        waiting = Waiting(
            key or b"", self.agent.store.watches, reading.evaluate, reading.encode, self.failed, self._ended
        )
        waiting.watch(answer)
        if key is not None:
            self.waiting[key] = (waiting, reading.seconds)
        return waiting

    def _ended(self, waiting: Waiting) -> None:
        found = self.waiting.get(waiting.key)
        if found is not None and found[0] is waiting:
            del self.waiting[waiting.key]

    # -- answers ------------------------------------------------------------------------------------------------------

    def reply(self, value: Any, request: Request) -> Reply:
        """What an endpoint returned, as a reply: a reply as it is, anything else as JSON."""
        if isinstance(value, Reply):
            return value
        body = json_bytes(value)
        if request.pretty:
            body = msgspec.json.format(body, indent=4) + b"\n"
        return Reply(200, body, "application/json")

    def error_reply(self, error: LictorError) -> Reply:
        """An error as the API tells it: its status, and its message as text."""
        return text_reply(str(error), error.status)

    def fault_reply(self, fault: Exception) -> Reply:
        """The answer where the program itself is at fault: the log has the particulars, which may be nobody's
        business.
        """
        log.error("a request has met a mistake of this program; please report it", exc_info=fault)
        return text_reply("Internal Server Error: the agent's log says more", 500)

    def failed(self, error: Exception) -> Encoded:
        """The answer to those who wait for a read that cannot be run any more."""
        reply = self.error_reply(error) if isinstance(error, LictorError) else self.fault_reply(error)
        return encode(reply, self.common_head)

    def not_found(self, request: Request) -> Reply:
        """The answer where no endpoint is; a path that only lacks its last slash is told of it."""
        if request.path == "/":
            return text_reply("Lictor Agent")
        if self.routes.find(request.path + "/") is not None:
            return self.moved(request, request.path + "/")
        return text_reply("Invalid URL path: not a recognized HTTP API endpoint", 404)

    def moved(self, request: Request, path: str) -> Reply:
        """The answer to a path that is not the right one: where it should have gone."""
        location = quote(path, safe="/:@!$&'()*+,;=~-._")
        if request.raw_query:
            location += "?" + request.raw_query
        headers = (("Location", location),)
        if request.method != "GET":
            return Reply(301, headers=headers)
        body = f'<a href="{html.escape(location)}">Moved Permanently</a>.\n\n'
        return Reply(301, body.encode(), "text/html; charset=utf-8", headers)

    def not_allowed(self, methods: list[str], method: str) -> Reply:
        """The answer to a method that a path does not have, or to OPTIONS, which asks for those it has."""
        allow = ",".join(["OPTIONS", *methods])
        if method == "OPTIONS":
            return Reply(200, headers=(("Allow", allow),))
        return text_reply(f"method {method} not allowed", 405, (("Allow", allow),))

    async def act(
        self, endpoint: Endpoint, names: tuple[str, ...], values: list[str], request: Request
    ) -> Reply | Stream:
        """Run an action. Errors become replies."""
        started = time.perf_counter()
        try:
            self.admit(endpoint, names, values, request)
            value = await endpoint.function(self, request)
        except LictorError as error:
            return self.error_reply(error)
        finally:
            self.timings.add(endpoint, time.perf_counter() - started)
        return value if isinstance(value, Stream) else self.reply(value, request)
