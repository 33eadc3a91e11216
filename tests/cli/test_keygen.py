"""`lictor keygen`."""

from __future__ import annotations

import base64

from tests.cli.command_line import here


def test_a_key_has_32_random_bytes_in_base64() -> None:
    first, second = here("keygen"), here("keygen")
    assert (first.code, first.err) == (0, "")
    assert len(base64.b64decode(first.out.strip(), validate=True)) == 32
    assert first.out != second.out
