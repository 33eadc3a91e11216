"""The lookup map: a file in which programs of this machine look services up by themselves, in microseconds.

    lookups = LookupMap(path, 0o644, store, node_name, contact, visible)
    await lookups.start()
    await lookups.publish("web")     # from now on in the map, and kept as the store has it
    await lookups.close()            # the file stays, for those who read it

A service is in the map once somebody has asked for it. Its block is a read like any other: it depends on what it looked
at, and is written anew, once, when that has changed; many changes of one turn of the loop are one piece of work. Each
second the agent says that it lives, and how old what it knows is; see `lictor.model.lookup_layout` for how it is read.

Whoever may read the file sees what it holds, without a token. So there is only what a request without a token may see.
"""

import asyncio
import hashlib
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import msgspec

from lictor.agent.logs import logger
from lictor.agent.lookup_file import LookupFile, MapFull, older_names
from lictor.model.authorizer import READ
from lictor.model.check import PASSING, WARNING, aggregate
from lictor.model.clock import lease_clock
from lictor.model.coordinate import distance
from lictor.model.coordinate_entry import Coord
from lictor.model.errors import Forbidden, InvalidRequest, LictorError, Refused
from lictor.model.lookup_layout import Instance, Payload, key_of
from lictor.model.lookup_paths import file_name, ready_folder
from lictor.store.reads import health
from lictor.store.reads.health import CheckServiceNode
from lictor.store.store import Store, View
from lictor.store.watch import Dependent, Topic

if TYPE_CHECKING:
    from lictor.agent.agent import Agent

HEARTBEAT = 1.0  # seconds
TIDY = 60.0  # seconds between looks at what is not asked for any more, and at distances, which change all the time
FORGET = 600.0  # seconds after which a service without instances, which nobody asks for, leaves the map
BATCH = 64  # services that are written in one turn of the loop
MOST_SERVICES = 100_000
LONGEST_NAME = 512  # characters
PATIENCE = 5.0  # seconds that `publish` waits for what it cannot do at once

log = logger("agent.lookup_map")


class Published(msgspec.Struct, frozen=True, rename="pascal"):
    """Where a service is published. `run` and `path` tell a program whether it has the right file open."""

    path: str
    run: int
    service: str
    generation: int


class Replica(Protocol):
    """A store that holds only what was asked for, as a client agent's does."""

    def covers(self, seen: tuple[Topic, ...]) -> bool:
        """Whether the store holds all that these topics name."""
        ...

    async def hold(self, looks_at: Callable[[], tuple[Topic, ...]]) -> bool:
        """Return once the store holds what a read looks at; False where it cannot. Raises `LictorError`."""
        ...


class _Service(Dependent):
    """One service in the map."""

    __slots__ = ("asked", "digest", "empty", "following", "key", "owner")

    def __init__(self, owner: "LookupMap", key: str, now: float) -> None:
        self.owner = owner
        self.key = key
        self.seen = ()
        self.asked = now
        self.digest = b""  # of the payload that is in the map
        self.empty = True
        self.following: asyncio.Task[None] | None = None

    def changed(self) -> None:
        self.owner.mark(self)


class LookupMap:
    """See above. `contact` gives the seconds since the servers' leader was last heard of; `visible` says whether a
    request without a token may see a service; `locate` where a node is, None for what the store says. `replica` is
    given where the store is partial. Without `keep` the file goes with the agent.
    """

    def __init__(
        self,
        path: Path,
        mode: int,
        store: Store,
        node: str,
        contact: Callable[[], float],
        visible: Callable[[str], bool],
        replica: Replica | None = None,
        *,
        locate: Callable[[str], Coord | None] | None = None,
        keep: bool = True,
    ) -> None:
        self.path = path
        self._mode = mode
        self._store = store
        self._node = node
        self._contact = contact
        self._visible = visible
        self._replica = replica
        self._locate = locate
        self._keep = keep
        self._services: dict[str, _Service] = {}
        self._dirty: dict[_Service, None] = {}
        self._working: asyncio.Handle | None = None
        self._beating: asyncio.TimerHandle | None = None
        self._starting: asyncio.Task[None] | None = None
        self._shown = asyncio.Event()
        self._file: LookupFile
        self._encoder = msgspec.msgpack.Encoder()
        self._tidied = 0.0
        self._coordinates = 0
        self._trouble = ""  # what was last told of in the log
        self.written = 0  # blocks

    # -- life ---------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to publish, with what an older map at the same path holds: programs follow to the new one once it is
        there. Raises `OSError` where the file cannot be made.
        """
        self._file = LookupFile(self.path, self._mode, _now, time.time_ns)
        self._tidied = asyncio.get_running_loop().time()
        self._starting = asyncio.create_task(self._take_over(list(older_names(self.path))))
        self._beat()

    async def _take_over(self, names: list[str]) -> None:
        """Fill the new map with what the old one held, as soon as that is known, and show it: until then the old one,
        which says its age, is better than none.
        """
        while self._contact() == math.inf:
            await asyncio.sleep(0.05)
        for name in names:
            try:
                await self._add(name)
            except LictorError as error:
                log.warn("a service of the former lookup map is not in the new one", service=name, error=str(error))
        self._tell_time()
        try:
            self._file.show()
        except OSError as error:
            log.error("cannot put the lookup map in its place", path=str(self.path), error=str(error))
            return
        log.info("lookup map", path=str(self.path), services=len(self._file))
        self._shown.set()

    async def close(self) -> None:
        """Stop. The file stays as it is (if it is to), and says that its agent has ended."""
        tasks = [s.following for s in self._services.values() if s.following is not None]
        if self._starting is not None:
            tasks.append(self._starting)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for handle in (self._working, self._beating):
            if handle is not None:
                handle.cancel()
        for service in self._services.values():
            self._store.watches.discard(service)
        self._services.clear()
        self._dirty.clear()
        try:
            if self._shown.is_set():
                self._file.end()
                if not self._keep:
                    self.path.unlink(missing_ok=True)
            else:
                self._file.abandon()
        except OSError as error:
            log.warn("the lookup map does not say that its agent has ended", path=str(self.path), error=str(error))

    # -- services -----------------------------------------------------------------------------------------------------

    async def publish(self, name: str) -> Published:
        """Have a service in the map, from now on and as the store has it. Raises `LictorError`."""
        key = key_of(name)
        if not key or len(key) > LONGEST_NAME:
            raise InvalidRequest("Missing service name" if not key else "the service's name is too long")
        try:
            async with asyncio.timeout(PATIENCE):
                await self._add(key)
                await self._shown.wait()
        except TimeoutError:
            raise Refused(f"the lookup map {self.path} is not ready: the agent has not found the servers yet") from None
        generation = self._file.generation(key)
        if not generation:
            raise Refused(self._trouble or f"{self.path}: {name} could not be written")
        return Published(str(self.path), self._file.run, key, generation)

    def services(self) -> list[str]:
        """What is in the map."""
        return sorted(key for key in self._services if key in self._file)

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self._file.size

    async def _add(self, key: str) -> None:
        if not self._visible(key):
            raise Forbidden("Permission denied")
        now = asyncio.get_running_loop().time()
        service = self._services.get(key)
        if service is not None and key in self._file:
            service.asked = now
            return
        if service is None:
            if len(self._services) >= MOST_SERVICES:
                raise Refused(f"the lookup map holds {MOST_SERVICES} services already")
            service = _Service(self, key, now)
        if self._replica is not None and not await self._replica.hold(lambda: self._seen(key)):
            raise Refused(f"the agent cannot follow {key}")
        self._services[key] = service
        self._write(service)

    def _seen(self, key: str) -> tuple[Topic, ...]:
        return self._store.read(_instances, key, self._node, self._locate).seen

    def mark(self, service: _Service) -> None:
        """Note that what a service looked at has changed."""
        if self._services.get(service.key) is service:
            self._dirty[service] = None
            self._work_soon()

    def _work_soon(self) -> None:
        if self._working is None:
            self._working = asyncio.get_running_loop().call_soon(self._work)

    def _work(self) -> None:
        self._working = None
        for service in list(self._dirty)[:BATCH] if len(self._dirty) > BATCH else list(self._dirty):
            del self._dirty[service]
            self._write(service)
        if self._dirty:
            self._work_soon()

    def _write(self, service: _Service) -> None:
        """Write a service as the store has it, unless that is what the map says already."""
        store = self._store
        store.watches.discard(service)
        answer = store.read(_instances, service.key, self._node, self._locate)
        store.watches.add(service, answer.seen)
        if self._replica is not None and not self._replica.covers(answer.seen):
            # What is there now is better than what a store says that does not hold the service any more.
            if service.following is None:
                service.following = asyncio.create_task(self._follow_again(service, self._replica))
            return
        payload = self._encoder.encode(Payload(service.key, answer.value))
        digest = hashlib.blake2b(payload, digest_size=16).digest()
        if digest == service.digest:
            return
        try:
            self._file.put(service.key, answer.index, payload)
        except (OSError, MapFull) as error:
            self._withdraw(service, str(error))
            return
        self.written += 1
        service.digest = digest
        service.empty = not answer.value

    async def _follow_again(self, service: _Service, replica: Replica) -> None:
        try:
            while not await self._followed(service, replica):
                await asyncio.sleep(HEARTBEAT)
        finally:
            service.following = None
        self.mark(service)

    async def _followed(self, service: _Service, replica: Replica) -> bool:
        try:
            return await replica.hold(lambda: self._seen(service.key))
        except LictorError as error:
            log.debug("a service is not followed", service=service.key, error=str(error))
            return False

    def _withdraw(self, service: _Service, reason: str) -> None:
        """Take out a service that cannot be written: programs ask the agent for it then."""
        service.digest = b""
        try:
            self._file.remove(service.key)
        except OSError:
            pass  # the same trouble; the heartbeat, which fails too, lets the map grow old
        if reason != self._trouble:
            self._trouble = reason
            log.error("the lookup map cannot be written; programs ask over HTTP instead", error=reason)

    # -- time ---------------------------------------------------------------------------------------------------------

    def _beat(self) -> None:
        loop = asyncio.get_running_loop()
        self._beating = loop.call_later(HEARTBEAT, self._beat)
        if loop.time() - self._tidied >= TIDY:
            self._tidied = loop.time()
            self._tidy(loop.time())
        self._tell_time()

    def _tell_time(self) -> None:
        contact = self._contact()
        now = _now()
        try:
            self._file.heartbeat(0 if contact == math.inf else max(1, now - int(contact * 1e9)))
        except OSError as error:
            if str(error) != self._trouble:
                self._trouble = str(error)
                log.error("the lookup map cannot be written, and grows old", error=str(error))

    def _tidy(self, now: float) -> None:
        """Forget what nobody asks for, or may not be seen any more; look at distances, and at what failed, again."""
        for key, service in list(self._services.items()):
            forgotten = service.empty and now - service.asked >= FORGET
            if forgotten or not self._visible(key):
                self._store.watches.discard(service)
                del self._services[key]
                self._dirty.pop(service, None)
                self._withdraw_quietly(key)
        moved = self._store.touched.get(("coordinates",), self._store.floor)
        for service in self._services.values():
            if moved != self._coordinates or self._locate is not None or not service.digest:
                self._dirty[service] = None
        self._coordinates = moved
        if self._dirty:
            self._work_soon()

    def _withdraw_quietly(self, key: str) -> None:
        try:
            self._file.remove(key)
        except OSError as error:
            log.warn("a service is still in the lookup map", service=key, error=str(error))


def _now() -> int:
    return int(lease_clock() * 1e9)


# -- the read ----------------------------------------------------------------------------------------------------------


Locate = Callable[[str], Coord | None]


def _instances(view: View, key: str, node: str, locate: Locate | None) -> tuple[Instance, ...]:
    """A service's instances with how far each is from `node`. Distances are no reason to write anew: they are not
    among what the read has looked at.
    """

    def place(name: str) -> Coord | None:
        found = locate(name) if locate is not None else None
        if found is None:
            entry = view.store.coordinates.get((name.lower(), ""))
            found = entry.coord if entry is not None else None
        return found

    here = place(node)
    return tuple([_instance(row, here, place) for row in health.service(view, key, (), {})])


def _instance(row: CheckServiceNode, here: Coord | None, place: Locate) -> Instance:
    node, service = row.node, row.service
    status = aggregate(row.checks)
    weights = {PASSING: service.weights.passing, WARNING: service.weights.warning}
    there = place(node.node) if here is not None else None
    return Instance(
        id=service.id,
        node=node.node,
        address=service.address or node.address,
        port=service.port,
        status=status,
        weight=weights.get(status, 0),
        rtt=rounded(distance(here, there)) if here is not None and there is not None else None,
        tags=service.tags,
        meta=service.meta or {},
        datacenter=node.datacenter,
    )


def rounded(seconds: float) -> float | None:
    """A distance with two digits, so that the estimate's noise does not change what is written."""
    return float(f"{seconds:.1e}") if math.isfinite(seconds) else None


# -- an agent's --------------------------------------------------------------------------------------------------------


async def open_lookup_map(agent: "Agent", address: str | None) -> LookupMap | None:
    """The map of an agent that programs reach over HTTP at `address`, publishing; None where there is to be none.
    Raises `LictorError` where the configured place cannot be used.
    """
    config = agent.config.lookup_map
    if not config.enabled or (address is None and not config.path):
        return None
    try:
        path = Path(config.path) if config.path else ready_folder() / file_name(address or "")
        lookups = LookupMap(
            path,
            int(config.mode, 8),
            agent.store,
            agent.node_name,
            lambda: agent.last_contact,
            lambda name: agent.authorizer(agent.tokens["default"]).allows("service", name, READ),
            agent.client,
            locate=agent.pools.lan.coordinate_of if agent.pools.lan is not None else None,
            keep=not agent.config.dev_mode,
        )
        await lookups.start()
    except OSError as error:
        told = f"lookup_map: cannot write {error.filename or config.path}: {error.strerror or error}"
        if config.path:
            raise LictorError(told) from None
        log.warn("no lookup map: programs ask over HTTP instead", error=told)
        return None
    return lookups
