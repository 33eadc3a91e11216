"""Which endpoint is next: by weight, another where one fails, none that failed often."""

from __future__ import annotations

import random
from collections import Counter

import msgspec

from lictor.connect_proxy.endpoints import Endpoint, Endpoints, Target, targets_of
from lictor.connect_proxy.records import HealthEntry
from lictor.connect_proxy.settings import Ejection
from tests.connect_proxy.loops import on_uvloop
from tests.connect_proxy.mesh import Mesh, is_refused, say, target
from tests.ports import free_port


def targets(*weights: int) -> list[Target]:
    """Endpoints with these weights."""
    return [Target("127.0.0.1", 1000 + number, "web", "dc1", weight) for number, weight in enumerate(weights)]


def test_endpoints_are_chosen_by_weight() -> None:
    endpoints = Endpoints(random.Random(5).random)
    endpoints.update(targets(1, 3, 6))
    seen: Counter[int] = Counter()
    for _ in range(10_000):
        chosen = endpoints.choose(0.0)
        assert chosen is not None
        seen[chosen.target.port] += 1
    assert [round(seen[1000 + number] / 1000) for number in range(3)] == [1, 3, 6]


def test_those_that_were_tried_are_not_chosen_again() -> None:
    endpoints = Endpoints(random.Random(5).random)
    endpoints.update(targets(1, 1, 1))
    tried: list[Endpoint] = []
    while (chosen := endpoints.choose(0.0, tried)) is not None:
        tried.append(chosen)
    assert {one.target.port for one in tried} == {1000, 1001, 1002}


def test_one_that_fails_is_left_out_for_a_while_and_longer_each_time() -> None:
    endpoints = Endpoints(random.Random(5).random, Ejection(interval=10, max_failures=2, base_time=30))
    endpoints.update(targets(1, 1))
    sick = endpoints.all[0]
    assert not endpoints.failed(sick, 0.0)
    assert endpoints.failed(sick, 1.0)
    assert {endpoints.choose(at) for at in (1.0, 15.0, 30.0)} == {endpoints.all[1]}
    assert sick in {endpoints.choose(31.5) for _ in range(50)}
    endpoints.failed(sick, 32.0)
    assert endpoints.failed(sick, 33.0)
    assert sick not in {endpoints.choose(80.0) for _ in range(50)}
    assert sick in {endpoints.choose(94.0) for _ in range(50)}
    endpoints.succeeded(sick)
    assert not sick.ejections


def test_failures_far_apart_do_not_count_together() -> None:
    endpoints = Endpoints(random.Random(5).random, Ejection(interval=10, max_failures=2))
    endpoints.update(targets(1, 1))
    assert not endpoints.failed(endpoints.all[0], 0.0)
    assert not endpoints.failed(endpoints.all[0], 11.0)


def test_not_too_many_are_left_out_and_the_last_is_used_whatever_happens() -> None:
    endpoints = Endpoints(random.Random(5).random, Ejection(max_failures=1, max_percent=50))
    endpoints.update(targets(1, 1, 1, 1))
    assert [endpoints.failed(one, 0.0) for one in endpoints.all] == [True, True, False, False]
    alone = Endpoints(random.Random(5).random, Ejection(max_failures=1))
    alone.update(targets(1))
    assert alone.failed(alone.all[0], 0.0)
    assert alone.choose(1.0) is alone.all[0]


def test_what_is_known_of_an_endpoint_survives_an_update() -> None:
    endpoints = Endpoints(random.Random(5).random, Ejection(max_failures=1))
    endpoints.update(targets(1, 1))
    endpoints.failed(endpoints.all[0], 0.0)
    endpoints.update(targets(5, 1, 1))
    assert endpoints.all[0].ejected_until == 30.0
    assert endpoints.choose(1.0) is not endpoints.all[0]


def test_instances_become_targets() -> None:
    rows = [
        {
            "Node": {"Address": "10.0.0.1", "Datacenter": "dc1"},
            "Service": {
                "Kind": "connect-proxy",
                "Service": "web-sidecar-proxy",
                "Port": 20000,
                "Weights": {"Passing": 7, "Warning": 1},
                "Proxy": {"DestinationServiceName": "web"},
            },
        },
        {
            "Node": {"Address": "10.0.0.2", "Datacenter": "dc2"},
            "Service": {"Service": "web", "Address": "10.1.1.1", "Port": 443, "Weights": {"Passing": 1, "Warning": 1}},
        },
        {"Node": {"Address": "10.0.0.3"}, "Service": {"Service": "web", "Port": 0}},
    ]
    entries = msgspec.convert(rows, list[HealthEntry])
    wanted = (Target("10.0.0.1", 20000, "web", "dc1", 7), Target("10.1.1.1", 443, "web", "dc2"))
    assert targets_of(entries) == wanted
    assert targets_of(entries, "web") == wanted


@on_uvloop
async def test_the_next_endpoint_is_tried_where_one_does_not_answer() -> None:
    async with Mesh() as mesh:
        inbound = await mesh.inbound(await mesh.service())
        dead = Target("127.0.0.1", free_port(), "web", "dc1", 1000)
        outbound = await mesh.outbound(dead, target(inbound))
        for _ in range(3):
            assert await say(await mesh.connect(outbound), b"hello") == b"hello"
        assert outbound.retries >= 1


@on_uvloop
async def test_the_next_endpoint_is_tried_where_one_accepts_and_says_nothing() -> None:
    async with Mesh() as mesh:

        async def silent(reader: object, writer: object) -> None:
            await mesh.loop.create_future()

        mute = await mesh.service(silent)
        inbound = await mesh.inbound(await mesh.service())
        deaf = Target(mute.host, mute.port, "web", "dc1", 1000)
        outbound = await mesh.outbound(deaf, target(inbound), connect_timeout=0.5)
        assert await say(await mesh.connect(outbound), b"hello") == b"hello"


@on_uvloop
async def test_without_an_endpoint_the_connection_is_cut() -> None:
    async with Mesh() as mesh:
        outbound = await mesh.outbound()
        assert await is_refused(await mesh.connect(outbound))
        assert outbound.ends["upstream"] == 1
