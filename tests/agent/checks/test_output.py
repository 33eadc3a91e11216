"""Limits of output, by Consul's texts."""

from __future__ import annotations

from lictor.agent.checks.output import TailBuffer, truncate


def test_a_probe_keeps_the_end_and_says_how_much_there_was() -> None:
    buffer = TailBuffer(20)
    for number in range(1, 5001):
        buffer.write(b"%d\n" % number)
    assert buffer.captured() == "Captured 20 of 23893 bytes\n...\n4997\n4998\n4999\n5000\n"


def test_output_within_the_limit_is_left_as_it_is() -> None:
    buffer = TailBuffer(5)
    buffer.write(b"hello")
    assert buffer.captured() == buffer.text() == "hello"


def test_bytes_that_are_no_text_are_replaced() -> None:
    buffer = TailBuffer(5)
    buffer.write(b"a\xffb")
    assert buffer.text() == "a�b"


def test_a_ttl_text_keeps_its_beginning() -> None:
    assert truncate("x" * 5000 + "é", 4096) == "x" * 4096 + " ... (captured 4096 of 5002 bytes)"
    assert truncate("x" * 4096, 4096) == "x" * 4096


def test_a_cut_never_leaves_half_a_character() -> None:
    assert truncate("éé", 3) == "é ... (captured 3 of 4 bytes)"
