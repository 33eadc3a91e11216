"""Recorded histories of a register, with what others found of them.

They are read from `../shared/conformance/porcupine` beside the project, or from the folder that LICTOR_CONFORMANCE
names.
"""

import csv
import os
import time
from pathlib import Path

import pytest

from jepsen.checker import Verdict, check
from jepsen.checker.history import read_register_log
from jepsen.checker.models import Register

FOLDER = (
    Path(os.environ.get("LICTOR_CONFORMANCE") or Path(__file__).parents[3] / "shared" / "conformance") / "porcupine"
)
SECONDS = 30.0  # each takes less than one on an idle machine


def expected() -> list[tuple[str, bool]]:
    """File names, and whether the history is linearizable."""
    try:
        with (FOLDER / "expected.csv").open(newline="") as file:
            return [(row["log"], row["linearizable"] == "true") for row in csv.DictReader(file)]
    except FileNotFoundError:
        return []


CASES = expected()


@pytest.mark.skipif(not CASES, reason=f"no histories in {FOLDER}; LICTOR_CONFORMANCE may name their folder")
def test_all_histories_are_there() -> None:
    assert len(CASES) == 102
    assert sum(linearizable for _, linearizable in CASES) == 23


@pytest.mark.parametrize(("file", "linearizable"), CASES)
def test_history(file: str, linearizable: bool) -> None:
    with (FOLDER / "jepsen" / file).open() as lines:
        history = read_register_log(lines)
    started = time.monotonic()
    result = check(history, Register())
    assert result.verdict is (Verdict.LINEARIZABLE if linearizable else Verdict.NOT_LINEARIZABLE), result
    assert time.monotonic() - started < SECONDS
    assert (result.culprit is None) == linearizable


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("INFO  jepsen.util - 1 :ok :read 1", "line 1: process 1 has nothing under way"),
        ("something else", "line 1: expected"),
        ("INFO  jepsen.util - x :invoke :read nil", "line 1: expected"),
    ],
)
def test_a_line_that_is_no_event_is_named(line: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        read_register_log([line])
