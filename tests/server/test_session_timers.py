"""The countdown of sessions: twice the TTL, begun anew by a renewal, forgotten with the session."""

from hypothesis import given
from hypothesis import strategies as st

from lictor.model.session import Session
from lictor.server.session_timers import SessionTimers


def session(session_id: str, ttl: str = "10s") -> Session:
    return Session(id=session_id, node="n", ttl=ttl)


def test_a_session_ends_after_twice_its_ttl() -> None:
    timers = SessionTimers()
    timers.follow([session("a")], 100.0)
    assert timers.due(119.9) == []
    assert timers.next() == 120.0
    assert timers.due(120.0) == ["a"]
    assert timers.next() is None


def test_a_renewal_begins_the_count_anew() -> None:
    timers = SessionTimers()
    timers.follow([session("a")], 0.0)
    timers.renew("a", 15.0)
    assert timers.due(20.0) == []
    assert timers.next() == 35.0
    assert timers.due(35.0) == ["a"]


def test_a_session_without_a_ttl_is_not_counted() -> None:
    timers = SessionTimers()
    timers.follow([session("a", "")], 0.0)
    timers.renew("a", 5.0)
    assert len(timers) == 0
    assert timers.next() is None


def test_a_session_that_is_gone_does_not_come_due() -> None:
    timers = SessionTimers()
    timers.follow([session("a"), session("b", "30s")], 0.0)
    timers.follow([session("b", "30s")], 5.0)
    assert timers.due(1000.0) == ["b"]


def test_following_again_does_not_lengthen_a_count() -> None:
    timers = SessionTimers()
    timers.follow([session("a")], 0.0)
    timers.follow([session("a"), session("b")], 12.0)
    assert timers.due(20.0) == ["a"]


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.floats(0, 50)), max_size=60))
def test_each_session_comes_due_exactly_once_and_not_before_its_time(steps: list[tuple[str, float]]) -> None:
    timers = SessionTimers()
    now = 0.0
    timers.follow([session(i) for i in "abcde"], now)
    ends = dict.fromkeys("abcde", 20.0)
    for name, wait in steps:
        now += wait
        due = timers.due(now)
        assert sorted(due) == sorted(i for i, end in ends.items() if end <= now)
        for i in due:
            del ends[i]
        timers.renew(name, now)
        if name in ends:
            ends[name] = now + 20.0
    assert timers.next() == min(ends.values(), default=None)
