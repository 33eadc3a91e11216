"""The shell beside `loading`: finds and reads configuration files, asks the machine for its name and addresses."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path

from lictor.agent.config.documents import EXTENSIONS, FORMATS, MAX_BYTES
from lictor.agent.config.flags import Flags
from lictor.agent.config.interfaces import read_interfaces
from lictor.agent.config.keys import RuntimeConfig
from lictor.agent.config.loading import SourceFile, load, read_source
from lictor.agent.config.pending import refusal, warnings_of
from lictor.agent.config.problem import ConfigError, Place, Problem
from lictor.agent.config.reading import Fragment


def read_files(paths: Sequence[str], format: str = "") -> tuple[list[SourceFile], list[str]]:
    """The files that `paths` name, in order, and warnings about those that were skipped.

    A folder stands for its files with a known extension, in the order of their names; folders inside are skipped.
    `format` reads every file in one language, whatever its extension. Raises ConfigError for a path that cannot be
    read and for a file whose language is not known.
    """
    files: list[SourceFile] = []
    warnings: list[str] = []
    problems: list[Problem] = []

    def read(path: Path) -> None:
        try:
            files.append(_read(path, format))
        except _Unreadable as error:
            problems.append(error.problem)
        except (OSError, ValueError) as error:
            problems.append(_unreadable(str(path), error))

    for name in paths:
        path = Path(name)
        if not path.is_dir():
            read(path)
            continue
        try:
            inside = sorted(path.iterdir(), key=lambda entry: entry.name)
        except OSError as error:
            problems.append(_unreadable(name, error))
            continue
        for inner in inside:
            if inner.is_dir():
                continue
            if format or inner.suffix in EXTENSIONS:
                read(inner)
            else:
                warnings.append(
                    f"skipping file {inner}, extension must be .hcl, .json, .yaml or .yml, or config format must be set"
                )
    if problems:
        # The files that can be read may have their own: all are told at once.
        parsed = [problem for file in files for problem in read_source(file).problems]
        raise ConfigError([*problems, *parsed])
    return files, warnings


def _unreadable(name: str, error: Exception) -> Problem:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return Problem(f"cannot be read: {reason}", (), Place(name))


class _Unreadable(Exception):
    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


def _read(path: Path, format: str) -> SourceFile:
    language = format or EXTENSIONS.get(path.suffix)
    place = Place(str(path))
    if language is None and not path.exists():
        raise _Unreadable(Problem("cannot be read: No such file or directory", (), place))
    if language is None:
        raise _Unreadable(
            Problem("the extension must be .hcl, .json, .yaml or .yml, or -config-format must be given", (), place)
        )
    with path.open("rb") as stream:
        data = stream.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise _Unreadable(Problem(f"is larger than {MAX_BYTES} bytes", (), place))
    try:
        return SourceFile(str(path), data.decode("utf-8-sig"), language)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _Unreadable(Problem("is not UTF-8 text", (), Place(str(path), line))) from None


def load_agent(flags: Flags) -> tuple[RuntimeConfig, list[str]]:
    """What `lictor agent` starts from: its files read, the machine asked, everything checked. Raises ConfigError."""
    files, skipped = read_files(flags.files, flags.format)
    config, warnings = load(flags, files, read_interfaces(), socket.gethostname())
    problem = _data_dir_problem(config)
    if problem:
        raise ConfigError([problem])
    return config, [*skipped, *warnings, *warnings_of(config)]


def validate_paths(paths: Sequence[str], format: str | None = None) -> list[str]:
    """Judge files and folders as an agent would be started from them, and return their warnings.

    `format` (hcl, json or yaml) reads every file in one language. Raises ConfigError with every problem.
    """
    if format is not None and format not in FORMATS:
        raise ConfigError([Problem(f'format "{format}" must be one of: {", ".join(FORMATS)}')])
    config, warnings = load_agent(Flags(Fragment({}), Fragment({}), tuple(paths), format or ""))
    refused = refusal(config)
    if refused is not None:
        warnings.append(f"An agent of this version would not start from this alone: {refused[0]}")
    return warnings


def find_problems(paths: Sequence[str], format: str | None = None) -> list[Problem]:
    """Everything that is wrong with files and folders, empty when an agent would start from them."""
    try:
        validate_paths(paths, format)
    except ConfigError as error:
        return error.problems
    return []


def _data_dir_problem(config: RuntimeConfig) -> Problem | None:
    if not config.data_dir or config.dev_mode:
        return None
    path = Path(config.data_dir)
    if path.exists() and not path.is_dir():
        return Problem(f'data_dir "{path}" is not a directory', ("data_dir",))
    return None
