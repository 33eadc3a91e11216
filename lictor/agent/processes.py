"""Programs that outlive the agent that started them, and are found again by the next one.

A process is known by its id and the moment at which it began, as the kernel tells both: an id that was given to another
process since is not taken for the old one. Linux; elsewhere nothing is found again.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec


class Launched(msgspec.Struct, frozen=True):
    """A process: its id, and when it began, in the kernel's ticks since the machine's start; 0 where nobody tells."""

    pid: int
    began: int


def began(pid: int) -> int:
    """When a process began; 0 where there is none, or only what is left of one that has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    # The second field is the program's name in brackets, which may hold anything; the state follows it, and the time
    # is the 22nd (proc(5)).
    fields = stat[stat.rfind(")") + 2 :].split()
    return 0 if fields[0] in "ZX" else int(fields[19])


def memory(pid: int) -> int:
    """Bytes of a process that are in memory; 0 where there is none."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def start(
    arguments: Sequence[str], environment: Mapping[str, str], output: Path, folder: Path, user: str
) -> tuple[Launched, subprocess.Popen[bytes]]:
    """Start a program in a session of its own, in a folder, with no more of this process than its environment and the
    file that its output is added to. `user` is empty for this process's own. Raises `OSError`, `LookupError` for an
    unknown user.
    """
    fd = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        child = subprocess.Popen(
            list(arguments),
            stdin=subprocess.DEVNULL,
            stdout=fd,
            stderr=fd,
            env=dict(environment),
            cwd=folder,
            start_new_session=True,
            user=user or None,
            group=_group_of(user),
            extra_groups=[] if user else None,
            umask=0o077,
        )
    finally:
        os.close(fd)
    return Launched(child.pid, began(child.pid)), child


def _group_of(user: str) -> int | None:
    import pwd

    return pwd.getpwnam(user).pw_gid if user else None


class Watched:
    """A process whose end is told: `ended` is called with the words for it, on the loop. `child` is given where this
    process started it. Raises `ProcessLookupError` where it is gone already.
    """

    def __init__(
        self, launched: Launched, child: "subprocess.Popen[bytes] | None", ended: Callable[[str], None]
    ) -> None:
        self.launched = launched
        self._child = child
        self._ended = ended
        self._fd = os.pidfd_open(launched.pid)
        if child is None and began(launched.pid) != launched.began:
            os.close(self._fd)
            raise ProcessLookupError(f"process {launched.pid} is another one now")
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._fd, self._gone)

    def signal(self, number: int) -> None:
        """Send it a signal; harmless where it is gone."""
        if self._fd >= 0:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(self._fd, number)

    def close(self) -> None:
        """Watch it no more; it goes on."""
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1
        if self._child is not None and self._child.returncode is None:
            self._child.returncode = 0  # it is left to itself: nothing is to be said of it when this object goes

    def _gone(self) -> None:
        child, self._child = self._child, None
        self.close()
        self._ended(_words(child.wait()) if child is not None else "it has ended")


def _words(code: int) -> str:
    if code >= 0:
        return f"exit status {code}"
    try:
        return f"signal: {signal.Signals(-code).name}"
    except ValueError:
        return f"signal: {-code}"
