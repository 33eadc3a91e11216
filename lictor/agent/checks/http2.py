"""One HTTP/2 connection, driven for the length of a probe: the gRPC check and the HTTP/2 ping share it.

The protocol is h2's (a pure state machine); this file moves its bytes, and adds two checks that h2 leaves to others:
that the server begins with a SETTINGS frame (RFC 9113, section 3.4), so that a server of another protocol is told from
a slow one, and a bound on all that it sends, since h2 gathers a frame whole before it judges its length.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import h2.config
import h2.connection
import h2.events
import h2.exceptions

READ_SIZE = 65536

MAX_RECEIVED = 256 * 1024
"""Bytes from the server after which a probe gives up: a health response and a ping take a few hundred."""

FRAME_HEADER = 9
SETTINGS = 4
SETTING_SIZE = 6
MAX_FIRST_FRAME = 16384


class Http2Error(Exception):
    """The other side closed the connection, or does not speak HTTP/2; the message tells which."""


class Http2Connection:
    """The client's end. `protocol` is h2's object: call its methods, then `flush`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.protocol = h2.connection.H2Connection(
            config=h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
        )
        self.protocol.initiate_connection()

    async def flush(self) -> None:
        """Send what h2 has ready. Raises Http2Error when the connection is gone."""
        data = self.protocol.data_to_send()
        if data:
            try:
                self._writer.write(data)
                await self._writer.drain()
            except OSError as error:
                raise Http2Error("connection closed") from error

    async def events(self) -> AsyncIterator[h2.events.Event]:
        """What the other side sends, until the caller has seen enough. Raises Http2Error when no more can come."""
        data = await self._read_preface()
        received = len(data)
        while received <= MAX_RECEIVED:
            try:
                events = self.protocol.receive_data(data)
            except (h2.exceptions.ProtocolError, UnicodeDecodeError) as error:
                raise Http2Error(f"malformed HTTP/2 response: {error}") from error
            await self.flush()
            for event in events:
                yield event
            data = await self._read()
            received += len(data)
        raise Http2Error(f"the server sent more than {MAX_RECEIVED} bytes")

    async def _read_preface(self) -> bytes:
        """The beginning of what the server sends, at least the header of its first frame, which must be SETTINGS."""
        data = b""
        while len(data) < FRAME_HEADER:
            data += await self._read()
        length, kind = int.from_bytes(data[:3], "big"), data[3]
        if kind != SETTINGS or length % SETTING_SIZE or length > MAX_FIRST_FRAME:
            raise Http2Error("malformed HTTP/2 response: the server does not begin with a SETTINGS frame")
        return data

    async def _read(self) -> bytes:
        try:
            data = await self._reader.read(READ_SIZE)
        except OSError as error:
            raise Http2Error("connection closed") from error
        if not data:
            raise Http2Error("connection closed")
        return data
