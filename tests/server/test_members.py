"""Which servers are alive, failed or left, as one of them sees it."""

from typing import Any

import msgspec

from lictor.cli.members import short
from lictor.model.member import ALIVE, FAILED, LEFT
from lictor.raft.consensus import Peer
from lictor.server.hello import Hello
from lictor.server.members import LEFT_KEPT, SILENCE, UNKNOWN, Members, as_member
from tests.agent.checks.virtual_time import run_virtually
from tests.server.group import Group, until


def peer(name: str, **given: Any) -> Peer:
    return msgspec.structs.replace(Peer(f"id-{name}", name, f"10.0.0.1:{ord(name)}", False, True), **given)


def hello(name: str, **given: Any) -> Hello:
    own = Hello(f"id-{name}", name, f"10.0.0.1:{ord(name)}", "dc1", ord(name), blank=False, version="1.20.0")
    return msgspec.structs.replace(own, **given)


class Watched:
    """Members as `a` sees them, and how often a change was told."""

    def __init__(self, *names: str) -> None:
        self.told = 0
        self.members = Members(lambda: hello("a"), self._told)
        self.members.follow([peer(name) for name in names], 0.0)

    def _told(self) -> None:
        self.told += 1

    def statuses(self) -> dict[str, int]:
        return {server.node: server.status for server in self.members.servers()}

    def silent(self, name: str, *times: float) -> None:
        for now in times:
            self.members.missed(f"id-{name}", now)


def test_a_server_is_alive_once_it_has_answered() -> None:
    watched = Watched("a", "b")
    assert watched.statuses() == {"a": ALIVE, "b": UNKNOWN}
    watched.members.heard("id-b", hello("b"), 1.0)
    assert watched.statuses() == {"a": ALIVE, "b": ALIVE}


def test_a_server_that_misses_several_questions_over_some_time_has_failed_until_it_answers() -> None:
    watched = Watched("a", "b")
    watched.members.heard("id-b", hello("b"), 1.0)
    watched.silent("b", 2.0, 3.0, 4.0)
    assert watched.statuses()["b"] == ALIVE
    watched.silent("b", 2.0 + SILENCE)
    assert watched.statuses()["b"] == FAILED
    watched.members.heard("id-b", hello("b"), 9.0)
    assert watched.statuses()["b"] == ALIVE
    watched.silent("b", 10.0, 13.0)
    watched.members.heard("id-b", hello("b"), 13.5)
    watched.silent("b", 14.0, 15.0, 16.0, 17.0)
    assert watched.statuses()["b"] == ALIVE


def test_a_stall_of_this_server_makes_no_other_fail() -> None:
    watched = Watched("a", "b")
    watched.members.heard("id-b", hello("b"), 1.0)
    watched.silent("b", 2.0, 60.0)
    assert watched.statuses()["b"] == ALIVE


def test_another_one_at_the_address_is_not_the_server() -> None:
    watched = Watched("a", "b")
    for now in range(8):
        watched.members.heard("id-b", hello("c", id="id-c"), float(now))
    assert watched.statuses()["b"] == FAILED


def test_one_that_is_no_member_any_more_has_left_once_it_is_silent_and_is_forgotten_in_the_end() -> None:
    watched = Watched("a", "b", "c")
    for name in "bc":
        watched.members.heard(f"id-{name}", hello(name), 1.0)
    watched.silent("c", 2.0, 4.0, 6.0)
    watched.members.follow([peer("a")], 7.0)
    assert watched.statuses() == {"a": ALIVE, "b": ALIVE, "c": LEFT}
    assert [known.node for known in watched.members.targets()] == ["b"]
    watched.silent("b", 8.0, 10.0, 12.0)
    assert watched.statuses()["b"] == LEFT
    watched.members.heard("id-b", hello("b"), 13.0)
    assert watched.statuses()["b"] == LEFT
    watched.members.follow([peer("a"), peer("b")], 14.0)
    assert watched.statuses() == {"a": ALIVE, "b": UNKNOWN, "c": LEFT}
    watched.members.follow([peer("a"), peer("b")], 7.0 + LEFT_KEPT)
    assert watched.statuses() == {"a": ALIVE, "b": UNKNOWN}


def test_a_change_is_told_once_and_what_always_changes_never() -> None:
    watched = Watched("a", "b")
    told = watched.told
    watched.members.heard("id-b", hello("b"), 1.0)
    assert watched.told == told + 1
    watched.members.heard("id-b", hello("b", last_index=7, last_contact=0.1, term=4), 2.0)
    watched.members.follow([peer("a"), peer("b")], 2.0)
    assert watched.told == told + 1
    watched.members.heard("id-b", hello("b", meta={"zone": "x"}), 3.0)
    watched.members.follow([peer("a"), peer("b", address="10.0.0.2:8300")], 4.0)
    assert watched.told == told + 3


def test_a_server_is_shown_as_a_member() -> None:
    watched = Watched("a", "b")
    watched.members.heard("id-b", hello("b", serf_port=8301, read_replica=True), 1.0)
    shown = as_member(watched.members.servers()[1])
    assert (shown.name, shown.addr, shown.port, shown.status) == ("b", "10.0.0.1", 8301, ALIVE)
    assert (shown.tags["role"], shown.tags["id"], shown.tags["port"]) == ("consul", "id-b", str(ord("b")))
    assert (shown.tags["dc"], shown.tags["read_replica"]) == ("dc1", "1")


def test_a_server_that_was_not_heard_yet_is_shown_as_far_as_it_is_known() -> None:
    watched = Watched("a", "b")
    shown = as_member(watched.members.servers()[1])
    assert (shown.name, shown.addr, shown.port, shown.status) == ("b", "10.0.0.1", 0, UNKNOWN)
    assert (shown.tags["dc"], shown.tags["port"]) == ("dc1", str(ord("b")))
    member = {"Name": "b", "Addr": shown.addr, "Port": 0, "Status": 0, "Tags": {**shown.tags, "segment": "<all>"}}
    assert short([member])[1][:4] == ["b", "10.0.0.1", "none", "server"]
    assert short([{**member, "Port": 8301}])[1][1] == "10.0.0.1:8301"


def test_servers_ask_each_other() -> None:
    async def scenario() -> None:
        group = Group("a", "b", "c")
        group.start()
        members = group.places["a"].leadership.members

        def statuses() -> list[int]:
            return [server.status for server in members.servers()]

        await until(lambda: statuses() == [ALIVE] * 3, "all to be alive", 1)
        group.places["c"].kill()
        seconds = await until(lambda: statuses() == [ALIVE, ALIVE, FAILED], "one to have failed", 10)
        assert SILENCE <= seconds <= SILENCE + 3
        group.add("d", voter=False)
        await until(lambda: statuses() == [ALIVE, ALIVE, FAILED, ALIVE], "a new one to be alive", 0.1)
        group.places["c"].revive()
        await until(lambda: statuses() == [ALIVE] * 4, "all to be alive again", 2)
        await group.close()

    run_virtually(scenario())
