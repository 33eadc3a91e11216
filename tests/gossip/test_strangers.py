"""What strangers send to a real agent's gossip port harms nothing: forged, cut off, over-long, replayed, without end.

The agent goes on answering, those who were there stay, and its memory does not grow with what arrives.
"""

from __future__ import annotations

import base64
import contextlib
import random
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from lictor.gossip import wire
from lictor.gossip.keyring import Keyring
from lictor.gossip.wire import Sealer
from lictor.model.member import ALIVE, LEFT
from tests.cluster.network import HostedAgent, HostedServer, network
from tests.cluster.servers import ClientAgent, Server
from tests.gossip.agents import QUICK
from tests.gossip.test_fuzz import broken, membership, upper
from tests.patience import PATIENCE, eventually, settles

OURS, THEIRS = bytes(range(32)), bytes(32)
ENCRYPTED = f"-encrypt={base64.b64encode(OURS).decode()}"
FLAGS = ("-hcl", f"gossip_lan {{ {QUICK} }}", "-hcl", 'log_level = "warn"')
PACKETS, STREAMS = 2000, 200
GROWTH = 2 << 20  # bytes: an agent that keeps a tenth of what it is sent grows by more each time
WAVES = 8  # attacks at most, until one of them does not make it grow: the first ones find it small
IPV4 = 0x0800  # ETH_P_IP
UDP = 17
LONGEST = 65_507  # bytes of a datagram
BOMB = wire.compress(bytes(2 << 20))


def packets(rng: random.Random, seal: Sealer) -> Iterator[bytes]:
    """Datagrams of every kind that a stranger can think of."""
    while True:
        content = broken(rng, membership(rng) if rng.random() < 0.5 else upper(rng))
        yield content
        yield seal.seal_packet(content, checksummed=rng.random() < 0.5)
        whole = seal.seal_packet(wire.compress(content * rng.choice((1, 200))), checksummed=True)
        yield whole[: rng.randrange(len(whole))]
        yield rng.randbytes(rng.choice((1, 40, 1400)))
        if rng.random() < 0.05:
            yield rng.randbytes(LONGEST)
            yield BOMB


def streams(rng: random.Random, seal: Sealer) -> Iterator[bytes]:
    """What a stranger writes to a stream: much of it claims that more will come."""
    while True:
        yield b""
        yield b"\x06\x83\xa5Nodes\xce\x00\x0f\xff\xff\xacUserStateLen\xce\x01\x00\x00\x00\xa4Join\xc3"
        yield seal.seal_stream(wire.push_pull((), rng.randbytes(100_000), True))
        yield b"\x0a\x01\x40\x00\x00" + rng.randbytes(200_000)
        yield b"\x06\x81\xa5Nodes\xce\xff\xff\xff\xff"
        yield rng.randbytes(rng.choice((1, 1000, 100_000)))


def attack(agent: Server, seed: int, seal: Sealer) -> None:
    """Send all that to an agent's gossip port. It is asked something now and then, so that it keeps up."""
    rng = random.Random(seed)
    target = ("127.0.0.1", agent.ports["serf-lan"])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for number, packet in zip(range(PACKETS), packets(rng, seal), strict=False):
            sock.sendto(packet[:LONGEST], target)
            if number % 100 == 0:
                agent.get("/v1/agent/self")
    with contextlib.ExitStack() as held:
        for _, data in zip(range(STREAMS), streams(rng, seal), strict=False):
            stream = held.enter_context(socket.create_connection(target, PATIENCE))
            with contextlib.suppress(OSError):  # what it has seen enough of it closes
                stream.sendall(data)
        agent.get("/v1/agent/self")


def memory(agent: Server) -> int:
    """The resident memory of an agent's process, in bytes."""
    assert agent.process is not None
    status = Path(f"/proc/{agent.process.pid}/status").read_text()
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))


@pytest.mark.parametrize("encryption", [True, False], ids=["encrypted", "plain"])
def test_an_agent_survives_whatever_arrives_and_does_not_grow(tmp_path: Path, encryption: bool) -> None:
    flags = [*FLAGS, *([ENCRYPTED] if encryption else [])]
    one = Server(tmp_path, "one", "-bootstrap-expect=1", *flags)
    two = ClientAgent(tmp_path, "two", f"-retry-join=127.0.0.1:{one.ports['serf-lan']}", *flags)
    try:
        one.start()
        two.start()
        settles(lambda: one.members().get("two"), ALIVE, "the two see each other")
        eventually(two.leader, "the agent has found the server")
        seal = Sealer(Keyring(THEIRS) if encryption else Keyring())
        sizes = [memory(one)]
        for wave in range(WAVES):
            attack(one, wave, seal)
            sizes.append(memory(one))
            if sizes[-1] - sizes[-2] < GROWTH and wave:
                break
        else:
            raise AssertionError(f"its memory grows with what strangers send: {sizes}")
        settles(lambda: one.members().get("two"), ALIVE, "those who were there are there")
        if encryption:
            assert set(one.members()) == {"one", "two"}, "a stranger without the key is in the pool"
            assert "failed" not in one.log(), "somebody was taken for failed"
        two.put("/v1/agent/service/register", {"Name": "web", "Port": 80})
        eventually(lambda: one.get("/v1/health/service/web?passing"), "the pool and the catalog work on")
        assert "Traceback" not in one.log()
    finally:
        for agent in (one, two):
            if agent.runs:
                agent.kill()


def recorded(wire_tap: socket.socket, port: int) -> list[bytes]:
    """The datagrams to a port that have come by."""
    found = []
    with contextlib.suppress(BlockingIOError):
        while True:
            frame, (_, _, kind, *_) = wire_tap.recvfrom(65535, socket.MSG_DONTWAIT)
            start = 4 * (frame[0] & 15)
            if kind == socket.PACKET_HOST and frame[9] == UDP and int.from_bytes(frame[start + 2 : start + 4]) == port:
                found.append(frame[start + 8 :])
    return found


def test_what_was_recorded_off_the_wire_and_comes_again_changes_nothing(tmp_path: Path) -> None:
    with network() as wires:
        one = HostedServer(tmp_path, "one", wires.host(), "-bootstrap-expect=1", ENCRYPTED, *FLAGS)
        two = HostedAgent(tmp_path, "two", wires.host(), f"-retry-join={one.at('serf-lan')}", ENCRYPTED, *FLAGS)
        stranger = wires.host()
        target = (one.host, one.ports["serf-lan"])

        def play(packets: list[bytes]) -> None:
            """The stranger sends packets, and one of its own last, which the log names when all are taken."""
            with stranger.namespace.inside(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                for packet in [*packets, b"last"]:
                    sock.sendto(packet, target)
                one.logs(f"from={stranger.ipv4}:{sock.getsockname()[1]}")

        with one.on.namespace.inside():
            tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(IPV4))
        try:
            one.start()
            two.start()
            settles(lambda: one.members().get("two"), ALIVE, "the two see each other")
            two.put("/v1/event/fire/deploy", b"once")
            eventually(lambda: one.get("/v1/event/list"), "the event arrives")
            assert two.end(signal.SIGTERM) == 0
            settles(lambda: one.members().get("two"), LEFT, "one of them has left")
            packets = recorded(tap, target[1])
            assert len(packets) > 10
            play(packets)
            play(packets[::-1])
            assert one.members() == {"one": ALIVE, "two": LEFT}, "who has left is back"
            assert len(one.get("/v1/event/list")) == 1, "an event has come twice"
            two.start()
            settles(lambda: one.members().get("two"), ALIVE, "it is back when it comes itself")
            play(packets)
            play(packets[::-1])
            assert one.members() == {"one": ALIVE, "two": ALIVE}, "who is there has left"
            assert len(one.get("/v1/event/list")) == 1, "an event has come twice"
        finally:
            tap.close()
            for agent in (one, two):
                if agent.runs:
                    agent.kill()
