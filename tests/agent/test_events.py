"""User events: whom they are for, which can be sent, and the index to wait on."""

import msgpack  # type: ignore[import-untyped]
import msgspec
import pytest

from lictor.agent.events import KEPT, EventLog, check_event, concerns, from_wire, index_of, wire_payload
from lictor.model.errors import Refused
from lictor.model.ids import new_id
from lictor.model.service import NodeService
from lictor.model.user_event import UserEvent

ID = "7b1c9a5e-0102-4304-8506-0708090a0b0c"
SERVICES = [NodeService(id="w1", service="web", tags=("v1", "blue")), NodeService(id="db", service="db")]


@pytest.mark.parametrize(
    ("node", "service", "tag", "expected"),
    [
        ("", "", "", True),
        ("n1", "", "", True),
        ("^n", "", "", True),
        ("^1", "", "", False),
        ("", "web", "", True),
        ("", "^eb", "", False),
        ("", "w.b", "v[0-9]", True),
        ("", "db", "v1", False),
        ("n1", "cache", "", False),
        ("(", "", "", False),
    ],
)
def test_an_event_is_for_the_nodes_that_match(node: str, service: str, tag: str, expected: bool) -> None:
    event = UserEvent(name="deploy", node_filter=node, service_filter=service, tag_filter=tag)
    assert concerns(event, "n1", SERVICES) is expected


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (UserEvent(name="e", node_filter="("), "Invalid node filter: error parsing regexp: missing closing ): `(`"),
        (UserEvent(name="e", service_filter="("), "Invalid service filter: error parsing regexp: missing closing"),
        (UserEvent(name="e", service_filter="a", tag_filter="["), "Invalid tag filter: error parsing regexp: missing"),
        (UserEvent(name="e", tag_filter="a"), "Cannot provide tag filter without service filter"),
        (UserEvent(name="e", payload=b"x" * 500), "user event exceeds configured limit of 512 bytes before encoding"),
    ],
)
def test_what_cannot_be_sent_is_refused(event: UserEvent, text: str) -> None:
    with pytest.raises(Refused) as caught:
        check_event(event)
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("name", "filters", "most"),
    [
        ("x", {}, 414),
        ("xxxxxxxxxx", {}, 396),
        ("x", {"node_filter": "lead"}, 406),
        ("x", {"service_filter": "web"}, 407),
        ("x", {"service_filter": "web", "tag_filter": "v"}, 402),
    ],
)
def test_the_limit_counts_what_goes_over_the_wire(name: str, filters: dict[str, str], most: int) -> None:
    """The sizes at which Consul 1.8.7 begins to refuse."""
    event = msgspec.structs.replace(UserEvent(id=ID, name=name), **filters)
    check_event(msgspec.structs.replace(event, payload=b"x" * most))
    with pytest.raises(Refused):
        check_event(msgspec.structs.replace(event, payload=b"x" * (most + 1)))


def test_the_index_is_the_last_events() -> None:
    assert index_of([]) == 1
    assert index_of([UserEvent(id=ID)]) == 0x7B1C9A5E01024304 ^ 0x85060708090A0B0C
    assert index_of([UserEvent(id="ffffffff-ffff-ffff-ffff-ffffffffffff"), UserEvent(id=ID)]) == index_of(
        [UserEvent(id=ID)]
    )


def test_the_log_keeps_the_newest_in_order_and_tells() -> None:
    told: list[object] = []
    log = EventLog(told.extend)
    for number in range(KEPT + 10):
        log.add(UserEvent(id=ID, name=f"e{number % 2}", payload=b"%d" % number))
    assert [int(e.payload or b"") for e in log.recent()] == list(range(10, KEPT + 10))
    assert {e.name for e in log.recent("e1")} == {"e1"}
    assert told == [("agent", "events")] * (KEPT + 10)
    times = [e.l_time for e in log.recent()]
    assert times == sorted(set(times))
    assert log.add(UserEvent(id=ID, l_time=10_000)).l_time == 10_000
    assert log.add(UserEvent(id=ID)).l_time == 10_001


def test_an_event_of_the_pool_is_read_as_it_was_written() -> None:
    sent = UserEvent(id=new_id(), name="deploy", payload=b"\xff\x00", node_filter="n.*", service_filter="web", l_time=7)
    assert from_wire(wire_payload(sent), 7) == sent
    # As the format's old revision has it, without a type for text.
    old = msgpack.packb({"ID": sent.id, "n": "deploy", "p": b"x", "v": 1}, use_bin_type=False)
    assert from_wire(old, 1).payload == b"x"


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\x00",
        b"\xc1",
        msgpack.packb([1]),
        msgpack.packb({"ID": "no-uuid", "n": "x"}),
        msgpack.packb({"n": "x"}),
        msgpack.packb({"ID": ID, "n": 5}),
        msgpack.packb({"ID": ID, "n": b"\xff"}),
        msgpack.packb({"ID": ID, "n": "x", "v": 2}),
        msgpack.packb({"ID": ID, "n": "x", "p": {"a": 1}}),
        msgpack.packb({1: 2}),
        msgpack.packb({"ID": ID}) + b"\x00",
        b"\x91" * 5000,
        b"\x81\x91\x01\x01",
    ],
)
def test_what_is_no_event_is_refused(payload: bytes) -> None:
    with pytest.raises(ValueError, match="."):
        from_wire(payload, 1)
