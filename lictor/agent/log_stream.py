"""Live log lines for `/v1/agent/monitor`: each reader has its own level, its own format and a bounded buffer.

A reader that is slower than the log loses lines and is told how many; it never slows the agent down or fills its
memory. Lines begin with the moment of subscription, as with Consul: what was logged before is in the log.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from types import TracebackType

from lictor.agent.logs import ROOT, LogSystem, formatter

BUFFERED_LINES = 512


class LogReader(logging.Handler):
    """One reader's lines. `async with LogReader(...) as reader: async for chunk in reader: ...`

    A chunk is every line that waits, each with its line end, as bytes. Iteration goes on until `close`.
    """

    def __init__(self, system: LogSystem, level: int, json: bool, buffered: int = BUFFERED_LINES) -> None:
        super().__init__(level)
        self.setFormatter(formatter(json))
        self._system = system
        self._wanted = level
        self._lines: deque[bytes] = deque()
        self._buffered = buffered
        self._lost = 0
        self._guard = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready = asyncio.Event()
        self._woken = False  # whether the loop was told of lines since they were last taken
        self._closed = False

    async def __aenter__(self) -> LogReader:
        self._loop = asyncio.get_running_loop()
        self._system.add(self, self._wanted)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def emit(self, record: logging.LogRecord) -> None:
        """Take one line, from any thread."""
        try:
            line = (self.format(record) + "\n").encode("utf-8", "backslashreplace")
        except Exception:
            self.handleError(record)
            return
        with self._guard:
            if len(self._lines) >= self._buffered:
                self._lost += 1
                return
            self._lines.append(line)
            woken, self._woken = self._woken, True
        if not woken:
            self._wake()

    def _wake(self) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._ready.set)

    def __aiter__(self) -> LogReader:
        return self

    async def __anext__(self) -> bytes:
        while True:
            with self._guard:
                chunk = b"".join(self._lines)
                self._lines.clear()
                lost, self._lost = self._lost, 0
                self._ready.clear()
                self._woken = False
            if lost:
                chunk += self._told(lost)
            if chunk:
                return chunk
            if self._closed:
                raise StopAsyncIteration
            await self._ready.wait()

    def _told(self, lost: int) -> bytes:
        record = logging.LogRecord(
            f"{ROOT}.agent.monitor", logging.WARNING, "", 0, "Dropped log lines: the reader is too slow", (), None
        )
        record.fields = {"dropped": lost}
        return (self.format(record) + "\n").encode()

    def close(self) -> None:
        """Take no more lines; what waits can still be read."""
        if not self._closed:
            self._closed = True
            self._system.remove(self)
            self._wake()
        super().close()
