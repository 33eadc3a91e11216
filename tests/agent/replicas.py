"""Partial replicas and the servers they follow, on virtual time, over a network that delays, cuts and breaks.

Servers share one log of commands and apply it as far as the test has them: a server may be behind another one.
"""

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

from lictor.agent.replica import PartialReplica
from lictor.model.command import Batch, Command
from lictor.model.errors import NoLeader
from lictor.model.transport import Transport
from lictor.server.subscriptions import Subscriptions
from lictor.store import commands
from lictor.store.store import Answer, Store
from tests.simulation.loop import Clock, SimLoop
from tests.simulation.network import Network, SimTransport
from tests.store.random_commands import READS


class Contact:
    """What a server knows of its cluster."""

    def __init__(self) -> None:
        self.cluster = "cluster"
        self.leader = "10.0.0.1:8300"
        self.last_contact = 0.0


class Place:
    """A server."""

    def __init__(self, world: "World", address: str) -> None:
        self.world = world
        self.address = address
        self.store = Store()
        self.applied = 0
        self.consensus = Contact()
        self.confirmed = 0
        self.transport: Transport = world.join(address)
        self.subscriptions = Subscriptions(self, self.transport, "dc1", world.chance)

    async def confirm(self, *, quorum: bool) -> None:
        """As followers do: wait for what is committed."""
        self.confirmed += 1
        if not self.consensus.leader:
            await asyncio.sleep(7.0)
            raise NoLeader
        wanted = len(self.world.log)
        while self.applied < wanted:
            await asyncio.sleep(0.01)

    def advance(self, to: int) -> None:
        """Apply the log up to an entry."""
        while self.applied < to:
            commands.apply_batch(self.store, Batch(1000.0 + self.applied, (self.world.log[self.applied],)))
            self.applied += 1
        self.store.flush()

    async def vanish(self) -> None:
        """The process is gone."""
        assert isinstance(self.transport, SimTransport)
        self.world.network.leave(self.transport, silently=False)
        await self.subscriptions.close()

    def return_(self) -> None:
        """It is there again, with the state it had; nobody is followed."""
        self.transport = self.world.join(self.address)
        self.subscriptions = Subscriptions(self, self.transport, "dc1", self.world.chance)


class Member:
    """A client agent. `server` is the one that it is to follow, `Random` ones if empty."""

    def __init__(self, world: "World", address: str, **options: Any) -> None:
        self.world = world
        self.store = Store()
        self.server = ""
        self.transport = world.join(address)
        self.replica = PartialReplica(self.store, self.transport, self._pick, world.chance, **options)
        self._present = ""
        self.failures = 0
        self.replica._failed = self._failed

    def _pick(self) -> str:
        if self.server:
            return self.server
        if not self._present:
            self._present = self.world.chance.choice([place.address for place in self.world.places])
        return self._present

    def _failed(self, address: str, error: Exception) -> None:
        self.failures += 1
        self._present = ""

    def move(self) -> None:
        """Follow any server from now on."""
        self._present = ""


class World:
    """All of it. `places` are the servers, `log` what is committed."""

    def __init__(self, loop: SimLoop, seed: int) -> None:
        self.loop = loop
        self.chance = random.Random(seed)
        self.network = Network(loop, self.chance, lambda text: None, lambda: None)
        self.log: list[Command] = []
        self.places: list[Place] = []

    def join(self, address: str) -> SimTransport:
        """A process on the network."""
        clock = Clock(lambda: self.loop.now, 1.0, 0.0)
        return self.network.join(self.loop.own(address, clock), address)

    def server(self) -> Place:
        """One more server."""
        place = Place(self, f"10.0.0.{len(self.places) + 1}:8300")
        self.places.append(place)
        return place

    def write(self, *written: Command) -> None:
        """Commit commands; every server applies them at once."""
        self.log.extend(written)
        self.catch_up()

    def catch_up(self) -> None:
        """Every server applies everything."""
        for place in self.places:
            place.advance(len(self.log))


def simulated(scenario: Callable[[World], Coroutine[Any, Any, None]], seed: int = 0) -> None:
    """Run a scenario to its end."""
    loop = SimLoop()  # type: ignore[abstract]
    try:
        loop.run_until_complete(scenario(World(loop, seed)))
    finally:
        loop.close()


async def until(condition: Callable[[], bool], what: str = "", seconds: float = 120.0) -> None:
    """Wait for a condition, in virtual time."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while not condition():
        assert loop.time() < deadline, f"waited in vain for {what or condition}"
        await asyncio.sleep(0.05)


def answer_of(store: Store, name: str) -> Answer[bytes]:
    """A read's answer, its value as bytes."""
    found = store.read(READS[name])
    return Answer(msgspec.json.encode(found.value), found.index, found.seen)
