"""The program that `watch` and `lock` run for the user: started, fed, told of signals, ended with its children.

The user's words become a program in one of two ways, as the `-shell` flag says: handed to the user's own shell as one
script, or executed as they are. Nothing is ever pieced together here for a shell to read.
"""

from __future__ import annotations

import contextlib
import io as streams
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import BinaryIO

from lictor.cli.command import Io, reason

GRACE_SECONDS = 5.0
WAKING_SECONDS = 1.0
SIGNAL_NAMES = {
    1: "hangup",
    2: "interrupt",
    3: "quit",
    6: "aborted",
    9: "killed",
    11: "segmentation fault",
    15: "terminated",
}


class ChildError(Exception):
    """The program could not be started; the text is the one of Go's os/exec."""


class Interrupted(Exception):
    """SIGINT or SIGTERM came; the number is the first argument."""


def arguments(words: Sequence[str], shell: bool, environment: Mapping[str, str]) -> list[str]:
    """What to execute for the user's words: the words, or their shell with the words as its script."""
    return [environment.get("SHELL") or "/bin/sh", "-c", " ".join(words)] if shell else list(words)


def start(
    argv: Sequence[str], io: Io, extra: Mapping[str, str], stdin: int | BinaryIO | None = subprocess.DEVNULL
) -> subprocess.Popen[bytes]:
    """Start a program with the command's own output streams, in a session of its own. Raises ChildError."""
    io.stdout.flush()
    io.stderr.flush()
    try:
        return subprocess.Popen(
            list(argv),
            stdin=stdin,
            stdout=_descriptor(io.stdout),
            stderr=_descriptor(io.stderr),
            env={**io.env, **extra},
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        name = argv[0] if argv else ""
        if isinstance(error, FileNotFoundError) and os.sep not in name:
            raise ChildError(f'exec: "{name}": executable file not found in $PATH') from None
        why = reason(error) if isinstance(error, OSError) else str(error)
        raise ChildError(f"fork/exec {name}: {why}") from None


def _descriptor(stream: BinaryIO) -> int | None:
    """The stream's file descriptor; None (the process's own) for a stream that has none."""
    try:
        return stream.fileno()
    except (OSError, AttributeError, streams.UnsupportedOperation):
        return None


def terminate(child: subprocess.Popen[bytes], grace: float = GRACE_SECONDS) -> None:
    """End the program and what it started: SIGTERM, and SIGKILL for what is still there after `grace` seconds."""
    for number, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, None)):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(seconds)
            return


def outcome(code: int) -> str | None:
    """None for success, else how the program ended in the words of Go's os/exec: `exit status 3`."""
    if code == 0:
        return None
    if code > 0:
        return f"exit status {code}"
    names = {
        signal.SIGTERM: "terminated",
        signal.SIGKILL: "killed",
        signal.SIGINT: "interrupt",
        signal.SIGHUP: "hangup",
    }
    return f"signal: {names.get(signal.Signals(-code), signal.Signals(-code).name)}"


@contextlib.contextmanager
def interruptible(
    handler: Callable[[int], None] | None = None, signals: Sequence[int] = (signal.SIGINT, signal.SIGTERM)
) -> Iterator[None]:
    """While inside, signals call `handler`, or raise Interrupted where there is none. For the main thread."""

    def received(number: int, _frame: object) -> None:
        if handler is None:
            raise Interrupted(number)
        handler(number)

    before = {number: signal.signal(number, received) for number in signals}
    try:
        with attentive():
            yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


@contextlib.contextmanager
def attentive() -> Iterator[None]:
    """While inside, a signal is noticed within a second, whatever is waited for.

    Python runs a signal's handler between two of its steps. A signal that comes when a step is about to wait, for an
    agent's answer or for a program's end, does not end the wait, which may last for minutes. So the process is woken
    again and again. For the main thread; where the process's timer is somebody else's, nothing is done.
    """
    if signal.getitimer(signal.ITIMER_REAL) != (0.0, 0.0):
        yield
        return
    before = signal.signal(signal.SIGALRM, lambda _number, _frame: None)
    signal.setitimer(signal.ITIMER_REAL, WAKING_SECONDS, WAKING_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
