"""The local state: what is told to whom, and what is sent to the catalog, compared with a catalog that takes it."""

import contextlib
import random
from collections.abc import Iterable

import msgspec
import pytest

from lictor.agent.local import LocalState
from lictor.agent.registration import CheckRegistration, ServiceRegistration
from lictor.model.check import CRITICAL, PASSING, WARNING, Check
from lictor.model.command import Deregister, Register
from lictor.model.errors import Refused
from lictor.model.node import Node
from lictor.model.service import NodeService, ServiceAddress, ServiceConnect
from lictor.model.service_definition import CheckDefinition
from lictor.store import commands
from lictor.store.reads import catalog, health
from lictor.store.store import Store
from lictor.store.watch import Topic

NODE = Node("6a1b0c52-0f4f-4f4e-9f0f-000000000001", "n1", "127.0.0.1", "dc1", {"lan": "127.0.0.1"}, {})


class World:
    """A node's local state, and the catalog that it is brought in line with."""

    def __init__(self) -> None:
        self.told: list[Topic] = []
        self.node = NODE
        self.local = LocalState(lambda: self.node, self._tell)
        self.store = Store()

    def _tell(self, topics: Iterable[Topic]) -> None:
        self.told += topics

    def service(self, service_id: str, token: str = "", sidecar_of: str = "", **fields: object) -> None:
        row = NodeService(id=service_id, service=str(fields.pop("service", service_id)))
        row = msgspec.structs.replace(row, **fields)
        self.local.put_service(ServiceRegistration(row, token=token, sidecar_of=sidecar_of))

    def check(self, check_id: str, service_id: str = "", status: str = PASSING, token: str = "") -> None:
        row = Check(node="n1", check_id=check_id, name=check_id, status=status, service_id=service_id)
        self.local.put_check(CheckRegistration(row, CheckDefinition(), token))

    def compare(self) -> None:
        found = self.store.read(catalog.node_services, "n1").value
        checks = {c.check_id: c for c in self.store.read(health.checks_of_node, "n1").value}
        self.local.compare(
            found.node if found is not None else None,
            found.services if found is not None else {},
            checks,
            keep_services=frozenset({"consul"}),
            keep_checks=frozenset({"serfHealth"}),
        )

    def sync(self) -> int:
        """Send all that is pending. Returns how many commands that took."""
        changes = self.local.pending()
        for change in changes:
            # A check is refused whose service somebody has removed from the catalog: the next comparison shows it.
            with contextlib.suppress(Refused):
                commands.apply(self.store, change.command, 0.0)
                self.local.done(change)
        return len(changes)

    def apply(self, command: Register | Deregister) -> None:
        commands.apply(self.store, command, 0.0)

    def in_catalog(self) -> tuple[dict[str, NodeService], dict[str, Check]]:
        found = self.store.read(catalog.node_services, "n1").value
        services = found.services if found is not None else {}
        checks = self.store.read(health.checks_of_node, "n1").value
        return (
            {i: msgspec.structs.replace(s, create_index=0, modify_index=0) for i, s in services.items()},
            {c.check_id: msgspec.structs.replace(c, create_index=0, modify_index=0) for c in checks},
        )


@pytest.fixture
def world() -> World:
    return World()


def test_a_new_node_is_sent_alone(world: World) -> None:
    assert [change.command for change in world.local.pending()] == [Register(NODE)]
    assert world.sync() == 1
    assert world.local.pending() == []


def test_a_service_goes_with_its_checks_in_one_command(world: World) -> None:
    world.service("web", port=80)
    world.check("c1", "web")
    world.check("alone")
    first, second = (change.command for change in world.local.pending())
    assert isinstance(first, Register) and first.service is not None
    assert [check.check_id for check in first.checks] == ["c1"]
    assert isinstance(second, Register) and second.service is None
    world.sync()
    services, checks = world.in_catalog()
    assert services == world.local.services
    assert checks == world.local.checks


def test_a_check_with_another_token_goes_alone(world: World) -> None:
    world.service("web", token="a")
    world.check("c1", "web", token="b")
    assert [(change.token, change.checks != ()) for change in world.local.pending()] == [("a", False), ("b", True)]


def test_nothing_is_sent_twice(world: World) -> None:
    world.service("web")
    world.check("c1", "web")
    world.sync()
    world.service("web")
    world.check("c1", "web")
    assert world.local.pending() == []
    assert not world.local.update_check("c1", PASSING, "")
    world.compare()
    assert world.local.pending() == []


def test_a_known_node_is_left_alone(world: World) -> None:
    world.sync()
    world.service("web")
    (change,) = world.local.pending()
    assert isinstance(change.command, Register)
    assert change.command.skip_node_update
    world.sync()
    world.node = msgspec.structs.replace(NODE, meta={"rack": "r1"})
    world.local.node_changed()
    assert [change.command for change in world.local.pending()] == [Register(world.node)]


def test_what_changes_while_it_is_sent_is_sent_again(world: World) -> None:
    world.service("web")
    world.check("c1", "web")
    (change,) = world.local.pending()
    world.local.update_check("c1", CRITICAL, "down")
    world.service("web", port=99)
    commands.apply(world.store, change.command, 0.0)
    world.local.done(change)
    world.sync()
    services, checks = world.in_catalog()
    assert services["web"].port == 99
    assert checks["c1"].status == CRITICAL
    assert world.local.pending() == []


def test_a_node_that_changes_while_it_is_sent_is_sent_again(world: World) -> None:
    (change,) = world.local.pending()
    world.node = msgspec.structs.replace(NODE, meta={"rack": "r1"})
    world.local.node_changed()
    world.local.done(change)
    assert [change.command for change in world.local.pending()] == [Register(world.node)]


def test_removing_a_service_removes_its_checks_with_one_command(world: World) -> None:
    world.service("web")
    world.check("c1", "web")
    world.sync()
    world.local.remove_check("c1")
    world.local.remove_service("web")
    assert world.local.service("web") is None
    assert [change.command for change in world.local.pending()] == [Deregister("n1", service_id="web")]
    world.sync()
    assert world.in_catalog() == ({}, {})
    assert world.local.pending() == []


def test_a_service_registered_again_before_its_removal_was_sent_stays(world: World) -> None:
    world.service("web")
    world.check("c1", "web")
    world.sync()
    world.local.remove_check("c1")
    world.local.remove_service("web")
    world.service("web", port=7)
    world.sync()
    services, checks = world.in_catalog()
    assert services["web"].port == 7
    assert checks == {}


def test_a_service_registered_again_while_its_removal_is_sent_comes_back(world: World) -> None:
    world.service("web")
    world.sync()
    world.local.remove_service("web")
    (change,) = world.local.pending()
    world.service("web", port=7)
    world.apply(Deregister("n1", service_id="web"))
    world.local.done(change)
    world.sync()
    assert world.in_catalog()[0]["web"].port == 7


def test_what_only_the_catalog_has_is_removed_but_for_the_servers_own(world: World) -> None:
    alive = Check(node="n1", check_id="serfHealth", status=PASSING)
    world.apply(Register(NODE, NodeService(id="consul", service="consul"), (alive,)))
    world.apply(Register(NODE, NodeService(id="lost", service="lost"), (Check(check_id="old", status=PASSING),)))
    world.compare()
    world.sync()
    services, checks = world.in_catalog()
    assert set(services) == {"consul"}
    assert set(checks) == {"serfHealth"}
    assert world.local.services == {}


def test_what_somebody_changed_or_removed_in_the_catalog_is_put_back(world: World) -> None:
    world.service("web", port=80)
    world.service("db")
    world.check("c1", "web", WARNING)
    world.sync()
    world.apply(Register(NODE, NodeService(id="web", service="web", port=1)))
    world.apply(Deregister("n1", service_id="db"))
    world.apply(Register(NODE, None, (Check(check_id="c1", service_id="web", status=PASSING),)))
    world.compare()
    world.sync()
    assert world.in_catalog() == (world.local.services, world.local.checks)


def test_tags_are_the_catalogs_where_override_is_enabled(world: World) -> None:
    world.service("web", tags=("a",), enable_tag_override=True)
    world.check("c1", "web")
    world.sync()
    theirs = NodeService(id="web", service="web", tags=("b",), enable_tag_override=True)
    world.apply(Register(NODE, theirs))
    world.told.clear()
    world.compare()
    found = world.local.service("web")
    assert found is not None and found.tags == ("b",)
    assert ("agent", "service", "web") in world.told
    check = world.local.check("c1")
    assert check is not None and check.service_tags == ("b",)
    assert world.local.pending() == []


@pytest.mark.parametrize("addresses", [None, {"consul-virtual": ServiceAddress("240.0.0.1", 1)}])
def test_the_virtual_address_is_the_servers_affair(world: World, addresses: dict[str, ServiceAddress] | None) -> None:
    world.service("api", port=80, connect=ServiceConnect(native=True), tagged_addresses=addresses)
    world.sync()
    assert "consul-virtual" in (world.in_catalog()[0]["api"].tagged_addresses or {})
    world.compare()
    assert world.local.pending() == []


def test_output_alone_is_shown_at_once_and_sent_later(world: World) -> None:
    world.check("c1")
    world.sync()
    world.told.clear()
    assert not world.local.update_check("c1", PASSING, "new", worth_sending=False)
    check = world.local.check("c1")
    assert check is not None and check.output == "new"
    assert ("agent", "checks") in world.told
    assert world.local.pending() == []
    world.compare()
    assert world.local.pending() == []
    assert world.local.update_check("c1", PASSING, "new")
    world.sync()
    assert world.in_catalog()[1]["c1"].output == "new"


def test_a_new_status_is_always_worth_sending(world: World) -> None:
    world.check("c1")
    world.sync()
    assert world.local.update_check("c1", CRITICAL, "new", worth_sending=False)
    assert len(world.local.pending()) == 1


def test_a_check_has_its_services_name_and_tags(world: World) -> None:
    world.service("web", service="frontend", tags=("a",))
    world.check("c1", "web")
    check = world.local.check("c1")
    assert check is not None and (check.service_name, check.service_tags) == ("frontend", ("a",))
    world.service("web", service="backend", tags=("b",))
    check = world.local.check("c1")
    assert check is not None and (check.service_name, check.service_tags) == ("backend", ("b",))


def test_a_check_of_an_unknown_service_is_refused(world: World) -> None:
    with pytest.raises(Refused, match='ServiceID "web" does not exist'):
        world.check("c1", "web")


def test_a_check_can_move_to_another_service(world: World) -> None:
    world.service("a")
    world.service("b")
    world.check("c1", "a")
    world.sync()
    world.told.clear()
    world.check("c1", "b")
    assert world.local.checks_of("a") == []
    assert [check.check_id for check in world.local.checks_of("b")] == ["c1"]
    assert {("agent", "service-health", "a"), ("agent", "service-health", "b")} <= set(world.told)


def test_sidecars_belong_to_their_service(world: World) -> None:
    world.service("web")
    world.service("web-sidecar-proxy", sidecar_of="web")
    assert world.local.sidecars_of("web") == ["web-sidecar-proxy"]
    assert world.local.sidecar_of("web-sidecar-proxy") == "web"
    world.service("web-sidecar-proxy")
    assert world.local.sidecars_of("web") == []
    world.service("web-sidecar-proxy", sidecar_of="web")
    world.local.remove_service("web-sidecar-proxy")
    assert world.local.sidecars_of("web") == []


def test_every_change_tells_whoever_shows_it(world: World) -> None:
    world.service("web")
    assert set(world.told) == {("agent", "services"), ("agent", "service", "web"), ("agent", "service-health", "web")}
    world.told.clear()
    world.check("c1", "web")
    assert set(world.told) == {("agent", "checks"), ("agent", "service-health", "web")}
    world.told.clear()
    world.check("c2")
    assert set(world.told) == {("agent", "checks"), ("agent", "service-health", "")}
    world.told.clear()
    world.local.remove_check("c1")
    assert set(world.told) == {("agent", "checks"), ("agent", "service-health", "web")}
    world.told.clear()
    world.local.remove_service("web")
    assert set(world.told) == {("agent", "services"), ("agent", "service", "web"), ("agent", "service-health", "web")}


@pytest.mark.parametrize("seed", range(20))
def test_after_anything_the_catalog_is_as_the_node_is(world: World, seed: int) -> None:
    """Random changes on both sides, with sending and comparing in between: in the end both are the same."""
    chance = random.Random(seed)
    for _ in range(200):
        name = f"s{chance.randrange(4)}"
        what = chance.randrange(9)
        if what == 0:
            world.service(name, port=chance.randrange(3), tags=(str(chance.randrange(2)),))
        elif what == 1:
            for check in world.local.checks_of(name):
                world.local.remove_check(check.check_id)
            world.local.remove_service(name)
        elif what == 2 and world.local.service(name) is not None:
            world.check(f"{name}-c{chance.randrange(2)}", name, chance.choice((PASSING, CRITICAL)))
        elif what == 3:
            world.check(f"c{chance.randrange(2)}")
        elif what == 4:
            world.local.remove_check(f"c{chance.randrange(2)}")
        elif what == 5:
            world.local.update_check(f"{name}-c0", chance.choice((PASSING, CRITICAL)), str(chance.randrange(3)))
        elif what == 6 and world.store.nodes.get("n1") is not None:
            world.apply(Deregister("n1", service_id=name))
        elif what == 7:
            world.apply(Register(NODE, NodeService(id=f"stray{chance.randrange(2)}", service="stray")))
        else:
            world.compare() if chance.random() < 0.3 else world.sync()
    world.compare()
    world.sync()
    assert world.in_catalog() == (world.local.services, world.local.checks)
    world.compare()
    assert world.local.pending() == []


def restarted(world: World) -> World:
    """The same catalog, and an agent that has just read what it had registered."""
    world.local = LocalState(lambda: world.node, world._tell)
    world.service("web")
    row = Check(node="n1", check_id="web", name="web", status=CRITICAL, service_id="web", type="tcp")
    world.local.put_check(CheckRegistration(row, CheckDefinition(), ""))
    world.local.begin_unproven()
    return world


def before_the_restart(serf: str) -> World:
    world = World()
    world.service("web")
    row = Check(node="n1", check_id="web", name="web", status=PASSING, output="well", service_id="web", type="tcp")
    world.local.put_check(CheckRegistration(row, CheckDefinition(), ""))
    world.sync()
    health_of_node = Check(node="n1", check_id="serfHealth", name="Serf Health Status", status=serf)
    commands.apply(world.store, Register(NODE, None, (health_of_node,), True), 0.0)
    return world


def test_after_a_moment_away_the_catalog_is_believed_until_a_check_has_a_result() -> None:
    world = restarted(before_the_restart(PASSING))
    world.compare()
    assert world.local.pending() == [], "nobody notices"
    check = world.local.check("web")
    assert check is not None and (check.status, check.output) == (PASSING, "well")
    assert world.local.update_check("web", CRITICAL, "gone")
    assert len(world.local.pending()) == 1


def test_a_check_that_has_a_result_is_what_that_says() -> None:
    world = restarted(before_the_restart(PASSING))
    world.local.update_check("web", CRITICAL, "gone", worth_sending=False)
    world.compare()
    [change] = world.local.pending()
    assert isinstance(change.command, Register) and change.command.checks[0].status == CRITICAL


def test_a_node_that_counted_as_gone_proves_its_checks_anew() -> None:
    world = restarted(before_the_restart(CRITICAL))
    world.compare()
    [change] = world.local.pending()
    assert isinstance(change.command, Register) and change.command.checks[0].status == CRITICAL


def test_the_catalog_is_believed_once() -> None:
    world = restarted(before_the_restart(PASSING))
    world.compare()
    world.local.update_check("web", CRITICAL, "gone")
    world.compare()
    check = world.local.check("web")
    assert check is not None and check.status == CRITICAL
