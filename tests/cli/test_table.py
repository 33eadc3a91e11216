"""Column output."""

from __future__ import annotations

from lictor.cli.table import columns


def test_columns_line_up_two_spaces_apart() -> None:
    assert columns([["Node", "DC"], ["a-long-name", "dc1"]]) == "Node         DC\na-long-name  dc1"


def test_rows_may_be_shorter_and_the_last_cell_is_not_padded() -> None:
    assert columns([["a", "b", "c"], ["long"], ["", "x"]]) == "a     b  c\nlong\n      x"


def test_wide_characters_count_two_and_combining_marks_none() -> None:
    assert columns([["漢字", "x"], ["abcd", "x"], ["e\u0301abc", "x"]]) == "漢字  x\nabcd  x\ne\u0301abc  x"


def test_nothing_is_nothing() -> None:
    assert columns([]) == ""


def test_names_do_not_steer_the_terminal() -> None:
    assert columns([["a\x1b[31m\x9bb", "c\nd"], ["e", "f"]]) == "a\\x1b[31m\\x9bb  c\\nd\ne               f"
