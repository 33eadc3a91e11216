"""The agent's side of `lictor exec` and `consul exec`: run what a KV entry says, and write back what it printed.

Off unless `disable_remote_exec = false`: whoever may write KV entries and fire events may then run programs here.

The protocol, Consul's, over the KV store and one event:

1. The caller makes a session, writes `PREFIX/<session>/job` with `{"Command"|"Args"|"Script", "Wait"}`, and fires the
   event `_rexec` with the payload `{"Prefix":"_rexec","Session":"<session>"}`.
2. Each node that the event concerns writes, all acquired with that session: `PREFIX/<session>/<node>/ack` (empty),
   `.../out/00000`, `.../out/00001`, ... (pieces of output; an empty one every half second says that the program still
   runs), and at the end `.../exit` with the exit code in decimal.
3. The caller's session ends, and everything acquired with it is deleted. A node that cannot acquire any more ends the
   program: nobody waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from collections.abc import Sequence
from typing import Protocol

import msgspec

from lictor.agent import programs
from lictor.agent.logs import logger

EVENT = "_rexec"
PIECE_BYTES = 4 * 1024
HEARTBEAT_SECONDS = 0.5
MAX_RUNNING = 16
MAX_PAYLOAD = 1024
SPEC_ATTEMPTS = 5
SPEC_RETRY_SECONDS = 0.2
EXIT_NOT_STARTED = 255

log = logger("agent.remote_exec")


class Ledger(Protocol):
    """The KV store as this file needs it. Both may raise LedgerError."""

    async def get(self, key: str) -> bytes | None:
        """The value of a key, None when it does not exist."""

    async def acquire(self, key: str, value: bytes, session: str) -> bool:
        """Write a key, locked by the session; False when the session cannot have it."""


class LedgerError(Exception):
    """The KV store cannot be reached, or refuses."""


class Call(msgspec.Struct, frozen=True, rename="pascal"):
    """The event's payload: where the job is."""

    prefix: str = ""
    session: str = ""


class Job(msgspec.Struct, frozen=True, rename="pascal"):
    """What to run: `command` for a shell, `args` as they are, or a `script` of any language. `wait` in nanoseconds."""

    command: str = ""
    args: tuple[str, ...] = ()
    script: bytes = b""
    wait: int = 0


class RemoteExec:
    """Runs jobs for one node. Lifecycle: `handle` each event, `close` once."""

    def __init__(self, node: str, ledger: Ledger) -> None:
        self._node = node
        self._ledger = ledger
        self._running: set[asyncio.Task[None]] = set()

    def handle(self, payload: bytes) -> None:
        """Begin the job of an event that concerns this node. Never raises; what is wrong is logged."""
        try:
            if len(payload) > MAX_PAYLOAD:
                raise ValueError(f"{len(payload)} bytes")
            call = msgspec.json.decode(payload, type=Call)
            if not call.session or "/" in call.session:
                raise ValueError("no session")
        except (ValueError, RecursionError) as error:
            log.warn("failed to decode remote exec event", error=error)
            return
        if len(self._running) >= MAX_RUNNING:
            log.warn("too many remote executions at the same time", session=call.session, limit=MAX_RUNNING)
            return
        task = asyncio.create_task(self._run(call), name=f"remote exec {call.session}")
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def close(self) -> None:
        """End every job."""
        tasks = list(self._running)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, call: Call) -> None:
        log.debug("received remote exec event", session=call.session)
        try:
            job = await self._job(call)
            report = _Report(self._ledger, f"{call.prefix}/{call.session}/{self._node}", call.session)
            if job is None or not await report.write("ack", b""):
                return
            await _execute(job, report, call.session)
        except LedgerError as error:
            log.error("remote exec failed", session=call.session, error=error)

    async def _job(self, call: Call) -> Job | None:
        key = f"{call.prefix}/{call.session}/job"
        for attempt in range(SPEC_ATTEMPTS):
            # The event may be faster than the replication of the job to the server that we ask.
            if attempt:
                await asyncio.sleep(SPEC_RETRY_SECONDS)
            value = await self._ledger.get(key)
            if value is not None:
                try:
                    return msgspec.json.decode(value, type=Job)
                except (ValueError, RecursionError) as error:
                    log.error("failed to decode remote exec spec", session=call.session, error=error)
                    return None
        log.error("remote exec failed: the job is missing", session=call.session)
        return None


class _Report:
    """What a node writes back."""

    def __init__(self, ledger: Ledger, prefix: str, session: str) -> None:
        self._ledger = ledger
        self._prefix = prefix
        self._session = session
        self._pieces = 0

    async def write(self, name: str, value: bytes) -> bool:
        """Write one entry; False when the caller's session is gone."""
        written = await self._ledger.acquire(f"{self._prefix}/{name}", value, self._session)
        if not written:
            log.warn("failed to write a result of remote exec: the session is gone", session=self._session, entry=name)
        return written

    async def output(self, piece: bytes) -> bool:
        """Write a piece of output; an empty one is a heartbeat."""
        name = f"out/{self._pieces:05x}"
        self._pieces += 1
        return await self.write(name, piece)


async def _execute(job: Job, report: _Report, session: str) -> None:
    async with contextlib.AsyncExitStack() as stack:
        argv = _argv(job, stack)
        log.info("remote exec", session=session, command=" ".join(argv)[:200])
        write_end, printed = await stack.enter_async_context(programs.output_pipe())
        try:
            process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=write_end,
                stderr=write_end,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            log.error("failed to start a remote exec", session=session, error=error)
            if await report.output(f"{error}\n".encode()):
                await report.write("exit", str(EXIT_NOT_STARTED).encode())
            return
        finally:
            os.close(write_end)
        try:
            if not await _stream(printed, report):
                await programs.end(process)
                return
            code = await process.wait()
        except BaseException:
            await programs.end(process)
            raise
        await report.write("exit", str(code if code >= 0 else 128 - code).encode())


def _argv(job: Job, stack: contextlib.AsyncExitStack) -> Sequence[str]:
    """What to execute; a script becomes a file that only we can read, and is gone when the stack is closed."""
    if job.script:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="lictor-exec-"))
        path = os.path.join(folder, "script")
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o700)
        with os.fdopen(descriptor, "wb") as file:
            file.write(job.script)
        # A script without a #! line is the shell's, as it is when a shell runs a file.
        return [path] if job.script.startswith(b"#!") else [_shell(), path]
    if job.args:
        return job.args
    return [_shell(), "-c", job.command]


def _shell() -> str:
    return os.environ.get("SHELL") or "/bin/sh"


async def _stream(printed: asyncio.StreamReader, report: _Report) -> bool:
    """Write the output as it comes, with a heartbeat every half second; False when nobody wants it any more."""
    ended = False
    while not ended:
        piece = b""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HEARTBEAT_SECONDS):
                while len(piece) < PIECE_BYTES:
                    read = await printed.read(PIECE_BYTES - len(piece))
                    if not read:
                        ended = True
                        break
                    piece += read
        if (piece or not ended) and not await report.output(piece):
            return False
    return True
