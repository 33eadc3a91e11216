"""The shell that runs the agent's watches: blocking queries against its own HTTP address, and the handlers.

One task a plan. A task asks, hands the answer to the plan's pure `Progress`, and runs the handler before it asks
again, so that one watch's handlers never overlap. `reload` leaves plans that stayed the same alone: they neither miss
a change nor see one twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import ssl
from collections import Counter
from collections.abc import Iterable

import aiohttp

from lictor.agent import programs
from lictor.agent.logs import logger
from lictor.agent.own_http import FAILURES, OwnHttp
from lictor.agent.watch import Change, HttpHandler, Progress, ScriptHandler, WatchError, WatchPlan
from lictor.model.duration import format_duration

MAX_OUTPUT = 4 * 1024
"""Bytes of a handler's output that are kept, its last ones, for the debug log."""

WAIT_SECONDS = 300
ANSWER_SECONDS = WAIT_SECONDS * 17 / 16 + 30
"""The longest a blocking query may take: the wait, the servers' jitter of a sixteenth, and some grace."""


log = logger("agent.watch")


class WatchRunner:
    """Runs watch plans. Lifecycle: `start` once, `reload` any number of times, `close` once, all from one loop.

    `address` is the agent's HTTP address: `http://127.0.0.1:8500`, `https://...` or `unix:///path`.
    """

    def __init__(self, address: str, token: str = "", tls: ssl.SSLContext | None = None) -> None:
        self._http = OwnHttp(address, token, tls)
        self._tasks: list[tuple[WatchPlan, asyncio.Task[None]]] = []

    async def start(self, plans: Iterable[WatchPlan]) -> None:
        """Begin to run plans, each in a task of its own."""
        await self.reload(plans)

    async def reload(self, plans: Iterable[WatchPlan]) -> None:
        """Run exactly these plans from now on: end those that are gone, begin those that are new."""
        wanted = Counter(plans)
        kept: list[tuple[WatchPlan, asyncio.Task[None]]] = []
        ended: list[asyncio.Task[None]] = []
        for plan, task in self._tasks:
            if wanted[plan] > 0:
                wanted[plan] -= 1
                kept.append((plan, task))
            else:
                ended.append(task)
        await _end(ended)
        self._tasks = kept
        for plan in wanted.elements():
            self._tasks.append((plan, asyncio.create_task(self._run(plan), name=f"watch {plan.type}")))

    async def close(self) -> None:
        """End every watch and the handler that it may be running."""
        await _end([task for _, task in self._tasks])
        self._tasks = []
        await self._http.close()

    async def _run(self, plan: WatchPlan) -> None:
        progress = Progress(plan)
        while True:
            try:
                change = await self._ask(progress)
            except (WatchError, *FAILURES) as error:
                delay = progress.failed()
                reason = str(error) or "timed out"
                log.error("Watch errored", type=plan.type, error=reason, retry=format_duration(delay))
                await asyncio.sleep(delay)
                continue
            if change is not None:
                await self._handle(plan, change)
            await asyncio.sleep(progress.pause())

    async def _ask(self, progress: Progress) -> Change | None:
        plan = progress.plan
        query = [*progress.query(), ("wait", f"{WAIT_SECONDS}s")]
        answer = await self._http.request("GET", plan.path, query, token=plan.token, seconds=ANSWER_SECONDS)
        return progress.absorb(*answer)

    async def _handle(self, plan: WatchPlan, change: Change) -> None:
        if isinstance(plan.handler, ScriptHandler):
            await run_script(plan.handler, change)
        elif isinstance(plan.handler, HttpHandler):
            await self._send(plan.handler, change)

    async def _send(self, handler: HttpHandler, change: Change) -> None:
        # A session of its own: the agent's may be bound to a unix socket, and must not share its cookies.
        headers = [("Content-Type", "application/json"), ("X-Consul-Index", str(change.index)), *handler.header]
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=handler.timeout)) as client,
                client.request(
                    handler.method,
                    handler.path,
                    data=change.payload(),
                    headers=headers,
                    ssl=not handler.tls_skip_verify,
                ) as answer,
            ):
                output = (await answer.content.read(MAX_OUTPUT)).decode("utf-8", "replace")
        except (*FAILURES, ValueError) as error:
            log.error("Failed to invoke http watch handler", watch=handler.path, error=str(error) or "timed out")
            return
        if answer.status >= 400:
            log.error("Failed to invoke http watch handler", watch=handler.path, status=answer.status, output=output)
        else:
            log.debug("http watch handler output", watch=handler.path, output=output)


async def run_script(handler: ScriptHandler, change: Change) -> None:
    """Run a handler's program to its end; a failure is logged, not raised. Cancelled, it ends the program first."""
    index = str(change.index)
    shown = " ".join(handler.args)
    async with programs.output_pipe() as (write_end, printed):
        try:
            process = await asyncio.create_subprocess_exec(
                *handler.args,
                stdin=asyncio.subprocess.PIPE,
                stdout=write_end,
                stderr=write_end,
                env={**os.environ, "CONSUL_INDEX": index, "LICTOR_INDEX": index},
                start_new_session=True,  # so that what the handler started ends with it
            )
        except (OSError, ValueError) as error:
            log.error("Failed to run watch handler", watch_handler=shown, error=str(error))
            return
        finally:
            os.close(write_end)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_feed(process, change.payload()))
                output = await _tail(printed)
            code = await process.wait()
        except asyncio.CancelledError:
            await programs.end(process)
            raise
    if code != 0:
        reason = f"exit status {code}" if code > 0 else f"signal: {signal.Signals(-code).name}"
        log.error("Failed to run watch handler", watch_handler=shown, error=reason)
    log.debug("watch handler output", watch_handler=shown, output=output)


async def _feed(process: asyncio.subprocess.Process, payload: bytes) -> None:
    """Write the payload; a handler that does not read it is no error."""
    if process.stdin is None:
        return
    try:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            process.stdin.write(payload)
            await process.stdin.drain()
    finally:
        process.stdin.close()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        await process.stdin.wait_closed()


async def _tail(printed: asyncio.StreamReader) -> str:
    """The last MAX_OUTPUT bytes of what the process prints."""
    kept = b""
    total = 0
    while chunk := await printed.read(16 * 1024):
        total += len(chunk)
        kept = (kept + chunk)[-MAX_OUTPUT:]
    text = kept.decode("utf-8", "replace")
    return f"Captured {len(kept)} of {total} bytes\n...\n{text}" if total > len(kept) else text


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
