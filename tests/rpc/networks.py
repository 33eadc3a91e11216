"""Networks for tests, on loopback with ports of their own, on both event loops; and waiting for what will be."""

import asyncio
import functools
import inspect
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop

from lictor.model.transport import Caller, Unreachable
from lictor.rpc.limits import Limits
from lictor.rpc.network import Network
from lictor.rpc.security import Security
from tests.patience import PATIENCE, soon

DEADLINE = PATIENCE
LOOPS = pytest.mark.parametrize(
    "loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)


def on_both_loops(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test on the standard event loop, and on the agent's."""

    @functools.wraps(test)
    def run(*, loop_factory: Callable[[], asyncio.AbstractEventLoop], **arguments: Any) -> None:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(test(**arguments))

    own = inspect.signature(test)
    added = inspect.Parameter("loop_factory", inspect.Parameter.KEYWORD_ONLY)
    run.__signature__ = own.replace(parameters=[*own.parameters.values(), added])  # type: ignore[attr-defined]
    marked: Callable[..., None] = LOOPS(run)
    return marked


@asynccontextmanager
async def network(limits: Limits | None = None, security: Security | None = None) -> AsyncIterator[Network]:
    """A network that is closed at the end."""
    made = Network(random.Random(1), limits=limits, security=security)
    try:
        yield made
    finally:
        await asyncio.wait_for(made.close(), DEADLINE)


async def address(callee: Network) -> str:
    """Where a network listens from now on."""
    return f"127.0.0.1:{await callee.listen('127.0.0.1', 0)}"


async def echo(caller: Caller, body: bytes) -> bytes:
    """A handler that answers with what it is asked."""
    return body


def raising(error: Exception) -> Callable[[Caller, bytes], Awaitable[bytes]]:
    """A handler that fails."""

    async def handler(caller: Caller, body: bytes) -> bytes:
        raise error

    return handler


async def until(condition: Callable[[], object]) -> None:
    """Return once a condition holds."""
    await soon(condition, "what the test waits for")


async def until_called(caller: Network, to: str) -> None:
    """Return once a call gets through."""
    async with asyncio.timeout(DEADLINE):
        while True:
            try:
                await caller.call(to, "echo", b"", 1.0)
                return
            except Unreachable:
                await asyncio.sleep(0.005)
