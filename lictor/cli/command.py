"""What every verb is given and how it fails: the Io it reads and writes, and CommandError.

A verb never touches sys.stdin or os.environ, so a test can run it in the same process with its own streams.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import BinaryIO, Protocol

from lictor.model.goflags import FlagSet


class CommandError(Exception):
    """A failure the user is told of in plain words on stderr; `code` becomes the exit code.

    `hint` is one more line that says what to do about it.
    """

    def __init__(self, message: str, hint: str = "", code: int = 1) -> None:
        super().__init__(message)
        self.hint = hint
        self.code = code


class Verb(Protocol):
    """The shape of a verb's module; see the package's docstring."""

    SYNOPSIS: str
    HELP: str

    def flags(self) -> FlagSet:
        """The verb's flags, freshly made."""

    def run(self, args: list[str], io: Io) -> int:
        """Do the verb's work and return the exit code."""


class Io:
    """The streams and the environment of one run of a command.

    The streams are binary because values are: `kv get` writes back the very bytes that `kv put` read.
    """

    def __init__(self, stdin: BinaryIO, stdout: BinaryIO, stderr: BinaryIO, env: Mapping[str, str]) -> None:
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr
        self.env = env

    @classmethod
    def of_process(cls) -> Io:
        """The streams and the environment of this process."""
        return cls(sys.stdin.buffer, sys.stdout.buffer, sys.stderr.buffer, os.environ)

    def out(self, text: str | bytes) -> None:
        """Write one line (or one block of lines) to stdout, and the line's end."""
        self.stdout.write(_encoded(text) + b"\n")
        self.stdout.flush()

    def error(self, text: str) -> None:
        """Write one line (or one block of lines) to stderr, and the line's end."""
        self.stderr.write(_encoded(text) + b"\n")
        self.stderr.flush()


def _encoded(text: str | bytes) -> bytes:
    # surrogateescape: file names and arguments that are not UTF-8 come out as they came in.
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")


def report(io: Io, message: str, hint: str) -> None:
    """Tell a failure on stderr, and what to do about it where that is known."""
    io.error(message)
    if hint:
        io.error(hint)


def read_argument(value: str, io: Io) -> bytes:
    """The data an argument stands for: `@file` reads a file, `-` reads stdin, anything else is the data itself.

    Raises CommandError when the file cannot be read.
    """
    if value == "-":
        return io.stdin.read()
    if value.startswith("@"):
        return read_file(value[1:])
    return value.encode("utf-8", "surrogateescape")


def read_file(path: str) -> bytes:
    """A file's content; raises CommandError naming the file when it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise CommandError(f"Failed to read file: open {path}: {reason(error)}") from None


def reason(error: OSError) -> str:
    """What the operating system says, in the lower case that error texts use ("no such file or directory")."""
    text = error.strerror or str(error)
    return text[:1].lower() + text[1:]


def at_most(args: list[str], limit: int, prefix: str = "") -> None:
    """Raise CommandError when there are more arguments than limit."""
    if len(args) > limit:
        raise CommandError(f"{prefix}Too many arguments (expected {limit}, got {len(args)})")
