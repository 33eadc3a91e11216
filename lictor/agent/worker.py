"""A thread for work that blocks. It is lighter than an executor's, which every write to the log would pay for."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

_Job = tuple[asyncio.AbstractEventLoop, "asyncio.Future[Any]", Callable[..., Any], tuple[Any, ...]]


class Worker:
    """Does work in the order in which it comes. Its thread begins with the first."""

    def __init__(self, name: str) -> None:
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name)

    def __call__(self, function: Callable[..., Any], /, *args: Any) -> "asyncio.Future[Any]":
        """Have a function called. Returns what will be its result."""
        if self._thread.ident is None:
            self._thread.start()
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Any] = loop.create_future()
        self._jobs.put((loop, done, function, args))
        return done

    def close(self) -> None:
        """Return once everything is done that has come."""
        if self._thread.ident is not None:
            self._jobs.put(None)
            self._thread.join()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            loop, done, function, args = job
            try:
                result, error = function(*args), None
            except BaseException as raised:
                result, error = None, raised
            with contextlib.suppress(RuntimeError):  # the loop may be closed by now
                loop.call_soon_threadsafe(_settle, done, result, error)
            del job, function, args, result, error


def _settle(done: "asyncio.Future[Any]", result: object, error: BaseException | None) -> None:
    if done.done():  # cancelled: nobody waits for it
        return
    if error is not None:
        done.set_exception(error)
    else:
        done.set_result(result)
