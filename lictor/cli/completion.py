"""`lictor completion SHELL`: the script that makes a shell complete this command, and the answers it asks for.

The script calls `lictor` with COMP_LINE (the line so far) and COMP_POINT (the cursor's place in it) in the environment,
as bash's `complete -C` does, and gets one candidate a line. `-autocomplete-install` and `-autocomplete-uninstall`, as
Consul has them, put a line into the shells' start-up files and take it out again.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

from lictor.cli.command import CommandError, Io, reason
from lictor.cli.commands import COMMANDS, children, find
from lictor.model.goflags import FlagSet

SYNOPSIS = "Prints a shell's completion script"

HELP = """\
Usage: lictor completion bash|zsh|fish

  Prints the script that makes a shell complete commands and flags. For one
  session of bash:

    $ source <(lictor completion bash)

  For every session, "lictor -autocomplete-install" puts that line into the
  start-up files of the shells you have, and "-autocomplete-uninstall" takes
  it out again."""

SCRIPTS = {
    "bash": "complete -o default -C {program} lictor\n",
    "zsh": "autoload -U +X bashcompinit && bashcompinit\ncomplete -o nospace -o default -C {program} lictor\n",
    "fish": (
        "function __complete_lictor\n"
        "    set -lx COMP_LINE (commandline -cp)\n"
        '    test -z (commandline -ct); and set COMP_LINE "$COMP_LINE "\n'
        "    {program}\n"
        "end\n"
        # Where there are no candidates, fish offers files.
        'complete -c lictor -f -n "count (__complete_lictor) >/dev/null" -a "(__complete_lictor)"\n'
    ),
}

MARK = "# lictor completion"
START_FILES = {"bash": (".bashrc", ".bash_profile"), "zsh": (".zshrc",)}
FISH_FILE = ".config/fish/completions/lictor.fish"


def flags() -> FlagSet:
    """No flags."""
    return FlagSet("completion", HELP)


def run(args: list[str], io: Io) -> int:
    """Print the script of the shell that is named."""
    rest = flags().parse(args)
    if len(rest) != 1 or rest[0] not in SCRIPTS:
        raise CommandError("Name one shell: bash, zsh or fish", f"\n{flags().help_text()}")
    io.stdout.write(script(rest[0]).encode())
    return 0


def script(shell: str) -> str:
    """The completion script of a shell."""
    program = shlex.join(_program())
    # bash and zsh take the command as one word and read it again; fish reads it where it stands.
    return SCRIPTS[shell].format(program=program if shell == "fish" else shlex.quote(program))


def _program() -> list[str]:
    """What runs this program, with absolute paths: the shells call it by that, whatever PATH says then."""
    installed = shutil.which("lictor")
    return [installed] if installed else [sys.executable, "-m", "lictor"]


# -- candidates --------------------------------------------------------------------------------------------------------


def candidates(line: str, point: int) -> list[str]:
    """What may stand at the cursor: the word there, completed in every way that fits.

    `point` counts bytes, as shells do. The value of a flag has no candidates, so that the shell offers files.
    """
    before = line.encode()[:point].decode("utf-8", "ignore")
    words = before.split()
    current = "" if not words or before[-1].isspace() else words.pop()
    words = words[1:]
    name = find(words)
    rest = words[len(name) :]
    below = [command[-1] for command in children(name)]
    if below:
        # Only the next word of the name, or help, can stand here.
        return [] if rest else sorted(word for word in [*below, "-help"] if word.startswith(current))
    if not current.startswith("-") or "--" in rest:
        return []
    options = _flags_of(name)
    last = rest[-1] if rest else ""
    if last.startswith("-") and "=" not in last and _takes_value(options, last.lstrip("-")):
        return []
    dashes = "--" if current.startswith("--") else "-"
    offered = [dashes + flag for flag in [*options.names(), "help"]]
    return sorted(word for word in offered if word.startswith(current))


def _flags_of(name: tuple[str, ...]) -> FlagSet:
    options: FlagSet = import_module(COMMANDS[name][0]).flags()
    return options


def _takes_value(options: FlagSet, name: str) -> bool:
    return name in options.names() and not options.flag(name).is_bool


def answer(io: Io) -> bool:
    """Print the candidates when a shell asks for them (COMP_LINE is set); whether one did."""
    line = io.env.get("COMP_LINE")
    if not line:
        return False
    point = io.env.get("COMP_POINT", "")
    for word in candidates(line, int(point) if point.isdigit() else len(line.encode())):
        io.out(word)
    return True


# -- installing --------------------------------------------------------------------------------------------------------


def install(io: Io) -> int:
    """Put the completion into the start-up files of the shells that are used here."""
    home = _home(io.env)
    done = []
    for shell, names in START_FILES.items():
        found = next((home / name for name in names if (home / name).is_file()), None)
        if found is None:
            continue
        if MARK in _read(found):
            raise CommandError(f"already installed in {found}", "Take it out with -autocomplete-uninstall first.")
        text = _read(found)
        gap = "" if not text or text.endswith("\n") else "\n"
        line = script(shell).replace("\n", f" {MARK}\n")
        _write(found, text + gap + line)
        done.append(found)
    if (home / ".config/fish").is_dir():
        target = home / FISH_FILE
        target.parent.mkdir(parents=True, exist_ok=True)
        _write(target, script("fish"))
        done.append(target)
    if not done:
        raise CommandError("Did not find any shells to install", "Looked for ~/.bashrc, ~/.zshrc and ~/.config/fish.")
    for path in done:
        io.out(f"Installed completion in {path}; it works in new shells.")
    return 0


def uninstall(io: Io) -> int:
    """Take the completion out again."""
    home = _home(io.env)
    done = []
    for names in START_FILES.values():
        for path in (home / name for name in names):
            if path.is_file() and MARK in (text := _read(path)):
                _write(path, "".join(line for line in text.splitlines(True) if not line.rstrip().endswith(MARK)))
                done.append(path)
    fish = home / FISH_FILE
    if fish.is_file():
        fish.unlink()
        done.append(fish)
    if not done:
        raise CommandError("Completion is not installed")
    for path in done:
        io.out(f"Removed completion from {path}")
    return 0


def _home(env: Mapping[str, str]) -> Path:
    home = env.get("HOME", "")
    if not home:
        raise CommandError("HOME is not set, so the shells' start-up files cannot be found")
    return Path(home)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise CommandError(f"cannot read {path}: {reason(error)}") from None


def _write(path: Path, text: str) -> None:
    """Replace a start-up file at once, keeping its mode: a half-written .bashrc would lock its owner out."""
    target = path.resolve()
    beside = target.with_name(target.name + ".lictor-new")
    try:
        beside.write_text(text, encoding="utf-8", errors="surrogateescape")
        if target.exists():
            shutil.copymode(target, beside)
        os.replace(beside, target)
    except OSError as error:
        raise CommandError(f"cannot write {path}: {reason(error)}") from None
