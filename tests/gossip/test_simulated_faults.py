"""Pools on virtual time whose network, clocks and operators do what they should not."""

from __future__ import annotations

import msgspec

from lictor.gossip.roster import Status
from lictor.gossip.settings import LAN
from tests.gossip.simulation import Network, Node, Simulation

RECLAIMING = msgspec.structs.replace(LAN, dead_node_reclaim=30.0)


def acquainted(nodes: int, seed: int, network: Network | None = None) -> Simulation:
    """A pool that has been together for long, in which a name may move to another address."""
    simulation = Simulation(seed, network)
    simulation.add_many(nodes, RECLAIMING)
    simulation.acquaint()
    return simulation


def host_of(simulation: Simulation, name: str) -> str:
    return simulation.nodes[name].serf.swim.me.address.host


def test_another_node_at_the_address_of_one_that_crashed_is_not_taken_for_it() -> None:
    simulation = acquainted(20, 1)
    simulation.crash("n3")
    simulation.add("new", RECLAIMING, host=host_of(simulation, "n3"))
    simulation.join("new", "n0")
    simulation.run(60, lambda: set(simulation.seen_as("n3")) == {Status.FAILED, Status.ALIVE})
    simulation.run(60)
    seen = simulation.seen_as("n3")
    assert seen[Status.FAILED] == 20
    assert set(simulation.seen_as("new")) == {Status.ALIVE}
    assert simulation.failures(["n3"]) == []


def test_a_name_moves_to_another_address_only_some_time_after_its_holder_failed() -> None:
    simulation = acquainted(20, 2)
    moved = "10.9.9.9"
    old = simulation.nodes["n3"]
    at = host_of(simulation, "n3")
    simulation.crash("n3")
    simulation.run(30, lambda: set(simulation.seen_as("n3")) == {Status.FAILED})
    simulation.add("n3", RECLAIMING, host=moved)
    assert simulation.nodes["n3"] is not old
    simulation.join("n3", "n0")
    simulation.run(5)
    assert {node.serf.roster.members["n3"].address.host for node in others(simulation, "n3")} == {at}
    simulation.run(40)
    simulation.join("n3", "n0")
    simulation.run(20, lambda: set(simulation.seen_as("n3")) == {Status.ALIVE})
    assert {node.serf.roster.members["n3"].address.host for node in others(simulation, "n3")} == {moved}


def with_id(simulation: Simulation, name: str, id: str, host: str = "") -> None:
    """An agent, with an identity of its own."""
    simulation.add(name, RECLAIMING, host=host, tags={"role": "consul", "id": id})


def held_at(simulation: Simulation, name: str) -> set[str]:
    return {node.serf.roster.members[name].address.host for node in others(simulation, name)}


def test_an_agent_that_comes_back_at_another_address_is_there_as_soon_as_it_is_gone_from_the_old_one() -> None:
    simulation = Simulation(7)
    for number in range(6):
        with_id(simulation, f"n{number}", f"id-{number}")
    simulation.acquaint()
    simulation.run(20)
    simulation.crash("n3")
    with_id(simulation, "n3", "id-3", "10.9.9.9")
    simulation.join("n3", "n0")
    begun = simulation.now
    simulation.run(60, lambda: held_at(simulation, "n3") == {"10.9.9.9"})
    assert held_at(simulation, "n3") == {"10.9.9.9"}
    assert simulation.now - begun < 20, "nobody waits for 30 s"
    simulation.run(30)
    assert set(simulation.seen_as("n3")) == {Status.ALIVE}
    assert simulation.failures(["n3"]) == []


def test_of_two_with_one_identity_the_one_that_is_there_stays() -> None:
    simulation = Simulation(8)
    for number in range(6):
        with_id(simulation, f"n{number}", f"id-{number}")
    simulation.acquaint()
    at = host_of(simulation, "n3")
    original = simulation.nodes["n3"]
    with_id(simulation, "n3", "id-3", "10.9.9.9")
    simulation.join("n3", "n0")
    simulation.run(90)
    simulation.nodes["copy"] = simulation.nodes["n3"]
    simulation.nodes["n3"] = original
    assert {simulation.nodes[f"n{n}"].serf.roster.members["n3"].address.host for n in (0, 1, 2, 4, 5)} == {at}
    assert all(simulation.nodes[f"n{n}"].serf.roster.members["n3"].status is Status.ALIVE for n in (0, 1, 2, 4, 5))


def test_another_agent_with_the_name_of_one_that_failed_has_to_wait() -> None:
    simulation = Simulation(9)
    for number in range(6):
        with_id(simulation, f"n{number}", f"id-{number}")
    simulation.acquaint()
    at = host_of(simulation, "n3")
    simulation.crash("n3")
    with_id(simulation, "n3", "id-other", "10.9.9.9")
    simulation.join("n3", "n0")
    simulation.run(25)
    assert held_at(simulation, "n3") == {at}


def others(simulation: Simulation, name: str) -> list[Node]:
    return [node for node in simulation.nodes.values() if node.up and node.serf.name != name]


def test_packets_that_come_again_much_later_bring_nobody_back_and_bury_nobody() -> None:
    simulation = acquainted(20, 3, Network(replays=0.5))
    simulation.run(20)
    simulation.nodes["n4"].serf.leave(simulation.now)
    simulation.touch("n4")
    simulation.run(10, lambda: simulation.nodes["n4"].serf.status is Status.LEFT)
    simulation.crash("n4")
    simulation.crash("n5")
    simulation.run(120)
    assert set(simulation.seen_as("n4")) == {Status.LEFT}
    assert set(simulation.seen_as("n5")) == {Status.FAILED}
    assert simulation.failures(["n5"]) == []


def test_a_node_that_stood_still_for_long_buries_nobody_when_it_goes_on() -> None:
    simulation = acquainted(20, 4)
    simulation.pause("n5", 300)
    simulation.run(290)
    before = len(simulation.failures(["n5"]))
    simulation.run(200, lambda: simulation.now > 305 and simulation.converged())
    simulation.run(60)
    assert simulation.converged()
    assert len(simulation.failures(["n5"])) == before == 0


def test_half_the_pool_that_is_cut_off_for_long_is_whole_again_soon() -> None:
    simulation = acquainted(20, 5)
    far = [f"n{i}" for i in range(10, 20)]
    simulation.partition([], far)
    simulation.run(600)
    assert simulation.seen_as("n0")[Status.FAILED] == 10
    simulation.heal()
    took = simulation.run(600, simulation.converged)
    assert simulation.converged()
    assert took < 300
