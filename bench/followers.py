"""A thousand client agents that hold one service, and one change: how long until all have it, and at what cost to the
server. Consul's figures are those of a thousand blocking queries, which is how its agents hold a service.

The agents are only their replicas, each with a connection of its own, all in this process.
"""

import asyncio
import random
import time

from bench import watchers
from bench.harness import Agent, Options, Result, agents, close_all, table
from lictor.agent.replica import PartialReplica
from lictor.rpc.network import Network
from lictor.store.reads import health
from lictor.store.store import Store
from lictor.store.watch import Dependent, Topic

AGENTS = 1000
AT_ONCE = 50  # that begin
LIMITS = "limits { http_max_conns_per_client = 5000 rpc_max_conns_per_client = 5000 }"
SERVICE: tuple[Topic, ...] = (("service", "web"),)


class _Told(Dependent):
    """Counts the agents that do not have the change yet."""

    waiting = 0
    done: asyncio.Event

    def changed(self) -> None:
        _Told.waiting -= 1
        if not _Told.waiting:
            _Told.done.set()


class Followers:
    """The agents."""

    def __init__(self, address: str) -> None:
        self._chance = random.Random(1)
        self._networks = [Network(self._chance) for _ in range(AGENTS)]
        self._stores = [Store() for _ in range(AGENTS)]
        self._replicas = [
            PartialReplica(store, network, lambda: address, self._chance, patience=120.0)
            for store, network in zip(self._stores, self._networks, strict=True)
        ]

    async def begin(self) -> None:
        """Hold the service."""
        turns = asyncio.Semaphore(AT_ONCE)

        async def one(replica: PartialReplica) -> None:
            async with turns:
                await replica.read(health.service, "web", (), {})

        await asyncio.gather(*map(one, self._replicas))

    async def change(self, agent: Agent, number: int) -> tuple[float, float]:
        """Seconds until all have a change, and CPU seconds of the server."""
        _Told.waiting, _Told.done = AGENTS, asyncio.Event()
        for store in self._stores:
            store.watches.add(_Told(), SERVICE)
        body = b'{"Node":"node1","Address":"10.0.0.1","Service":{"Service":"web","Port":%d}}' % (1000 + number)
        before, started = agent.cpu(), time.monotonic()
        await asyncio.to_thread(agent.put, "/v1/catalog/register", body)
        await _Told.done.wait()
        return time.monotonic() - started, agent.cpu() - before

    async def close(self) -> None:
        """End them."""
        for replica in self._replicas:
            await replica.close()
        for network in self._networks:
            await network.close()


async def _followed(agent: Agent, rounds: int) -> list[tuple[float, float]]:
    followers = Followers(f"127.0.0.1:{agent.server}")
    try:
        await followers.begin()
        return [await followers.change(agent, number) for number in range(rounds)]
    finally:
        await followers.close()


def run(options: Options) -> None:
    """Measure and print; an operation is one agent that has the change."""
    peers = agents(f"-hcl={LIMITS}")
    results = [Result(peer.name, [], []) for peer in peers]
    try:
        for peer, result in zip(peers, results, strict=True):
            if peer.name == "lictor":
                rounds = asyncio.run(_followed(peer, options.rounds))
            else:
                rounds = [asyncio.run(watchers.round_of(peer, number)) for number in range(options.rounds)]
            for took, used in rounds:
                result.costs.append(used / AGENTS * 1e6)
                result.rates.append(AGENTS / took)
        print(table(f"{AGENTS} agents have a change of a service that they hold", results))
    finally:
        close_all(peers)
