"""The runner: timers and probes of many checks, on virtual time wherever no other process takes part."""

from __future__ import annotations

import asyncio
import random
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import uvloop

from lictor.agent.checks.alias import AliasedCheck, NodeHealth
from lictor.agent.checks.build import CheckSettings
from lictor.agent.checks.result import Result
from lictor.agent.checks.runner import CheckRunner
from lictor.agent.checks.ttl import TtlState
from lictor.model.errors import InvalidRequest, NotFound, Refused
from lictor.model.service_definition import CheckDefinition
from tests.agent.checks.listening import listening, says_nothing
from tests.agent.checks.virtual_time import run_virtually
from tests.patience import PATIENCE, soon

WALL = 1_700_000_000.0
"""Unix time at the loop's time 0."""


class Agent:
    """What a runner is part of: hears its notifications, and knows services and checks of its own."""

    def __init__(self, settings: CheckSettings | None = None, services: Iterable[str] = ()) -> None:
        self.loop = asyncio.get_running_loop()
        self.pushed: list[tuple[float, str, str, str]] = []
        self.deregistered: list[tuple[float, str, str]] = []
        self.broken = False
        self.services = set(services)
        self.others: dict[str, AliasedCheck] = {}
        self.reads: list[tuple[float, int]] = []
        self.remote: Callable[[int], NodeHealth] = lambda index: NodeHealth(index, (), frozenset())
        self.definitions: dict[str, CheckDefinition] = {}
        self.runner = CheckRunner(
            random.Random(1),
            notify=self.hear,
            deregister=lambda *which: self.deregistered.append((self.loop.time() - 1000.0, *which)),
            local=self,
            remote=self.read,
            settings=settings or CheckSettings(),
            wall_clock=lambda: WALL + self.loop.time(),
        )

    def hear(self, check_id: str, status: str, output: str) -> None:
        self.pushed.append((self.loop.time() - 1000.0, check_id, status, output))
        if self.broken:
            raise RuntimeError("the listener is broken")

    def add(self, check_id: str, definition: CheckDefinition) -> None:
        self.definitions[check_id] = definition
        self.runner.add(check_id, definition)

    def checks_of(self, service_id: str) -> list[AliasedCheck]:
        """The runner's checks and, like maintenance, those that it does not hold."""
        held = []
        for check_id, definition in self.definitions.items():
            if definition.service_id == service_id:
                result = self.runner.result(check_id)
                held.append(AliasedCheck(check_id, definition.name, service_id, result.status, result.output))
        return held + [check for check in self.others.values() if check.service_id == service_id]

    def has_service(self, service_id: str) -> bool:
        return service_id in self.services

    async def read(self, node: str, index: int, wait: float) -> NodeHealth:
        """A read that waits, of a catalog that changes once a minute."""
        self.reads.append((self.loop.time() - 1000.0, index))
        if index:
            await asyncio.sleep(wait)
        return self.remote(index + 1)

    @property
    def told(self) -> list[tuple[str, str, str]]:
        """What was pushed, without the times."""
        return [push[1:] for push in self.pushed]


@asynccontextmanager
async def agent(settings: CheckSettings | None = None, services: Iterable[str] = ()) -> AsyncIterator[Agent]:
    """An agent whose runner is closed at the end."""
    made = Agent(settings, services)
    yield made
    await made.runner.close()


def ttl(seconds: float, **parts: str) -> CheckDefinition:
    """A TTL check."""
    return msgspec.structs.replace(CheckDefinition(name="ttl", ttl=seconds), **parts)


def test_a_ttl_check_is_updated_and_expires() -> None:
    async def story() -> None:
        async with agent() as here:
            here.add("a", ttl(10))
            await asyncio.sleep(9)
            here.runner.ttl_update("a", "passing", "fine")
            await asyncio.sleep(9)
            here.runner.ttl_update("a", "warning", "hm")
            await asyncio.sleep(30)
            expired = "TTL expired (last output before timeout follows): hm"
            assert here.pushed == [
                (9.0, "a", "passing", "fine"),
                (18.0, "a", "warning", "hm"),
                (28.0, "a", "critical", expired),
            ]
            assert here.runner.result("a") == Result("critical", expired)

    run_virtually(story())


def test_only_ttl_checks_are_updated_and_only_with_a_status() -> None:
    async def story() -> None:
        async with agent() as here:
            here.add("tcp", CheckDefinition(tcp="127.0.0.1:1", interval=10))
            here.add("ttl", ttl(10))
            with pytest.raises(Refused, match='CheckID "tcp" does not have associated TTL'):
                here.runner.ttl_update("tcp", "passing", "")
            with pytest.raises(Refused, match='CheckID "none" does not have associated TTL'):
                here.runner.ttl_update("none", "passing", "")
            with pytest.raises(InvalidRequest, match="Invalid check status: 'fine'"):
                here.runner.ttl_update("ttl", "fine", "")
            with pytest.raises(NotFound, match='Unknown check ID "none"'):
                here.runner.result("none")

    run_virtually(story())


def test_a_ttl_survives_a_restart_with_the_time_it_had_left() -> None:
    async def before() -> list[TtlState]:
        async with agent() as here:
            here.add("updated", ttl(60))
            here.add("never", ttl(60))
            here.add("expired", ttl(5))
            here.runner.ttl_update("expired", "passing", "short")
            written = here.runner.ttl_update("updated", "passing", "x" * 5000)
            await asyncio.sleep(20)
            assert here.runner.export_state() == [written]
            assert written.output.endswith("x ... (captured 4096 of 5000 bytes)")
            return here.runner.export_state()

    async def after(states: list[TtlState], down_for: float) -> tuple[str, list[tuple[float, str, str, str]]]:
        await asyncio.sleep(20 + down_for)
        async with agent() as here:
            here.runner.import_state(states)
            here.add("updated", ttl(60))
            restored = here.runner.result("updated").status
            await asyncio.sleep(100)
            return restored, here.pushed

    states = run_virtually(before())
    restored, [(at, check_id, status, _)] = run_virtually(after(states, 10))
    assert restored == "passing"
    assert (at, check_id, status) == (60.0, "updated", "critical"), "sixty seconds after its last update"
    assert run_virtually(after(states, 50)) == ("critical", []), "what expired while the agent was down is not restored"


def test_changed_output_alone_is_pushed_late_and_once() -> None:
    async def story() -> None:
        async with agent(CheckSettings(check_update_interval=60)) as here:
            here.add("a", ttl(10))
            for second in range(200):
                here.runner.ttl_update("a", "passing", str(second))
                await asyncio.sleep(1)
            assert 3 <= len(here.pushed) <= 8
            assert here.runner.result("a").output == "199"

    run_virtually(story())


def test_output_is_discarded_when_configured() -> None:
    async def story() -> None:
        async with agent(CheckSettings(discard_check_output=True)) as here:
            here.add("a", ttl(10))
            assert here.runner.ttl_update("a", "passing", "secret").output == ""
            async with listening(says_nothing) as address:
                here.add("b", CheckDefinition(tcp=address, interval=10))
                await asyncio.sleep(11)
            assert here.told == [("a", "passing", ""), ("b", "passing", ""), ("a", "critical", "TTL expired")]

    run_virtually(story())


def test_a_service_critical_for_long_is_to_be_deregistered_and_a_node_s_check_never() -> None:
    async def story() -> None:
        async with agent() as here:
            here.add("of-service", CheckDefinition(service_id="web", ttl=10, deregister_critical_service_after=90))
            here.add("of-node", CheckDefinition(ttl=10, deregister_critical_service_after=90))
            await asyncio.sleep(150)
            assert here.deregistered == [(100.0, "of-service", "web"), (130.0, "of-service", "web")]
            here.runner.remove("of-service")
            await asyncio.sleep(150)
            assert len(here.deregistered) == 2

    run_virtually(story())


def test_an_alias_follows_a_service_of_this_agent() -> None:
    async def story() -> None:
        async with agent(services=["web"]) as here:
            here.add("alias", CheckDefinition(name="alias", service_id="sidecar", alias_service="web"))
            await asyncio.sleep(0.1)
            assert here.told == [("alias", "passing", "No checks found.")]
            here.add("a", ttl(1000, service_id="web", status="passing"))
            here.runner.ttl_update("a", "warning", "slow")
            await asyncio.sleep(0.1)
            assert here.told[1:] == [
                ("a", "warning", "slow"),
                ("alias", "warning", 'Aliased check "ttl" failing: slow'),
            ]
            here.others["m"] = AliasedCheck("m", "Maintenance", "", "critical", "by hand")
            here.runner.local_changed("")
            await asyncio.sleep(0.1)
            assert here.told[3:] == [("alias", "critical", 'Aliased check "Maintenance" failing: by hand')]
            here.services.clear()
            here.runner.local_changed("web")
            await asyncio.sleep(0.1)
            gone = "Service web could not be found on node "
            assert here.runner.result("alias") == Result("critical", gone)
            here.runner.remove("alias")
            here.runner.local_changed("web")
            await asyncio.sleep(120)
            assert len(here.pushed) == 4

    run_virtually(story())


def test_an_alias_notices_within_a_minute_what_it_was_not_told() -> None:
    async def story() -> None:
        async with agent(services=["web"]) as here:
            here.add("alias", CheckDefinition(alias_service="web"))
            await asyncio.sleep(200)
            here.services.clear()
            await asyncio.sleep(61)
            assert here.runner.result("alias").status == "critical"

    run_virtually(story())


def test_aliases_that_follow_each_other_come_to_rest() -> None:
    async def story() -> None:
        async with agent(services=["a", "b"]) as here:
            here.add("on-a", CheckDefinition(service_id="a", alias_service="b"))
            here.add("on-b", CheckDefinition(service_id="b", alias_service="a"))
            await asyncio.sleep(3600)
            assert len(here.runner.result("on-a").output) < 5000
            assert len(here.pushed) < 100

    run_virtually(story())


def test_an_alias_follows_another_node() -> None:
    bad = AliasedCheck("c", "disk", "", "critical", "full")

    async def story() -> None:
        async with agent() as here:
            here.remote = lambda index: NodeHealth(index, (bad,) if index == 3 else (), frozenset({"db"}))
            here.add("alias", CheckDefinition(alias_node="other", alias_service="db"))
            await asyncio.sleep(200)
            assert here.pushed == [
                (0.0, "alias", "passing", "No checks found."),
                (120.0, "alias", "critical", 'Aliased check "disk" failing: full'),
                (180.0, "alias", "passing", "No checks found."),
            ]
            assert here.reads[:3] == [(0.0, 0), (0.0, 1), (60.0, 2)]

    run_virtually(story())


def test_an_alias_of_another_node_says_when_it_cannot_be_read() -> None:
    async def story() -> None:
        async with agent() as here:
            answers = iter([True, False, True, False, False, False, False, False, True])

            def remote(index: int) -> NodeHealth:
                if next(answers, True):
                    return NodeHealth(index, (), frozenset())
                raise ConnectionError("No cluster leader")

            here.remote = remote
            here.add("alias", CheckDefinition(alias_node="other"))
            await asyncio.sleep(1000)
            assert here.told == [
                ("alias", "passing", "No checks found."),
                ("alias", "critical", "Failure checking aliased node or service: No cluster leader"),
                ("alias", "passing", "No checks found."),
            ], "one failure alone is passed over"
            here.runner.remove("alias")
            reads = len(here.reads)
            await asyncio.sleep(1000)
            assert len(here.reads) == reads

    run_virtually(story())


def test_thresholds_hold_for_probes() -> None:
    async def story() -> None:
        async with agent() as here:
            async with listening(says_nothing) as address:
                here.add("a", CheckDefinition(tcp=address, interval=10, failures_before_critical=3))
                await asyncio.sleep(15)
                assert [push[2] for push in here.pushed] == ["passing"]
            await asyncio.sleep(20)
            assert len(here.pushed) == 1, "two failures"
            await asyncio.sleep(10)
            assert [push[2] for push in here.pushed] == ["passing", "critical"]

    run_virtually(story())


def test_an_updated_check_goes_on_from_its_status() -> None:
    async def story() -> None:
        async with agent() as here:
            here.add("a", ttl(60))
            here.runner.ttl_update("a", "passing", "fine")
            await asyncio.sleep(20)
            here.runner.update("a", ttl(60))
            here.runner.update("a", ttl(60, notes="new"))
            assert here.runner.result("a") == Result("passing", "fine")
            await asyncio.sleep(41)
            assert here.pushed[-1][0] == 60.0 and here.pushed[-1][2] == "critical", "the TTL was not started anew"
            here.runner.update("a", ttl(60, status="warning"))
            assert here.runner.result("a") == Result("warning", "")
            here.runner.update("b", ttl(60, status="passing"))
            assert here.runner.result("b") == Result("passing", "")

    run_virtually(story())


def test_the_result_of_a_removed_check_is_dropped() -> None:
    async def story() -> None:
        async with agent() as here:
            reached = asyncio.Event()

            async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                reached.set()
                await says_nothing(reader, writer)

            async with listening(hold) as address:
                here.add("a", CheckDefinition(http=f"http://{address}/", interval=10, timeout=5))
                await reached.wait()
                here.runner.remove("a")
                await asyncio.sleep(60)
            assert here.pushed == []
            assert len(here.runner) == 0 and "a" not in here.runner

    run_virtually(story())


def test_a_definition_of_no_type_is_refused_and_replaces_nothing() -> None:
    async def story() -> None:
        async with agent() as here:
            here.add("a", ttl(60))
            with pytest.raises(InvalidRequest, match='check "x" is of no type'):
                here.runner.add("a", CheckDefinition(id="x"))
            assert "a" in here.runner

    run_virtually(story())


def test_many_checks_are_spread_and_cost_no_task_while_idle() -> None:
    async def story() -> None:
        connections: list[float] = []

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connections.append(asyncio.get_running_loop().time())

        async with agent() as here, listening(accept) as address:
            idle = len(asyncio.all_tasks())
            for number in range(500):
                here.add(f"check-{number}", CheckDefinition(tcp=address, interval=100))
            assert len(asyncio.all_tasks()) == idle
            await asyncio.sleep(200)
            assert len(connections) == pytest.approx(1500, abs=10)
            later = sorted(connections)[500:]
            assert max(Counter(int(at) for at in later).values()) <= 20, "five a second are expected"
            assert {push[2] for push in here.pushed} == {"passing"} and len(here.pushed) == 500

    run_virtually(story())


def test_a_listener_that_fails_does_not_stop_the_checks() -> None:
    async def story() -> None:
        async with agent(services=["web"]) as here:
            here.broken = True
            here.add("a", ttl(10, service_id="web", status="passing"))
            here.add("b", ttl(20, status="passing"))
            here.add("alias", CheckDefinition(alias_service="web", status="passing"))
            async with listening(says_nothing) as address:
                here.add("tcp", CheckDefinition(tcp=address, interval=10))
                await asyncio.sleep(30)
            await asyncio.sleep(30)
            assert sorted(push[1] for push in here.pushed) == ["a", "alias", "b", "tcp", "tcp"]

    run_virtually(story())


def test_probes_run_on_the_loop_of_production() -> None:
    async def story() -> None:
        async with listening(says_nothing) as address, agent() as here:
            for number in range(100):
                here.add(f"check-{number}", CheckDefinition(tcp=address, interval=1, timeout=PATIENCE))
            await soon(lambda: len(here.pushed) >= 100, "all are pushed")
            assert {push[2:] for push in here.pushed} == {("passing", f"TCP connect {address}: Success")}
            assert len(here.pushed) == 100

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(story())


async def test_closing_ends_programs_that_run(tmp_path: Path) -> None:
    told = tmp_path / "pid"
    async with agent() as here:
        script = f"echo $$ > {told}.new; mv {told}.new {told}; sleep 600"
        here.add("a", CheckDefinition(script_args=("sh", "-c", script), interval=1, timeout=PATIENCE))
        await soon(told.exists, "the program runs")
        pid = int(told.read_text())
    assert not Path(f"/proc/{pid}").exists()
    assert here.pushed == []


def test_what_comes_up_is_found_soon_and_what_was_well_keeps_its_pace() -> None:
    async def story() -> None:
        with socket.socket() as service:
            service.bind(("127.0.0.1", 0))  # nobody else's, and refusing connections
            async with agent() as here:
                here.add("slow", CheckDefinition(tcp=f"127.0.0.1:{service.getsockname()[1]}", interval=1000))
                await asyncio.sleep(5)
                service.listen()
                await asyncio.sleep(5)
                assert [push[2] for push in here.pushed] == ["passing"], "within seconds"
                service.close()
                await asyncio.sleep(300)
                assert len(here.pushed) == 1, "it is asked again at its next turn"

    run_virtually(story())
