"""How often one topic is asked for."""

import pytest

from lictor.agent.config.sections import NO_LIMIT
from lictor.agent.replica_pace import MOST, Pace

WEB = ("service", "web")


@pytest.mark.parametrize("rate", [NO_LIMIT, float("inf")])
def test_without_a_limit_nothing_waits(rate: float) -> None:
    pace = Pace(rate, 1)
    assert [pace.wait(WEB, 5.0) for _ in range(1000)] == [0.0] * 1000


def test_a_burst_goes_at_once_and_the_rest_at_the_rate() -> None:
    pace = Pace(2.0, 3)
    assert [pace.wait(WEB, 10.0) for _ in range(6)] == [0.0, 0.0, 0.0, 0.5, 1.0, 1.5]
    assert pace.wait(("service", "db"), 10.0) == 0.0, "each topic for itself"
    assert pace.wait(WEB, 12.0) == 0.0
    assert pace.wait(WEB, 1000.0) == 0.0


def test_it_remembers_a_bounded_number_of_topics() -> None:
    pace = Pace(0.001, 1)
    for number in range(3 * MOST):
        assert pace.wait(("kv", f"k{number}"), 0.0) == 0.0
    assert len(pace._due) <= MOST
    assert pace.wait(("kv", f"k{3 * MOST - 1}"), 0.0) > 0.0
