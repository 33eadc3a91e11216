"""Every scenario file's questions get the answers that it records."""

from pathlib import Path

import pytest

from tests.dns.scenario import FOLDER, play


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.txt")), ids=lambda path: path.stem)
def test_answers_are_those_recorded(path: Path) -> None:
    written, played = play(path)
    assert played == written
