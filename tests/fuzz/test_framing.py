"""Frames between built-in proxies: cut anywhere they say the same, and garbage does nothing but end a connection."""

from __future__ import annotations

import os
import time
from random import Random

from lictor.connect_proxy.framing import (
    END,
    HEADER,
    MOST,
    OPEN,
    OPENED,
    Event,
    Garbage,
    Kind,
    Line,
    Refusal,
    State,
    header,
)

SECONDS = float(os.environ.get("LICTOR_FUZZ_SECONDS", "1"))
LEAST = 20_000  # tries, however slow the machine is
SEED = int(os.environ.get("LICTOR_FUZZ_SEED", "1"))


def hear(line: Line, piece: bytes) -> list[Event]:
    """What a piece says, as the proxy reads it."""
    alone = line.data_alone(piece)
    return [alone] if alone else list(line.hear(piece))


def pieces_of(rng: Random, stream: bytes) -> list[bytes]:
    """A stream, cut anywhere."""
    cuts = sorted(rng.randrange(len(stream) + 1) for _ in range(rng.choice((0, 1, 3, 20, 200))))
    return [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True) if a < b]


def said(events: list[Event]) -> list[Event]:
    """The same with data that follow each other put together."""
    found: list[Event] = []
    for event in events:
        if isinstance(event, bytes) and found and isinstance(found[-1], bytes):
            found[-1] += event
        else:
            found.append(event)
    return found


def frames(data: bytes, size: int) -> bytes:
    """Data in frames of a size."""
    return b"".join(header(len(data[at : at + size])) + data[at : at + size] for at in range(0, len(data), size))


def test_what_is_cut_anywhere_says_the_same() -> None:
    rng = Random(SEED)
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        server, client = Line(is_client=False), Line(is_client=True)
        for number in range(rng.randrange(1, 5)):
            ask = b""
            if number:
                ask = client.ask()
                assert hear(server, ask) == [Kind.OPEN]
                assert hear(client, server.grant()) == [Kind.OPENED]
            for sender, receiver in ((client, server), (server, client)):
                data = rng.randbytes(rng.choice((0, 1, 5, 3000, 40_000)))
                stream = frames(data, rng.choice((1, 7, 1000, 16_380, 65_536)) if len(data) < 5000 else 20_000)
                events = [event for piece in pieces_of(rng, stream + sender.end()) for event in hear(receiver, piece)]
                assert said(events) == ([data, Kind.END] if data else [Kind.END])
            assert client.state is server.state is State.IDLE
            assert client.uses == server.uses == number + 1


def test_garbage_is_found_or_is_none() -> None:
    """Whatever comes is told as events that may come then, or refused; of frames only beginnings are held."""
    rng = Random(SEED)
    end = time.monotonic() + SECONDS
    seen: set[type] = set()
    tries = 0
    while tries < LEAST or time.monotonic() < end:
        tries += 1
        line = Line(is_client=bool(rng.randrange(2)))
        if rng.randrange(2):
            line.end()
        open_to_data = True
        try:
            for _ in range(rng.randrange(1, 8)):
                piece = rng.choice(
                    (OPEN, OPENED, END, header(3) + b"abc", header(MOST), b"\x03\0\0\x02no", rng.randbytes(9))
                )
                for event in hear(line, piece[: rng.randrange(1, len(piece) + 1)]):
                    seen.add(type(event))
                    if isinstance(event, bytes):
                        assert event and open_to_data
                    elif isinstance(event, Refusal):
                        assert line.is_client and event.reason.isprintable() and not open_to_data
                    elif event is Kind.END:
                        assert open_to_data
                        open_to_data = False
                    else:
                        assert line.is_client is (event is Kind.OPENED) and not open_to_data
                        open_to_data = line.is_client
                if line.state is State.IDLE and line.is_client and rng.randrange(2):
                    line.ask()
                elif line.state is State.OPENING and not line.is_client and rng.randrange(2):
                    line.grant()
                    open_to_data = True
                if rng.randrange(2):
                    line.end()
                assert len(line._part) < HEADER + 256
        except Garbage:
            seen.add(Garbage)
    assert seen == {bytes, Kind, Refusal, Garbage}
