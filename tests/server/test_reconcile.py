"""What the leader writes of the servers into the catalog."""

import asyncio
from typing import Any

from lictor.model.check import CRITICAL, PASSING, SERF_HEALTH, Check
from lictor.model.command import Command, Deregister, Register
from lictor.model.member import ALIVE, FAILED
from lictor.model.node import Node
from lictor.raft.consensus import Peer
from lictor.server.reconcile import INTERVAL, Listed, differences
from lictor.store import commands
from lictor.store.store import Store
from tests.agent.checks.virtual_time import run_virtually
from tests.server.group import Group, until
from tests.server.test_members import hello


def listed(name: str, status: int = ALIVE, **given: Any) -> Listed:
    own = hello(name, **given)
    return Listed(Peer(own.id, own.node, own.address, False, True), status, own)


def write(store: Store, *wanted: Command) -> None:
    for command in wanted:
        commands.apply(store, command, 1.0)


def reconciled(store: Store, *servers: Listed) -> list[Command]:
    """Bring a catalog in line. Returns what it took; after that nothing is left to do."""
    found = differences(store, servers, "dc1")
    write(store, *found)
    assert differences(store, servers, "dc1") == []
    return found


def health(store: Store, name: str) -> tuple[str, str]:
    check = store.checks.get((name, SERF_HEALTH.lower()))
    assert check is not None
    return check.status, check.output


def alive_check(name: str) -> Check:
    return Check(node=name, check_id=SERF_HEALTH, name="Serf Health Status", status=PASSING)


def test_every_server_that_is_alive_is_registered() -> None:
    store = Store()
    reconciled(store, listed("a"), listed("b", read_replica=True))
    node = store.nodes.get("b")
    assert node is not None
    assert (node.id, node.address, node.datacenter) == ("id-b", "10.0.0.1", "dc1")
    instance = store.services.get(("b", "consul"))
    assert instance is not None
    assert (instance.service.service, instance.service.port) == ("consul", ord("b"))
    assert instance.service.meta is not None
    assert (instance.service.meta["version"], instance.service.meta["read_replica"]) == ("1.20.0", "true")
    assert health(store, "b") == (PASSING, "Agent alive and reachable")


def test_one_that_fails_is_critical_and_one_that_is_back_passing() -> None:
    store = Store()
    reconciled(store, listed("a"), listed("b"))
    reconciled(store, listed("a"), listed("b", FAILED))
    assert health(store, "b") == (CRITICAL, "Agent not live or unreachable")
    assert store.services.get(("b", "consul")) is not None
    reconciled(store, listed("a"), listed("b"))
    assert health(store, "b") == (PASSING, "Agent alive and reachable")


def test_of_one_that_was_not_asked_yet_nothing_is_said() -> None:
    store = Store()
    reconciled(store, listed("a"), listed("b"))
    assert reconciled(store, listed("a"), listed("b", 0)) == []
    assert reconciled(store, listed("a"), Listed(Peer("id-c", "c", "10.0.0.3:8300", False, True), FAILED, None)) == [
        Deregister("b")
    ]


def test_who_is_no_server_of_the_cluster_is_no_member() -> None:
    store = Store()
    reconciled(store, listed("a"), listed("b"))
    write(store, Register(Node(node="outside", address="10.0.0.9")))
    assert reconciled(store, listed("a")) == [Deregister("b")]
    assert store.nodes.get("outside") is not None


def test_what_only_the_node_knows_stays() -> None:
    store = Store()
    node = Node("id-a", "a", "10.0.0.1", "dc1", {"lan": "10.0.0.1"}, {"zone": "x"})
    write(store, Register(node))
    reconciled(store, listed("a"))
    kept = store.nodes.get("a")
    assert kept is not None and (kept.meta, kept.tagged_addresses) == ({"zone": "x"}, {"lan": "10.0.0.1"})
    reconciled(store, listed("a", address="10.0.0.7:8300"))
    moved = store.nodes.get("a")
    assert moved is not None and (moved.address, moved.meta) == ("10.0.0.7", {"zone": "x"})


def test_what_a_node_writes_of_itself_meanwhile_stays() -> None:
    store = Store()
    found = differences(store, [listed("a")], "dc1")
    write(store, Register(Node("id-a", "a", "10.0.0.1", "dc1", None, {"zone": "x"})), *found)
    kept = store.nodes.get("a")
    assert kept is not None and kept.meta == {"zone": "x"}
    assert differences(store, [listed("a")], "dc1") == []


def test_a_server_under_a_new_name_is_the_same_node() -> None:
    store = Store()
    reconciled(store, listed("a"), listed("b"))
    found = reconciled(store, listed("a"), listed("b", node="new", address="10.0.0.1:98"))
    assert not any(isinstance(command, Deregister) for command in found)
    assert {node.node for node in store.nodes} == {"a", "new"}


def test_a_name_goes_from_a_node_that_is_no_more_to_the_server_that_has_it_now() -> None:
    store = Store()
    write(store, Register(Node("former", "a", "10.0.0.8", "dc1"), None, (alive_check("a"),)))
    reconciled(store, listed("a"))
    node = store.nodes.get("a")
    assert node is not None and (node.id, node.address) == ("id-a", "10.0.0.1")


def test_the_leader_keeps_the_catalog_in_line_whoever_leads() -> None:
    async def scenario() -> None:
        group = Group("a", "b", "c")
        group.start()
        store = group.places["b"].store

        def passing() -> list[str]:
            return sorted(c.node for c in store.checks if c.check_id == SERF_HEALTH and c.status == PASSING)

        await asyncio.sleep(2 * INTERVAL)
        assert passing() == []
        group.lead("id-a")
        await until(lambda: passing() == ["a", "b", "c"], "all servers in the catalog", 3)
        group.places["c"].kill()
        await until(lambda: health(store, "c")[0] == CRITICAL, "the dead one critical", 8)
        group.places["c"].revive()
        await until(lambda: health(store, "c")[0] == PASSING, "the living one passing", 3)
        group.lead("id-b")
        write_from_outside = group.places["a"].server.apply(Deregister("c"))
        await write_from_outside
        await until(lambda: passing() == ["a", "b", "c"], "what somebody removed", 3)
        del group.records["id-c"]
        group.voters.discard("id-c")
        group.lead("id-a")
        await until(lambda: store.nodes.get("c") is None, "one that is no server any more to be gone", 3)
        await group.close()

    run_virtually(scenario())
