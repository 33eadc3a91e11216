"""The `lictor` command as a whole: its listings, its help, its exit codes, and the shape of its verbs."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from types import ModuleType

import pytest

from lictor import __version__
from lictor.cli.commands import COMMANDS, children
from tests.cli.command_line import CommandLine, here

VERBS = [name for name in COMMANDS if not children(name)]
FAMILIES = [name for name in COMMANDS if children(name)]


def _module(name: tuple[str, ...]) -> ModuleType:
    return importlib.import_module(COMMANDS[name][0])


@pytest.mark.parametrize("name", VERBS, ids=" ".join)
def test_every_verb_has_the_same_shape_and_its_help_names_it(name: tuple[str, ...]) -> None:
    module = _module(name)
    assert COMMANDS[name][1] == module.SYNOPSIS
    assert callable(module.run)
    asked = here(*name, "-h")
    assert (asked.code, asked.err) == (0, "")
    assert asked.out.startswith(f"Usage: lictor {' '.join(name)}")
    for flag in module.flags().names():
        assert f"\n  -{flag}" in asked.out
    assert max(map(len, asked.out.splitlines())) <= 100
    assert here(*name, "--help") == asked == here(*name, "x", "-help")


@pytest.mark.parametrize("name", FAMILIES, ids=" ".join)
def test_every_family_lists_its_subcommands(name: tuple[str, ...]) -> None:
    assert COMMANDS[name][1] == _module(name).SYNOPSIS
    asked = here(*name, "-h")
    assert asked.code == 0
    for child in children(name):
        assert f"\n    {child[-1]} " in asked.out
        assert COMMANDS[child][1] in asked.out
    unasked = here(*name)
    assert (unasked.code, unasked.out, unasked.err) == (1, "", asked.out)


def test_every_command_has_its_family() -> None:
    for name in COMMANDS:
        assert len(name) == 1 or name[:-1] in COMMANDS


def test_without_a_command_the_listing_goes_to_stderr() -> None:
    outcome = here()
    assert (outcome.code, outcome.out) == (127, "")
    assert outcome.err.startswith("Usage: lictor [--version] [--help] <command> [<args>]\n\nAvailable commands are:\n")
    assert "\n    kv             Interact with the key-value store\n" in outcome.err
    assert here("-h") == outcome._replace(code=0, out=outcome.err, err="")


def test_an_unknown_command_names_the_nearest() -> None:
    outcome = here("memebrs")
    assert outcome.code == 127
    assert outcome.err.endswith('lictor: unknown command "memebrs" (did you mean "members"?)\n')
    outcome = here("kv", "gte")
    assert outcome.code == 1
    assert outcome.err.endswith('lictor kv: unknown subcommand "gte" (did you mean "get"?)\n')


def test_an_unknown_flag_names_the_nearest_and_shows_the_flags() -> None:
    outcome = here("kv", "get", "-recruse", "a")
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err.startswith(
        "flag provided but not defined: -recruse (did you mean -recurse?)\nUsage:\n  -base64\n"
    )


def test_flags_before_the_command_are_refused() -> None:
    outcome = here("-token=x", "kv", "get", "a")
    assert outcome.code == 1
    assert outcome.err.startswith("Invalid flags before the subcommand.")


@pytest.mark.parametrize("args", [["version"], ["-v"], ["-version"], ["--version"], ["-version", "kv"]])
def test_the_version(args: list[str]) -> None:
    outcome = here(*args)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith(f"Lictor v{__version__}\nProtocol 2 spoken by default, understands 2 to 3")


def test_the_version_in_json() -> None:
    shown = json.loads(here("version", "-format=json").out)
    assert shown["Version"] == __version__
    assert shown["RPC"] == {"Default": 2, "Min": 2, "Max": 3}


def test_a_reader_that_goes_away_is_no_error_of_ours() -> None:
    command = CommandLine("127.0.0.1:1")
    process = command.start("-h")
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    process.wait(60)
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.stdin is not None
    process.stdin.close()


def test_a_verb_imports_no_more_than_it_needs() -> None:
    heavy = ("aiohttp", "asyncio", "cryptography", "lictor.agent", "lictor.store", "yaml")
    script = (
        "import sys; from lictor.cli.main import main; main(['kv', 'get', '-http-addr=127.0.0.1:1', 'a']);"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-I", "-c", _with_path(script)], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def _with_path(script: str) -> str:
    return f"import sys; sys.path[:0] = {[path for path in sys.path if path]!r}; {script}"
