"""Docker checks against a server that speaks the part of the Docker Engine API that they use, on a unix socket."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import StreamReader, web
from aiohttp.base_protocol import BaseProtocol

from lictor.agent.checks.clients import Clients
from lictor.agent.checks.docker import DockerCheck, demultiplex
from lictor.agent.checks.result import Result
from tests.patience import PATIENCE


def frame(stream: int, payload: bytes) -> bytes:
    """A frame of the attach protocol: 1 is standard output, 2 standard error."""
    return bytes([stream, 0, 0, 0]) + len(payload).to_bytes(4, "big") + payload


class Engine:
    """Containers by name; the program to run is named after what it does."""

    def __init__(self) -> None:
        self.created: list[dict[str, object]] = []
        self.application = web.Application()
        self.application.router.add_post("/containers/{container}/exec", self.create)
        self.application.router.add_post("/exec/{exec}/start", self.start)
        self.application.router.add_get("/exec/{exec}/json", self.inspect)

    async def create(self, request: web.Request) -> web.Response:
        container = request.match_info["container"]
        if container == "paused":
            return web.json_response({"message": "Container paused is paused"}, status=409)
        if container == "broken":
            return web.json_response({"message": "server error"}, status=500)
        if container == "garbled":
            return web.Response(text="[]", status=201)
        if container != "web":
            return web.json_response({"message": f"No such container: {container}"}, status=404)
        body = await request.json()
        self.created.append(body)
        return web.json_response({"Id": body["Cmd"][0]}, status=201)

    async def start(self, request: web.Request) -> web.StreamResponse:
        assert await request.json() == {"Detach": False, "Tty": False}
        response = web.StreamResponse(headers={"Content-Type": "application/vnd.docker.multiplexed-stream"})
        await response.prepare(request)
        program = request.match_info["exec"]
        if program == "hangs":
            await asyncio.Event().wait()
        data = frame(1, b"out\n") + frame(2, b"err\n")
        if program == "chatty":
            data = frame(1, b"x" * 100_000) * 10 + frame(1, b"the end")
        for start in range(0, len(data), 60_001):
            await response.write(data[start : start + 60_001])
        return response

    async def inspect(self, request: web.Request) -> web.Response:
        program = request.match_info["exec"]
        codes: dict[str, int | None] = {"warns": 1, "fails": 2, "runs": None}
        return web.Response(text=json.dumps({"ID": program, "Running": False, "ExitCode": codes.get(program, 0)}))


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    """What the server at `host` has seen."""
    yield Engine()


@pytest.fixture
async def host(engine: Engine, tmp_path: Path) -> AsyncIterator[str]:
    """The engine's address."""
    runner = web.AppRunner(engine.application, shutdown_timeout=0.1)
    await runner.setup()
    await web.UnixSite(runner, str(tmp_path / "docker.sock")).start()
    yield f"unix://{tmp_path / 'docker.sock'}"
    await runner.cleanup()


@pytest.mark.parametrize(("program", "status"), [("succeeds", "passing"), ("warns", "warning"), ("fails", "critical")])
async def test_the_exit_status_decides(clients: Clients, host: str, engine: Engine, program: str, status: str) -> None:
    result = await DockerCheck("web", (program, "an argument"), host, timeout=PATIENCE).probe(clients)
    assert result == Result(status, "out\nerr\n")
    assert engine.created[0]["Cmd"] == [program, "an argument"]


async def test_long_output_shows_its_end(clients: Clients, host: str) -> None:
    result = await DockerCheck("web", ("chatty",), host, output_max_size=10, timeout=PATIENCE).probe(clients)
    assert result == Result("passing", "Captured 10 of 1000007 bytes\n...\nxxxthe end")


@pytest.mark.parametrize(
    ("container", "output"),
    [
        ("absent", "create exec failed for unknown container absent"),
        ("paused", "create exec failed since container paused is paused or stopped"),
        ("broken", 'create exec failed for container broken with status 500: {"message": "server error"}'),
        ("../x", "create exec failed for unknown container ../x"),
    ],
)
async def test_a_container_that_cannot_be_used(clients: Clients, host: str, container: str, output: str) -> None:
    assert await DockerCheck(container, ("true",), host, timeout=PATIENCE).probe(clients) == Result("critical", output)


async def test_an_answer_that_cannot_be_read(clients: Clients, host: str) -> None:
    result = await DockerCheck("garbled", ("true",), host, timeout=PATIENCE).probe(clients)
    assert result.status == "critical"
    assert result.output.startswith("create exec failed for container garbled: the answer cannot be parsed: ")


async def test_a_program_that_has_no_exit_status(clients: Clients, host: str) -> None:
    result = await DockerCheck("web", ("runs",), host, timeout=PATIENCE).probe(clients)
    assert result == Result("critical", "inspect exec failed for container web: the program has not exited")


async def test_a_program_that_hangs(clients: Clients, host: str) -> None:
    result = await DockerCheck("web", ("hangs",), host, timeout=0.3).probe(clients)
    assert result == Result("critical", "Timed out (300ms) running check")


async def test_a_machine_without_an_engine(clients: Clients, tmp_path: Path) -> None:
    path = tmp_path / "none.sock"
    result = await DockerCheck("web", ("true",), f"unix://{path}", timeout=PATIENCE).probe(clients)
    assert result == Result(
        "critical",
        f"create exec failed for container web: dial unix {path}: connect: no such file or directory",
    )


async def test_an_engine_address_of_no_known_form(clients: Clients) -> None:
    result = await DockerCheck("web", ("true",), "ssh://host", timeout=PATIENCE).probe(clients)
    assert result == Result("critical", "unable to parse docker host `ssh://host`")


async def test_frames_are_read_however_they_are_cut() -> None:
    rng = random.Random(1)
    for _ in range(300):
        payloads = [rng.randbytes(rng.choice([0, 1, 7, 8, 50])) for _ in range(rng.randrange(6))]
        data = b"".join(frame(rng.choice([1, 2]), payload) for payload in payloads)
        cut = rng.randrange(len(data) + 1) if rng.random() < 0.3 else len(data)
        loop = asyncio.get_running_loop()
        stream = StreamReader(BaseProtocol(loop), 65536, loop=loop)
        position = 0
        while position < cut:
            step = min(rng.randrange(1, 20), cut - position)
            stream.feed_data(data[position : position + step])
            position += step
        stream.feed_eof()
        got = b"".join([piece async for piece in demultiplex(stream)])
        assert b"".join(payloads).startswith(got)
        if cut == len(data):
            assert got == b"".join(payloads)
