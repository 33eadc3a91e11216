"""Config entries in a secondary datacenter: a copy of the primary's, which follows it and outlives its absence."""

import asyncio
import random
from typing import Any

import msgspec
import pytest

from lictor.model.command import ConfigWrite, IntentionWrite, KVWrite, Reap, Restore, RestorePart
from lictor.server.from_primary_entries import EntriesFromPrimary, to_copy
from lictor.store.commands import apply
from lictor.store.reads import config_changes
from lictor.store.settled import COPIED
from lictor.store.snapshot import Image
from lictor.store.store import Store
from tests.agent.checks.virtual_time import run_virtually
from tests.server.group import Group, until

Entries = dict[tuple[str, str], dict[str, Any]]


class Two:
    """Two datacenters, dc1 the primary one."""

    def __init__(self) -> None:
        self.joined: list[Group] = []
        self.one = Group("a", "b", datacenter="dc1", primary="dc1", joined=self.joined)
        self.two = Group("x", "y", datacenter="dc2", primary="dc1", joined=self.joined)
        self.one.lead("id-a")

    def part(self) -> None:
        for first in self.one.records.values():
            for second in self.two.records.values():
                self.one.wire.cut |= {(first.address, second.address), (second.address, first.address)}

    def meet(self) -> None:
        self.one.wire.cut.clear()

    async def put(self, kind: str, name: str, **more: Any) -> None:
        body = {"Kind": kind, "Name": name, **more}
        await self.one.places["b"].server.apply(ConfigWrite("upsert", kind, name, body))

    async def delete(self, kind: str, name: str) -> None:
        await self.one.places["a"].server.apply(ConfigWrite("delete", kind, name))

    async def same(self) -> None:
        """Wait until dc2 has what dc1 has."""
        await until(lambda: entries(self.two) == entries(self.one), "the same entries", 60)

    def duty(self, name: str = "x") -> EntriesFromPrimary:
        found = self.two.places[name].leadership.entries_from_primary
        assert found is not None
        return found

    async def close(self) -> None:
        for group in self.joined:
            await group.close()


def entries(group: Group) -> Entries:
    stores = [place.store for place in group.places.values()]
    found = {key: row.body for key, row in stores[0].config.rows.items()}
    assert all({key: row.body for key, row in store.config.rows.items()} == found for store in stores)
    return found


def test_what_is_written_in_the_primary_holds_in_the_secondary() -> None:
    async def scenario() -> None:
        two = Two()
        await two.put("service-defaults", "Web", Protocol="http")
        two.two.lead("id-x")
        await two.same()
        await two.put("service-router", "Web", Routes=None)
        await two.one.places["a"].server.apply(
            IntentionWrite("upsert", "web", "shop", body={"Name": "shop", "Action": "allow"})
        )
        await two.same()
        assert len(entries(two.two)) == 3
        await two.delete("service-router", "web")
        await two.put("service-defaults", "Web", Protocol="http2")
        await two.same()
        assert len(entries(two.two)) == 2
        written = two.two.index
        await asyncio.sleep(300)
        assert two.two.index == written, "what does not change is not written"
        await two.close()

    run_virtually(scenario())


def test_entries_that_only_the_secondary_has_go() -> None:
    async def scenario() -> None:
        two = Two()
        await two.put("service-defaults", "b")
        two.part()
        two.two.lead("id-y")
        for name in ("a", "b", "c"):
            body = {"Kind": "service-defaults", "Name": name, "Protocol": "grpc"}
            await two.two.places["x"].server.apply(ConfigWrite("upsert", "service-defaults", name, body))
        two.meet()
        await two.same()
        await two.close()

    run_virtually(scenario())


def test_many_entries_come_in_parts_and_the_next_leader_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lictor.server.for_secondaries.ENTRIES_MOST", 10)

    async def scenario() -> None:
        two = Two()
        for number in range(95):
            await two.put("service-defaults", f"s{number:03d}")
        two.two.lead("id-x")
        while len(entries(two.two)) < 20:
            await asyncio.sleep(0.001)
        had = two.duty().position
        assert had.place is not None and not two.duty("x").complete
        two.two.lead("id-y")
        await two.same()
        assert two.duty("y").copied <= 95 - 20, "the next leader asks for no more than what is missing"
        for number in range(30):
            await two.put("service-defaults", f"s{number:03d}", Protocol="http")
        await two.same()
        assert two.duty("y").complete
        await two.close()

    run_virtually(scenario())


def test_while_the_primary_is_away_what_is_held_stays_and_then_what_was_missed_comes() -> None:
    async def scenario() -> None:
        two = Two()
        for name in ("a", "b", "c"):
            await two.put("service-defaults", name)
        two.two.lead("id-x")
        await two.same()
        two.part()
        await two.put("service-defaults", "d")
        await two.delete("service-defaults", "a")
        await asyncio.sleep(200)
        assert set(entries(two.two)) == {("service-defaults", name) for name in "abc"}
        assert two.duty().failure.startswith("rpc error making call")
        two.meet()
        await two.same()
        await until(lambda: not two.duty().failure, "an end of the failure", 20)
        await two.close()

    run_virtually(scenario())


def test_what_was_deleted_so_long_ago_that_the_primary_has_forgotten_it_goes_all_the_same() -> None:
    async def scenario() -> None:
        two = Two()
        for name in ("a", "b", "c"):
            await two.put("service-defaults", name)
        two.two.lead("id-x")
        await two.same()
        two.part()
        await asyncio.sleep(50)
        await two.delete("service-defaults", "b")
        await two.one.places["a"].server.apply(Reap(two.one.places["a"].store.index))
        two.meet()
        await two.same()
        await two.close()

    run_virtually(scenario())


def test_a_restored_state_is_brought_up_to_what_the_primary_has() -> None:
    async def scenario() -> None:
        two = Two()
        await two.put("service-defaults", "a")
        two.two.lead("id-x")
        await two.same()
        state = b"".join(Image(two.two.places["x"].store).encode())
        await two.put("service-defaults", "b")
        await two.delete("service-defaults", "a")
        await two.same()
        server = two.two.places["x"].server
        await server.apply(RestorePart("token", 0, state))
        await server.apply(Restore("token", 1))
        assert set(entries(two.two)) == {("service-defaults", "a")}
        await until(lambda: entries(two.two) == entries(two.one), "the same entries", 60)
        await two.close()

    run_virtually(scenario())


@pytest.mark.parametrize("seed", range(20))
def test_a_copy_comes_to_be_what_it_is_of_whatever_happens(seed: int) -> None:
    chance = random.Random(seed)
    there, here = Store(), Store()
    position = config_changes.Position()
    for _ in range(200):
        name = f"s{chance.randint(0, 30)}"
        match chance.choice(("put", "put", "delete", "reap", "kv", "ask", "ask", "own", "resume")):
            case "put":
                body = {"Kind": "service-defaults", "Name": name, "Protocol": chance.choice(("tcp", "http"))}
                apply(there, ConfigWrite("upsert", "service-defaults", name, body), 1.0)
            case "delete":
                apply(there, ConfigWrite("delete", "service-defaults", name), 1.0)
            case "kv":
                apply(there, KVWrite(chance.choice(("set", "delete")), "k", b""), 1.0)
            case "reap":
                apply(there, Reap(there.index - chance.randint(0, 20)), 1.0)
            case "resume":  # another leader, which goes by what is written
                row = here.settings.get(COPIED)
                position = msgspec.convert(row.body, config_changes.Position) if row else config_changes.Position()
            case "own" if not position.cluster:  # before the copy began
                body = {"Kind": "service-defaults", "Name": f"own-{name}"}
                apply(here, ConfigWrite("upsert", "service-defaults", f"own-{name}", body), 1.0)
            case "ask":
                position = step(there, here, position, chance.randint(1, 10))
    while (after := step(there, here, position, 7)) != position:
        position = after
    assert {key: row.body for key, row in here.config.rows.items()} == {
        key: row.body for key, row in there.config.rows.items()
    }


def step(there: Store, here: Store, position: config_changes.Position, most: int) -> config_changes.Position:
    """One question, and its answer put in place."""
    found = there.read(config_changes.changes_after, "dc1", position, most).value
    apply(here, to_copy(here.config.rows, found), 1.0)
    return found.position


def test_a_position_of_other_servers_is_worth_nothing() -> None:
    async def scenario() -> None:
        two = Two()
        for name in ("a", "b"):
            await two.put("service-defaults", name)
        two.two.lead("id-x")
        await two.same()
        store = two.one.places["a"].store
        position = two.duty().position
        for other in (
            config_changes.Position("others", position.index, None),
            config_changes.Position(position.cluster, store.index + 1, None),
        ):
            found = store.read(config_changes.changes_after, position.cluster, other, 10).value
            assert found.after == ("", "") and len(found.put) == 2
        assert two.two.places["y"].store.settings.get(COPIED) is not None
        await two.close()

    run_virtually(scenario())
