"""What the local agent says, followed by blocking queries: one each for all who ask the same.

An answer is kept until there is a newer one. So while the agent is away, or restarts, its proxies go on with what they
have; the queries are tried again, and begin anew with the agent that answers.
"""

import asyncio
import random
from collections.abc import Callable
from typing import Any, Generic, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from lictor.agent.logs import Logger
from lictor.client.calls import Reply
from lictor.client.errors import ClientError
from lictor.client.loop_connections import LoopConnections
from lictor.client.requests import Target
from lictor.client.settings import Settings
from lictor.connect_proxy.records import HealthEntry, Leaf, ProxyService, QueryResult, Roots
from lictor.model.intention import Intention

T = TypeVar("T")

WAIT = 300.0  # seconds that a query blocks
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 10.0  # seconds between tries
UNWATCHED_PAUSE = 10.0  # seconds between looks at what cannot be waited for
NO_NEWS_PAUSE = 0.05  # seconds after an answer that says nothing new: an agent may not make this a busy loop
CONNECT_TIMEOUT = 5.0
NO_HASH = "0"  # that of nothing: asked with it, an agent answers at once and tells the real one
DEFAULT_POLICY = "x-lictor-default-intention-policy"

Changed = Callable[[], None]


class Intentions(msgspec.Struct, frozen=True):
    """The intentions of a destination, and whether connections that match none of them are allowed."""

    rules: tuple[Intention, ...]
    default_allow: bool


class Watch(Generic[T]):
    """The newest answer to a query. `value` is None until there is one; `gone`: the agent has no such thing now."""

    def __init__(self, path: str, decode: Callable[[Reply], T], *, blocks: bool, hashed: bool) -> None:
        self.path = path
        self.decode = decode
        self.blocks = blocks
        self.begin = {"hash": NO_HASH} if hashed else {}
        self.value: T | None = None
        self.gone = False
        self.error = ""
        self.holders: dict[object, Changed] = {}
        self.task: asyncio.Task[None] | None = None

    def tell(self, log: Logger) -> None:
        """Tell everybody who holds it that it has changed. What one of them makes of it must not stop the others."""
        for changed in list(self.holders.values()):
            try:
                changed()
            except Exception as error:
                log.error("A change could not be taken over", path=self.path, error=error, exc_info=error)


class Source:
    """The agent at one address, asked with one token. Made on the loop that it is used on."""

    def __init__(self, settings: Settings, log: Logger, *, datacenter: str = "", token: str = "") -> None:
        self._settings = settings
        self._connections = LoopConnections(settings)
        self._log = log
        self._token = token or settings.token
        self._datacenter = datacenter
        self._watches: dict[str, Watch[Any]] = {}
        self._chance = random.Random()

    async def close(self) -> None:
        """End every query."""
        tasks = [watch.task for watch in self._watches.values() if watch.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._watches.clear()
        await self._connections.close()

    # -- what there is to follow ------------------------------------------------------------------------------------

    def roots(self, holder: object, changed: Changed) -> Watch[Roots]:
        """The roots of the mesh."""
        return self._hold(holder, changed, "/v1/agent/connect/ca/roots", reads(Roots))

    def leaf(self, service: str, holder: object, changed: Changed) -> Watch[Leaf]:
        """A service's certificate and key."""
        return self._hold(holder, changed, f"/v1/agent/connect/ca/leaf/{quote(service, safe='')}", reads(Leaf))

    def intentions(self, service: str, holder: object, changed: Changed) -> Watch[Intentions]:
        """The intentions whose destination is a service."""
        query = urlencode({"by": "destination", "name": service})

        def read(reply: Reply) -> Intentions:
            found = _matches.decode(reply.body)
            rules = tuple(rule for rows in found.values() for rule in rows or ())
            return Intentions(rules, reply.headers.get(DEFAULT_POLICY, "") == "allow")

        return self._hold(holder, changed, f"/v1/connect/intentions/match?{query}", read)

    def instances(self, service: str, datacenter: str, holder: object, changed: Changed) -> Watch[list[HealthEntry]]:
        """The passing instances of a service that take connections of the mesh."""
        dc = datacenter or self._datacenter
        query = "passing" + (f"&{urlencode({'dc': dc})}" if dc else "")
        path = f"/v1/health/connect/{quote(service, safe='')}?{query}"
        return self._hold(holder, changed, path, reads(list[HealthEntry]))

    def query(self, name: str, datacenter: str, holder: object, changed: Changed) -> Watch[QueryResult]:
        """What a prepared query finds. It cannot be waited for and is asked now and then."""
        query = "connect=true" + (f"&{urlencode({'dc': datacenter})}" if datacenter else "")
        path = f"/v1/query/{quote(name, safe='')}/execute?{query}"
        return self._hold(holder, changed, path, reads(QueryResult), blocks=False)

    def service(self, proxy_id: str, holder: object, changed: Changed) -> Watch[ProxyService]:
        """A proxy's registration."""
        return self._hold(holder, changed, f"/v1/agent/service/{quote(proxy_id, safe='')}", reads(ProxyService))

    def services(self, holder: object, changed: Changed) -> Watch[dict[str, ProxyService]]:
        """Every service of the agent, by id. Another agent than Lictor's knows no hash of them and is asked now and
        then.
        """
        return self._hold(holder, changed, "/v1/agent/services", reads(dict[str, ProxyService]), hashed=True)

    def release(self, watch: Watch[Any], holder: object) -> None:
        """Follow it no more for a holder; nobody holds it: end its query."""
        watch.holders.pop(holder, None)
        if not watch.holders and self._watches.get(watch.path) is watch:
            del self._watches[watch.path]
            if watch.task is not None:
                watch.task.cancel()

    async def send(self, method: str, path: str, body: bytes = b"") -> Reply:
        """One request. Raises `ClientError`."""
        return await self._connections.ask(Target(method, path, self._headers(), body, 30.0), CONNECT_TIMEOUT)

    # -- following -------------------------------------------------------------------------------------------------

    def _hold(
        self,
        holder: object,
        changed: Changed,
        path: str,
        decode: Callable[[Reply], T],
        *,
        blocks: bool = True,
        hashed: bool = False,
    ) -> Watch[T]:
        watch = self._watches.get(path)
        if watch is None:
            watch = self._watches[path] = Watch(path, decode, blocks=blocks, hashed=hashed)
            watch.task = asyncio.get_running_loop().create_task(self._follow(watch))
        watch.holders[holder] = changed
        return watch

    async def _follow(self, watch: Watch[Any]) -> None:
        position = dict(watch.begin)
        failures = 0
        while True:
            try:
                reply = await self._ask(watch.path, position)
                if reply.status == 404:
                    pause = self._without(watch)
                    position, failures = dict(watch.begin), 0
                else:
                    pause = self._take(watch, reply, position)
                    failures = 0
            except (ClientError, msgspec.MsgspecError, UnicodeDecodeError, _Refused) as error:
                # The next agent that answers may have begun to count anew.
                position = dict(watch.begin)
                failures += 1
                pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(failures - 1, 10)) * (1 - self._chance.random() / 4)
                if str(error) != watch.error:
                    watch.error = str(error)
                    told = self._log.warn if watch.value is not None else self._log.error
                    told("Watch errored", path=watch.path, error=watch.error)
            await asyncio.sleep(pause)

    async def _ask(self, path: str, position: dict[str, str]) -> Reply:
        mark = "&" if "?" in path else "?"
        query = urlencode({**position, "wait": f"{WAIT:.0f}s"}) if position else ""
        wanted = Target("GET", path + (mark + query if query else ""), self._headers(), b"", WAIT * 17 / 16 + 30)
        reply = await self._connections.ask(wanted, CONNECT_TIMEOUT)
        if reply.status not in (200, 404):
            text = reply.body[:200].decode("utf-8", "replace").strip()
            raise _Refused(f"Unexpected response code: {reply.status} ({text})")
        return reply

    def _take(self, watch: Watch[Any], reply: Reply, position: dict[str, str]) -> float:
        """Take over an answer. Returns how long to wait before the next query."""
        value = watch.decode(reply)
        if watch.error:
            self._log.info("The agent answers again", path=watch.path)
            watch.error = ""
        content, index = reply.headers.get("x-consul-contenthash", ""), reply.index
        before = int(position.get("index", "0"))
        position.clear()
        can_wait = watch.blocks and bool(content or index)
        if can_wait and content:
            position["hash"] = content
        elif can_wait and index >= before:
            position["index"] = str(index)
        if not watch.gone and value == watch.value:
            return NO_NEWS_PAUSE if can_wait else UNWATCHED_PAUSE
        watch.value, watch.gone = value, False
        watch.tell(self._log)
        return 0.0 if can_wait else UNWATCHED_PAUSE

    def _without(self, watch: Watch[Any]) -> float:
        if not watch.gone:
            watch.gone = True
            self._log.debug("The agent has no such thing", path=watch.path)
            watch.tell(self._log)
        return 1.0 + self._chance.random()

    def _headers(self) -> dict[str, str]:
        headers = {"Accept-Encoding": "identity"}
        if self._token:
            headers["X-Consul-Token"] = self._token
        return headers


class _Refused(Exception):
    """The agent does not give what it was asked for."""


def reads(type_: type[T]) -> Callable[[Reply], T]:
    """A decoder of JSON answers of a type."""
    decoder = msgspec.json.Decoder(type_)
    return lambda reply: decoder.decode(reply.body)


_matches = msgspec.json.Decoder(dict[str, tuple[Intention, ...] | None])
