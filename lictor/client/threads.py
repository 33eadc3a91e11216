"""The client for programs with threads: calls return when they are done. Safe for use by several threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

from lictor.client import locks
from lictor.client.calls import Answer, Call, Reply, Threads, answer_of
from lictor.client.choosing import Policy
from lictor.client.client import Families
from lictor.client.endpoint import Endpoint
from lictor.client.errors import ClientError, LockError, NoAgent, NoMap, NotPublished
from lictor.client.flows import Flow, Pause, WithAnswer
from lictor.client.locks import TTL, Place
from lictor.client.lookups import Service
from lictor.client.requests import Cursor, Tries, check, target
from lictor.client.settings import OptionNames

if TYPE_CHECKING:
    from lictor.client.connections import Connections
    from lictor.client.native_threads import Connect, Native

JOIN = 5.0  # seconds that a release waits for the thread that kept the lock; it ends by itself in any case

T = TypeVar("T")


class Client(Families[Threads]):
    """A client of one agent.

    with Client() as client:
        client.kv.put("a", b"1")
        client.lookup("web").authority
    """

    def _begin(self) -> None:
        self._opened: list[Connections] = []  # one, with the first request; shared with the twins of `using`
        self._opening = threading.Lock()
        self._native: list[Native] = []  # likewise
        self._make_families(self)

    @property
    def connect(self) -> Connect:
        """The mesh: who is trusted, who this program is, and connections."""
        from lictor.client.native_threads import Connect  # most programs do without

        return Connect(self)

    @property
    def native(self) -> Native:
        """What makes this program a part of the mesh; it begins with the first use."""
        from lictor.client.native_threads import Native

        if self._life.closed:
            raise NoAgent("the client is closed")
        with self._opening:
            if not self._native:
                self._native.append(Native())
            return self._native[0]

    def using(self, **options: Unpack[OptionNames]) -> Client:
        """The same client, connections and all, whose requests say something else: `using(consistency="stale")`."""
        return self._with(options)

    def close(self) -> None:
        """End the connections, and let go of the map."""
        self._life.closed = True
        for native in self._native:
            native.close()
        for connections in self._opened:
            connections.close()
        self.lookups.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- lookups ------------------------------------------------------------------------------------------------------

    def lookup(
        self,
        service: str,
        policy: Policy = "random",
        *,
        tag: str | None = None,
        warning: bool = False,
        max_age: float | None = None,
    ) -> Endpoint:
        """An instance of a service that is well, from the agent's lookup map: within this process, in microseconds.

        `policy` chooses: random, round_robin, weighted, nearest, least_connections. With a `tag` only instances that
        have it; with `warning` also those whose checks warn. The first lookup of a service asks the agent; so does each
        where there is no map. The endpoint's `age` says how old the knowledge may be; above `max_age` seconds `Stale`
        is raised.

        Raises `NoInstance`, `NoAgent`, `Stale`, `ApiError`.
        """
        try:
            return self.lookups.lookup(service, policy, tag=tag, warning=warning, max_age=max_age)
        except (NotPublished, NoMap) as missing:
            return self._ask(service, missing, max_age).choose(policy, tag, warning)

    def instances(self, service: str, *, max_age: float | None = None) -> tuple[Endpoint, ...]:
        """Every instance of a service, whatever its health, by node and id. Raises as `lookup` does."""
        return self._service(service, max_age).endpoints

    @contextmanager
    def connection(
        self, service: str, *, tag: str | None = None, warning: bool = False, max_age: float | None = None
    ) -> Iterator[Endpoint]:
        """An instance to which this process holds the fewest connections, which counts as one more until the end of
        the `with`. Raises as `lookup` does.
        """
        found = self._service(service, max_age)
        endpoint = found.take(tag, warning)
        try:
            yield endpoint
        finally:
            found.turns.release(endpoint.key)

    def _service(self, name: str, max_age: float | None) -> Service:
        try:
            return self.lookups.fresh(name, max_age)
        except (NotPublished, NoMap) as missing:
            return self._ask(name, missing, max_age)

    def _ask(self, name: str, missing: ClientError, max_age: float | None) -> Service:
        return self.run(self._asking.service(name, missing, max_age))

    # -- locks --------------------------------------------------------------------------------------------------------

    def lock(
        self, key: str, *, value: bytes | str = b"", ttl: float = TTL, lock_delay: float | None = None, name: str = ""
    ) -> Lock:
        """A lock of which there is one holder in the cluster. `value` is what its key shows meanwhile; `ttl` (at least
        10) how long, in seconds, a holder that is gone keeps it; `lock_delay` how long nobody gets it after that.

        with client.lock("app/leader") as lock:
            while not lock.lost.is_set(): ...
        """
        return Lock(self, self._mutex(key, value, ttl, lock_delay, name))

    def semaphore(
        self, prefix: str, limit: int, *, ttl: float = TTL, lock_delay: float | None = None, name: str = ""
    ) -> Lock:
        """The same for at most `limit` holders at a time, who all give the same limit."""
        return Lock(self, self._semaphore(prefix, limit, ttl, lock_delay, name))

    # -- calls --------------------------------------------------------------------------------------------------------

    def make(self, call: Call[T]) -> T:
        """A call's value. Raises `ClientError`."""
        return call.read(self._reply(call))

    def answer(self, call: Call[T]) -> Answer[T]:
        """The same, and what is known of it."""
        return answer_of(call, self._reply(call))

    def watch(self, call: Call[T], wait: float) -> Iterator[T]:
        """A call's value, and then its new value after each change."""
        cursor = Cursor(call, wait, self.options, self._chance)
        while True:
            try:
                answer = self.answer(cursor.next())
                news = cursor.take(answer)
            except ClientError as error:
                time.sleep(cursor.pause(error))
                continue
            if news:
                yield answer.value

    def run(self, flow: Flow[T], ended: threading.Event | None = None) -> T:
        """Carry out a flow. Its pauses end when `ended` is set."""
        send: Any = None
        error: ClientError | None = None
        while True:
            try:
                step = flow.throw(error) if error is not None else flow.send(send)
            except StopIteration as stop:
                found: T = stop.value
                return found
            send, error = None, None
            try:
                if isinstance(step, Pause):
                    send = _pause(step.seconds, ended)
                elif isinstance(step, WithAnswer):
                    send = self.answer(step.call)
                else:
                    send = self.make(step)
            except ClientError as raised:
                error = raised

    def _reply(self, call: Call[Any]) -> Reply:
        tries = Tries(call, self.options, self._chance)
        wanted = target(call, self.settings, self.options)
        if self._life.closed:
            raise NoAgent("the client is closed")
        connections = self._opened[0] if self._opened else self._open()
        while True:
            try:
                return check(call, connections.ask(wanted, self.options.connect_timeout))
            except ClientError as error:
                pause = tries.pause(error)
            time.sleep(pause)

    def _open(self) -> Connections:
        from lictor.client.connections import Connections  # programs that only look up do without HTTP

        with self._opening:
            if not self._opened:
                self._opened.append(Connections(self.settings))
            return self._opened[0]


def _pause(seconds: float, ended: threading.Event | None) -> bool:
    if ended is not None:
        return not ended.wait(seconds)
    time.sleep(seconds)
    return True


class Lock:
    """A lock or a semaphore, for one holder. While it is held a thread renews its session; `lost` is set when it is
    held no more, without having been released.
    """

    def __init__(self, client: Client, place: Place) -> None:
        self._client = client
        self._place = place
        self._ended = threading.Event()
        self._keeper: threading.Thread | None = None
        self.lost = threading.Event()

    @property
    def held(self) -> bool:
        """Whether it is held, for all that is known."""
        return self._keeper is not None and not self.lost.is_set()

    def acquire(self, timeout: float | None = None) -> bool:
        """Wait until it is held; False after `timeout` seconds (None: never). Raises `ClientError`."""
        if self._keeper is not None:
            raise LockError("the lock is held already, or was lost and not released")
        if not self._client.run(locks.acquire(self._place, time.monotonic, timeout)):
            return False
        self.lost.clear()
        self._ended.clear()
        self._keeper = threading.Thread(target=self._keep, name="lictor lock", daemon=True)
        self._keeper.start()
        return True

    def release(self) -> None:
        """Give it back; harmless where it is not held. Raises `ClientError`, and then it is free after its TTL."""
        keeper, self._keeper = self._keeper, None
        if keeper is None:
            return
        self._ended.set()
        try:
            self._client.run(self._place.release())
        finally:
            keeper.join(JOIN)

    def _keep(self) -> None:
        try:
            self._client.run(locks.keep(self._place), self._ended)
        finally:
            if not self._ended.is_set():
                self.lost.set()

    def __enter__(self) -> Lock:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
