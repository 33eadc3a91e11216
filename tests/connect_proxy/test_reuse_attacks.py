"""Peers that are let in, and misuse the connections that may be used again: they are cut, and harm nobody else."""

from __future__ import annotations

import asyncio
import random
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lictor.connect_proxy import inbound as inbound_module
from lictor.connect_proxy.endpoints import Target
from lictor.connect_proxy.framing import END, MOST, OPEN, OPENED, PROTOCOL, header
from lictor.connect_proxy.inbound import InboundListener
from tests.connect_proxy.authority import Authority
from tests.connect_proxy.loops import on_uvloop
from tests.connect_proxy.mesh import Mesh, is_refused, port, say, target
from tests.patience import eventually, soon
from tests.ports import free_port

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
HELLO = header(5) + b"hello"


async def peer(mesh: Mesh, inbound: InboundListener) -> Streams:
    """A client of the mesh that says what it likes."""
    context = mesh.authority.identity("client").reusing
    streams = await mesh.connect_tls(inbound, context)
    assert streams[1].get_extra_info("ssl_object").selected_alpn_protocol() == PROTOCOL
    return streams


async def use(streams: Streams) -> None:
    """Use a connection as it should be, to its end."""
    reader, writer = streams
    writer.write(HELLO)
    assert await reader.readexactly(9) == HELLO
    writer.write(END)
    assert await reader.readexactly(4) == END


async def is_cut(streams: Streams) -> bool:
    """Whether nothing more comes."""
    try:
        await streams[0].read(-1)
    except (OSError, ssl.SSLError):
        pass
    return True


async def still_serves(mesh: Mesh, inbound: InboundListener) -> bool:
    """Whether another client is served, twice on one connection."""
    outbound = await mesh.outbound(target(inbound))
    for _ in range(2):
        streams = await mesh.connect(outbound)
        assert await say(streams, b"hello") == b"hello"
        streams[1].close()
        await soon(lambda: not outbound.passages, "it is over")
    return outbound.reused == 1


@on_uvloop
async def test_another_use_may_be_asked_for_with_the_end_of_the_last() -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        writer.write_eof()
        await reader.read(-1)

    async with Mesh() as mesh:
        inbound = await mesh.inbound(await mesh.service(greet))
        reader, writer = await peer(mesh, inbound)
        assert await reader.readexactly(13) == HELLO + END
        for _ in range(3):
            writer.write(END + OPEN)
            assert await reader.readexactly(17) == OPENED + HELLO + END
        assert inbound.reused == 3


MISUSE: list[tuple[str, bytes, bytes]] = [
    ("another use within the first", b"", OPEN),
    ("a giant frame", b"", header((1 << 24) - 1) + b"hello"),
    ("a frame that is a little too long", b"", header(MOST + 1)),
    ("a kind that is none", b"", b"\xee\x00\x00\x00"),
    ("plain text", b"", b"GET / HTTP/1.1\r\nHost: web\r\n\r\n"),
    ("no data", b"", header(0)),
    ("data after the end", b"", END + HELLO),
    ("the end twice", b"", END + END),
    ("a server's word", b"", OPENED),
    ("data before a use", b"used", HELLO),
    ("an end without a use", b"used", END),
    ("a flood of uses", b"used", OPEN * 1000),
    ("data before it is agreed to", b"used", OPEN + HELLO),
]


@pytest.mark.parametrize(("before", "said"), [row[1:] for row in MISUSE], ids=[row[0] for row in MISUSE])
@on_uvloop
async def test_misuse_ends_the_connection(before: bytes, said: bytes) -> None:
    heard: list[bytes] = []

    async def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            heard.append(data)
            writer.write(data)
        writer.write_eof()

    async with Mesh() as mesh:
        inbound = await mesh.inbound(await mesh.service(note))
        streams = await peer(mesh, inbound)
        if before:
            await use(streams)
            await soon(lambda: len(inbound.shelf.ends) == 1, "it is kept")
        heard.clear()
        streams[1].write(said)
        assert await is_cut(streams)
        await soon(lambda: not inbound.passages and not inbound.shelf.ends, "nothing is left of it")
        assert not heard
        assert mesh.connections <= 2
        assert await still_serves(mesh, inbound)


@pytest.mark.parametrize("seed", range(3))
@on_uvloop
async def test_frames_of_no_meaning(seed: int) -> None:
    chance = random.Random(seed)
    async with Mesh() as mesh:
        inbound = await mesh.inbound(await mesh.service())
        for _ in range(10):
            streams = await peer(mesh, inbound)
            if chance.randrange(2):
                await use(streams)
            said = b"".join(
                chance.choice((OPEN, END, HELLO, OPENED, chance.randbytes(5))) for _ in range(chance.randrange(1, 9))
            )
            streams[1].write(said)
            streams[1].close()
            await is_cut(streams)
        await soon(lambda: not inbound.passages and not inbound.shelf.ends, "nothing is left of them")
        assert await still_serves(mesh, inbound)


@on_uvloop
async def test_who_only_dribbles_while_idle_is_closed_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbound_module, "IDLE_SECONDS", 0.5)
    async with Mesh() as mesh:
        inbound = await mesh.inbound(await mesh.service())
        streams = await peer(mesh, inbound)
        await use(streams)
        streams[1].write(OPEN[:1])
        closed = asyncio.create_task(is_cut(streams))
        for at in (1, 2):
            await asyncio.sleep(0.1)
            streams[1].write(OPEN[at : at + 1])
        await closed
        await soon(lambda: not inbound.shelf.ends, "it is forgotten")
        assert mesh.connections == 1
        assert await still_serves(mesh, inbound)


@on_uvloop
async def test_a_crowd_that_keeps_idle_connections_does_not_keep_others_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbound_module, "IDLE", 10)
    async with Mesh() as mesh:
        inbound = await mesh.inbound(await mesh.service(), max_connections=20)
        crowd = []
        for _ in range(30):
            crowd.append(await peer(mesh, inbound))
            await use(crowd[-1])
        await soon(lambda: not inbound.passages, "none of them counts as a connection")
        assert len(inbound.shelf.ends) == 10
        assert await still_serves(mesh, inbound)


@on_uvloop
async def test_who_is_cut_off_by_somebody_in_between_does_not_take_it_for_the_end() -> None:
    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"half an answer")
        await reader.read(-1)

    async with Mesh() as mesh:
        inbound, outbound = await mesh.pair(half)
        cut = asyncio.Event()

        async def man(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port(inbound))

            async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
                while data := await source.read(65536):
                    sink.write(data)

            tasks = [asyncio.create_task(pump(reader, far_writer)), asyncio.create_task(pump(far_reader, writer))]
            await cut.wait()
            for task in tasks:
                task.cancel()
            writer.close()
            far_writer.close()

        place = await mesh.service(man)
        outbound.endpoints.update([Target(place.host, place.port, "web", "dc1")])
        reader, _ = await mesh.connect(outbound)
        assert await reader.readexactly(14) == b"half an answer"
        cut.set()
        with pytest.raises(ConnectionResetError):
            await reader.read(-1)
        await soon(lambda: outbound.ends["broken"] == inbound.ends["broken"] == 1, "both tell that it was cut off")


@on_uvloop
async def test_an_endpoint_that_answers_out_of_turn_is_not_believed() -> None:
    """It is the right service, with a proxy that misbehaves in the second use: the program gets none of it."""

    async with Mesh() as mesh:
        identity = mesh.authority.identity("web")
        server = identity.server_for(b"", True)
        uses: list[bytes] = []

        async def odd(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                uses.append(await reader.readexactly(9))
                writer.write(HELLO)
                assert await reader.readexactly(4) == END
                writer.write(END)
                assert await reader.readexactly(4) == OPEN
                writer.write(header(4) + b"evil")
                await reader.read(-1)
            except (OSError, EOFError, asyncio.CancelledError):
                pass
            finally:
                writer.close()

        listening = await asyncio.start_server(odd, "127.0.0.1", 0, ssl=server)
        try:
            place = listening.sockets[0].getsockname()[1]
            outbound = await mesh.outbound(Target("127.0.0.1", place, "web", "dc1"))
            for _ in range(2):
                streams = await mesh.connect(outbound)
                assert await say(streams, b"hello") == b"hello"
                streams[1].close()
                await soon(lambda: not outbound.passages, "it is over")
            assert (outbound.stale, outbound.reused) == (1, 0)
            assert uses == [HELLO, HELLO]
        finally:
            listening.close()


@pytest.fixture
def strict_server(tmp_path: Path) -> Iterator[tuple[Authority, int]]:
    """A server of the service web that refuses protocols which it does not know, and sends back lines reversed."""
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("needs the program openssl, whose server refuses protocols that it does not know")
    authority, place = Authority(), free_port()
    leaf = authority.leaf("web")
    (tmp_path / "leaf").write_text(leaf.cert_pem + leaf.private_key_pem)
    command = [program, "s_server", "-accept", f"127.0.0.1:{place}", "-cert", str(tmp_path / "leaf")]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([*command, "-alpn", "h2", "-rev"], stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def listens() -> bool:
        with socket.socket() as tried:
            return tried.connect_ex(("127.0.0.1", place)) == 0

    try:
        eventually(listens, "the server listens")
        yield authority, place
    finally:
        process.kill()
        process.wait()


def test_a_server_that_does_not_bear_the_offer_is_asked_without_it(strict_server: tuple[Authority, int]) -> None:
    """As Go's servers are that know other protocols."""

    @on_uvloop
    async def run() -> None:
        async with Mesh() as mesh:
            mesh.authority, place = strict_server
            outbound = await mesh.outbound(Target("127.0.0.1", place, "web", "dc1"))
            for _ in range(2):
                reader, writer = await mesh.connect(outbound)
                writer.write(b"abc\n")
                assert await reader.readexactly(4) == b"cba\n"
                writer.close()
                await soon(lambda: not outbound.passages, "it is over")
            assert outbound.retries == outbound.endpoints.all[0].failures == 0

    run()


@on_uvloop
async def test_without_a_certificate_nothing_of_it_is_had() -> None:
    async with Mesh() as mesh:
        inbound = await mesh.inbound(await mesh.service())
        bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        bare.check_hostname, bare.verify_mode = False, ssl.CERT_NONE
        bare.set_alpn_protocols([PROTOCOL])
        try:
            assert await is_refused(await mesh.connect_tls(inbound, bare), HELLO + END + OPEN)
        except (OSError, ssl.SSLError):
            pass
        await soon(lambda: not inbound.passages and not inbound.shelf.ends, "nothing is left of it")
        assert mesh.connections == 0
