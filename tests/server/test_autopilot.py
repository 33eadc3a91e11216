"""Autopilot's decisions, as tables: who is healthy, who is promoted, who is removed, how versions are changed."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lictor.model.member import ALIVE, FAILED
from lictor.server.autopilot import Plan, plan
from lictor.server.autopilot_config import Rules
from lictor.server.autopilot_state import NEVER, Judged, Seen, State, judge
from lictor.server.autopilot_upgrade import Status, upgrade

RULES = Rules()
LONG = 1000.0  # seconds for which everything has been as it is


def server(name: str, **given: Any) -> Seen:
    """A voter that is well; fields can be given."""
    seen = Seen(name, f"node {name}", f"10.0.0.1:{ord(name[0])}", True, False, version="1.0.0", contact=0.01)
    return msgspec.structs.replace(seen, **{"last_term": 3, "last_index": 1000, **given})


def leader(name: str = "a", **given: Any) -> Seen:
    return server(name, **{"leader": True, "contact": 0.0, **given})


def dead(name: str, **given: Any) -> Seen:
    return server(name, **{"status": FAILED, "contact": NEVER, **given})


def state(*servers: Seen, rules: Rules = RULES, for_seconds: float = LONG) -> State:
    """The state where these servers have been so for some time, and autopilot has run for long."""
    found = judge(None, servers, rules, 0.0, 0.0)
    lasting = tuple(msgspec.structs.replace(one, since=LONG - for_seconds) for one in found.servers)
    return State(lasting, 0.0, LONG, rules)


def planned(*servers: Seen, rules: Rules = RULES, for_seconds: float = LONG) -> Plan:
    decided = plan(state(*servers, rules=rules, for_seconds=for_seconds))
    return msgspec.structs.replace(decided, reason="")


# -- health -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "healthy"),
    [
        ({}, True),
        ({"contact": 0.2}, True),
        ({"contact": 0.201}, False),
        ({"contact": NEVER}, False),
        ({"last_index": 750}, True),
        ({"last_index": 749}, False),
        ({"last_index": 2000}, True),
        ({"last_term": 2}, False),
        ({"last_term": 4}, False),
        ({"status": FAILED}, False),
        ({"status": 0}, False),
        ({"voter": False}, True),
    ],
)
def test_a_server_is_healthy_if_it_is_alive_in_contact_and_not_behind(given: dict[str, Any], healthy: bool) -> None:
    judged = judge(None, [leader(), server("b", **given)], RULES, 5.0, 100.0)
    assert [one.healthy for one in judged.servers] == [True, healthy]
    assert judged.healthy is healthy


def test_without_a_leader_or_a_log_nobody_is_healthy() -> None:
    assert not judge(None, [server("a"), server("b")], RULES, 0.0, 0.0).healthy
    blank = judge(None, [leader(last_index=0, last_term=0), server("b", last_index=0, last_term=0)], RULES, 0.0, 0.0)
    assert [one.healthy for one in blank.servers] == [False, False]
    assert not State().healthy


def test_health_counts_from_its_last_change() -> None:
    first = judge(None, [leader(), server("b")], RULES, 10.0, 110.0)
    second = judge(first, [leader(), dead("b"), server("c")], RULES, 12.0, 112.0)
    third = judge(second, [leader(), dead("b"), server("c")], RULES, 14.0, 114.0)
    assert [(one.healthy, one.since, one.shown_since) for one in third.servers] == [
        (True, 10.0, 110.0),
        (False, 12.0, 112.0),
        (True, 12.0, 112.0),
    ]
    assert third.began == 10.0


@pytest.mark.parametrize(
    ("servers", "tolerance"),
    [
        ([leader()], 0),
        ([leader(), server("b")], 0),
        ([leader(), server("b"), server("c")], 1),
        ([leader(), server("b"), dead("c")], 0),
        ([leader(), server("b"), server("c"), server("d", voter=False)], 1),
        ([leader(), server("b"), server("c"), server("d"), server("e")], 2),
        ([leader(), server("b"), dead("c"), dead("d"), dead("e")], 0),
    ],
)
def test_failure_tolerance_is_what_the_healthy_voters_have_beyond_a_majority(
    servers: list[Seen], tolerance: int
) -> None:
    assert state(*servers).failure_tolerance == tolerance


# -- promotion --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "for_seconds", "promoted"),
    [
        ({}, 10.0, True),
        ({}, 9.9, False),
        ({"read_replica": True}, LONG, False),
        ({"contact": 5.0}, LONG, False),
        ({"last_index": 1}, LONG, False),
        ({"status": FAILED}, LONG, False),
    ],
)
def test_a_stable_server_is_promoted(given: dict[str, Any], for_seconds: float, promoted: bool) -> None:
    rules = Rules(cleanup=False)
    decided = planned(leader(), server("b", voter=False, **given), rules=rules, for_seconds=for_seconds)
    assert decided == (Plan(promote=("b",)) if promoted else Plan())


def test_a_new_leader_does_not_make_those_wait_that_it_has_not_known_for_long() -> None:
    servers = [leader(), server("b"), server("c", voter=False)]
    young = judge(None, servers, RULES, 100.0, 0.0)
    assert plan(judge(young, servers, RULES, 102.0, 0.0)).promote == ("c",)
    joined_later = (*young.servers[:2], msgspec.structs.replace(young.servers[2], since=108.0))
    assert plan(State(joined_later, 100.0, 112.0, RULES)).promote == ()
    assert plan(State(joined_later, 100.0, 118.0, RULES)).promote == ("c",)


def test_a_voter_that_is_a_read_replica_loses_its_vote_where_a_majority_stays() -> None:
    replica = server("c", read_replica=True)
    assert planned(leader(), server("b"), replica) == Plan(demote=("c",))
    assert planned(leader(), dead("b"), replica, rules=Rules(cleanup=False)) == Plan()
    assert planned(leader(read_replica=True), server("b", last_index=900), server("c")) == Plan(transfer="c")


# -- removal ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("servers", "min_quorum", "removed"),
    [
        ([leader(), server("b"), dead("c")], 0, ("c",)),
        ([leader(), server("b"), dead("c")], 2, ("c",)),
        ([leader(), server("b"), dead("c")], 3, ()),
        ([leader(), dead("b")], 0, ()),
        ([leader(), dead("b"), dead("c")], 0, ("b",)),
        ([leader(), server("b"), server("c"), dead("d")], 0, ("d",)),
        ([leader(), server("b"), server("c"), dead("d"), dead("e")], 0, ("d", "e")),
        ([leader(), server("b"), server("c"), dead("d"), dead("e")], 4, ("d",)),
        ([leader(), server("b"), dead("c"), dead("d"), dead("e")], 0, ("c", "d")),
        ([leader(), dead("b", voter=False)], 5, ("b",)),
        ([leader(), dead("b", read_replica=True, voter=False), dead("c")], 0, ("b",)),
        ([leader(), server("b"), server("c", contact=60.0)], 0, ()),
        ([leader(), server("b"), dead("c", status=0)], 0, ()),
    ],
)
def test_dead_servers_are_removed_as_far_as_it_is_safe(
    servers: list[Seen], min_quorum: int, removed: tuple[str, ...]
) -> None:
    assert planned(*servers, rules=Rules(min_quorum=min_quorum)) == Plan(remove=removed)


def test_a_dead_server_is_given_the_stabilization_time_to_come_back() -> None:
    servers = [leader(), server("b"), dead("c")]
    assert planned(*servers, for_seconds=9.9) == Plan()
    assert planned(*servers, for_seconds=10.0) == Plan(remove=("c",))
    assert planned(*servers, rules=Rules(cleanup=False)) == Plan()


# -- versions ---------------------------------------------------------------------------------------------------------


def new(name: str, **given: Any) -> Seen:
    return server(name, **{"version": "1.1.0", **given})


def waiting(name: str, **given: Any) -> Seen:
    return new(name, **{"voter": False, **given})


def test_newer_servers_wait_until_they_are_as_many_as_the_old_ones() -> None:
    old = [leader(), server("b"), server("c")]
    assert planned(*old, waiting("d")) == Plan()
    assert planned(*old, waiting("d"), waiting("e")) == Plan()
    assert planned(*old, waiting("d"), waiting("e"), waiting("f")) == Plan(promote=("d", "e", "f"))
    assert planned(*old, waiting("d"), waiting("e"), waiting("f", last_index=1)) == Plan()
    assert planned(*old, waiting("d"), waiting("e"), waiting("f", read_replica=True)) == Plan()


def test_then_one_of_them_leads_and_the_old_ones_vote_no_more() -> None:
    newer = [new("d", last_index=990), new("e"), new("f", last_index=990)]
    assert planned(leader(), server("b"), server("c"), *newer) == Plan(transfer="e")
    newer[1] = leader("e", version="1.1.0")
    old = [server(name) for name in "abc"]
    voters = {"a", "b", "c", "d", "e", "f"}
    for _ in range(3):
        decided = planned(*(msgspec.structs.replace(one, voter=one.id in voters) for one in (*old, *newer)))
        assert (len(decided.demote), decided.demote[0] in "abc") == (1, True)
        voters -= set(decided.demote)
    assert voters == {"d", "e", "f"}
    assert planned(*(msgspec.structs.replace(one, voter=one.id in voters) for one in (*old, *newer))) == Plan()


def test_of_the_old_ones_the_unhealthy_are_the_first_to_vote_no_more() -> None:
    servers = [server("a"), server("b", contact=5.0), leader("c", version="1.1.0"), new("d"), new("e")]
    assert planned(*servers, rules=Rules(cleanup=False)) == Plan(demote=("b",))


def test_servers_that_are_upgraded_in_their_places_go_on_voting() -> None:
    assert planned(leader(), server("b"), new("c")) == Plan()
    assert planned(leader(), new("b"), new("c", last_index=999)) == Plan(transfer="b")
    assert planned(server("a"), leader("b", version="1.1.0"), new("c")) == Plan()


def test_a_server_of_the_old_version_may_still_join_before_the_change() -> None:
    old = [leader(), server("b"), server("c")]
    assert planned(*old, server("d", voter=False), waiting("e")) == Plan(promote=("d",))


def test_nobody_waits_while_the_voters_cannot_lose_a_server() -> None:
    assert planned(leader(), server("b"), waiting("c")) == Plan(promote=("c",))
    without = Rules(cleanup=False)
    assert planned(leader(), server("b"), dead("c"), waiting("d"), rules=without) == Plan(promote=("d",))


def test_without_migration_versions_do_not_matter() -> None:
    assert planned(leader(), server("b"), waiting("d"), rules=Rules(migrate=False)) == Plan(promote=("d",))


def test_versions_may_be_read_from_the_meta() -> None:
    rules = Rules(version_tag="image")

    def tagged(one: Seen, version: str) -> Seen:
        return msgspec.structs.replace(one, meta={"image": version})

    old = [tagged(leader(), "7"), tagged(server("b", version="9.9.9"), "7"), tagged(server("c"), "7")]
    joining = [tagged(server(name, voter=False), "10") for name in "def"]
    assert planned(*old, *joining[:2], rules=rules) == Plan()
    assert planned(*old, *joining, rules=rules) == Plan(promote=("d", "e", "f"))
    untagged = server("d", voter=False, version="9.9.9")
    assert planned(tagged(leader(), "7"), untagged, rules=rules) == Plan()
    assert planned(leader(), server("b"), server("c"), untagged, rules=rules) == Plan(promote=("d",))


@pytest.mark.parametrize(
    ("older", "newer"),
    [("1.9.0", "1.10.0"), ("1.10.0-rc1", "1.10.0"), ("1.10.0-beta1", "1.10.0-rc1"), ("1", "1.0.1"), ("x", "0.1")],
)
def test_the_order_of_versions(older: str, newer: str) -> None:
    for field in ("version", "build"):
        before, after = {field: older}, {field: newer}
        servers = [leader(**before), server("b", **before), server("c", **before)]
        assert planned(*servers, server("d", voter=False, **after)) == Plan()
        assert planned(*servers, server("d", voter=False, **before)) == Plan(promote=("d",))


@pytest.mark.parametrize(("one", "other"), [("1.2.0", "1.2"), ("1.2.0+ent", "1.2.0")])
def test_versions_that_are_the_same(one: str, other: str) -> None:
    assert planned(leader(version=one), server("b", voter=False, version=other)) == Plan(promote=("b",))


def test_one_that_never_said_its_version_is_not_taken_for_an_old_one() -> None:
    silent = dead("c", version="")
    assert planned(leader(), server("b"), silent, rules=Rules(cleanup=False)) == Plan()


@pytest.mark.parametrize(
    ("servers", "status"),
    [
        ([leader(), server("b"), server("c")], Status.IDLE),
        ([leader(), server("b"), server("c"), waiting("d")], Status.AWAIT_NEW_VOTERS),
        ([leader(), server("b"), server("c"), *(waiting(name) for name in "def")], Status.PROMOTING),
        ([leader(), server("b"), server("c"), *(new(name) for name in "def")], Status.LEADER_TRANSFER),
        ([server("a"), server("b"), server("c"), *(new(name, leader=name == "d") for name in "def")], Status.DEMOTING),
        ([server("a"), leader("b", version="1.1.0"), new("c")], Status.AWAIT_NEW_SERVERS),
        (
            [*(server(name, voter=False) for name in "abc"), leader("d", version="1.1.0"), new("e")],
            Status.AWAIT_NEW_SERVERS,
        ),
        (
            [server("a", voter=False), leader("d", version="1.1.0"), new("e"), new("f")],
            Status.AWAIT_SERVER_REMOVAL,
        ),
    ],
)
def test_the_status_of_a_migration(servers: list[Seen], status: Status) -> None:
    found = upgrade(state(*servers))
    assert (found.status, found.target) == (status, "1.0.0" if status is Status.IDLE else "1.1.0")
    assert upgrade(state(*servers, rules=Rules(migrate=False))).status is Status.DISABLED


def test_the_target_is_told_by_the_build_where_the_interface_is_the_same() -> None:
    found = upgrade(state(leader(build="2.0"), server("b", build="2.1"), server("c", build="2.0")))
    assert (found.target, [one.seen.id for one in found.new]) == ("1.0.0+2.1", ["b"])
    tagged = upgrade(state(leader(meta={"v": "7"}), server("b", meta={"v": "8"}), rules=Rules(version_tag="v")))
    assert tagged.target == "8"


# -- redundancy zones -------------------------------------------------------------------------------------------------

ZONES = Rules(zone_tag="az")


def zoned(name: str, **given: Any) -> Seen:
    """A voter of the zone that the first letter of its name stands for; fields can be given."""
    return server(name, meta={"az": f"zone {name[0]}"}, **given)


def standby(name: str, **given: Any) -> Seen:
    return zoned(name, **{"voter": False, **given})


def lost(name: str, **given: Any) -> Seen:
    return zoned(name, **{"status": FAILED, "contact": NEVER, **given})


LEADS = zoned("a1", leader=True, contact=0.0)
KEPT = msgspec.structs.replace(ZONES, cleanup=False)


def test_of_each_zone_one_server_votes() -> None:
    joining = [standby("b1"), standby("b2", last_index=1001), standby("c1"), standby("c2", status=FAILED)]
    assert planned(LEADS, standby("a2"), *joining, rules=KEPT) == Plan(promote=("b2", "c1"))
    settled = [LEADS, standby("a2"), standby("b1"), zoned("b2"), zoned("c1"), standby("c2")]
    assert planned(*settled, rules=ZONES) == Plan()
    assert planned(*settled, rules=Rules()) == Plan(promote=("a2", "b1", "c2"))


def test_a_server_without_a_zone_votes_whatever_others_do() -> None:
    servers = [LEADS, zoned("b1"), zoned("c1"), standby("c2"), server("d", voter=False)]
    assert planned(*servers, rules=ZONES) == Plan(promote=("d",))


def test_a_failed_voter_is_replaced_by_its_zone_mate() -> None:
    servers = [LEADS, standby("a2"), zoned("b1"), standby("b2"), lost("c1"), standby("c2")]
    assert planned(*servers, rules=KEPT) == Plan(promote=("c2",))
    servers[-1] = zoned("c2")
    assert planned(*servers, rules=KEPT) == Plan(demote=("c1",))
    servers[-2] = standby("c1")  # it is back
    assert planned(*servers, rules=KEPT) == Plan()


def test_the_mate_need_not_wait_until_the_dead_server_is_removed() -> None:
    servers = [LEADS, zoned("b1"), lost("c1"), standby("c2")]
    found = judge(None, servers, ZONES, LONG - 2, 0.0)
    lasting = [*found.servers[:2], found.servers[2], msgspec.structs.replace(found.servers[3], since=0.0)]
    assert plan(State(tuple(lasting), 0.0, LONG, ZONES)).promote == ("c2",)


def test_a_voter_that_only_missed_a_look_is_not_replaced() -> None:
    servers = [LEADS, zoned("b1"), zoned("c1", contact=5.0), standby("c2")]
    assert planned(*servers, rules=KEPT, for_seconds=9.9) == Plan()
    found = state(*servers, rules=KEPT, for_seconds=10.0)
    assert plan(found).promote == ("c2",)


def test_when_a_whole_zone_is_lost_another_s_standby_votes_until_it_is_back() -> None:
    servers = [LEADS, standby("a2"), zoned("b1"), standby("b2", last_index=1001), lost("c1"), lost("c2", voter=False)]
    assert planned(*servers, rules=KEPT) == Plan(promote=("b2",))
    servers[3] = zoned("b2")
    assert planned(*servers, rules=KEPT) == Plan(demote=("c1",))
    servers[4] = lost("c1", voter=False)
    assert planned(*servers, rules=KEPT) == Plan()
    servers[5] = standby("c2")
    assert planned(*servers, rules=KEPT) == Plan(promote=("c2",))
    servers[5] = zoned("c2")
    assert planned(*servers, rules=KEPT) == Plan(demote=("b2",))


def test_two_zones_keep_three_voters_where_there_were_three() -> None:
    assert planned(LEADS, zoned("a2"), zoned("b1"), rules=ZONES) == Plan()
    assert planned(LEADS, zoned("a2"), zoned("b1"), zoned("b2"), rules=ZONES).demote in (("a2",), ("b2",))


def test_the_leader_keeps_its_vote() -> None:
    servers = [zoned("a1", last_index=1001), zoned("a2", leader=True, contact=0.0), zoned("b1"), zoned("c1")]
    assert planned(*servers, rules=ZONES) == Plan(demote=("a1",))


def test_servers_of_a_newer_version_take_over_zone_by_zone() -> None:
    old = [LEADS, standby("a2"), zoned("b1"), standby("b2"), zoned("c1"), standby("c2")]
    newer = [standby(f"{zone}{number}", version="1.1.0") for zone in "abc" for number in (8, 9)]
    assert planned(*old, *newer[:5], rules=ZONES) == Plan(promote=("a8", "b8", "c8"))
    assert planned(*old, *newer[:4], rules=ZONES) == Plan(), "a zone has no server of the newer version yet"
    found = upgrade(state(*old, *newer[:4], rules=ZONES))
    assert found.status is Status.AWAIT_NEW_VOTERS
    servers = [*old, *newer]
    for _ in range(20):
        decided = planned(*servers, rules=ZONES)
        if decided == Plan():
            break
        servers = _after(servers, decided)
    assert [one.id for one in servers if one.voter] == ["a8", "b8", "c8"]
    assert upgrade(state(*servers, rules=ZONES)).status is Status.AWAIT_SERVER_REMOVAL
    servers = [lost(one.id, version="1.1.0") if one.id == "b8" else one for one in servers]
    assert planned(*servers, rules=KEPT) == Plan(promote=("b9",)), "an old server does not vote again"


def test_optimistic_tolerance_counts_the_standbys() -> None:
    servers = [LEADS, standby("a2"), zoned("b1"), standby("b2"), zoned("c1"), standby("c2")]
    found = state(*servers, rules=ZONES)
    assert (found.failure_tolerance, found.optimistic_failure_tolerance) == (1, 4)
    assert state(*servers).optimistic_failure_tolerance == 1


# -- whatever happens -------------------------------------------------------------------------------------------------


@st.composite
def clusters(draw: st.DrawFn) -> tuple[list[Seen], Rules]:
    servers = []
    for position in range(draw(st.integers(1, 7))):
        alive = position == 0 or draw(st.booleans())
        servers.append(
            server(
                "abcdefg"[position],
                leader=position == 0,
                voter=position == 0 or draw(st.booleans()),
                status=ALIVE if alive else FAILED,
                contact=0.0 if alive else NEVER,
                version=draw(st.sampled_from(["1.0.0", "1.1.0"])),
                read_replica=draw(st.integers(0, 5)) == 0,
                meta=draw(st.sampled_from([{}, {"zone": "x"}, {"zone": "y"}, {"zone": "z"}])),
            )
        )
    zone_tag = draw(st.sampled_from(["", "zone"]))
    cleanup = draw(st.booleans())
    return servers, Rules(cleanup, min_quorum=draw(st.integers(0, 4)), migrate=draw(st.booleans()), zone_tag=zone_tag)


@given(clusters())
def test_a_plan_keeps_a_majority_and_comes_to_an_end(cluster: tuple[list[Seen], Rules]) -> None:
    servers, rules = cluster
    for _ in range(4 * len(servers) + 4):
        before = state(*servers, rules=rules)
        voters = [one for one in before.servers if one.seen.voter]
        if sum(one.healthy for one in voters) < len(voters) // 2 + 1:
            return  # nothing could be agreed on
        decided = plan(before)
        if not (decided.remove or decided.promote or decided.demote or decided.transfer):
            return
        servers = _after(servers, decided)
        assert _is_safe(before.servers, decided)
    pytest.fail(f"there is no end to it: {servers}")


def _after(servers: list[Seen], decided: Plan) -> list[Seen]:
    left = [one for one in servers if one.id not in decided.remove]
    left = [
        msgspec.structs.replace(one, voter=(one.voter or one.id in decided.promote) and one.id not in decided.demote)
        for one in left
    ]
    if decided.transfer:
        left = [msgspec.structs.replace(one, leader=one.id == decided.transfer) for one in left]
    return left


def _is_safe(before: tuple[Judged, ...], decided: Plan) -> bool:
    after = [
        one
        for one in before
        if one.seen.id not in (*decided.remove, *decided.demote) and (one.seen.voter or one.seen.id in decided.promote)
    ]
    healthy = sum(one.healthy for one in after)
    leads = any(one.seen.leader and one.healthy for one in after)
    return healthy >= len(after) // 2 + 1 and leads
