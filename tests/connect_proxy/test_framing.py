"""The frames of TLS connections that are used again: which may come when."""

from __future__ import annotations

import pytest

from lictor.connect_proxy.framing import (
    END,
    MOST,
    OPEN,
    OPENED,
    REASON,
    Event,
    Garbage,
    Kind,
    Line,
    Refusal,
    State,
    header,
)

HELLO = header(5) + b"hello"
REFUSED = b"\x03\x00\x00\x02no"


def server() -> Line:
    """One that serves its first use."""
    return Line(is_client=False)


def client() -> Line:
    return Line(is_client=True)


def ending(line: Line) -> Line:
    """One that has said the end of its direction."""
    assert line.end() == END
    return line


def idle(line: Line) -> Line:
    """One whose use is over."""
    assert list(ending(line).hear(END)) == [Kind.END]
    assert line.state is State.IDLE
    return line


def asking() -> Line:
    line = idle(client())
    assert line.ask() == OPEN
    return line


def asked() -> Line:
    line = idle(server())
    assert list(line.hear(OPEN)) == [Kind.OPEN]
    return line


def opened() -> Line:
    line = asking()
    assert list(line.hear(OPENED)) == [Kind.OPENED]
    return line


def heard(line: Line) -> Line:
    """One whose peer has ended its direction."""
    assert list(line.hear(END)) == [Kind.END]
    return line


GOOD: list[tuple[str, Line, bytes, list[Event]]] = [
    ("data of the first use", server(), HELLO, [b"hello"]),
    ("data of a client's", client(), HELLO, [b"hello"]),
    ("data twice", server(), HELLO + HELLO, [b"hello", b"hello"]),
    ("data and the end", server(), HELLO + END, [b"hello", Kind.END]),
    ("data after the own end", ending(server()), HELLO, [b"hello"]),
    ("another use", idle(server()), OPEN, [Kind.OPEN]),
    ("the end, and another use", ending(server()), END + OPEN, [Kind.END, Kind.OPEN]),
    ("agreed, and data at once", asking(), OPENED + HELLO + END, [Kind.OPENED, b"hello", Kind.END]),
    ("refused", asking(), REFUSED, [Refusal("no")]),
    ("refused without a reason", asking(), b"\x03\x00\x00\x00", [Refusal("")]),
    (
        "refused with what does not print",
        asking(),
        b"\x03\x00\x00\x03a\n\xff",
        [Refusal("a?\N{REPLACEMENT CHARACTER}")],
    ),
    ("data of a later use", opened(), HELLO, [b"hello"]),
]


@pytest.mark.parametrize(("line", "piece", "events"), [row[1:] for row in GOOD], ids=[row[0] for row in GOOD])
def test_what_may_come(line: Line, piece: bytes, events: list[Event]) -> None:
    assert list(line.hear(piece)) == events


BAD: list[tuple[str, Line, bytes]] = [
    ("a use within a use", server(), OPEN),
    ("a use before the own end is said", heard(server()), OPEN),
    ("two uses at once", asked(), OPEN),
    ("data before it is agreed to", asked(), HELLO),
    ("data before it is asked for", idle(server()), HELLO),
    ("the end before it is agreed to", asked(), END),
    ("data after the end", heard(server()), HELLO),
    ("the end twice", heard(server()), END),
    ("data in a later piece than the end", heard(client()), HELLO),
    ("a server asks", idle(client()), OPEN),
    ("a client agrees", asked(), OPENED),
    ("agreed to what was not asked for", idle(client()), OPENED),
    ("agreed twice", opened(), OPENED),
    ("refused what was agreed to", opened(), REFUSED),
    ("data instead of an agreement", asking(), HELLO),
    ("no data", server(), header(0)),
    ("too much data", server(), header(MOST + 1)),
    ("a giant frame", server(), b"\x00\xff\xff\xff"),
    ("an end with something in it", server(), b"\x04\x00\x00\x01x"),
    ("a use with something in it", idle(server()), b"\x01\x00\x00\x01x"),
    ("a reason without end", asking(), b"\x03" + (REASON + 1).to_bytes(3, "big")),
    ("a kind that is none", server(), b"\x05\x00\x00\x00"),
    ("text", server(), b"GET / HTTP/1.1\r\n"),
]


@pytest.mark.parametrize(("line", "piece"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_what_may_not_come(line: Line, piece: bytes) -> None:
    assert line.data_alone(piece) == b"", "it is not taken for data"
    with pytest.raises(Garbage):
        list(line.hear(piece))


def test_the_usual_case_is_one_frame_or_a_part_of_one() -> None:
    line = server()
    assert line.data_alone(HELLO) == b"hello"
    assert line.data_alone(header(8) + b"long") == b"long"
    assert line.data_alone(b"er") == b"er"
    assert line.data_alone(b" one" + HELLO) == b"", "more than the frame"
    assert list(line.hear(b" o" + HELLO)) == [b" o", b"hello"]
    assert line.data_alone(HELLO[:3]) == b"", "a part of a header"
    assert list(line.hear(HELLO[:3])) == []
    assert line.data_alone(HELLO[3:]) == b""
    assert list(line.hear(HELLO[3:])) == [b"hello"]


def test_an_end_is_said_once_and_only_within_a_use() -> None:
    line = server()
    assert (line.end(), line.end()) == (END, b"")
    list(line.hear(END))
    assert line.end() == b""
    list(line.hear(OPEN))
    assert line.end() == b""
    assert line.grant() == OPENED
    assert line.end() == END


def test_what_follows_the_end_is_heard_when_that_has_been_dealt_with() -> None:
    line = ending(server())
    seen = [(event, line.state) for event in line.hear(END + OPEN)]
    assert seen == [(Kind.END, State.IDLE), (Kind.OPEN, State.OPENING)], "it can be kept before it is asked for again"


def test_a_refusal_is_the_last_word() -> None:
    line = asked()
    told = line.refuse("é" * 300)
    assert len(told) == 4 + REASON
    assert line.end() == b""
    with pytest.raises(Garbage):
        list(line.hear(OPEN))
    other = asking()
    assert isinstance(next(other.hear(told)), Refusal)
    assert other.state is State.REFUSED
