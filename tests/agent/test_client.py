"""What an agent that is no server asks of the servers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from lictor.agent.client import Client, NoServers
from lictor.agent.forwarding import Asked
from lictor.agent.metrics import Metrics
from lictor.model.errors import RateExceeded
from lictor.store.store import Store
from tests.gossip.agents import config

NOBODY = "127.0.0.1:1"
ASKED = Asked("GET", "/v1/kv/a", {}, "127.0.0.1", "n1", b"")


@asynccontextmanager
async def client(metrics: Metrics, text: str) -> AsyncIterator[Client]:
    made = Client(config("n1", "-hcl", text), Store(), lambda: 1, metrics)
    try:
        yield made
    finally:
        await made.close()


async def test_calls_failures_and_refusals_are_counted_as_in_consul() -> None:
    metrics = Metrics(0.0)
    limits = 'limits { rpc_rate = 0.000001 rpc_max_burst = 2 } performance { rpc_hold_timeout = "0s" }'
    async with client(metrics, limits) as made:
        made.learn([NOBODY])
        for _ in range(2):
            with pytest.raises(NoServers):
                await made.request(ASKED)
        with pytest.raises(RateExceeded):
            await made.request(ASKED)
        counted = {
            (counter.identity.name, counter.identity.labels): total.count
            for counter, total in metrics.counters()
            if total is not None
        }
        assert counted == {
            ("client.rpc", ()): 2,
            ("client.rpc.failed", (("server", NOBODY),)): 2,
            ("client.rpc.exceeded", ()): 1,
        }


async def test_what_is_to_be_held_counts_as_a_call_and_is_limited_as_one() -> None:
    metrics = Metrics(0.0)
    async with client(metrics, "limits { rpc_rate = 0.000001 rpc_max_burst = 1 }") as made:
        asking = asyncio.create_task(made.cover((("service", "web"),)))
        await asyncio.sleep(0)
        with pytest.raises(RateExceeded):
            await made.cover((("service", "db"),))
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        assert made.replica.topics == 0


async def test_without_servers_nothing_is_called() -> None:
    metrics = Metrics(0.0)
    async with client(metrics, 'performance { rpc_hold_timeout = "0s" }') as made:
        with pytest.raises(NoServers, match="No known Consul servers"):
            await made.request(ASKED)
        assert [total for _, total in metrics.counters() if total is not None] == []
