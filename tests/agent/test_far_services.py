"""Services of other datacenters as proxies need them: followed while they are held, kept while nobody answers."""

import asyncio
import random
from collections.abc import Iterable
from typing import Any

import msgspec

from lictor.agent.far_services import LINGER, FarServices
from lictor.agent.forwarding import Answered
from lictor.model.errors import Refused
from lictor.store.reads.health import CheckServiceNode
from lictor.store.store import Store
from lictor.store.watch import Topic
from tests.agent.checks.virtual_time import run_virtually
from tests.server.group import until

WEB = ("dc2", "web")


class Far:
    """The other datacenter: it answers blocking queries for `web`."""

    def __init__(self) -> None:
        self.index = 5
        self.ports: list[int] = [1]
        self.away = False
        self.asked: list[str] = []
        self.changed = asyncio.Event()

    def put(self, *ports: int) -> None:
        self.index += 1
        self.ports = list(ports)
        self.changed.set()
        self.changed = asyncio.Event()

    async def ask(self, datacenter: str, target: str, seconds: float) -> Answered:
        self.asked.append(f"{datacenter} {target}")
        if self.away:
            raise Refused("No path to datacenter")
        if f"index={self.index}" in target:
            try:
                async with asyncio.timeout(60):
                    await self.changed.wait()
            except TimeoutError:
                pass
        rows: list[dict[str, Any]] = [
            {"Node": {"Node": "n", "Address": "10.0.0.1"}, "Service": {"Service": "web", "Port": port}, "Checks": []}
            for port in self.ports
        ]
        head = f"HTTP/1.1 200 OK\r\nX-Consul-Index: {self.index}\r\nDate: "
        return Answered(head.encode(), b"x\r\nA: b\r\n\r\n" + msgspec.json.encode(rows), 0)


def ports(services: FarServices, store: Store) -> list[int]:
    rows: list[CheckServiceNode] = store.read(lambda view: services.instances(view, *WEB)).value
    return [row.service.port for row in rows]


def test_what_is_held_is_followed_and_stays_while_the_datacenter_is_away() -> None:
    async def scenario() -> None:
        far, store = Far(), Store()
        told: list[Iterable[Topic]] = []
        services = FarServices(far.ask, told.append, random.Random(1))
        services.hold("proxy", [WEB])
        assert await services.first([WEB]) and ports(services, store) == [1]
        assert told == [(("agent", "elsewhere", *WEB),)]
        assert not await services.first([WEB]), "it is known"
        far.put(1, 2)
        await until(lambda: ports(services, store) == [1, 2], "the change", 5)
        far.away = True
        far.put()
        await asyncio.sleep(300)
        assert ports(services, store) == [1, 2]
        asked = len(far.asked)
        assert asked < 40, "who does not answer is asked seldom"
        far.away = False
        await until(lambda: ports(services, store) == [], "what changed meanwhile", 30)
        services.hold("proxy", [])
        await asyncio.sleep(LINGER + 100)
        asked = len(far.asked)
        far.put(3)
        await asyncio.sleep(100)
        assert len(far.asked) == asked and ports(services, store) == [], "nobody holds it"
        await services.close()

    run_virtually(scenario())


def test_who_comes_back_soon_finds_what_was_held() -> None:
    async def scenario() -> None:
        far, store = Far(), Store()
        services = FarServices(far.ask, lambda topics: None, random.Random(1))
        services.hold("stream", [WEB])
        await services.first([WEB])
        services.hold("stream", [])
        await asyncio.sleep(LINGER / 2)
        far.away = True
        services.hold("next stream", [WEB])
        assert ports(services, store) == [1]
        await asyncio.sleep(LINGER)
        assert ports(services, store) == [1]
        await services.close()

    run_virtually(scenario())


def test_one_that_is_away_is_not_waited_for_long() -> None:
    async def scenario() -> None:
        far = Far()
        far.away = True
        services = FarServices(far.ask, lambda topics: None, random.Random(1))
        services.hold("proxy", [WEB])
        began = asyncio.get_running_loop().time()
        assert not await services.first([WEB])
        assert asyncio.get_running_loop().time() - began < 10
        await services.close()

    run_virtually(scenario())
