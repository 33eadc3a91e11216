"""What every endpoint is given, and how an endpoint's value becomes an answer."""

import html
import random
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

import msgspec

from lictor.agent.agent import MAX_CONTACT
from lictor.agent.logs import logger
from lictor.http.bodies import named_in
from lictor.http.freshness import (
    AGE,
    ANY,
    DEFAULT,
    LEADER_MODE,
    LEASE,
    QUORUM,
    STALE,
    STALE_MODE,
    Consistency,
    Freshness,
)
from lictor.http.instruments import Timings
from lictor.http.reply import JSON, Date, Encoded, Headers, Reply, Stream, encode, header_bytes, json_bytes, text_reply
from lictor.http.request import Request
from lictor.http.routes import READ, WRITE, Endpoint, ReadFunction, Routes
from lictor.http.settings import HttpSettings
from lictor.http.waiting import JITTER, Waiting
from lictor.model.errors import Forbidden, InvalidRequest, LictorError, NoLeader, NoPath
from lictor.model.service import NodeService
from lictor.store.answers import AnswerCache
from lictor.store.reads import near
from lictor.store.reads.catalog import CatalogService
from lictor.store.reads.central import centrally
from lictor.store.store import Answer, View
from lictor.store.watch import Topic

if TYPE_CHECKING:
    from lictor.agent.agent import Agent

Row = TypeVar("Row")
log = logger("agent.http")

MISS: Headers = (("X-Cache", "MISS"),)
HIT: Headers = (("X-Cache", "HIT"), ("Age", "0"))
HELD: Headers = (("X-Cache", "HIT"),)
ONCE_KEPT = 8192  # requests that have come once and may come again
DISCOVERY = ("/v1/catalog", "/v1/health")  # what `discovery_max_stale` is about
ASKED_KEPT = 4096  # requests with `?cached` that are remembered as asked before


class Hashed(msgspec.Struct, frozen=True):
    """A local read's value with the hash of its content, which a caller can wait to see changed; and the header in
    which the caller is told of it.
    """

    value: Any
    hash: str
    header: str = "X-Consul-ContentHash"


_READ_HEAD = b"X-Consul-Effective-Consistency: %b\r\nX-Consul-Index: %d\r\n%bX-Consul-Query-Backend: blocking-query\r\n"
_CONFIRMED = b"X-Consul-Knownleader: true\r\nX-Consul-Lastcontact: 0\r\n"


class Reading:
    """A read endpoint's work for one request: run as often as its caller waits for.

    `gate` is what its caller's wish puts before the answer (see `freshness`); `live` is set once its answers tell the
    store's age as it is when they are written, and `kept` taken back where they must not be given to later callers.
    `head` are the header lines that every answer has here.
    """

    __slots__ = (
        "api",
        "consistency",
        "endpoint",
        "function",
        "gate",
        "gzip",
        "hash",
        "head",
        "index",
        "kept",
        "live",
        "request",
        "started",
    )

    def __init__(self, api: "Api", endpoint: Endpoint, request: Request, function: ReadFunction) -> None:
        self.started = time.perf_counter()
        self.api = api
        self.endpoint = endpoint
        self.request = request
        self.function = function
        self.gzip = "gzip" in request.headers.get("accept-encoding", "")
        self.index, self.hash = 0, ""
        self.head = api.common_head
        self.gate = ANY
        self.consistency = DEFAULT
        if endpoint.kind == READ:
            self.consistency = request.consistency = api.consistency(request, cacheable=endpoint.cacheable)
            self.gate = api.freshness.gate(self.consistency)
        self.kept = True
        if request.query:
            self._read_parameters()
        self.live = self.gate == AGE
        if self.live and endpoint.dated:
            self.kept = False

    def _read_parameters(self) -> None:
        request = self.request
        if self.endpoint.kind == READ:
            self.index = request.index
        else:
            # The agent's own state has no index: where a caller sends one back, it is the hash in another form.
            self.hash = request.get("hash") or (request.get("index") if request.index else "")
        _ = request.wait  # a wrong one is refused before anything is waited for
        if self.endpoint.cacheable and request.has("cached"):
            _ = request.cache_control  # likewise

    @property
    def seconds(self) -> float:
        """How long to wait: what is asked for within bounds, and a little more at random."""
        wait, settings = self.request.wait, self.api.settings
        seconds = min(wait, settings.wait_max) if wait else settings.wait_default
        return seconds + random.uniform(0, seconds / JITTER)

    @property
    def open(self) -> bool:
        """Whether it may be answered now. One that must be confirmed first may be after that."""
        return self.gate == ANY or self.api.freshness.open(self.gate, self.consistency.max_stale)

    def to_confirm(self) -> bool:
        """Go for a confirmation: returns whether it must be a majority's. A stale read for which the own store is too
        old is a default one from here on.
        """
        if self.gate == AGE:
            self._become(msgspec.structs.replace(DEFAULT, stale_if_error=self.consistency.stale_if_error), LEASE)
        return self.gate == QUORUM

    def unconfirmed(self, error: Exception) -> bool:
        """Whether it may be answered although it could not be confirmed: from the own store, as it is."""
        if not isinstance(error, NoLeader):
            return False
        if not self.endpoint.lenient and not self._stale_if_error():
            return False
        self._become(STALE, AGE)
        return True

    def _stale_if_error(self) -> bool:
        """Whether the caller takes what is here where no server answers."""
        contact, _ = self.api.agent.leader_contact()
        return contact < MAX_CONTACT and contact / 1000 <= self.consistency.stale_if_error

    def _become(self, consistency: Consistency, gate: int) -> None:
        self.request.consistency = self.consistency = consistency
        self.gate, self.live = gate, gate == AGE
        self.kept = False

    def looks_at(self) -> tuple[Topic, ...]:
        """All that the read looks at, in the store as it is."""
        view = View(self.api.agent.store)
        with suppress(LictorError):
            self.function(view)
        return tuple(view.seen)

    def evaluate(self) -> tuple[Answer[object], bool]:
        """Run the read. Returns its answer, and whether that is past what the caller has."""
        answer = self.api.agent.store.read(self.function)
        client = self.api.agent.client
        if client is not None and self.endpoint.at_servers and not client.covers(answer.seen):
            client.replica.check(answer.seen)
            client.cover_soon(answer.seen)  # it looks at more than before
            if self.index or self.hash:
                return answer, False  # those who wait are told again once that is held
        if self.hash:
            return answer, not (isinstance(answer.value, Hashed) and answer.value.hash == self.hash)
        return answer, answer.index > self.index

    def encode(self, answer: Answer[object]) -> Encoded:
        """The answer as bytes."""
        encoded = self.encode_with(answer, self.api.cache_headers(self.request) if self.endpoint.cacheable else ())
        self.api.timings.add(self.endpoint, time.perf_counter() - self.started)
        return encoded

    def failed(self, error: Exception) -> Encoded:
        """The answer to those who wait for a read that cannot be run any more."""
        api = self.api
        reply = api.error_reply(error) if isinstance(error, LictorError) else api.fault_reply(error)
        return encode(reply, self.head)

    def encode_with(self, answer: Answer[object], extra: Headers) -> Encoded:
        """The answer as bytes, with further headers."""
        value, api, live = answer.value, self.api, self.live
        if self.endpoint.kind == READ:
            extra_lines = _READ_HEAD % (self.consistency.mode.encode(), answer.index, b"" if live else _CONFIRMED)
        elif isinstance(value, Hashed):
            extra_lines = header_bytes(((value.header, value.hash),))
            value = value.value
        else:
            extra_lines = b""
        if extra:
            extra_lines += header_bytes(extra)
        reply = api.reply(value, self.request)
        return encode(
            reply,
            extra_lines + self.head,
            gzip=self.gzip,
            gate=AGE if live else self.gate,
            max_stale=self.consistency.max_stale,
        )


class Api:
    """The door's shared state: the agent behind it, the table of endpoints, the cached answers, who waits."""

    def __init__(self, agent: "Agent", routes: Routes, settings: HttpSettings) -> None:
        self.agent = agent
        self.routes = routes
        self.freshness = Freshness(agent)
        self.answers: AnswerCache[Encoded] = AnswerCache(agent.store.watches, settings.answer_cache_bytes)
        self.take_settings(settings)
        self.date = Date()
        self.waiting: dict[bytes, tuple[Waiting, Reading]] = {}
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
        # What most writes are answered.
        self.yes = encode(Reply(200, json_bytes(True), JSON), self.common_head)

    # -- reads --------------------------------------------------------------------------------------------------------

    def prepare(self, endpoint: Endpoint, names: tuple[str, ...], values: list[str], request: Request) -> Reading:
        """Check a read's parameters. Raises `LictorError` where they are wrong."""
        self.admit(endpoint, names, values, request)
        return Reading(self, endpoint, request, endpoint.function(self, request))

    def admit(self, endpoint: Endpoint, names: tuple[str, ...], values: list[str], request: Request) -> None:
        """Give the request its path variables and its caller's rights, and refuse what configuration refuses."""
        if names:
            request.vars = dict(zip(names, values, strict=True))
        if not request.path.isprintable() and not self.settings.any_characters:
            raise InvalidRequest("")
        request.authorizer = self.agent.authorizer(request.token)
        if self.elsewhere(endpoint, request):
            raise NoPath
        self.guard(request)

    def elsewhere(self, endpoint: Endpoint, request: Request) -> str:
        """The datacenter that a request is for; empty for this one."""
        if not endpoint.elsewhere:
            return ""
        if endpoint.at_primary:
            primary = self.agent.config.primary_datacenter
            return primary if primary != self.agent.datacenter else ""
        named = named_in(request.body) if endpoint.named_in_body else ""
        if not named and request.query:
            named = request.get("dc")
        return named if named != self.agent.datacenter else ""

    def guard(self, request: Request) -> None:
        """Refuse what configuration refuses. Raises `Forbidden`."""
        blocked = self.settings.block_endpoints
        if blocked and request.path.startswith(blocked):
            raise Forbidden("Endpoint is blocked by agent configuration")
        allowed = self.settings.allow_write_from
        if allowed and request.method != "GET":
            address = request.address
            if address is not None and not any(address in network for network in allowed):
                raise Forbidden("Access is restricted")

    def consistency(self, request: Request, *, cacheable: bool) -> Consistency:
        """How fresh a read must be: what its caller says or, of discovery where nothing is said, what configuration
        says. Only of what is `cacheable` may a cache answer, and only where there is one.
        """
        consistency, oldest = request.consistency, self.settings.discovery_max_stale
        if consistency.cached and not (cacheable and self.settings.use_cache):
            return msgspec.structs.replace(consistency, cached=False)
        if oldest and not consistency.stated and request.path.startswith(DISCOVERY):
            return Consistency(STALE_MODE, oldest)
        if cacheable and self.agent.client is not None and self.settings.use_cache:
            return self._from_replica(consistency, request)
        return consistency

    def _from_replica(self, consistency: Consistency, request: Request) -> Consistency:
        """Discovery on an agent that is no server: from what it holds, unless its caller wants another freshness."""
        if consistency.mode != LEADER_MODE or (consistency.stated and not consistency.cached):
            return consistency
        control = request.cache_control
        oldest = 0.0 if control.must_revalidate else control.max_age
        return msgspec.structs.replace(
            consistency, cached=True, max_stale=oldest, stale_if_error=control.stale_if_error
        )

    async def confirm(self, request: Request, *, cacheable: bool = False) -> None:
        """Return once an action may read the own store as its caller wishes; `request.consistency` is then what it
        reads with. Raises `NoLeader`.
        """
        request.consistency = await self.freshness.admit(self.consistency(request, cacheable=cacheable))

    def body_limit(self, endpoint: Endpoint) -> int:
        """How many bytes a body may have."""
        limit = endpoint.body_limit
        return limit if isinstance(limit, int) else int(getattr(self.settings, limit))

    def cache_headers(self, request: Request) -> Headers:
        """What a caller who takes cached answers is told: a miss the first time, then a hit, whose age is none, since
        what is kept is dropped when it changes.
        """
        held = self.agent.client is not None  # what is here came from the servers, and its age is told as it is
        if not (held or request.has("cached")) or not self.settings.use_cache:
            return ()
        asked = hash((request.raw_path, request.raw_query))
        if asked in self._asked:
            return HELD if held else HIT
        if len(self._asked) >= ASKED_KEPT:
            self._asked.popitem(last=False)
        self._asked[asked] = None
        return MISS

    def remember(self, key: bytes, reading: Reading, answer: Answer[object], encoded: Encoded) -> None:
        """Keep a read's answer under its request's bytes, once these have come a second time: what is asked for only
        once would cost its place and push out what is asked for again.
        """
        if not reading.kept:
            return
        mark = hash(key)
        if mark not in self._once and mark not in self._once_before:
            self._once.add(mark)
            if len(self._once) >= ONCE_KEPT:
                self._once, self._once_before = set(), self._once
            return
        if reading.endpoint.cacheable and (reading.request.has("cached") or self.agent.client is not None):
            encoded = reading.encode(answer)
        self.answers.put(key, encoded, encoded.size, answer.seen)

    def read_headers(self, index: int, request: Request) -> Headers:
        """The headers that every answer from the store carries."""
        contact, known = self.freshness.contact(request.consistency)
        return (
            ("X-Consul-Effective-Consistency", request.consistency.mode),
            ("X-Consul-Index", str(index)),
            ("X-Consul-Knownleader", "true" if known else "false"),
            ("X-Consul-Lastcontact", str(contact)),
            ("X-Consul-Query-Backend", "blocking-query"),
        )

    def meta(self, index: int, request: Request, level: str) -> dict[str, Any]:
        """The same as it stands in the bodies of some answers, where ages are in nanoseconds."""
        contact, known = self.freshness.contact(request.consistency)
        return {"Index": index, "LastContact": contact * 1_000_000, "KnownLeader": known, "ConsistencyLevel": level}

    def near(self, view: Any, request: Request, rows: list[Row], node_of: Callable[[Row], str]) -> list[Row]:
        """Rows in order of distance from the node that `near` names; as they are where it names none."""
        source = request.source_node
        if not source or request.from_elsewhere:
            return rows
        if source == "_agent":
            source = request.agent_node or self.agent.node_name
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
        these same bytes join once they are as fresh; without one it waits for itself alone.
        """
        waiting = Waiting(
            key or b"", self.agent.store.watches, reading.evaluate, reading.encode, reading.failed, self._ended
        )
        waiting.watch(answer)
        # What was confirmed when the query began may be older when it is answered.
        reading.live = reading.gate != ANY
        if key is not None and reading.kept:
            self.waiting[key] = (waiting, reading)
        return waiting

    def _ended(self, waiting: Waiting) -> None:
        found = self.waiting.get(waiting.key)
        if found is not None and found[0] is waiting:
            del self.waiting[waiting.key]

    def written(self, answer: Encoded) -> bytes:
        """An answer's bytes as they are written now."""
        if answer.gate == AGE:
            return answer.before + self.date.bytes() + self.freshness.lines() + answer.after
        return answer.before + self.date.bytes() + answer.after

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
        """Run an action, or a write. Errors become replies."""
        started = time.perf_counter()
        try:
            self.admit(endpoint, names, values, request)
            value = endpoint.function(self, request)
            value = await (self.agent.apply(value) if endpoint.kind == WRITE else value)
        except LictorError as error:
            return self.error_reply(error)
        finally:
            self.timings.add(endpoint, time.perf_counter() - started)
        return value if isinstance(value, Stream) else self.reply(value, request)
