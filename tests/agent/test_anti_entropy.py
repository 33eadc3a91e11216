"""Anti-entropy on a loop: changes reach the catalog soon, and errors only delay them."""

import asyncio

from lictor.agent.anti_entropy import INTERVAL, SERVERS_UP, AntiEntropy, scaled
from lictor.agent.local import LocalState
from lictor.agent.registration import ServiceRegistration
from lictor.model.command import Command, Register
from lictor.model.errors import LictorError, NoLeader, Refused
from lictor.model.node import Node
from lictor.model.service import NodeService
from lictor.store import commands
from lictor.store.store import Store
from tests.patience import soon
from tests.simulation.loop import SimLoop

NODE = Node("", "n1", "127.0.0.1", "dc1")


class Servers:
    """Servers that answer after a turn of the loop, or with an error."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.applied: list[Command] = []
        self.error: LictorError | None = None
        self.takes = 0.0
        self.refused: set[str] = set()

    async def apply(self, command: Command) -> object:
        await asyncio.sleep(self.takes)
        if self.error is not None:
            raise self.error
        if isinstance(command, Register) and command.service is not None and command.service.id in self.refused:
            raise Refused("no")
        self.applied.append(command)
        return commands.apply(self.store, command, 0.0)

    def services(self) -> set[str]:
        return {instance.service.id for instance in self.store.services}


def build() -> tuple[LocalState, Servers, AntiEntropy]:
    store = Store()
    servers = Servers(store)
    local = LocalState(lambda: NODE, lambda _: None)
    return local, servers, AntiEntropy(local, store, lambda: NODE, servers.apply)


def put(local: LocalState, *names: str) -> None:
    for name in names:
        local.put_service(ServiceRegistration(NodeService(id=name, service=name)))


async def test_a_start_compares_everything() -> None:
    local, servers, anti_entropy = build()
    commands.apply(servers.store, Register(NODE, NodeService(id="stray", service="stray")), 0.0)
    put(local, "web")
    anti_entropy.start()
    await soon(lambda: servers.services() == {"web"}, "the catalog is in line")
    await anti_entropy.close()


async def test_a_change_is_sent_when_it_is_told() -> None:
    local, servers, anti_entropy = build()
    anti_entropy.start()
    await soon(lambda: not local.pending(), "the node is there")
    put(local, "web")
    anti_entropy.trigger()
    await soon(lambda: servers.services() == {"web"}, "the service is there")
    await anti_entropy.close()


async def test_a_change_told_while_others_are_sent_is_not_forgotten() -> None:
    local, servers, anti_entropy = build()
    anti_entropy.start()
    await soon(lambda: not local.pending(), "the node is there")
    for number in range(20):
        put(local, f"s{number}")
        anti_entropy.trigger()
        # Into the middle of the sending, at another turn each time.
        for _ in range(number % 5):
            await asyncio.sleep(0)
    await soon(lambda: len(servers.services()) == 20, "all services are there")
    await anti_entropy.close()


async def test_sync_returns_when_the_catalog_has_it() -> None:
    local, servers, anti_entropy = build()
    put(local, *(f"s{n}" for n in range(300)))
    assert await anti_entropy.sync()
    assert len(servers.services()) == 300
    assert local.pending() == []


async def test_one_refused_service_keeps_no_other_back() -> None:
    local, servers, anti_entropy = build()
    servers.refused = {"bad"}
    put(local, "a", "bad", "z")
    assert not await anti_entropy.sync()
    assert servers.services() == {"a", "z"}
    servers.refused = set()
    assert await anti_entropy.sync()
    assert servers.services() == {"a", "bad", "z"}


async def test_without_a_leader_all_of_it_waits() -> None:
    local, servers, anti_entropy = build()
    servers.error = NoLeader()
    put(local, "a", "b")
    assert not await anti_entropy.sync()
    assert anti_entropy.failures == 1
    servers.error = None
    assert await anti_entropy.sync()
    assert servers.services() == {"a", "b"}


def test_what_failed_is_tried_again_as_soon_as_servers_answer() -> None:
    async def scenario() -> None:
        local, servers, anti_entropy = build()
        anti_entropy.start()
        await asyncio.sleep(1.0)
        anti_entropy.servers_up()
        servers.error = NoLeader()
        put(local, "a")
        anti_entropy.trigger()
        await asyncio.sleep(1.0)
        assert anti_entropy.failures == 1
        servers.error = None
        await asyncio.sleep(SERVERS_UP)
        assert servers.services() == set(), "nobody has said that servers answer"
        anti_entropy.servers_up()
        await asyncio.sleep(SERVERS_UP + 0.01)
        assert servers.services() == {"a"}
        await anti_entropy.close()

    loop = SimLoop()  # type: ignore[abstract]
    try:
        loop.run_until_complete(scenario())
    finally:
        loop.close()


def test_what_is_still_failing_when_servers_answer_is_tried_again_too() -> None:
    async def scenario() -> None:
        local, servers, anti_entropy = build()
        anti_entropy.start()
        await asyncio.sleep(1.0)
        servers.error, servers.takes = NoLeader(), 7.0
        put(local, "a")
        anti_entropy.trigger()
        await asyncio.sleep(6.9)
        anti_entropy.servers_up()
        await asyncio.sleep(0.2)
        servers.error, servers.takes = None, 0.0
        await asyncio.sleep(SERVERS_UP + 7.0)
        assert servers.services() == {"a"}
        await anti_entropy.close()

    loop = SimLoop()  # type: ignore[abstract]
    try:
        loop.run_until_complete(scenario())
    finally:
        loop.close()


def test_the_interval_grows_with_the_cluster() -> None:
    assert scaled(INTERVAL, 1) == scaled(INTERVAL, 128) == 60
    assert [scaled(INTERVAL, nodes) for nodes in (129, 256, 257, 512, 1000, 2000, 8192)] == [
        120,
        120,
        180,
        180,
        240,
        300,
        420,
    ]
