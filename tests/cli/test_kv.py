"""`lictor kv` beyond what the sessions against the reference show: bytes, conditions, and imports that are wrong."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from lictor.cli.command import Io
from lictor.cli.main import main
from tests.cli.command_line import CommandLine, here
from tests.contract.servers import Server

ANY_BYTES = bytes(range(256))


def test_a_value_comes_back_byte_for_byte(agent: Server, cli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "value").write_bytes(ANY_BYTES)
    assert here("kv", "put", "bytes", f"@{tmp_path / 'value'}", env=cli.env).code == 0

    out = io.BytesIO()
    assert main(["kv", "get", "bytes"], Io(io.BytesIO(), out, io.BytesIO(), cli.env)) == 0
    assert out.getvalue() == ANY_BYTES + b"\n"
    assert here("kv", "put", "piped", "-", env=cli.env, stdin=b"from\nstdin").out == "Success! Data written to: piped\n"
    assert here("kv", "get", "piped", env=cli.env).out == "from\nstdin\n"


def test_compare_and_set_goes_by_the_modify_index(cli: CommandLine) -> None:
    assert here("kv", "put", "counted", "1", env=cli.env).code == 0
    detailed = here("kv", "get", "-detailed", "counted", env=cli.env).out
    facts = dict(line.split(None, 1) for line in detailed.splitlines())
    index = f"-modify-index={facts['ModifyIndex']}"
    assert here("kv", "put", "-cas", index, "counted", "2", env=cli.env).code == 0
    again = here("kv", "put", "-cas", index, "counted", "3", env=cli.env)
    assert again == (1, "", "Error! Did not write to counted: CAS failed\n")
    assert here("kv", "get", "counted", env=cli.env).out == "2\n"


def test_export_and_import_are_inverse(cli: CommandLine) -> None:
    for key, value, flags in (("tree/a", "1", "0"), ("tree/b/c", "ü<&>", "18446744073709551615"), ("tree/", "", "7")):
        assert here("kv", "put", f"-flags={flags}", key, value, env=cli.env).code == 0
    exported = here("kv", "export", "tree/", env=cli.env).out
    assert [entry["key"] for entry in json.loads(exported)] == ["tree/", "tree/a", "tree/b/c"]
    copied = here("kv", "import", "-prefix=copy", "-", env=cli.env, stdin=exported.encode())
    assert copied.out == "Imported: copy/tree/\nImported: copy/tree/a\nImported: copy/tree/b/c\n"
    again = json.loads(here("kv", "export", "copy/", env=cli.env).out)
    assert again == [{**entry, "key": f"copy/{entry['key']}"} for entry in json.loads(exported)]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"key": "b", "value": "!"}, "Error base 64 decoding value for key b: illegal base64 data at input byte 0"),
        ({"key": "b", "flags": -1}, 'entry 1 ("b"): "flags" must be an unsigned 64-bit number'),
        ({"key": "b", "value": 3}, 'entry 1 ("b"): "value" must be text in base64'),
        ({"value": ""}, 'entry 1: expected an object with a text "key"'),
    ],
)
def test_an_import_with_a_mistake_writes_nothing(wrong: dict[str, object], told: str, cli: CommandLine) -> None:
    outcome = here("kv", "import", json.dumps([{"key": "first", "value": "MQ=="}, wrong]), env=cli.env)
    assert (outcome.code, outcome.out) == (1, "")
    assert told in outcome.err
    assert here("kv", "get", "first", env=cli.env).code == 1


def test_base64_that_is_none_writes_nothing(cli: CommandLine) -> None:
    outcome = here("kv", "put", "-base64", "never", "!!", env=cli.env)
    assert (outcome.code, outcome.err) == (
        1,
        "Error! Cannot base 64 decode data: illegal base64 data at input byte 0\n",
    )
    assert here("kv", "get", "never", env=cli.env).code == 1
