"""`lictor rtt` against agents, and the arithmetic behind it."""

from __future__ import annotations

import pytest

from lictor.model.coordinate import distance
from lictor.model.coordinate_entry import Coord
from tests.cli.command_line import CommandLine, here
from tests.contract.servers import NODE, Server
from tests.patience import eventually


def test_the_distance_is_that_of_the_vectors_plus_heights_and_adjustments() -> None:
    here_, there = Coord(vec=(3.0, 0.0), height=0.5), Coord(vec=(0.0, 4.0), height=0.25)
    assert distance(here_, there) == 5.75
    assert distance(here_, Coord(vec=(0.0, 4.0), height=0.25, adjustment=-1.0)) == 4.75
    assert distance(here_, Coord(vec=(0.0, 4.0), height=0.25, adjustment=-10.0)) == 5.75
    assert distance(here_, Coord(vec=(1.0,))) == float("inf")


def wait_for_coordinate(agent: Server) -> None:
    """Agents report their coordinates some seconds after they start."""
    path = "/v1/coordinate/nodes"
    eventually(lambda: any(entry["Node"] == NODE for entry in agent.api.get(path).json() or []), "a coordinate")


@pytest.mark.parametrize("nodes", [[NODE], [NODE, NODE]])
def test_a_node_to_itself(cli: CommandLine, agent: Server, nodes: list[str]) -> None:
    wait_for_coordinate(agent)
    done = cli.run("rtt", *nodes)
    assert done == (0, f"Estimated {NODE} <-> {NODE} rtt: 0.020 ms (using LAN coordinates)\n", "")


@pytest.mark.parametrize("nodes", [[f"{NODE}.dc1"], [f"{NODE}.dc1", f"{NODE}.dc1"]])
def test_a_server_to_itself_over_the_wan(cli: CommandLine, nodes: list[str]) -> None:
    done = cli.run("rtt", "-wan", *nodes)
    assert done == (0, f"Estimated {NODE}.dc1 <-> {NODE}.dc1 rtt: 0.020 ms (using WAN coordinates)\n", "")


def test_an_unknown_node_is_named(cli: CommandLine, agent: Server) -> None:
    wait_for_coordinate(agent)
    assert cli.run("rtt", NODE, "nope") == (1, "", 'Could not find a coordinate for node "nope"\n')
    assert cli.run("rtt", "-wan", f"{NODE}.dc1", "x.dc2").err == 'Could not find a coordinate for node "x.dc2"\n'


def test_wrong_arguments() -> None:
    assert here("rtt").err.startswith("One or two node names must be specified\n\nUsage: lictor rtt")
    assert here("rtt", "a", "b", "c").code == 1
    done = here("rtt", "-wan", "a", "b")
    assert done == (1, "", "Node names must be specified as <node name>.<datacenter> with -wan\n")


def test_without_an_agent_it_says_so(nobody: CommandLine) -> None:
    done = nobody.run("rtt", "a", "b")
    assert done.code == 1
    assert done.err.startswith('Error getting coordinates: Get "http://127.0.0.1:1/v1/coordinate/nodes": dial tcp')
