"""The times of proposals while the wall clock jumps."""

from __future__ import annotations

import pytest

from lictor.server.stamps import Stamps

DAY = 86_400.0


class Wall:
    """A wall clock that is put forward and back."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_stamps_are_the_wall_clock_s_while_it_goes_as_time_does() -> None:
    wall = Wall()
    stamps = Stamps(wall)
    for second in range(5):
        wall.now = 1000.0 + second
        assert stamps.at(50.0 + second) == wall.now
    wall.now += DAY
    assert stamps.at(54.0 + DAY) == wall.now, "nothing was proposed for a day"


@pytest.mark.parametrize(("jump", "rate"), [(DAY, 2.0), (-DAY, 0.5)])
def test_a_jump_is_made_up_for_little_by_little(jump: float, rate: float) -> None:
    wall = Wall()
    stamps = Stamps(wall)
    assert stamps.at(0.0) == 1000.0
    wall.now += jump
    assert stamps.at(0.0) == 1000.0
    wall.now += 10.0
    assert stamps.at(10.0) == 1000.0 + 10.0 * rate
    wall.now += 3 * DAY
    assert stamps.at(10.0 + 3 * DAY) == pytest.approx(wall.now), "in the end they are the same"


def test_a_wall_clock_that_is_set_right_at_once_has_done_nothing() -> None:
    wall = Wall()
    stamps = Stamps(wall)
    stamps.at(0.0)
    wall.now = 1001.0 + DAY
    assert stamps.at(1.0) == 1002.0
    wall.now = 1002.0
    assert stamps.at(2.0) == 1002.5
    wall.now = 1003.0
    assert stamps.at(3.0) == 1003.0
