"""The programs that an agent runs for its operator: a pipe for what they print, and their end.

The pipe is our own rather than asyncio's: its process objects keep their pipes open for as long as any grandchild does,
also after the program was killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator

KILL_AFTER_SECONDS = 5.0
"""How long a program that was asked to end has until it is killed."""


@contextlib.asynccontextmanager
async def output_pipe() -> AsyncIterator[tuple[int, asyncio.StreamReader]]:
    """A pipe whose far end, a descriptor, a program writes to. Close that end once the program has been started.

    What was not read by the end of the context is dropped, and whoever goes on writing gets SIGPIPE.
    """
    read_end, write_end = os.pipe()
    reader = asyncio.StreamReader()
    try:
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read_end, "rb", buffering=0)
        )
    except BaseException:
        os.close(write_end)
        raise
    try:
        yield write_end, reader
    finally:
        transport.close()
        await asyncio.sleep(0)  # the loop closes the pipe in its next turn; there may be none after the caller's


async def end(process: asyncio.subprocess.Process) -> None:
    """End a program that leads its own session, and what it started: politely first, then not."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), KILL_AFTER_SECONDS)
            return
