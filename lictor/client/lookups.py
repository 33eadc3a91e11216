"""Lookups within the process: the map's file found and kept open, services prepared, an instance chosen.

The usual lookup reads one word of the map, which tells that what is prepared still holds, and chooses. Once a second
one of them looks whether the agent has put a new file in place.

This is the same for programs with threads and for those with an event loop: it never asks the agent. `NotPublished` and
`NoMap` tell the client that it has to be asked.
"""

import math
import os
import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from lictor.client.choosing import Chance, Policy, Pool, Turns
from lictor.client.endpoint import Endpoint, Source
from lictor.client.errors import ClientError, DamagedMap, NoInstance, NoMap, NotPublished, Stale
from lictor.client.map_file import Found, MapFile
from lictor.model.check import PASSING, WARNING
from lictor.model.environment import env
from lictor.model.lookup_layout import Instance, key_of
from lictor.model.lookup_paths import file_name, folders, trusted

LOOK = 1.0  # seconds between looks at the file's place

_POLICIES: dict[str, Callable[[Pool], Endpoint]] = {
    "random": Pool.random,
    "round_robin": Pool.round_robin,
    "weighted": Pool.weighted,
    "nearest": Pool.nearest,
    "least_connections": Pool.least_connections,
}


class Service:
    """A service as the map says it is, prepared for choosing. `found` is None where it came over HTTP: it holds for
    that one time.
    """

    __slots__ = (
        "chance",
        "endpoints",
        "generation",
        "name",
        "passing",
        "pools",
        "slot",
        "source",
        "turns",
        "words",
    )

    def __init__(
        self,
        name: str,
        endpoints: Iterable[Endpoint],
        source: Source,
        found: Found | None,
        turns: Turns,
        chance: Chance,
    ) -> None:
        self.name = name
        self.source = source
        self.endpoints = tuple(endpoints)
        self.turns = turns
        self.chance = chance
        turns.queues = []
        if found is not None:
            self.words: memoryview = found.words
            self.slot = found.slot
            self.generation = found.generation
        self.pools: dict[tuple[str | None, bool], Pool | None] = {}
        self.passing = self.pool(None, False)

    def pool(self, tag: str | None, warning: bool) -> Pool | None:
        """The instances that are well (or only warn, where that will do) and have a tag; None where there are none."""
        key = (tag, warning)
        if key not in self.pools:
            usable = (PASSING, WARNING) if warning else (PASSING,)
            lower = tag.lower() if tag is not None else None
            chosen = [
                e
                for e in self.endpoints
                if e.status in usable and (lower is None or any(lower == own.lower() for own in e.tags))
            ]
            self.pools[key] = Pool(chosen, self.turns, self.chance) if chosen else None
        return self.pools[key]

    def choose(self, policy: Policy, tag: str | None, warning: bool) -> Endpoint:
        """An instance by a policy. Raises `NoInstance`."""
        pool = self.passing if tag is None and not warning else self.pool(tag, warning)
        if pool is None:
            raise self.none(tag, warning)
        try:
            return _POLICIES[policy](pool)
        except KeyError:
            raise ValueError(f"there is no policy {policy!r}; there are {', '.join(_POLICIES)}") from None

    def take(self, tag: str | None, warning: bool) -> Endpoint:
        """One with the fewest connections, counted as holding one more. Raises `NoInstance`."""
        pool = self.pool(tag, warning)
        if pool is None:
            raise self.none(tag, warning)
        return pool.take()

    def none(self, tag: str | None, warning: bool) -> NoInstance:
        """The error for a pool that is empty."""
        states: dict[str, int] = {}
        for endpoint in self.endpoints:
            states[endpoint.status] = states.get(endpoint.status, 0) + 1
        told = ", ".join(f"{count} {state}" for state, count in sorted(states.items())) or "none is registered"
        wanted = "passing or warning" if warning else "passing"
        tagged = f" with the tag {tag}" if tag is not None else ""
        return NoInstance(f"{self.name} has no {wanted} instance{tagged}: {told}")


class Lookups:
    """The map of one agent. `address` is the agent's HTTP address, by which its file is found; `path` is where the file
    is, for those who know. Safe for use by several threads, and after a fork.
    """

    def __init__(
        self,
        address: str,
        path: str | None = None,
        environment: Mapping[str, str] | None = None,
        chance: Chance = random.random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._given = path or env("LOOKUP_MAP", environment)
        self._folders = folders(environment)
        self._places = self._candidates(address)
        self._chance = chance
        self._clock = clock
        self._lock = threading.RLock()
        self._file: MapFile | None = None
        self._look_at = -math.inf
        self._services: dict[str, Service] = {}
        self._turns: dict[str, Turns] = {}

    def _candidates(self, address: str) -> list[Path]:
        if self._given:
            return [Path(self._given)]
        name = file_name(address)
        return [folder / name for folder in self._folders]

    # -- what is asked ------------------------------------------------------------------------------------------------

    def lookup(
        self,
        service: str,
        policy: Policy = "random",
        *,
        tag: str | None = None,
        warning: bool = False,
        max_age: float | None = None,
    ) -> Endpoint:
        """An instance of a service; see `Client.lookup`. Raises `NotPublished`, `NoMap`, `NoInstance`, `Stale`."""
        found = self._services.get(service)
        if found is None or found.words[found.slot] != found.generation or self._clock() >= self._look_at:
            found = self.service(service)
        if max_age is not None:
            self.not_older(max_age)
        return found.choose(policy, tag, warning)

    def service(self, name: str) -> Service:
        """A service as the map has it now. Raises `NotPublished`, `NoMap`."""
        with self._lock:
            if self._clock() >= self._look_at:
                self._look()
            for _ in range(10):
                file = self.file
                known = self._services.get(name)
                if known is not None and known.words[known.slot] == known.generation:
                    return known
                found = file.find(key_of(name))
                if found is not None:
                    service = self._prepared(name, found, file)
                    self._services[name] = service
                    return service
                if not file.replaced:
                    break
                self._leave()
            self._services.pop(name, None)
            raise NotPublished(f"the lookup map {file.path} does not hold {name}")

    def fresh(self, name: str, max_age: float | None) -> Service:
        """The same, no older than so many seconds. Raises `Stale` too."""
        found = self.service(name)
        if max_age is not None:
            self.not_older(max_age, found.source)
        return found

    def answered(self, name: str, instances: Iterable[Instance], source: Source) -> Service:
        """A service as the agent has said it is over HTTP, for one choice: it is not kept."""
        turns = self._turns_of(name)
        return Service(name, _endpoints(name, instances, source), source, None, turns, self._chance)

    def not_older(self, max_age: float, than: Source | None = None) -> None:
        """Raise `Stale` where the map, or another source, is older than so many seconds."""
        source = than or self.file
        age = source.age()
        if age > max_age:
            what = f"the lookup map {source.path}" if isinstance(source, MapFile) else "what the agent knows"
            told = f"{age:.1f} s old" if age != math.inf else "of unknown age"
            raise Stale(f"{what} is {told}, and at most {max_age:g} s is allowed", age)

    def _turns_of(self, name: str) -> Turns:
        return self._turns.setdefault(name, Turns())

    def _prepared(self, name: str, found: Found, source: Source) -> Service:
        instances = found.payload.instances
        turns = self._turns_of(name)
        return Service(name, _endpoints(name, instances, source), source, found, turns, self._chance)

    # -- the file -----------------------------------------------------------------------------------------------------

    def age(self) -> float:
        """How old what the map says may be, in seconds; infinite where the agent itself never knew. Raises `NoMap`."""
        with self._lock:
            return self.file.age()

    @property
    def file(self) -> MapFile:
        """The open file. Raises `NoMap`."""
        with self._lock:
            return self._file if self._file is not None else self._open()

    def told(self, path: str) -> None:
        """The agent says where its map is; used where the program was not told otherwise, and does not have it open."""
        with self._lock:
            if self._given is None and Path(path) not in self._places:
                self._places.append(Path(path))
            self._look_at = -math.inf

    def close(self) -> None:
        """Forget everything."""
        with self._lock:
            self._leave()

    def _look(self) -> None:
        """See whether another file has taken the open one's place or, its agent being gone, there is a better one."""
        self._look_at = self._clock() + LOOK
        file = self._file
        if file is None:
            return
        try:
            found = os.stat(file.path)
            identity = (found.st_dev, found.st_ino)
        except OSError:
            identity = file.identity  # what was removed goes on being read: it is the newest there is
        if identity != file.identity:
            self._leave()
        elif len(self._places) > 1 and not file.alive:
            self._change(file)

    def _change(self, file: MapFile) -> None:
        """Take another agent's map that lives, if there is one."""
        try:
            other = self._best()
        except NoMap:
            return
        if other.alive and other.identity != file.identity:
            self._leave()
            self._file = other
        else:
            other.close()

    def _open(self) -> MapFile:
        self._file = self._best()
        self._look_at = self._clock() + LOOK
        return self._file

    def _best(self) -> MapFile:
        """The map, opened: of several the one whose agent lives, else the one that is not as old. Raises `NoMap`."""
        best: MapFile | None = None
        problems: list[ClientError] = []
        for path in self._places:
            if self._given is None and path.parent in self._folders and not trusted(path.parent):
                continue
            try:
                file = MapFile(path)
            except NoMap as error:
                problems.append(error)
                continue
            if best is None or (file.alive, -file.silence()) > (best.alive, -best.silence()):
                best, file = file, best or file
            if file is not best:
                file.close()
        if best is None:
            damaged = next((p for p in problems if isinstance(p, DamagedMap)), None)
            if damaged is not None:
                raise damaged
            raise NoMap("there is no lookup map: looked for " + ", ".join(str(path) for path in self._places))
        return best

    def _leave(self) -> None:
        self._services = {}
        if self._file is not None:
            self._file.close()
            self._file = None


def _endpoints(name: str, instances: Iterable[Instance], source: Source) -> list[Endpoint]:
    return [
        Endpoint(
            name,
            i.id,
            i.node,
            i.address,
            i.port,
            i.status,
            i.weight,
            math.inf if i.rtt is None else i.rtt,
            i.tags,
            i.meta,
            i.datacenter,
            source,
        )
        for i in instances
    ]
