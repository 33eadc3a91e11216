"""Under which records servers may be known, and what is believed of what they say of themselves."""

import msgspec
import pytest

from lictor.raft.consensus import Peer, ServerRecord
from lictor.server.hello import Hello, decode_hello, encode_hello
from lictor.server.joining import join_problem, record_problem

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


PEERS = [
    Peer("id-a", "a", "10.0.0.1:8300", True, True, number=1),
    Peer("id-b", "b", "10.0.0.2:8300", False, True, number=2),
]


@pytest.mark.parametrize(
    ("record", "silent", "problem"),
    [
        (ServerRecord("id-c", "c", "10.0.0.3:8300", 3), 0.0, ""),
        (ServerRecord("id-b", "b", "10.0.0.2:8300", 3), 0.0, ""),  # wiped, and back at once
        (ServerRecord("id-x", "b", "10.0.0.2:8300", 3), 0.0, ""),  # with its node id
        (
            ServerRecord("id-b", "b", "10.0.0.9:8300", 3),
            0.1,
            "a server with the node id id-b is alive at 10.0.0.2:8300",
        ),
        (ServerRecord("id-b", "b", "10.0.0.9:8300", 3), 3.0, ""),
        (ServerRecord("id-x", "B", "10.0.0.9:8300", 3), 2.9, "the node name B belongs to another server, at 10.0.0.2"),
        (ServerRecord("id-x", "B", "10.0.0.9:8300", 3), 3.0, ""),
        (
            ServerRecord("id-a", "a", "10.0.0.1:8300", 3),
            99.0,
            "a server with the node id id-a is alive at 10.0.0.1:8300",
        ),
        (ServerRecord("id-x", "x", "10.0.0.1:8300", 3), 99.0, "the address 10.0.0.1:8300 belongs to another server, a"),
        (ServerRecord("id-b", "b", "10.0.0.9:8300", 2), 0.0, ""),  # moved
    ],
)
def test_nobody_takes_the_place_of_a_server_that_is_alive(record: ServerRecord, silent: float, problem: str) -> None:
    found = join_problem(PEERS, record, lambda _: silent, "id-a")
    assert found.startswith(problem) and bool(found) == bool(problem)
    assert ("3 seconds later" in found) == (bool(problem) and silent < 3.0)


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
