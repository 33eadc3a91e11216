"""The heap of deadlines against the obvious model, and its bound on entries."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lictor.agent.checks.deadlines import Deadlines

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.sampled_from("abcd"), st.integers(0, 100)),
        st.tuples(st.just("discard"), st.sampled_from("abcd"), st.just(0)),
        st.tuples(st.just("pop"), st.just(""), st.integers(0, 100)),
    )
)


@given(STEPS)
def test_what_is_due_is_what_a_plain_dictionary_says(steps: list[tuple[str, str, int]]) -> None:
    deadlines: Deadlines[str] = Deadlines()
    model: dict[str, int] = {}
    for step, key, at in steps:
        if step == "set":
            deadlines.set(key, at)
            model[key] = at
        elif step == "discard":
            deadlines.discard(key)
            model.pop(key, None)
        else:
            due = deadlines.pop_due(at)
            assert sorted(due) == sorted(key for key, when in model.items() if when <= at)
            model = {key: when for key, when in model.items() if when > at}
        ring = deadlines.next()
        assert (ring is None) == (not model)
        if ring is not None:
            assert ring <= min(model.values()), "a bell that rings late would be a deadline missed"
        assert len(deadlines) == len(model)


def test_a_deadline_that_is_put_off_a_million_times_takes_one_entry() -> None:
    deadlines: Deadlines[str] = Deadlines()
    for moment in range(100_000):
        deadlines.set("ttl", moment + 10.0)
    assert len(deadlines._entries) == 1
    assert deadlines.pop_due(11.0) == []
    assert deadlines.next() == 99_999 + 10.0
