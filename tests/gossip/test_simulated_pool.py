"""Pools of many nodes on virtual time: they converge, notice failures in time, and do not bury the living."""

from __future__ import annotations

import msgspec

from lictor.gossip import scale
from lictor.gossip.pool_events import Change, MemberChanged
from lictor.gossip.roster import Status
from lictor.gossip.settings import LAN, SwimSettings
from tests.gossip.simulation import Network, Simulation

# What Lifeguard adds, taken away: no waiting longer for lack of confirmation, no doubt about oneself.
WITHOUT_LIFEGUARD = msgspec.structs.replace(LAN, suspicion_max_timeout_mult=1, awareness_max=1)


def acquainted(nodes: int, seed: int, network: Network | None = None, settings: SwimSettings = LAN) -> Simulation:
    """A pool that has been together for long."""
    simulation = Simulation(seed, network)
    simulation.add_many(nodes, settings)
    simulation.acquaint()
    return simulation


def test_a_hundred_nodes_that_join_one_know_each_other_within_seconds() -> None:
    simulation = Simulation(1)
    simulation.add_many(100)
    for i in range(1, 100):
        simulation.join(f"n{i}", "n0")
    took = simulation.run(30, simulation.converged)
    assert simulation.converged()
    assert took < 6


def test_a_crash_is_noticed_by_all_within_the_published_time() -> None:
    simulation = acquainted(60, 2)
    simulation.run(5)
    simulation.crash("n7")
    at = simulation.now
    simulation.run(60, lambda: set(simulation.seen_as("n7")) == {Status.FAILED})
    times = sorted(when - at for when, _, of in simulation.failures() if of == "n7")
    assert len(times) == 59
    # It is first probed after e/(e-1) probe intervals on average (SWIM, section 3.1), suspected one interval later,
    # and failed after the shortest suspicion once others agree.
    shortest = scale.suspicion_timeout(LAN.suspicion_mult, 60, LAN.probe_interval)
    assert shortest <= times[0] <= shortest + 6
    assert times[-1] - times[0] < 2.5
    assert simulation.failures(["n7"]) == []


def test_nobody_is_suspected_on_a_sound_network() -> None:
    simulation = acquainted(60, 3)
    simulation.run(60)
    assert simulation.failures() == []
    assert max(n.serf.swim.awareness.score for n in simulation.nodes.values()) == 0


def buried_by_the_slow(settings: SwimSettings) -> tuple[int, int]:
    """Failures told of healthy nodes, and of all that live, while a quarter of the nodes stalls most of the time."""
    simulation = acquainted(30, 3, Network(loss=0.05), settings)
    slow = [f"n{i}" for i in range(8)]
    for round_ in range(10):
        for name in slow:
            simulation.at(round_ * 8.2 + 0.1, lambda name=name: simulation.pause(name, 8.0))  # type: ignore[misc]
    simulation.run(80)
    return len(simulation.failures(slow)), len(simulation.failures())


def test_lifeguard_spares_the_healthy_from_nodes_that_stall() -> None:
    healthy, everyone = buried_by_the_slow(LAN)
    healthy_without, everyone_without = buried_by_the_slow(WITHOUT_LIFEGUARD)
    assert healthy_without > 3 * healthy
    assert everyone_without > 1.3 * everyone


def test_a_lossy_network_alone_buries_nobody() -> None:
    simulation = acquainted(60, 5, Network(loss=0.1, duplicates=0.05, jitter=0.05))
    simulation.run(60)
    assert simulation.failures() == []


def test_datagrams_that_never_arrive_are_made_up_for_by_streams() -> None:
    simulation = acquainted(10, 6, Network(loss=1.0))
    simulation.run(30)
    assert simulation.failures() == []


def test_traffic_of_a_node_does_not_grow_with_the_pool() -> None:
    rates = []
    for nodes in (20, 120):
        simulation = acquainted(nodes, 7)
        simulation.run(20)
        rates.append(sum(n.sent for n in simulation.nodes.values()) / nodes / 20)
    assert rates[1] < rates[0] * 1.25
    assert rates[1] < 3


def test_a_partition_shows_each_side_the_other_as_failed_and_heals() -> None:
    simulation = acquainted(20, 8)
    simulation.partition([], [f"n{i}" for i in range(10, 20)])
    simulation.run(60)
    assert simulation.seen_as("n0")[Status.FAILED] == 10
    assert simulation.seen_as("n15")[Status.FAILED] == 10
    simulation.heal()
    took = simulation.run(240, simulation.converged)
    assert simulation.converged()
    assert took < 120


def test_a_paused_node_refutes_its_death_when_it_wakes() -> None:
    simulation = acquainted(20, 9)
    simulation.pause("n5", 30)
    simulation.run(29)
    assert simulation.seen_as("n5")[Status.FAILED] == 19
    simulation.run(60, simulation.converged)
    assert simulation.converged()
    assert simulation.nodes["n5"].serf.swim.me.incarnation > 1


def test_a_node_that_leaves_has_left_and_not_failed() -> None:
    simulation = acquainted(20, 10)
    simulation.nodes["n4"].serf.leave(simulation.now)
    simulation.touch("n4")
    simulation.run(10, lambda: simulation.nodes["n4"].serf.status is Status.LEFT)
    simulation.crash("n4")
    simulation.run(20)
    assert set(simulation.seen_as("n4")) == {Status.LEFT}
    assert simulation.failures() == []


def test_a_node_alone_leaves_at_once() -> None:
    simulation = Simulation(1)
    node = simulation.add("alone")
    node.serf.leave(simulation.now)
    simulation.touch("alone")
    simulation.run(2)
    assert node.serf.status is Status.LEFT


def test_a_failed_node_is_removed_by_an_operator_and_pruned() -> None:
    simulation = acquainted(10, 11)
    for name in ("n3", "n4"):
        simulation.crash(name)
    simulation.run(30)
    simulation.nodes["n0"].serf.remove_failed("n3", False, simulation.now)
    simulation.nodes["n0"].serf.remove_failed("n4", True, simulation.now)
    simulation.touch("n0")
    simulation.run(10)
    assert set(simulation.seen_as("n3")) == {Status.LEFT}
    assert set(simulation.seen_as("n4")) == {Status.NONE}


def test_an_operator_who_removes_a_living_node_is_contradicted_by_it() -> None:
    simulation = acquainted(10, 12)
    simulation.nodes["n0"].serf.remove_failed("n3", False, simulation.now)
    simulation.touch("n0")
    simulation.run(15)
    assert set(simulation.seen_as("n3")) == {Status.ALIVE}


def test_a_failed_member_is_forgotten_after_its_time() -> None:
    simulation = acquainted(5, 13)
    simulation.crash("n3")
    simulation.run(30)
    assert set(simulation.seen_as("n3")) == {Status.FAILED}
    for node in simulation.nodes.values():
        node.serf.settings = msgspec.structs.replace(node.serf.settings, reconnect_timeout=60.0)
    simulation.run(80)
    assert set(simulation.seen_as("n3")) == {Status.NONE}
    told = [e for _, e in simulation.nodes["n0"].events if isinstance(e, MemberChanged)]
    assert [e.change for e in told if e.member.name == "n3"] == [Change.FAILED, Change.REAP]


def test_changed_tags_reach_everyone() -> None:
    simulation = acquainted(20, 14)
    simulation.nodes["n2"].serf.set_tags({"role": "other"}, simulation.now)
    simulation.touch("n2")
    simulation.run(5)
    seen = {n.serf.roster.members["n2"].tags["role"] for n in simulation.nodes.values()}
    assert seen == {"other"}


def test_a_restarted_node_outbids_the_memory_of_its_earlier_life() -> None:
    simulation = acquainted(10, 15)
    simulation.crash("n3")
    simulation.run(30)
    old = simulation.nodes.pop("n3")
    again = simulation.add("n3", host=old.serf.swim.me.address.host)
    simulation.join("n3", "n0")
    simulation.run(20, simulation.converged)
    assert simulation.converged()
    assert again.serf.swim.me.incarnation > old.serf.swim.me.incarnation
