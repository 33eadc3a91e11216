"""What both flavours of client have: their families, how they look up, and what they are made with."""

from __future__ import annotations

import random
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

import msgspec

from lictor.client.asking import Asking
from lictor.client.calls import Call, F, Maker, T
from lictor.client.families.agent import Agent, Event
from lictor.client.families.cluster import Config, Operator, Snapshot, Status
from lictor.client.families.discovery import Catalog, Coordinate, Health, Query
from lictor.client.families.intentions import Intentions
from lictor.client.families.kv import KV, Txn
from lictor.client.families.session import Session
from lictor.client.locks import Lease, Mutex, Place, Semaphore
from lictor.client.lookups import Lookups
from lictor.client.settings import Options, Settings

C = TypeVar("C", bound="Families[Any]")


class Life:
    """Whether a client, and with it its twins of `using`, is closed."""

    __slots__ = ("closed",)

    def __init__(self) -> None:
        self.closed = False


class Families(ABC, Generic[F]):
    """The API's families, and the settings of a client."""

    def __init__(
        self,
        address: str = "",
        *,
        token: str = "",
        ca_file: str = "",
        ca_path: str = "",
        client_cert: str = "",
        client_key: str = "",
        server_name: str = "",
        verify: bool | None = None,
        options: Options | None = None,
        lookup_map: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`address` is host:port, a URL or unix:///path; what is empty comes from the environment. Nothing is asked
        before the first call. Raises `ValueError` for what cannot be used.
        """
        self.settings = Settings(
            address,
            token=token,
            ca_file=ca_file,
            ca_path=ca_path,
            client_cert=client_cert,
            client_key=client_key,
            server_name=server_name,
            verify=verify,
            environment=environment,
        )
        self.options = options or Options()
        self.lookups = Lookups(self.settings.address.url, lookup_map, environment)
        self._asking = Asking(self.lookups, time.monotonic)
        self._chance = random.random
        self._life = Life()
        self._begin()

    @abstractmethod
    def _begin(self) -> None:
        """Make what is the flavour's own."""

    @abstractmethod
    def make(self, call: Call[T]) -> Any:
        """See `Maker`."""

    @abstractmethod
    def answer(self, call: Call[T]) -> Any:
        """See `Maker`."""

    @abstractmethod
    def watch(self, call: Call[T], wait: float) -> Any:
        """See `Maker`."""

    def _make_families(self, maker: Maker) -> None:
        self.agent: Agent[F] = Agent(maker)
        self.catalog: Catalog[F] = Catalog(maker)
        self.config: Config[F] = Config(maker)
        self.coordinate: Coordinate[F] = Coordinate(maker)
        self.event: Event[F] = Event(maker)
        self.health: Health[F] = Health(maker)
        self.intentions: Intentions[F] = Intentions(maker)
        self.kv: KV[F] = KV(maker)
        self.operator: Operator[F] = Operator(maker)
        self.query: Query[F] = Query(maker)
        self.session: Session[F] = Session(maker)
        self.snapshot: Snapshot[F] = Snapshot(maker)
        self.status: Status[F] = Status(maker)
        self.txn: Txn[F] = Txn(maker)

    def _with(self: C, options: Mapping[str, Any]) -> C:
        """The same client, connections and all, with other options."""
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        twin.options = msgspec.structs.replace(self.options, **options)
        twin._make_families(twin)
        return twin

    def _lease(self, name: str, behavior: str, ttl: float, lock_delay: float | None) -> Lease:
        return Lease(name, behavior, ttl, lock_delay, time.monotonic)

    def _mutex(self, key: str, value: bytes | str, ttl: float, lock_delay: float | None, name: str) -> Place:
        content = value.encode() if isinstance(value, str) else value
        return Mutex(key, content, self._lease(name or f"lock {key}", "release", ttl, lock_delay))

    def _semaphore(self, prefix: str, limit: int, ttl: float, lock_delay: float | None, name: str) -> Place:
        return Semaphore(prefix, limit, self._lease(name or f"semaphore {prefix}", "delete", ttl, lock_delay))

    def age(self) -> float:
        """How old what the lookup map says may be, in seconds; infinite where the agent itself never knew. Raises
        `NoMap`.
        """
        return self.lookups.age()
