"""Script check: runs a program; exit status 0 is passing, 1 warning, any other critical, as in Nagios plugins.

The program is given as its arguments and run without a shell, in a process group of its own. A run that outlasts its
timeout has the whole group killed. Whether scripts may be run at all is for the caller to decide before.
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import ClassVar

import msgspec

from lictor.agent.checks.clients import Clients
from lictor.agent.checks.connection import explain_errno
from lictor.agent.checks.output import DEFAULT_OUTPUT_MAX_SIZE, TailBuffer
from lictor.agent.checks.result import Lane, Result, critical, passing, warning
from lictor.model.duration import format_duration

DEFAULT_TIMEOUT = 30.0
"""Seconds a program may run when its definition does not say."""

READ_SIZE = 65536


class ScriptCheck(msgspec.Struct, frozen=True):
    """`args` is the program and its arguments; `timeout` seconds; `output_max_size` bytes, counted from the end."""

    lane: ClassVar[Lane] = Lane.PROCESS

    args: tuple[str, ...]
    timeout: float = DEFAULT_TIMEOUT
    output_max_size: int = DEFAULT_OUTPUT_MAX_SIZE

    async def probe(self, clients: Clients) -> Result:
        """Run once."""
        buffer = TailBuffer(self.output_max_size)
        try:
            status = await run(self.args, self.timeout, buffer)
        except TimeoutError:
            said = buffer.captured()
            return critical(timed_out(self.timeout) + (f"\n\n{said}" if said else ""))
        except OSError as error:
            return critical(_explain(error, self.args[0]))
        if status == 0:
            return passing(buffer.captured())
        return warning(buffer.captured()) if status == 1 else critical(buffer.captured())


def timed_out(timeout: float) -> str:
    """The output of a program that was stopped."""
    return f"Timed out ({format_duration(timeout)}) running check"


async def run(args: tuple[str, ...], timeout: float, buffer: TailBuffer) -> int:
    """Run a program to its end and return its exit status (negative: the signal); what it prints goes to `buffer`.

    The end is when it has exited and nobody holds its output open any more. After `timeout` seconds, or when
    cancelled, its process group is killed. Raises OSError when it cannot be started, TimeoutError.
    """
    if any("\0" in argument for argument in args):
        # No program can be given it; some event loops would cut the argument there and run what is left.
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    with _output_pipe(buffer) as (write_end, ended):
        try:
            process = await asyncio.create_subprocess_exec(
                *args,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=write_end,
                stderr=write_end,
                start_new_session=True,
            )
        finally:
            os.close(write_end)
        try:
            async with asyncio.timeout(timeout):
                await ended
                return await process.wait()
        finally:
            if process.returncode is None or not ended.done():
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()


@contextmanager
def _output_pipe(buffer: TailBuffer) -> Iterator[tuple[int, asyncio.Future[None]]]:
    """A pipe whose far end a program writes to; the future resolves when every holder has closed it.

    Our own rather than asyncio's: its process objects wait for their pipes, which a grandchild may hold for ever.
    """
    loop = asyncio.get_running_loop()
    read_end, write_end = os.pipe()
    os.set_blocking(read_end, False)
    ended: asyncio.Future[None] = loop.create_future()

    def readable() -> None:
        try:
            data = os.read(read_end, READ_SIZE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            buffer.write(data)
            return
        loop.remove_reader(read_end)
        if not ended.done():
            ended.set_result(None)

    loop.add_reader(read_end, readable)
    try:
        yield write_end, ended
    finally:
        loop.remove_reader(read_end)
        os.close(read_end)


def _explain(error: OSError, program: str) -> str:
    if error.errno == errno.ENOENT and "/" not in program:
        return f'exec: "{program}": executable file not found in $PATH'
    return f"fork/exec {program}: {explain_errno(error)}"
