"""Whatever arrives at the core, nothing but WireError comes out, and the node goes on."""

from __future__ import annotations

import random

import pytest

from lictor.gossip import wire
from lictor.gossip.codec import Record, WireError
from lictor.gossip.effects import JoinRefused, SendPacket
from lictor.gossip.keyring import Keyring
from lictor.gossip.messages import Ack, Address, Alive, Dead, IndirectPing, Kind, Nack, NodeState, Ping, Suspect
from lictor.gossip.queries import filters
from lictor.gossip.serf_messages import (
    EventsAt,
    HeldEvent,
    JoinIntent,
    LeaveIntent,
    Query,
    QueryResponse,
    SerfKind,
    SerfState,
    UdpAddress,
    UserEvent,
    encode,
    encode_relay,
    encode_tags,
)
from lictor.gossip.wire import Sealer, StreamReader
from tests.gossip.simulation import Node, Simulation

NUMBERS = (0, 1, 2, 3, 255, 2**16 - 1, 2**31, 2**32 - 1)
NAMES = ("n0", "n1", "n2", "stranger", "", "ü", "x" * 300)
HOSTS = (bytes((10, 0, 0, 1)), bytes((10, 0, 0, 99)), bytes(16), b"", b"abc", bytes(10) + b"\xff\xff\x0a\0\0\1")


def membership(rng: random.Random) -> bytes:
    """A message of membership that is well-formed and makes little sense."""
    number, name, host = rng.choice(NUMBERS), rng.choice(NAMES), rng.choice(HOSTS)
    port = rng.choice((0, 1, 7946, 65535))
    vsn = rng.choice((b"", b"\x01\x05\x02\x02\x05\x04", b"\x00\x00\x00", bytes(9)))
    meta = rng.choice((b"", b"web", encode_tags({"a": "b"}), b"\xff\xc1", bytes(600)))
    chosen: list[tuple[Kind, Record]] = [
        (Kind.PING, Ping(number, name, host, port, name)),
        (Kind.INDIRECT_PING, IndirectPing(number, host, port, name, rng.random() < 0.5, host, port)),
        (Kind.ACK, Ack(number, rng.randbytes(9))),
        (Kind.NACK, Nack(number)),
        (Kind.SUSPECT, Suspect(number, name, rng.choice(NAMES))),
        (Kind.ALIVE, Alive(number, name, host, port, meta, vsn)),
        (Kind.DEAD, Dead(number, name, rng.choice(NAMES))),
    ]
    return wire.encode(*rng.choice(chosen))


def upper(rng: random.Random) -> bytes:
    """A message of Serf's layer, likewise."""
    time = rng.choice((0, 1, 5, 600, 2**62, 2**64 - 1))
    name, host = rng.choice(NAMES), rng.choice(HOSTS)
    query = Query(
        time,
        rng.choice(NUMBERS),
        host,
        rng.choice((0, 7946)),
        name,
        rng.choice(((), (b"",), (b"\x07",), filters(("n0",), {"a": "("}), filters((), {"role": "^n"}))),
        rng.choice((0, 1, 2, 3)),
        rng.choice((0, 1, 255)),
        rng.choice((0, -5, 2**63 - 1)),
        rng.choice(("q", "_serf_conflict", "_serf_install-key", "_serf_list-keys", "_serf_other")),
        rng.choice((b"", b"n1", b"\x07\x81\xa3Key\xa1x")),
    )
    chosen: list[tuple[SerfKind, Record]] = [
        (SerfKind.JOIN, JoinIntent(time, name)),
        (SerfKind.LEAVE, LeaveIntent(time, name, rng.random() < 0.5)),
        (SerfKind.USER_EVENT, UserEvent(time, name, rng.randbytes(5))),
        (SerfKind.QUERY, query),
        (SerfKind.QUERY_RESPONSE, QueryResponse(time, query.id, name, rng.choice((0, 1)), b"")),
    ]
    message = encode(*rng.choice(chosen))
    if rng.random() < 0.1:
        message = encode_relay(UdpAddress(host, rng.choice((-1, 7946, 2**40))), name, message)
    return bytes((Kind.USER,)) + message


def broken(rng: random.Random, data: bytes) -> bytes:
    """A few bytes changed, some cut off."""
    changed = bytearray(data)
    for _ in range(rng.choice((0, 0, 1, 3))):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed[: rng.randrange(1, len(changed) + 1)]) if rng.random() < 0.2 else bytes(changed)


def check(simulation: Simulation, node: Node) -> None:
    """What the node sends is legible and fits a packet; nothing has grown without bound."""
    for effect in node.serf.take_effects():
        if isinstance(effect, SendPacket):
            assert wire.messages_in(effect.content)
            assert len(effect.content) <= 1400
    node.serf.take_events()
    assert len(node.serf.swim.broadcasts) < 100


@pytest.mark.parametrize("seed", range(4))
def test_forged_packets_raise_nothing_unforeseen(seed: int) -> None:
    rng = random.Random(seed)
    simulation = Simulation(seed)
    simulation.add_many(3)
    simulation.acquaint()
    node = simulation.nodes["n0"]
    if seed % 2:
        node.serf.keyring.install(bytes(16))
    for step in range(2500):
        parts = [
            broken(rng, membership(rng) if rng.random() < 0.5 else upper(rng)) for _ in range(rng.choice((1, 1, 3)))
        ]
        try:
            node.serf.receive(wire.compound(parts), Address("10.0.0.1", 7946), step * 0.01)
        except WireError:
            pass
        node.serf.advance(step * 0.01)
        check(simulation, node)
    assert node.serf.swim.me.name == "n0"


def test_forged_exchanges_raise_nothing_unforeseen() -> None:
    rng = random.Random(9)
    simulation = Simulation(9)
    node = simulation.add("n0")
    sealer = Sealer(Keyring())
    for step in range(800):
        states = [
            NodeState(
                rng.choice(NAMES),
                rng.choice(HOSTS),
                rng.choice((0, 7946)),
                rng.choice(NUMBERS),
                rng.choice((0, 1, 2, 3, 9, -1)),
                vsn=rng.choice((b"", b"\x01\x05\x02\x02\x05\x04", b"\x07\x07\x07\x07\x07\x07")),
            )
            for _ in range(rng.randrange(4))
        ]
        time = rng.choice((0, 5, 2**64 - 1))
        events = (EventsAt(time, (HeldEvent("a", b"b"),)),)
        user = encode(SerfKind.PUSH_PULL, SerfState(time, {"n0": time, "x": 3}, ("x", "n0"), time, events, time))
        data = broken(rng, wire.push_pull(states, rng.choice((b"", user, b"\xff")), True))
        try:
            message = StreamReader(sealer, labelled=True).feed(data)
            if message is not None and message.header is not None:
                node.serf.merge(message, True, step * 0.01)
        except (WireError, JoinRefused):
            pass
        node.serf.advance(step * 0.01)
        check(simulation, node)
