"""Lines of which there may be any number."""

import logging

import pytest

from lictor.model.seldom import MOST, PAUSE, Seldom

log = logging.getLogger("lictor.test.seldom")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == log.name]


def test_a_flood_of_one_cause_is_one_line_and_then_a_count(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    seldom = Seldom(log, clock)
    for number in range(1000):
        seldom.warning("broken", "broken: number=%d", number)
    assert lines(caplog) == ["broken: number=0"]
    clock.now += PAUSE
    seldom.warning("broken", "broken: number=%d", 1000)
    seldom.warning("broken", "broken: number=%d", 1001)
    assert lines(caplog)[1:] == ["broken: number=1000 (and 999 more since the last such line)"]
    clock.now += 2 * PAUSE
    seldom.warning("broken", "broken: number=%d", 1002)
    clock.now += 2 * PAUSE
    seldom.warning("broken", "broken: number=%d", 1003)
    assert lines(caplog)[2:] == [
        "broken: number=1002 (and 1 more since the last such line)",
        "broken: number=1003",
    ]


def test_one_cause_does_not_hide_another(caplog: pytest.LogCaptureFixture) -> None:
    seldom = Seldom(log, Clock())
    for _ in range(10):
        seldom.warning("one", "one")
        seldom.error("other", "100% other")
    assert lines(caplog) == ["one", "100% other"]
    assert [record.levelno for record in caplog.records] == [logging.WARNING, logging.ERROR]


def test_any_number_of_causes_takes_little_room() -> None:
    seldom = Seldom(log, Clock())
    for number in range(10_000):
        seldom.info(f"cause {number}", "line")
    assert len(seldom._causes) <= 256


def test_any_number_of_causes_is_few_lines(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    seldom = Seldom(log, clock)
    for number in range(1000):
        seldom.warning(f"cause {number}", "cause %d", number)
    assert len(lines(caplog)) == MOST
    clock.now += PAUSE
    seldom.warning("cause 999", "cause 999")
    assert lines(caplog)[MOST:] == ["cause 999 (and 1 more since the last such line)"]
