"""Tests on uvloop, which the proxy runs on: what a callback raises there is a failure of the test."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec

import uvloop

P = ParamSpec("P")


def on_uvloop(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Have a coroutine function be a test that runs on uvloop."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        raised: list[dict[str, Any]] = []

        async def watched() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda _, context: raised.append(context))
            await test(*args, **kwargs)

        uvloop.run(watched())
        assert not raised, raised

    return run
