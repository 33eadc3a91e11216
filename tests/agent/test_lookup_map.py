"""What an agent publishes for lookups: once per change, from whole stores and from partial ones."""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from lictor.agent import lookup_map
from lictor.agent.lookup_map import LookupMap, Replica, rounded
from lictor.client.errors import NotPublished
from lictor.client.lookups import Lookups
from lictor.model.errors import Forbidden, InvalidRequest, Refused
from lictor.store.store import Store
from lictor.store.watch import Topic
from tests.agent.small_disk import small_disk
from tests.http.conftest import Door, door, open_agent
from tests.patience import soon

__all__ = ["door"]


@asynccontextmanager
async def publishing(store: Store, path: Path, **options: Any) -> AsyncIterator[tuple[LookupMap, Lookups]]:
    """A map of a store, and a reader of it."""
    given = {"contact": lambda: 0.0, "visible": lambda name: True, **options}
    made = LookupMap(path, 0o644, store, "n1", **given)
    await made.start()
    try:
        yield made, Lookups("", str(path), {})
    finally:
        await made.close()


async def register(door: Door, name: str, port: int, service_id: str = "") -> None:
    status, body = await door.put("/v1/agent/service/register", {"Name": name, "ID": service_id or name, "Port": port})
    assert status == 200, body
    store = door.agent.store
    await soon(
        lambda: port in [i.service.port for i in store.services.by("name", name).values()], "it is in the catalog"
    )


def ports(reader: Lookups, name: str) -> list[int]:
    return [e.port for e in reader.service(name).endpoints]


async def test_a_service_is_written_once_for_many_changes_of_a_moment(door: Door, tmp_path: Path) -> None:
    await register(door, "web", 1)
    async with publishing(door.agent.store, tmp_path / "map") as (made, reader):
        published = await made.publish("WEB")
        assert published.service == "web"
        assert made.services() == ["web"]
        assert (made.written, ports(reader, "web")) == (1, [1])
        operations: list[Any] = [{"Node": {"Verb": "set", "Node": {"Node": "n2", "Address": "10.0.0.2"}}}]
        operations += [
            {"Service": {"Verb": "set", "Node": "n2", "Service": {"ID": f"w{n}", "Service": "web", "Port": n}}}
            for n in range(50)
        ]
        status, body = await door.put("/v1/txn", operations)
        assert status == 200, body
        await soon(lambda: len(ports(reader, "web")) == 51, "all of them")
        assert made.written == 2


async def test_what_does_not_show_is_not_written(door: Door, tmp_path: Path) -> None:
    await door.put(
        "/v1/agent/service/register",
        {"Name": "web", "Port": 1, "Check": {"CheckID": "c", "TTL": "1h", "Status": "passing"}},
    )
    store = door.agent.store
    await soon(lambda: store.services.by("name", "web") and store.checks.get(("n1", "c")), "both are in the catalog")
    async with publishing(door.agent.store, tmp_path / "map") as (made, _):
        generation = (await made.publish("web")).generation
        for note in ("one", "two"):
            await door.put(f"/v1/agent/check/pass/c?note={note}")
        await door.put("/v1/kv/unrelated", b"1")
        assert (await made.publish("web")).generation == generation
        assert made.written == 1


async def test_names_that_cannot_be_and_those_that_may_not_be_seen(door: Door, tmp_path: Path) -> None:
    visible = {"web"}
    async with publishing(door.agent.store, tmp_path / "map", visible=lambda n: n in visible) as (made, _):
        with pytest.raises(InvalidRequest):
            await made.publish("")
        with pytest.raises(InvalidRequest):
            await made.publish("x" * 1000)
        with pytest.raises(Forbidden):
            await made.publish("secret")
        await made.publish("web")
        visible.clear()
        made._tidy(asyncio.get_running_loop().time())
        assert made.services() == []


async def test_only_what_nobody_asks_for_and_nobody_runs_is_forgotten(door: Door, tmp_path: Path) -> None:
    await register(door, "web", 1)
    async with publishing(door.agent.store, tmp_path / "map") as (made, _):
        await made.publish("web")
        await made.publish("ghost")
        now = asyncio.get_running_loop().time()
        made._tidy(now + lookup_map.FORGET / 2)
        assert made.services() == ["ghost", "web"]
        made._tidy(now + 2 * lookup_map.FORGET)
        assert made.services() == ["web"]


async def test_the_map_is_shown_once_the_servers_are_known(
    door: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until then the map of the run before is better than none."""
    path = tmp_path / "map"
    await register(door, "web", 1)
    async with publishing(door.agent.store, path) as (made, reader):
        await made.publish("web")
        assert ports(reader, "web") == [1]
    monkeypatch.setattr(lookup_map, "PATIENCE", 0.01)
    contact = [math.inf]
    async with publishing(door.agent.store, path, contact=lambda: contact[0]) as (made, later):
        with pytest.raises(Refused, match="not ready: the agent has not found the servers yet"):
            await made.publish("other")
        assert ports(later, "web") == [1]
        before = later.file.run
        contact[0] = 0.0
        await soon(lambda: later.service("web") and later.file.run != before, "the new map")
        assert ports(later, "web") == [1], "with what the former one held"
        assert ports(reader, "web") == [1]


class Partial(Replica):
    """A store that holds a service only once that was asked for; `refuse` has it say no."""

    def __init__(self) -> None:
        self.held: set[Topic] = set()
        self.asked = 0
        self.refuse = False

    def covers(self, seen: tuple[Topic, ...]) -> bool:
        return set(seen) <= self.held

    async def hold(self, looks_at: Callable[[], tuple[Topic, ...]]) -> bool:
        await asyncio.sleep(0)
        self.asked += 1
        if not self.refuse:
            self.held |= set(looks_at())
        return not self.refuse


async def test_a_partial_store_is_asked_to_hold_what_is_published(door: Door, tmp_path: Path) -> None:
    await register(door, "web", 1)
    replica = Partial()
    store = door.agent.store
    async with publishing(store, tmp_path / "map", replica=replica) as (made, reader):
        await made.publish("web")
        assert replica.asked == 1
        assert ports(reader, "web") == [1]
        replica.held.clear()
        replica.refuse = True
        store.watches.fire((("service", "web"),))
        await soon(lambda: replica.asked > 1, "it is asked for again")
        assert ports(reader, "web") == [1], "what was known stays while nothing is known"
        replica.refuse = False
        await register(door, "web", 2)
        await soon(lambda: ports(reader, "web") == [2], "the change, once it is held again")
        replica.refuse = True
        with pytest.raises(Refused, match="cannot follow other"):
            await made.publish("other")


async def test_on_a_full_disk_programs_ask(door: Door, tmp_path: Path) -> None:
    await register(door, "web", 1)
    with small_disk(tmp_path / "disk", 1) as disk:
        async with publishing(door.agent.store, disk.folder / "map") as (made, reader):
            await made.publish("web")
            filler = disk.folder / "filler"
            with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
                while file.write(bytes(4096)):
                    pass
            for number in range(100):
                with pytest.raises(NotPublished):
                    reader.service(f"nothing-{number}")
            meta = {f"key{n}": "x" * 500 for n in range(60)}
            await door.put("/v1/agent/service/register", {"Name": "web", "Port": 2, "Meta": meta})
            await soon(lambda: made.services() == [], "it is taken out rather than left wrong")
            with pytest.raises(Refused, match="No space left"):
                await made.publish("web")
            filler.unlink()
            await made.publish("web")
            assert ports(reader, "web") == [2]


async def test_the_endpoints(tmp_path: Path) -> None:
    async with open_agent() as door:
        status, _, body = await door.get("/v1/agent/lookup")
        assert (status, b"publishes no lookup map" in body) == (404, True)
        async with publishing(door.agent.store, tmp_path / "map") as (made, _):
            door.agent.lookup_map = made
            status, body = await door.put("/v1/agent/lookup/a%2Fb")
            assert status == 200
            assert await door.json("/v1/agent/lookup") == {
                "Path": str(tmp_path / "map"),
                "Size": made.size,
                "Services": ["a/b"],
            }
            door.agent.lookup_map = None


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.0123456, 0.012), (2.04e-05, 2e-05), (0.0, 0.0), (1.96, 2.0), (math.inf, None)]
)
def test_distances_have_two_digits(seconds: float, shown: float | None) -> None:
    assert rounded(seconds) == shown
