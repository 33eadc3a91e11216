"""What a leader does for its cluster, on virtual time, and what any server has it do."""

import asyncio
from typing import Any

import msgspec
import pytest

from lictor.model.command import ConfigWrite, KVWrite, Register, SettingWrite
from lictor.model.coordinate_entry import Coord, CoordinateEntry
from lictor.model.errors import Refused
from lictor.model.node import Node
from lictor.raft.consensus import ServerChange
from lictor.server import coordinate_batches
from lictor.server.autopilot_config import SETTING, rules
from lictor.server.coordinate_batches import PERIOD
from lictor.server.tombstones import REAP_INTERVAL, TOMBSTONE_TTL
from tests.agent.checks.virtual_time import run_virtually
from tests.server.group import FIRST, Group, until


def led(*names: str) -> Group:
    """Servers that watch each other, led by the first."""
    group = Group(*names)
    group.start()
    group.lead(f"id-{names[0]}")
    return group


async def configure(group: Group, **given: Any) -> None:
    """Change autopilot's configuration, through any server."""
    body = msgspec.to_builtins(msgspec.structs.replace(FIRST, **given))
    await next(iter(group.places.values())).server.apply(SettingWrite(SETTING, body))


# -- beginnings -------------------------------------------------------------------------------------------------------


def test_the_first_leader_sets_what_a_new_cluster_begins_with() -> None:
    async def scenario() -> None:
        group = led("a", "b")
        await group.places["a"].leadership.duties.begun()
        await configure(group, min_quorum=3)
        group.lead("id-b")
        await group.places["b"].leadership.duties.begun()
        assert rules(group.places["a"].store).min_quorum == 3
        await group.close()

    run_virtually(scenario())


def test_first_config_entries_do_not_replace_those_that_are_there() -> None:
    async def scenario() -> None:
        group = Group("a", "b")

        def entry(protocol: str) -> ConfigWrite:
            body = {"Kind": "service-defaults", "Name": "web", "Protocol": protocol}
            return ConfigWrite("upsert-cas", "service-defaults", "web", body, 0)

        for name, protocol in (("a", "http"), ("b", "grpc")):
            group.places[name].leadership._first_entries = [entry(protocol)]
        for name in "ab":
            group.lead(f"id-{name}")
            await group.places[name].leadership.duties.begun()
        row = group.places["a"].store.config.get(("service-defaults", "web"))
        assert row is not None and row.body["Protocol"] == "http"
        await group.close()

    run_virtually(scenario())


# -- what nodes report ------------------------------------------------------------------------------------------------


def test_coordinates_are_collected_from_everywhere_and_written_together() -> None:
    async def scenario() -> None:
        group = led("a", "b")
        store = group.places["b"].store
        await asyncio.sleep(PERIOD + 2)
        for number in range(300):
            await group.places["a"].server.apply(Register(Node(node=f"n{number}", address="10.1.1.1")))
        before = group.index
        for number in range(300):
            for error in (1.0, 0.5):
                place = group.places["ab"[number % 2]]
                await place.leadership.update_coordinate(CoordinateEntry(f"n{number}", "", Coord(error=error)))
        assert len(store.coordinates) == 0
        await until(lambda: len(store.coordinates) == 300, "the coordinates", PERIOD + 1)
        assert {row.coord.error for row in store.coordinates} == {0.5}
        assert group.index == before + 1
        await group.close()

    run_virtually(scenario())


def test_more_coordinates_than_can_be_kept_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coordinate_batches, "MOST", 10)

    async def scenario() -> None:
        group = led("a", "b")
        for number in range(20):
            await group.places["a"].server.apply(Register(Node(node=f"n{number}", address="10.1.1.1")))
            await group.places["b"].leadership.update_coordinate(CoordinateEntry(f"n{number}"))
        await asyncio.sleep(2 * PERIOD)
        assert len(group.places["b"].store.coordinates) == 10
        await group.close()

    run_virtually(scenario())


def test_what_was_removed_long_ago_is_forgotten_everywhere() -> None:
    async def scenario() -> None:
        group = led("a", "b")
        server, store = group.places["a"].server, group.places["b"].store
        await server.apply(KVWrite("set", "k", b"1"))
        await server.apply(KVWrite("delete", "k"))
        await asyncio.sleep(TOMBSTONE_TTL - REAP_INTERVAL)
        assert len(store.tombstones) == 1
        await until(lambda: len(store.tombstones) == 0, "the tombstone to be gone", 4 * REAP_INTERVAL)
        await group.close()

    run_virtually(scenario())


# -- autopilot --------------------------------------------------------------------------------------------------------


def test_a_server_that_joins_is_promoted_when_it_is_stable() -> None:
    async def scenario() -> None:
        group = led("a", "b", "c")
        await asyncio.sleep(30)
        group.add("d", voter=False, last_contact=9.0)
        group.add("e", voter=False, read_replica=True)
        await asyncio.sleep(30)
        assert group.changes == []
        del group.places["d"].said["last_contact"]
        seconds = await until(lambda: group.changes == [("promote", "id-d")], "the promotion", 20)
        assert seconds >= 10
        await asyncio.sleep(60)
        assert len(group.changes) == 1
        await group.close()

    run_virtually(scenario())


def test_a_dead_server_is_removed_after_a_while_but_never_so_many_that_it_is_not_safe() -> None:
    async def scenario() -> None:
        group = led("a", "b", "c")
        await asyncio.sleep(30)
        group.places["c"].kill()
        seconds = await until(lambda: group.changes == [("remove", "id-c")], "the removal", 30)
        assert seconds >= 10
        group.places["b"].kill()
        await asyncio.sleep(300)
        assert len(group.changes) == 1
        await group.close()

    run_virtually(scenario())


def test_a_server_that_is_back_soon_is_not_removed() -> None:
    async def scenario() -> None:
        group = led("a", "b", "c")
        for _ in range(5):
            await asyncio.sleep(30)
            group.places["c"].kill()
            await asyncio.sleep(8)
            group.places["c"].revive()
        await asyncio.sleep(60)
        assert group.changes == []
        await group.close()

    run_virtually(scenario())


def test_a_changed_configuration_takes_effect_at_once() -> None:
    async def scenario() -> None:
        group = led("a", "b", "c")
        await asyncio.sleep(200)
        await configure(group, cleanup_dead_servers=False, server_stabilization_time="1m40s")
        group.places["c"].kill()
        group.add("d", voter=False)
        await asyncio.sleep(60)
        assert group.changes == []
        await configure(group, cleanup_dead_servers=True, server_stabilization_time="30s")
        await until(lambda: group.changes == [("remove", "id-c")], "the removal", 1.5)
        await until(lambda: group.changes[1:] == [("promote", "id-d")], "the promotion", 3)
        await group.close()

    run_virtually(scenario())


def test_a_cluster_moves_to_servers_of_a_newer_version() -> None:
    async def scenario() -> None:
        group = led("a", "b", "c")
        await asyncio.sleep(20)
        for name in "def":
            await asyncio.sleep(20)
            assert group.changes == []
            group.add(name, voter=False, version="1.21.0")
        for place in group.places.values():
            place.leadership.start()
        await until(lambda: group.voters == {"id-d", "id-e", "id-f"}, "the newer ones alone to vote")
        kinds = [kind for kind, _ in group.changes]
        assert kinds == ["promote"] * 3 + ["transfer"] + ["demote"] * 3
        assert group.leader in group.voters
        await asyncio.sleep(60)
        assert len(group.changes) == 7
        await group.close()

    run_virtually(scenario())


@pytest.mark.parametrize("asked", ["a", "b"])
def test_the_health_of_the_servers_is_told_on_any_of_them(asked: str) -> None:
    async def scenario() -> None:
        group = led("a", "b", "c")
        state = await group.places[asked].leadership.autopilot_state()
        assert [(one.seen.node, one.healthy, one.seen.leader) for one in state.servers] == [
            ("a", True, True),
            ("b", True, False),
            ("c", True, False),
        ]
        assert (state.healthy, state.failure_tolerance) == (True, 1)
        group.places["c"].kill()
        await asyncio.sleep(4)
        state = await group.places[asked].leadership.autopilot_state()
        assert (state.healthy, state.failure_tolerance) == (False, 0)
        group.lead("id-b")
        state = await group.places[asked].leadership.autopilot_state()
        assert [one.healthy for one in state.servers] == [True, True, False]
        await group.close()

    run_virtually(scenario())


# -- the operator -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", ["a", "b"])
def test_a_peer_is_removed_by_id_or_address_through_any_server(asked: str) -> None:
    async def scenario() -> None:
        group = led("a", "b", "c", "d")
        leadership = group.places[asked].leadership
        for kind in ("id", "address"):
            with pytest.raises(Refused, match=f'{kind} "x" was not found in the Raft configuration$'):
                await leadership.remove_peer(kind, "x")
        await leadership.remove_peer("id", "id-c")
        await leadership.remove_peer("address", group.places["d"].record.address)
        assert group.changes == [(ServerChange.REMOVE.value, "id-c"), (ServerChange.REMOVE.value, "id-d")]
        await group.close()

    run_virtually(scenario())


@pytest.mark.parametrize("asked", ["a", "b"])
def test_the_leadership_is_handed_over_through_any_server(asked: str) -> None:
    async def scenario() -> None:
        group = led("a", "b", "c")
        with pytest.raises(Refused, match="cannot find peer"):
            await group.places[asked].leadership.transfer("id-a")
        await group.places[asked].leadership.transfer("id-c")
        assert group.leader == "id-c"
        await group.close()

    run_virtually(scenario())
