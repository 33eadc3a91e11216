"""Docker check: runs a program inside a container through the Docker Engine's HTTP API, and judges its exit status
as a script's.

Three calls: create an exec instance, start it and read its output until it ends, inspect it for the exit status.
The output comes as frames (stream type, three zero bytes, big-endian length, payload) that interleave standard
output and error.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import ClassVar, TypeVar
from urllib.parse import quote

import aiohttp
import msgspec

from lictor.agent.checks.clients import Clients
from lictor.agent.checks.connection import explain_errno
from lictor.agent.checks.output import DEFAULT_OUTPUT_MAX_SIZE, TailBuffer
from lictor.agent.checks.result import Lane, Result, critical, passing, warning
from lictor.agent.checks.script import DEFAULT_TIMEOUT, timed_out

T = TypeVar("T")

FRAME_HEADER = 8
MAX_ANSWER = 65536
"""Bytes of an answer of the engine, other than program output, that are read at most."""


class DockerCheck(msgspec.Struct, frozen=True):
    """`args` is run in container `container_id` of the engine at `host` (unix:///path or tcp://host:port).
    `timeout` in seconds, `output_max_size` in bytes, counted from the output's end."""

    lane: ClassVar[Lane] = Lane.PROCESS

    container_id: str
    args: tuple[str, ...]
    host: str = "unix:///var/run/docker.sock"
    timeout: float = DEFAULT_TIMEOUT
    output_max_size: int = DEFAULT_OUTPUT_MAX_SIZE

    async def probe(self, clients: Clients) -> Result:
        """Run once."""
        buffer = TailBuffer(self.output_max_size)
        try:
            session, base = clients.docker(self.host)
            async with asyncio.timeout(self.timeout):
                exec_id = await self._create(session, base)
                await self._start(session, base, exec_id, buffer)
                status = await self._inspect(session, base, exec_id)
        except (_EngineError, ValueError) as error:
            return critical(str(error))
        except TimeoutError:
            return critical(timed_out(self.timeout))
        if status == 0:
            return passing(buffer.captured())
        return warning(buffer.captured()) if status == 1 else critical(buffer.captured())

    async def _create(self, session: aiohttp.ClientSession, base: str) -> str:
        doing = f"create exec failed for container {self.container_id}"
        url = f"{base}/containers/{quote(self.container_id, safe='')}/exec"
        body = {"AttachStdin": False, "AttachStdout": True, "AttachStderr": True, "Tty": False, "Cmd": self.args}
        try:
            async with session.post(url, json=body) as response:
                answer = await _bounded(response)
                if response.status == 201:
                    return _field(answer, _Created, doing).id
        except (aiohttp.ClientError, OSError) as error:
            raise _EngineError(f"{doing}: {_explain(error, self.host)}") from error
        if response.status == 404:
            raise _EngineError(f"create exec failed for unknown container {self.container_id}")
        if response.status == 409:
            raise _EngineError(f"create exec failed since container {self.container_id} is paused or stopped")
        raise _EngineError(f"{doing} with status {response.status}: {_text(answer)}")

    async def _start(self, session: aiohttp.ClientSession, base: str, exec_id: str, buffer: TailBuffer) -> None:
        doing = f"start exec failed for container {self.container_id}"
        url = f"{base}/exec/{quote(exec_id, safe='')}/start"
        try:
            async with session.post(url, json={"Detach": False, "Tty": False}) as response:
                if response.status == 200:
                    async for payload in demultiplex(response.content):
                        buffer.write(payload)
                    return
                answer = await _bounded(response)
        except (aiohttp.ClientError, OSError) as error:
            raise _EngineError(f"{doing}: {_explain(error, self.host)}") from error
        if response.status == 404:
            raise _EngineError(f"{doing}: invalid exec id {exec_id}")
        if response.status == 409:
            raise _EngineError(f"start exec failed since container {self.container_id} is paused or stopped")
        raise _EngineError(f"{doing} with status {response.status}: {_text(answer)}")

    async def _inspect(self, session: aiohttp.ClientSession, base: str, exec_id: str) -> int:
        doing = f"inspect exec failed for container {self.container_id}"
        try:
            async with session.get(f"{base}/exec/{quote(exec_id, safe='')}/json") as response:
                answer = await _bounded(response)
        except (aiohttp.ClientError, OSError) as error:
            raise _EngineError(f"{doing}: {_explain(error, self.host)}") from error
        if response.status == 404:
            raise _EngineError(f"{doing}: invalid exec id {exec_id}")
        if response.status != 200:
            raise _EngineError(f"{doing} with status {response.status}: {_text(answer)}")
        status = _field(answer, _Inspected, doing).exit_code
        if status is None:
            raise _EngineError(f"{doing}: the program has not exited")
        return status


class _EngineError(Exception):
    """The engine could not do what was asked; the message is the check's output."""


class _Created(msgspec.Struct):
    id: str = msgspec.field(name="Id")


class _Inspected(msgspec.Struct):
    exit_code: int | None = msgspec.field(name="ExitCode")


async def demultiplex(stream: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """The payloads of `stream`'s frames in pieces as they arrive; a frame cut off by the end yields what there is."""
    header = bytearray()
    left = 0
    async for chunk in stream.iter_any():
        view = memoryview(chunk)
        while view:
            if left:
                yield bytes(view[:left])
                taken = min(left, len(view))
                left -= taken
            else:
                taken = min(FRAME_HEADER - len(header), len(view))
                header += view[:taken]
                if len(header) == FRAME_HEADER:
                    left = int.from_bytes(header[4:], "big")
                    header.clear()
            view = view[taken:]


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    data = bytearray()
    async for chunk in response.content.iter_any():
        data += chunk
        if len(data) > MAX_ANSWER:
            raise _EngineError(f"the Docker engine answered {response.url.path} with more than {MAX_ANSWER} bytes")
    return bytes(data)


def _field(answer: bytes, shape: type[T], doing: str) -> T:
    try:
        return msgspec.json.decode(answer, type=shape)
    except msgspec.MsgspecError as error:
        raise _EngineError(f"{doing}: the answer cannot be parsed: {error}") from error


def _text(answer: bytes) -> str:
    return answer.decode("utf-8", "replace").strip()


def _explain(error: Exception, host: str) -> str:
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(cause, OSError):
        network, _, address = host.partition("://")
        return f"dial {network} {address}: connect: {explain_errno(cause)}"
    return str(error) or type(error).__name__
