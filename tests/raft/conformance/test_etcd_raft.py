"""The scenario files of etcd's Raft library, played on the core; every output is compared whole.

They are read from `../shared/conformance/etcd-raft` beside the project, or from the folder that LICTOR_CONFORMANCE
names.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.raft.conformance import wording
from tests.raft.conformance.datadriven import Command, read_commands
from tests.raft.conformance.environment import Environment
from tests.raft.conformance.sets import ConfigurationPlayer, play_quorum

FOLDER = (
    Path(os.environ.get("LICTOR_CONFORMANCE") or Path(__file__).parents[4] / "shared" / "conformance") / "etcd-raft"
)
FILES = sorted(path.relative_to(FOLDER).as_posix() for path in FOLDER.glob("**/*.txt"))
PLAYERS: dict[str, Callable[[], Callable[[Command], str]]] = {
    "quorum": lambda: play_quorum,
    "confchange": lambda: ConfigurationPlayer().run,
    "testdata": lambda: Environment().run,
}


def _normalised(text: str) -> str:
    for pattern, replacement, _ in wording.NORMALISED:
        text = re.sub(pattern, replacement, text)
    return text


@pytest.mark.skipif(not FILES, reason=f"no scenario files in {FOLDER}; LICTOR_CONFORMANCE may name their folder")
def test_all_scenario_files_are_there() -> None:
    assert len(FILES) == 41


@pytest.mark.parametrize("file", FILES)
def test_scenario(file: str) -> None:
    play = PLAYERS[file.partition("/")[0]]()
    for command in read_commands(FOLDER / file):
        printed = play(command)
        assert printed == _normalised(command.expected), f"{file}:{command.line}: {command.name}"
