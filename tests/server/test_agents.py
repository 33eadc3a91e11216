"""What the leader writes into the catalog of agents that are no servers of its cluster."""

from collections.abc import Sequence

import msgspec
import pytest

from lictor.model.check import CRITICAL, PASSING, SERF_HEALTH, Check
from lictor.model.command import Command, Deregister, Register
from lictor.model.errors import Refused
from lictor.model.member import ALIVE, FAILED, LEAVING, LEFT, Member
from lictor.model.node import Node
from lictor.model.service import NodeService
from lictor.server.agents import NO_GOSSIP, Agents
from lictor.server.reconcile import Listed, departed, differences
from lictor.store import commands
from lictor.store.store import Store
from tests.server.test_reconcile import health, listed, write


def agent(name: str, status: int = ALIVE, *, id: str = "", addr: str = "10.0.1.1", role: str = "node") -> Member:
    tags = {"role": role, "dc": "dc1", "id": id or f"id-{name}"}
    return Member(name, addr, 8301, tags, status)


def reconciled(store: Store, *members: Member, servers: Sequence[Listed] = (), **given: object) -> list[Command]:
    """Bring a catalog in line. Returns what it took; after that nothing is left to do."""
    agents = msgspec.structs.replace(Agents(members), **given)
    found = differences(store, servers, "dc1", agents)
    write(store, *found)
    assert differences(store, servers, "dc1", agents) == []
    return found


def names(store: Store) -> set[str]:
    return {node.node for node in store.nodes}


def service(store: Store, node: str) -> None:
    """Something that the agent of a node has registered."""
    known = store.nodes.get(node)
    assert known is not None
    write(store, Register(known, NodeService(id="web", service="web", port=80)))


def test_an_agent_that_is_alive_is_registered_and_passing() -> None:
    store = Store()
    reconciled(store, agent("c1"), agent("c2"), servers=[listed("s")])
    node = store.nodes.get("c1")
    assert node is not None
    assert (node.id, node.address, node.datacenter) == ("id-c1", "10.0.1.1", "dc1")
    assert health(store, "c1") == (PASSING, "Agent alive and reachable")
    assert store.services.get(("c1", "consul")) is None
    assert store.services.get(("s", "consul")) is not None


def test_members_that_are_no_agents_of_this_datacenter_are_no_nodes() -> None:
    store = Store()
    other = msgspec.structs.replace(agent("c2"), tags={"role": "node", "dc": "dc2", "id": "x"})
    assert reconciled(store, msgspec.structs.replace(agent("c1"), tags={"color": "red"}), other) == []


def test_a_failed_agent_keeps_its_services_and_is_critical_until_it_is_back() -> None:
    store = Store()
    reconciled(store, agent("c1"))
    service(store, "c1")
    reconciled(store, agent("c1", FAILED))
    assert health(store, "c1") == (CRITICAL, "Agent not live or unreachable")
    assert store.services.get(("c1", "web")) is not None
    reconciled(store, agent("c1"))
    assert health(store, "c1") == (PASSING, "Agent alive and reachable")


def test_an_agent_that_has_failed_before_it_was_ever_seen_is_not_registered() -> None:
    store = Store()
    assert reconciled(store, agent("c1", FAILED)) == []


def test_an_agent_that_has_left_is_gone_with_all_that_it_has_registered() -> None:
    store = Store()
    reconciled(store, agent("c1"))
    service(store, "c1")
    assert reconciled(store, agent("c1", LEAVING)) == []
    assert reconciled(store, agent("c1", LEFT)) == [Deregister("c1")]
    assert store.nodes.get("c1") is None
    assert store.services.get(("c1", "web")) is None


def test_a_node_of_the_name_of_one_that_left_stays_when_it_is_another_one() -> None:
    store = Store()
    reconciled(store, agent("c1", id="new"))
    assert reconciled(store, agent("c1", LEFT, id="old")) == []
    write(store, Register(Node("", "c2", "10.0.0.9")))
    assert reconciled(store, agent("c2", LEFT)) == []


def test_one_that_gossip_has_forgotten_is_gone() -> None:
    store = Store()
    reconciled(store, agent("c1"), agent("c2"))
    assert reconciled(store, agent("c2"), forgotten={"C1"}) == [Deregister("c1")]


def test_one_that_gossip_does_not_know_is_left_alone_then_critical_then_gone() -> None:
    store = Store()
    reconciled(store, agent("c1"))
    write(store, Register(Node("", "outside", "10.0.0.9")))
    assert reconciled(store) == []
    reconciled(store, settled=True)
    assert health(store, "c1") == (CRITICAL, "Agent not live or unreachable")
    assert reconciled(store, settled=True, complete=True) == [Deregister("c1")]
    assert names(store) == {"outside"}


def test_a_server_that_is_one_no_more_is_gone_at_once() -> None:
    store = Store()
    reconciled(store, servers=[listed("a"), listed("b")])
    assert reconciled(store, servers=[listed("a")]) == [Deregister("b")]


def test_a_changed_address_is_taken_over_and_what_only_the_node_knows_stays() -> None:
    store = Store()
    write(store, Register(Node("id-c1", "c1", "10.0.1.1", "dc1", {"lan": "10.0.1.1"}, {"zone": "x"})))
    reconciled(store, agent("c1"))
    reconciled(store, agent("c1", addr="10.0.1.7"))
    node = store.nodes.get("c1")
    assert node is not None
    assert (node.address, node.meta) == ("10.0.1.7", {"zone": "x"})


def test_the_same_id_under_a_new_name_is_the_same_node() -> None:
    store = Store()
    reconciled(store, agent("c1"))
    found = reconciled(store, agent("c1", FAILED), agent("new", id="id-c1"))
    assert not any(isinstance(command, Deregister) for command in found)
    assert names(store) == {"new"}


def test_of_two_living_members_with_one_id_the_first_counts() -> None:
    store = Store()
    reconciled(store, agent("c1"), agent("c2", id="id-c1"))
    assert names(store) == {"c1"}


def test_a_name_goes_to_another_id_only_once_its_holder_is_not_healthy() -> None:
    store = Store()
    reconciled(store, agent("c1"))
    stranger = Register(Node("other", "c1", "10.0.0.8", "dc1"))
    with pytest.raises(Refused, match="Node name c1 is reserved by node id-c1"):
        commands.apply(store, stranger, 1.0)
    reconciled(store, agent("c1", id="other", addr="10.0.0.8"))
    node = store.nodes.get("c1")
    assert node is not None
    assert (node.id, node.address) == ("other", "10.0.0.8")


def test_a_server_that_is_not_in_the_configuration_is_no_node() -> None:
    store = Store()
    reconciled(store, agent("b", role="consul"), servers=[listed("a")])
    assert names(store) == {"a"}
    reconciled(store, agent("b", role="consul"), servers=[listed("a"), listed("b")])
    assert reconciled(store, agent("b", role="consul"), servers=[listed("a")]) == [Deregister("b")]


def test_the_servers_of_the_configuration_are_as_they_see_each_other() -> None:
    store = Store()
    reconciled(store, agent("a", FAILED, id="id-a", role="consul"), servers=[listed("a")])
    assert health(store, "a")[0] == PASSING


def test_a_server_that_left_and_does_not_answer_is_to_be_taken_out() -> None:
    left = Agents([agent("a", LEFT, id="id-a", role="consul"), agent("b", LEFT, id="id-b"), agent("c", FAILED)])
    found = departed([listed("a", FAILED), listed("b"), listed("c", FAILED)], left)
    assert [peer.id for peer in found] == ["id-a"]


def test_without_gossip_only_the_servers_are_members() -> None:
    store = Store()
    check = Check(node="old", check_id=SERF_HEALTH, name="Serf Health Status", status=PASSING)
    write(store, Register(Node("x", "old", "10.0.0.8", "dc1"), None, (check,)))
    assert Deregister("old") in differences(store, [listed("a")], "dc1", NO_GOSSIP)
