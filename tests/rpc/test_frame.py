"""The format: what the reader makes of bytes, however they are cut and whoever they come from."""

import random

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lictor.model.errors import LictorError, NoLeader, NotLeader, Refused
from lictor.rpc import frame
from lictor.rpc.credit import PIECE, WINDOW, Credit, Intake
from lictor.rpc.errors import decode_error, encode_error
from lictor.rpc.frame import PREAMBLE, Frame, Reader

frames = st.lists(
    st.tuples(
        st.integers(frame.MESSAGE, frame.ALIVE),
        st.integers(0, 2**63 - 1),
        st.text(max_size=frame.MAX_METHOD),
        st.binary(max_size=300),
    ),
    max_size=8,
)


def encode(kind: int, number: int = 0, method: str = "", body: bytes = b"") -> bytes:
    """A frame's bytes."""
    return b"".join(frame.encode(kind, number, method, body))


def cut(data: bytes, chance: random.Random) -> list[bytes]:
    """The same bytes in pieces."""
    places = sorted(chance.randrange(len(data) + 1) for _ in range(chance.randrange(12)))
    return [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True)]


@settings(deadline=None)
@given(frames, st.randoms(use_true_random=False))
def test_frames_come_out_as_they_went_in_wherever_the_bytes_are_cut(sent: list[Frame], chance: random.Random) -> None:
    reader = Reader()
    got: list[Frame] = []
    for piece in cut(PREAMBLE + b"".join(encode(*one) for one in sent), chance):
        got += reader.feed(piece)
    assert got == sent
    assert reader.greeted
    assert reader.problem == ""
    assert reader.held == 0


@settings(deadline=None)
@given(st.binary(max_size=400), st.randoms(use_true_random=False))
@example(PREAMBLE + b"\0\0\0\0", random.Random(0))
@example(PREAMBLE + b"\0\0\0\1\xc1", random.Random(0))
def test_no_bytes_raise(data: bytes, chance: random.Random) -> None:
    for begin in (b"", PREAMBLE):
        reader = Reader(1000)
        for piece in cut(begin + data, chance):
            reader.feed(piece)


@settings(deadline=None)
@given(frames.filter(len), st.randoms(use_true_random=False))
def test_changed_bytes_raise_nothing_and_hold_nothing_beyond_the_limit(
    sent: list[Frame], chance: random.Random
) -> None:
    data = bytearray(PREAMBLE + b"".join(encode(*one) for one in sent))
    for _ in range(chance.randrange(1, 4)):
        data[chance.randrange(len(PREAMBLE), len(data))] = chance.randrange(256)
    reader = Reader(1000)
    for piece in cut(bytes(data), chance):
        reader.feed(piece)
        assert reader.held <= 1004


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "a frame that cannot be read"),
        (b"\xc1", "a frame that cannot be read"),
        (msgspec.msgpack.encode((1, 0, "m", b"")) + b"x", "a frame that cannot be read"),
        (msgspec.msgpack.encode((0, 0, "m", b"")), "a frame that cannot be read"),
        (msgspec.msgpack.encode((11, 0, "m", b"")), "a frame that cannot be read"),
        (msgspec.msgpack.encode((1, -1, "m", b"")), "a frame that cannot be read"),
        (msgspec.msgpack.encode((1, 0, "m")), "a frame that cannot be read"),
        (msgspec.msgpack.encode((1, 0, "m", b"", 1)), "a frame that cannot be read"),
        (msgspec.msgpack.encode((1, 0, "m", "text")), "a frame that cannot be read"),
        (msgspec.msgpack.encode((1, 0, "m" * 129, b"")), "a frame that cannot be read"),
        (b"\x94\x01\x00\xa1\xff\xc4\x00", "a frame that cannot be read"),
        (msgspec.msgpack.encode({"kind": 1}), "a frame that cannot be read"),
        (b"\x91" * 900, "a frame that cannot be read"),
        (bytes(1001), "a frame of 1001 bytes: at most 1000 are allowed"),
    ],
)
def test_what_is_no_frame_ends_the_reading_but_not_what_came_before(content: bytes, words: str) -> None:
    reader = Reader(1000)
    good = (frame.CALL, 7, "method", b"body")
    data = PREAMBLE + encode(*good) + len(content).to_bytes(4, "big") + content
    assert reader.feed(data + encode(*good)) == [good]
    assert words in reader.problem
    assert reader.feed(encode(*good)) == []


def test_a_length_beyond_the_limit_is_refused_before_its_bytes_come() -> None:
    reader = Reader(1000)
    assert reader.feed(PREAMBLE + (2**32 - 1).to_bytes(4, "big")) == []
    assert reader.problem == f"a frame of {2**32 - 1} bytes: at most 1000 are allowed"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "it does not speak this protocol: it began with b'GET / HT'"),
        (b"\x16\x03\x01\x02\x00", "it speaks TLS where a plain connection was expected"),
        (b"Lictor\n\x63", "it speaks version 99 of the protocol, and this side version 1"),
        (b"Licence.", "it does not speak this protocol"),
        (b"Lix", "it does not speak this protocol"),
    ],
)
def test_strangers_are_told_apart_by_their_first_bytes(data: bytes, words: str) -> None:
    reader = Reader()
    assert reader.feed(data) == []
    assert words in reader.problem
    assert not reader.greeted


@pytest.mark.parametrize("limit", [1000, 5000, 70_000, 2**24])
@pytest.mark.parametrize("kind", [frame.MESSAGE, frame.ALIVE])
def test_the_longest_body_that_may_be_sent_is_read(limit: int, kind: int) -> None:
    method = "\U00010000" * frame.MAX_METHOD
    for size in (frame.longest_body(limit), 4095, 4096):
        sent = (kind, 2**63, method, bytes(min(size, frame.longest_body(limit))))
        reader = Reader(limit)
        assert reader.feed(PREAMBLE + encode(*sent)) == [sent]


class OfNobodyElse(Refused):
    """An error that only one side knows."""


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (LictorError("a"), LictorError),
        (NoLeader(), NoLeader),
        (NotLeader("10.0.0.1:8300"), NotLeader),
        (Refused("ü \ud800"), Refused),
        (OfNobodyElse("x"), Refused),
    ],
)
def test_errors_keep_their_class_and_their_text(error: LictorError, kind: type[LictorError]) -> None:
    back = decode_error(*encode_error(error))
    assert type(back) is kind
    assert str(back) == str(error).replace("\ud800", "?")
    assert back.status == error.status


@pytest.mark.parametrize("name", ["", "Exception", "SystemExit", "annotations", "LictorError\0", "__builtins__"])
def test_a_class_that_is_not_known_is_a_plain_error(name: str) -> None:
    assert type(decode_error(name, b"\xff")) is LictorError


@settings(deadline=None)
@given(st.lists(st.integers(0, 2 * WINDOW), max_size=60), st.randoms(use_true_random=False))
def test_a_producer_never_runs_ahead_by_more_than_the_window_and_a_piece_and_never_stands_still(
    sizes: list[int], chance: random.Random
) -> None:
    credit, intake = Credit(), Intake()
    ahead: list[int] = []
    pieces = [memoryview(bytes(size)) for size in sizes]
    while pieces or ahead:
        if pieces and credit.left > 0 and (not ahead or chance.random() < 0.5):
            credit.spend(bytes(pieces[0]))
            intake.add(bytes(pieces.pop(0)))
            ahead.append(len(intake.pieces[-1]) + PIECE)
            assert sum(ahead[:-1]) <= WINDOW
        else:
            assert ahead, "the consumer has taken everything, and the producer has no credit"
            ahead.pop(0)
            intake.take()
            due = intake.due()
            if due:
                credit.grant(due)


def test_pieces_without_credit_and_credit_without_pieces_are_refused() -> None:
    intake = Intake()
    intake.add(bytes(WINDOW))
    with pytest.raises(ValueError, match="a piece without credit"):
        intake.add(b"")
    credit = Credit()
    with pytest.raises(ValueError, match="more credit than was spent"):
        credit.grant(1)
    with pytest.raises(ValueError, match="a credit of 3 bytes"):
        frame.decode_count(b"abc")
