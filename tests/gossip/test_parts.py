"""The small parts: timers, queues, suspicions, health, versions, the journal."""

from __future__ import annotations

import random

import pytest

from lictor.gossip import peers, scale
from lictor.gossip.awareness import Awareness
from lictor.gossip.broadcasts import BroadcastQueue
from lictor.gossip.codec import WireError
from lictor.gossip.coordinates import Coordinates, RejectedSample
from lictor.gossip.lamport import LamportClock
from lictor.gossip.messages import NodeState, State
from lictor.gossip.queries import filters, passes
from lictor.gossip.serf_messages import UserEvent
from lictor.gossip.suspicion import Suspicion
from lictor.gossip.timers import Timers
from lictor.gossip.user_events import UserEvents
from lictor.gossip.versions import incompatibility
from lictor.model.coordinate_entry import Coord


def test_timers_run_in_order_once_and_not_when_cancelled() -> None:
    timers, ran = Timers(), list[str]()
    timers.at(2, lambda _: ran.append("second"))
    timers.at(1, lambda _: ran.append("first"))
    timers.at(1.5, lambda _: ran.append("never")).cancel()
    timers.at(9, lambda _: ran.append("later"))
    assert timers.next == 1
    timers.advance(5)
    timers.advance(5)
    assert ran == ["first", "second"]
    assert timers.next == 9


@pytest.mark.parametrize(("nodes", "limit"), [(1, 4), (9, 4), (10, 8), (99, 8), (100, 12), (999, 12)])
def test_the_retransmit_limit_grows_with_the_decimal_digits(nodes: int, limit: int) -> None:
    assert scale.retransmit_limit(4, nodes) == limit


@pytest.mark.parametrize(("nodes", "seconds"), [(1, 30), (32, 30), (33, 60), (64, 60), (65, 90), (128, 90)])
def test_exchanges_become_rarer_with_each_doubling(nodes: int, seconds: float) -> None:
    assert scale.push_pull_interval(30, nodes) == seconds


def test_each_confirmation_shortens_a_suspicion_down_to_its_least() -> None:
    suspicion = Suspicion("a", 3, 2.0, 30.0, now=100.0)
    deadlines = [suspicion.deadline]
    for accuser in ("b", "b", "a", "c", "d", "e"):
        suspicion.confirm(accuser)
        deadlines.append(suspicion.deadline)
    assert deadlines == pytest.approx([130, 116, 116, 116, 107.8, 102, 102], abs=0.1)


def test_a_suspicion_that_expects_nobody_is_short() -> None:
    suspicion = Suspicion("a", 0, 2.0, 30.0, now=0.0)
    assert not suspicion.confirm("b")
    assert suspicion.deadline == 2.0


def test_health_stays_within_its_bounds() -> None:
    awareness = Awareness(8)
    awareness.add(-5)
    assert awareness.scaled(1.0) == 1.0
    awareness.add(50)
    assert awareness.scaled(1.0) == 8.0


def test_a_queue_sends_the_least_sent_and_longest_that_fits_up_to_its_limit() -> None:
    queue = BroadcastQueue(1, lambda: 9)
    for message in (b"a" * 10, b"b" * 30, b"c" * 20):
        queue.add(message)
    assert queue.take(2, 40) == [b"b" * 30]
    assert queue.take(2, 100) == [b"c" * 20, b"a" * 10]
    assert queue.take(2, 100) == []
    assert len(queue) == 0


def test_a_message_is_sent_as_often_as_the_pool_needs() -> None:
    queue, done = BroadcastQueue(4, lambda: 9), list[int]()
    queue.add(b"x", finished=lambda: done.append(1))
    assert [queue.take(2, 100) for _ in range(5)] == [[b"x"]] * 4 + [[]]
    assert done == [1]


def test_news_of_a_node_replaces_older_news_and_tells_who_waits() -> None:
    queue, done = BroadcastQueue(4, lambda: 9), list[int]()
    queue.add(b"old", "n1", lambda: done.append(1))
    queue.add(b"other", "n2")
    queue.add(b"new", "n1")
    assert sorted(queue.take(2, 100)) == [b"new", b"other"]
    assert done == [1]


def test_a_queue_keeps_its_depth() -> None:
    queue = BroadcastQueue(4, lambda: 9, depth=5)
    for number in range(20):
        queue.add(b"%d" % number)
    assert len(queue) == 5


def test_a_clock_jumps_past_what_it_sees_and_refuses_what_cannot_be() -> None:
    clock = LamportClock()
    clock.witness(41)
    clock.witness(3)
    assert clock.time == 42
    with pytest.raises(WireError):
        clock.witness(2**64 - 1)


def test_events_are_taken_once_and_old_ones_not_at_all() -> None:
    events = UserEvents(8, 0)
    assert events.is_new(UserEvent(1, "a"))
    assert not events.is_new(UserEvent(1, "a"))
    assert events.is_new(UserEvent(1, "b"))
    assert events.is_new(UserEvent(50, "a"))
    assert not events.is_new(UserEvent(2, "late"))
    assert [(e.l_time, len(e.events)) for e in events.recent()] == [(1, 2), (50, 1)]


def test_filters_are_by_name_and_by_tag_in_linear_time() -> None:
    assert passes(filters(("a", "b"), {}), "a", {})
    assert not passes(filters(("a", "b"), {}), "c", {})
    assert passes(filters((), {"role": "^we"}), "a", {"role": "web"})
    assert not passes(filters((), {"role": "(a+)+$"}), "a", {"role": "a" * 400 + "b"})
    for broken in (b"", b"\x05", b"\x00\xc1", filters((), {"role": "("})[0]):
        with pytest.raises(WireError):
            passes((broken,), "a", {})


def vector(*versions: int) -> bytes:
    """A version vector."""
    return bytes(versions)


def test_pools_that_cannot_understand_each_other_are_told_apart() -> None:
    old = NodeState("old", b"", 1, 1, State.ALIVE, vsn=vector(1, 2, 2, 2, 4, 4))
    new = NodeState("new", b"", 1, 1, State.ALIVE, vsn=vector(1, 5, 2, 2, 5, 5))
    assert incompatibility([old], []) == ""
    assert "Node 'new' delegate protocol version (5) is incompatible: [2, 4]" in incompatibility([old, new], [])


def test_a_journal_adds_up_whatever_is_in_it() -> None:
    text = "alive: a 10.0.0.1:1\nalive: b c 10.0.0.2:2\nclock: 5\nnot-alive: a\ngarbage\nevent-clock: x\nalive: torn"
    journal = peers.parse(text, rejoin_after_leave=False)
    assert journal.peers == {"b c": "10.0.0.2:2"}
    assert (journal.clock, journal.event_clock) == (5, 0)
    assert peers.parse(text + "\nleave\n", rejoin_after_leave=False).peers == {}
    assert peers.parse(text + "\nleave\n", rejoin_after_leave=True).peers != {}


def test_a_compacted_journal_adds_up_to_the_same() -> None:
    keeper = peers.JournalKeeper(peers.Journal())
    lines = "".join(keeper.alive(f"n{i % 7}", "10.0.0.1:1") + keeper.clock("clock", i) for i in range(2000))
    lines += keeper.gone("n3")
    assert keeper.too_long
    assert peers.parse(keeper.compacted(), False) == peers.parse(lines, False)
    assert not keeper.too_long


@pytest.mark.parametrize(
    ("other", "rtt"),
    [(Coord(vec=(0.0,) * 3), 0.1), (Coord(), -1.0), (Coord(), 11.0), (Coord(height=float("nan")), 0.1)],
)
def test_a_sample_that_cannot_be_changes_nothing(other: Coord, rtt: float) -> None:
    coordinates = Coordinates(random.Random(1))
    with pytest.raises(RejectedSample):
        coordinates.update("n", other, rtt)
    assert coordinates.own == Coord()
