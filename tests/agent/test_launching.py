"""Which proxies an agent runs, and what is done about one program at a time."""

import msgspec
import pytest

from lictor.agent.launching import (
    GRACE,
    KILL,
    LONGEST_PAUSE,
    NODE,
    RUNNING,
    START,
    STEADY,
    STOPPED,
    STOPPING,
    TERMINATE,
    WAITING,
    Keeper,
    LaunchSettings,
    Program,
    asked_for,
    plan,
)
from lictor.model.service import ConnectProxyConfig, NodeService

ON = LaunchSettings(enabled=True, default="none", one_process=True)


def sidecar(name: str, launch: str = "", kind: str = "connect-proxy") -> NodeService:
    proxy = ConnectProxyConfig(destination_service_name=name, launch=launch)
    return NodeService(kind=kind, id=f"{name}-sidecar-proxy", service=f"{name}-sidecar-proxy", proxy=proxy)


def test_built_in_proxies_share_a_process_and_each_envoy_has_its_own() -> None:
    services = [sidecar("b", "builtin"), sidecar("a", "builtin"), sidecar("c", "envoy"), sidecar("d")]
    assert plan(services, ON) == {
        NODE: Program(NODE, "builtin", ("proxy", "-node"), ("a-sidecar-proxy", "b-sidecar-proxy")),
        "c-sidecar-proxy": Program(
            "c-sidecar-proxy", "envoy", ("envoy", "-proxy-id", "c-sidecar-proxy"), ("c-sidecar-proxy",)
        ),
    }


def test_each_built_in_proxy_has_a_process_where_the_operator_wants_that() -> None:
    settings = LaunchSettings(enabled=True, default="none", one_process=False)
    assert plan([sidecar("a", "builtin")], settings) == {
        "a-sidecar-proxy": Program(
            "a-sidecar-proxy", "builtin", ("proxy", "-proxy-id", "a-sidecar-proxy"), ("a-sidecar-proxy",)
        )
    }


def test_the_default_is_for_those_that_do_not_say() -> None:
    settings = LaunchSettings(enabled=True, default="envoy", one_process=True)
    assert set(plan([sidecar("a"), sidecar("b", "none"), sidecar("c", "builtin")], settings)) == {
        "a-sidecar-proxy",
        NODE,
    }


def test_nothing_is_launched_where_launching_is_off_and_no_service_that_is_no_sidecar() -> None:
    off = LaunchSettings(enabled=False, default="builtin", one_process=True)
    assert plan([sidecar("a", "builtin")], off) == {}
    assert plan([sidecar("a", "builtin", kind="")], ON) == {}


def test_a_sidecar_called_node_does_not_take_the_name_of_the_shared_process() -> None:
    envoy = NodeService(kind="connect-proxy", id=NODE, service="x", proxy=ConnectProxyConfig(launch="envoy"))
    assert set(plan([envoy, sidecar("a", "builtin")], ON)) == {NODE, f"{NODE}:"}


@pytest.mark.parametrize("name", [".", "..", "a\nb", "a\x7f"])
@pytest.mark.parametrize("launch", ["builtin", "envoy"])
def test_no_proxy_is_tried_again_and_again_whose_id_its_agent_cannot_be_asked_about(name: str, launch: str) -> None:
    odd = msgspec.structs.replace(sidecar("a", launch), id=name)
    assert plan([odd], ON) == {}
    assert asked_for(odd, ON) == launch, "it is said why"


def running(now: float = 0.0) -> Keeper:
    keeper = Keeper()
    assert keeper.begin(now) == START
    assert keeper.started(now) == ""
    assert keeper.state == RUNNING
    return keeper


def test_what_exits_is_started_again_later_each_time_up_to_a_minute() -> None:
    keeper, now, pauses = running(), 0.0, []
    for _ in range(9):
        assert keeper.exited("exit status 1", now) == ""
        assert (keeper.state, keeper.reason) == (WAITING, "exit status 1")
        assert keeper.due is not None
        pauses.append(keeper.due - now)
        assert keeper.tick(keeper.due - 0.01) == ""
        now = keeper.due
        assert keeper.tick(now) == START
        keeper.started(now)
    assert pauses == [1, 2, 4, 8, 16, 32, LONGEST_PAUSE, LONGEST_PAUSE, LONGEST_PAUSE]
    assert keeper.restarts == 9


def test_the_pause_is_short_again_after_it_ran_well() -> None:
    keeper = running()
    keeper.exited("", 0.0)
    keeper.tick(1.0)
    keeper.started(1.0)
    keeper.exited("", 1.0 + STEADY)
    assert keeper.due == 1.0 + STEADY + 1.0


def test_what_cannot_be_started_is_tried_again() -> None:
    keeper = Keeper()
    keeper.begin(0.0)
    assert keeper.failed("no such file", 0.0) == ""
    assert (keeper.state, keeper.due, keeper.reason) == (WAITING, 1.0, "no such file")


def test_what_is_unwanted_is_asked_to_end_then_killed() -> None:
    keeper = running()
    assert keeper.unwanted(10.0) == TERMINATE
    assert keeper.unwanted(11.0) == ""
    assert keeper.tick(10.0 + GRACE - 0.1) == ""
    assert keeper.tick(10.0 + GRACE) == KILL
    assert keeper.tick(10.0 + GRACE + 1) == ""
    assert keeper.exited("signal: SIGKILL", 41.0) == ""
    assert (keeper.state, keeper.due) == (STOPPED, None)


def test_what_waits_to_be_started_again_ends_at_once_where_it_is_unwanted() -> None:
    keeper = running()
    keeper.exited("", 0.0)
    assert keeper.unwanted(0.5) == ""
    assert (keeper.state, keeper.due) == (STOPPED, None)


def test_what_is_replaced_ends_before_the_next_one_starts() -> None:
    keeper = running()
    assert keeper.replace(5.0, beside=False) == TERMINATE
    assert keeper.state == STOPPING
    assert keeper.exited("exit status 0", 6.0) == START
    keeper.started(6.0)
    assert (keeper.state, keeper.restarts) == (RUNNING, 0)


def test_what_hands_over_is_replaced_by_one_beside_it() -> None:
    keeper = running()
    assert keeper.replace(5.0, beside=True) == START
    keeper.started(5.0)
    assert (keeper.state, keeper.restarts) == (RUNNING, 0)


def test_those_that_do_not_say_are_served_together_where_that_is_the_default() -> None:
    settings = LaunchSettings(enabled=True, default="builtin", one_process=True)
    assert plan([sidecar("a")], settings)[NODE].arguments == ("proxy", "-node", "-undeclared")


def test_what_is_unwanted_while_it_is_replaced_does_not_come_back() -> None:
    keeper = running()
    keeper.replace(5.0, beside=False)
    assert keeper.unwanted(5.5) == ""
    assert keeper.exited("", 6.0) == ""
    assert keeper.state == STOPPED
