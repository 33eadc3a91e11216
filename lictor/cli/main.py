"""The entry point of `lictor`: finds the command in the table, loads its module and no other, and runs it.

Exit codes are Consul's: 0 when all went well and for `-h` and `-version`, 127 when the first word is no command, 1 for
a family without a subcommand, for flags that cannot be read, and for a failure; a verb may have codes of its own.
Help that was asked for goes to stdout, help that was not to stderr.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from types import ModuleType

from lictor.cli.api import ApiError
from lictor.cli.command import CommandError, Io, report
from lictor.cli.commands import COMMANDS, children, find, listing
from lictor.model.goflags import FlagError, HelpWanted, nearest

EXIT_FAILURE = 1
EXIT_UNKNOWN_COMMAND = 127
EXIT_INTERRUPTED = 130

HELP_FLAGS = frozenset({"-h", "-help", "--help"})
VERSION_FLAGS = frozenset({"-v", "-version", "--version"})
INSTALL_FLAGS = frozenset({"-autocomplete-install", "--autocomplete-install"})
UNINSTALL_FLAGS = frozenset({"-autocomplete-uninstall", "--autocomplete-uninstall"})

FLAGS_FIRST = """\
Invalid flags before the subcommand. If these flags are for
the subcommand, please put them after the subcommand.
"""


def main(argv: Sequence[str] | None = None, io: Io | None = None) -> int:
    """Run `lictor` with argv (default: the process's arguments) and return the exit code.

    No exception of a verb's foreseen failures passes: each is told on stderr in plain words.
    """
    args = list(sys.argv[1:] if argv is None else argv)
    streams = io or Io.of_process()
    try:
        return dispatch(args, streams)
    except BrokenPipeError:
        # The reader of our output (`| head`) is gone; there is nobody to tell, and what is buffered must not raise
        # again when the interpreter flushes at exit.
        if io is None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILURE
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def dispatch(args: list[str], io: Io) -> int:
    """Answer the flags that concern every command, then run the one that args name."""
    if "COMP_LINE" in io.env and completion().answer(io):
        return 0
    flags_before = [arg for index, arg in enumerate(args) if arg.startswith("-") and all_flags(args[:index])]
    words = args[len(flags_before) :]
    if VERSION_FLAGS.intersection(flags_before):
        return run_command(("version",), [], io)
    if INSTALL_FLAGS.intersection(flags_before):
        return completing(completion().install, io)
    if UNINSTALL_FLAGS.intersection(flags_before):
        return completing(completion().uninstall, io)
    name = find(words)
    if words and not name:
        io.error(top_help())
        io.error(unknown_command(words[0]))
        return EXIT_UNKNOWN_COMMAND
    before_dashes = args[: args.index("--")] if "--" in args else args
    if HELP_FLAGS.intersection(before_dashes):
        io.out(help_text(name))
        return 0
    if not name:
        io.error(top_help())
        return EXIT_UNKNOWN_COMMAND
    if flags_before:
        io.error(FLAGS_FIRST)
        io.error(help_text(name))
        return EXIT_FAILURE
    rest = words[len(name) :]
    if children(name):
        io.error(help_text(name))
        if rest:
            io.error(unknown_subcommand(name, rest[0]))
        return EXIT_FAILURE
    return run_command(name, rest, io)


def completion() -> ModuleType:
    """The module of shell completion, loaded only when a shell or its user asks for it."""
    return import_module("lictor.cli.completion")


def completing(work: Callable[[Io], int], io: Io) -> int:
    """Install or uninstall completion; what stands in the way is told in words."""
    try:
        return work(io)
    except CommandError as error:
        report(io, str(error), error.hint)
        return error.code


def all_flags(args: list[str]) -> bool:
    """Whether every argument is a flag: what stands before the first word belongs to `lictor` itself."""
    return all(arg.startswith("-") for arg in args)


def run_command(name: tuple[str, ...], args: list[str], io: Io) -> int:
    """Run one verb and turn what it raises into words on stderr and an exit code."""
    verb = load(name)
    try:
        code = verb.run(args, io)
    except HelpWanted:
        io.out(help_text(name))
        return 0
    except FlagError as error:
        io.error(str(error))
        io.error(verb.flags().defaults_text())
        return EXIT_FAILURE
    except ApiError as error:
        report(io, f"Error querying Consul agent: {error}", error.hint)
        return EXIT_FAILURE
    except CommandError as error:
        report(io, str(error), error.hint)
        return error.code
    return int(code)


def load(name: tuple[str, ...]) -> ModuleType:
    """The module of a command of the table."""
    return import_module(COMMANDS[name][0])


def help_text(name: tuple[str, ...]) -> str:
    """What `-h` prints for a command: a verb's usage and options, or a family's usage and subcommands."""
    if not name:
        return top_help()
    module = load(name)
    if children(name):
        return f"{module.HELP.strip()}\n\nSubcommands:\n{listing(name)}"
    text: str = module.flags().help_text()
    return text


def top_help() -> str:
    """What `lictor -h` prints."""
    return f"Usage: lictor [--version] [--help] <command> [<args>]\n\nAvailable commands are:\n{listing(())}\n"


def unknown_command(word: str) -> str:
    """One line on a first word that is no command, with the nearest that is one."""
    near = nearest(word, [command[0] for command in children(())])
    return f'lictor: unknown command "{word}"' + (f' (did you mean "{near}"?)' if near else "")


def unknown_subcommand(name: tuple[str, ...], word: str) -> str:
    """One line on a word that is no subcommand of name, with the nearest that is one."""
    near = nearest(word, [command[-1] for command in children(name)])
    return f'\nlictor {" ".join(name)}: unknown subcommand "{word}"' + (f' (did you mean "{near}"?)' if near else "")


if __name__ == "__main__":
    sys.exit(main())
