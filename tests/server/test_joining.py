"""Under which records servers may be known, and what is believed of what they say of themselves."""

import msgspec
import pytest

from lictor.raft.consensus import ServerRecord
from lictor.server.hello import Hello, decode_hello, encode_hello
from lictor.server.joining import record_problem

GOOD = ServerRecord("7b1c9a5e-0000-4000-8000-000000000000", "s1", "10.0.0.1:8300", 1)
HELLO = Hello("id", "s1", "10.0.0.1:8300", "dc1", 1, blank=True)


def test_a_server_may_be_known_under_a_usual_record() -> None:
    assert record_problem(GOOD) == ""
    assert record_problem(msgspec.structs.replace(GOOD, node="Grüße.example", address="[::1]:8300")) == ""


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"id": ""}, "a server needs a node id, a name, an address and a number"),
        ({"number": 0}, "a server needs a node id, a name, an address and a number"),
        ({"number": -5}, "a server needs a node id, a name, an address and a number"),
        ({"number": 1 << 63}, "a server needs a node id, a name, an address and a number"),
        ({"node": "x" * 10_000}, "its node name has 10000 characters: at most 256 are allowed"),
        ({"node": "evil\n[INFO]"}, r"its node name 'evil\n[INFO]' has characters that cannot be shown"),
        ({"id": "\x1b[31m"}, r"its node id '\x1b[31m' has characters that cannot be shown"),
        ({"address": "10.0.0.1:99999"}, "its port must be a number from 1 to 65535"),
        ({"address": "no port at all"}, "give a host, host:port"),
    ],
)
def test_a_record_that_no_server_can_have_is_refused(changes: dict[str, object], problem: str) -> None:
    assert problem in record_problem(msgspec.structs.replace(GOOD, **changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"node": "x" * 10_000},
        {"address": "evil\nline"},
        {"number": -1},
        {"known": ("x",) * 2000},
        {"meta": {"key": "\x00"}},
    ],
)
def test_what_a_server_says_of_itself_is_bounded(changes: dict[str, object]) -> None:
    assert decode_hello(encode_hello(HELLO)) == HELLO
    with pytest.raises(msgspec.MsgspecError):
        decode_hello(encode_hello(msgspec.structs.replace(HELLO, **changes)))
