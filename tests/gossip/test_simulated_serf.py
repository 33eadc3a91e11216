"""User events, queries, keys, coordinates and name conflicts in pools on virtual time."""

from __future__ import annotations

import random

import pytest

from lictor.gossip import key_queries
from lictor.gossip.asking import GossipError
from lictor.gossip.key_queries import KeyOperation
from lictor.gossip.keyring import Keyring
from lictor.gossip.pool_events import EventReceived, KeyringChanged, NameConflictLost, QueryReceived
from lictor.model.coordinate import distance
from tests.gossip.simulation import Network, Node, Simulation


def pool(nodes: int, seed: int, network: Network | None = None) -> Simulation:
    """A pool that has been together for long."""
    simulation = Simulation(seed, network)
    simulation.add_many(nodes)
    simulation.acquaint()
    return simulation


def events_of(node: Node) -> list[tuple[str, bytes]]:
    """The user events that a node has seen, in order."""
    return [(e.event.name, e.event.payload) for _, e in node.events if isinstance(e, EventReceived)]


def test_an_event_reaches_every_node_once() -> None:
    simulation = pool(40, 1, Network(loss=0.05, duplicates=0.2))
    simulation.nodes["n3"].serf.fire("deploy", b"v1", False, simulation.now)
    simulation.touch("n3")
    simulation.run(45)  # exchanges of states repeat what gossip has told
    assert all(events_of(n) == [("deploy", b"v1")] for n in simulation.nodes.values())


def test_a_node_that_joins_hears_of_recent_events_unless_it_asks_not_to() -> None:
    simulation = pool(5, 2)
    simulation.nodes["n0"].serf.fire("deploy", b"v1", False, simulation.now)
    simulation.touch("n0")
    simulation.run(2)
    late = simulation.add("late")
    simulation.join("late", "n0")
    simulation.run(2)
    assert events_of(late) == [("deploy", b"v1")]


def test_an_event_too_long_is_refused_with_the_limit() -> None:
    simulation = pool(1, 3)
    with pytest.raises(GossipError, match="limit of 512 bytes"):
        simulation.nodes["n0"].serf.fire("deploy", b"x" * 510, False, simulation.now)


def answer_all(simulation: Simulation, payload: bytes) -> None:
    """Every node that has a query answers it."""
    for name, node in simulation.nodes.items():
        for _, event in node.events:
            if isinstance(event, QueryReceived):
                node.serf.queries.respond(event, payload + name.encode(), simulation.now)
        simulation.touch(name)


@pytest.mark.parametrize("relay_factor", [0, 3])
def test_a_query_is_answered_by_the_nodes_that_it_is_for(relay_factor: int) -> None:
    simulation = pool(20, 4)
    for name in ("n1", "n2", "n3"):
        simulation.nodes[name].serf.set_tags({"role": "web-" + name}, simulation.now)
        simulation.touch(name)
    simulation.run(3)
    pending = simulation.nodes["n0"].serf.queries.ask(
        "load",
        b"?",
        simulation.now,
        nodes=("n2", "n3", "n4"),
        tags={"role": "^web-"},
        ask_acks=True,
        relay_factor=relay_factor,
    )
    simulation.touch("n0")
    simulation.run(2)
    answer_all(simulation, b"1 from ")
    simulation.run(10)
    assert pending.finished
    assert sorted(pending.acks) == ["n2", "n3"]
    assert pending.responses == {"n2": b"1 from n2", "n3": b"1 from n3"}


def test_an_answer_after_the_deadline_is_refused() -> None:
    simulation = pool(3, 5)
    simulation.nodes["n0"].serf.queries.ask("load", b"", simulation.now, timeout=1.0)
    simulation.touch("n0")
    simulation.run(5)
    with pytest.raises(GossipError, match="deadline"):
        answer_all(simulation, b"late")


def test_a_key_is_rotated_through_the_pool() -> None:
    simulation = pool(6, 6)
    old, new = bytes(16), bytes(range(16))
    for node in simulation.nodes.values():
        node.serf.keyring.install(old)
    for operation in (KeyOperation.INSTALL, KeyOperation.USE, KeyOperation.REMOVE, KeyOperation.LIST):
        key = old if operation is KeyOperation.REMOVE else new
        payload = b"" if operation is KeyOperation.LIST else key_queries.request(key)
        pending = simulation.nodes["n0"].serf.queries.ask(operation.value, payload, simulation.now)
        simulation.touch("n0")
        simulation.run(10)
        result = key_queries.result(pending, 6)
        assert (result.responses, result.errors, result.messages) == (6, 0, {})
    assert list(result.keys.values()) == [6]
    assert result.keys == result.primary_keys
    assert sum(isinstance(e, KeyringChanged) for _, e in simulation.nodes["n3"].events) == 3


def test_key_operations_without_encryption_say_so() -> None:
    response = key_queries.perform(KeyOperation.LIST, b"", Keyring())
    assert not response.result
    assert "encryption not enabled" in response.message


def test_a_long_list_of_keys_is_told_as_far_as_it_fits() -> None:
    rng = random.Random(1)
    ring = Keyring(rng.randbytes(32), tuple(rng.randbytes(32) for _ in range(60)))
    encoded = key_queries.answer(key_queries.perform(KeyOperation.LIST, b"", ring), 1000)
    assert len(encoded) <= 1000
    assert b"truncated key list response, showing first" in encoded


def test_of_two_nodes_of_one_name_the_one_that_the_pool_does_not_know_stops() -> None:
    simulation = pool(10, 7)
    first = simulation.nodes.pop("n3")
    second = simulation.add("n3", host="10.9.9.9")
    simulation.join("n3", "n0")
    simulation.run(20)
    assert any(isinstance(e, NameConflictLost) for _, e in second.events)
    assert not any(isinstance(e, NameConflictLost) for _, e in first.events)


def test_coordinates_learn_the_round_trip_time() -> None:
    simulation = pool(16, 8, Network(delay=0.02, jitter=0.002))
    simulation.run(200)
    estimates = [
        distance(a.serf.coordinates.own, b.serf.coordinates.own)
        for a in simulation.nodes.values()
        for b in simulation.nodes.values()
        if a is not b
    ]
    middle = sorted(estimates)[len(estimates) // 2]
    assert 0.03 < middle < 0.055  # a round trip takes 42 ms
