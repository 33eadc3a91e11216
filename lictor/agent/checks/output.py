"""The text a check reports, kept within its limit in Consul's two ways.

A probe's output (a body, a script's lines) keeps its *end*, where the error usually is; a text sent to a TTL check
keeps its *beginning*. Limits are bytes of UTF-8.
"""

from __future__ import annotations

DEFAULT_OUTPUT_MAX_SIZE = 4096
"""Bytes of output that are kept when neither the check nor the agent's configuration says otherwise."""


class TailBuffer:
    """The last `limit` bytes of what was written, and how much was written."""

    __slots__ = ("_kept", "limit", "written")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.written = 0
        self._kept = bytearray()

    def write(self, data: bytes) -> None:
        """Append, dropping from the front what is over the limit."""
        self.written += len(data)
        self._kept += data[-self.limit :]
        if len(self._kept) > self.limit:
            del self._kept[: -self.limit]

    def text(self) -> str:
        """What is kept, with bytes that are no UTF-8 replaced."""
        return self._kept.decode("utf-8", "replace")

    def captured(self) -> str:
        """What is kept; when something was dropped, a first line says how much there was."""
        if self.written > self.limit:
            return f"Captured {self.limit} of {self.written} bytes\n...\n{self.text()}"
        return self.text()


def truncate(output: str, limit: int) -> str:
    """The first `limit` bytes of `output`, with a remark of how much there was when something was cut."""
    if len(output) * 4 <= limit:
        return output
    data = output.encode("utf-8", "replace")
    if len(data) <= limit:
        return output
    return f"{data[:limit].decode('utf-8', 'ignore')} ... (captured {limit} of {len(data)} bytes)"
