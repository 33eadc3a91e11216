"""What proxies say of their live connections, and how much of it fits into an answer over gossip."""

from collections.abc import Callable

import msgspec
import pytest

from lictor.agent.live_connections import (
    KEPT,
    QUERY,
    Flow,
    Inbound,
    LiveConnections,
    Question,
    Seen,
    Told,
    read_answer,
)
from lictor.model.intention_effect import Enforced
from tests.gossip.agents import address, agents, seen
from tests.patience import soon

encode = msgspec.msgpack.encode
ROOM = 900


def uri(service: str, namespace: str = "default", partition: str = "") -> str:
    where = f"/ap/{partition}" if partition else ""
    return f"spiffe://x.consul{where}/ns/{namespace}/dc/dc1/svc/{service}"


def connections(**reports: dict[str, int]) -> LiveConnections:
    """What proxies of these services said at time 0."""
    made = LiveConnections(lambda: {f"{service}-proxy" for service in reports})
    for service, counts in reports.items():
        made.report(f"{service}-proxy", service, [Inbound(source, count) for source, count in counts.items()], 0.0)
    return made


def answer(made: LiveConnections, question: Question, room: int = ROOM) -> Told:
    payload = made.answer(encode(question), room, 1.0)
    assert payload is not None
    assert len(payload) <= room
    return read_answer(payload)


def test_the_question_chooses() -> None:
    made = connections(db={uri("web"): 3, uri("api"): 5}, cache={uri("web"): 2})
    assert answer(made, Question("db", "web")) == Told((Flow("db", "web", 3),))
    assert answer(made, Question("dB", "web")) == Told((Flow("db", "web", 3),)), "intentions hold for it too"
    assert answer(made, Question("db", "*")) == Told((Flow("db", "api", 5), Flow("db", "web", 3)))
    assert answer(made, Question("*", "web")) == Told((Flow("db", "web", 3), Flow("cache", "web", 2)))
    assert answer(made, Question("other", "*")) == Told(())


def test_callers_of_elsewhere_are_told_apart() -> None:
    made = connections(db={uri("web"): 1, uri("web", "team"): 2, uri("web", "team", "p"): 3, "nonsense": 9})
    flows = answer(made, Question("db", "web")).flows
    assert flows == (Flow("db", "web", 3, "team", "p"), Flow("db", "web", 2, "team"), Flow("db", "web", 1))
    assert flows[0].caller.partition == "p"


def test_callers_by_several_trust_domains_are_one_flow() -> None:
    made = connections(db={uri("web"): 1, uri("web").replace("x.consul", "y.consul"): 2})
    assert answer(made, Question("db", "*")).flows == (Flow("db", "web", 3),)


def test_requests_are_told_of_after_connections_with_their_age() -> None:
    made = connections(cache={uri("api"): 2})
    made.report(
        "cache-proxy",
        "cache",
        [Inbound(uri("web"), 1)],
        0.0,
        enforced=Enforced.LISTENER,
        requests=[Seen(uri("old"), -50.0), Seen(uri("new"), 0.0), Seen("nonsense", 0.0)],
    )
    requests = [Flow("cache", name, 0, enforced=Enforced.REQUESTS, age=age) for name, age in (("new", 1), ("old", 51))]
    at_listener = Flow("cache", "web", 1, enforced=Enforced.LISTENER)
    assert answer(made, Question("cache", "*")) == Told((at_listener, *requests))
    told = answer(made, Question("cache", "*"), room=45)
    assert (told.flows, told.more_flows, told.more_requesters) == ((at_listener,), 0, 2)


def test_an_answer_about_connections_alone_is_what_agents_read_that_know_no_others() -> None:
    found = connections(db={uri("web"): 3}).answer(encode(["db", "*"]), ROOM, 1.0)
    assert found == encode([{"db": [["web", 3]]}, 0, 0])


def test_what_has_no_room_is_counted() -> None:
    made = connections(db={uri(f"service-{number:03}"): number + 1 for number in range(200)})
    told = answer(made, Question("db", "*"))
    assert told.flows[0] == Flow("db", "service-199", 200)
    assert len(told.flows) + told.more_flows == 200
    assert sum(flow.connections for flow in told.flows) + told.more_connections == sum(range(1, 201))
    assert 40 < len(told.flows) < 200
    assert answer(made, Question("db", "*"), room=30).flows == ()


def test_a_report_is_forgotten_when_it_is_not_said_again_and_with_its_proxy() -> None:
    there = {"db-proxy"}
    made = LiveConnections(lambda: there)
    made.report("db-proxy", "db", [Inbound(uri("web"), 1)], 0.0)
    assert list(made.reports(KEPT)) == ["db-proxy"]
    assert made.reports(KEPT + 1) == {}
    made.report("db-proxy", "db", [Inbound(uri("web"), 1), Inbound(uri("api"), 0)], 200.0)
    assert made.reports(200.0)["db-proxy"].inbound == (Inbound(uri("web"), 1),)
    there.clear()
    assert made.reports(200.0) == {}


@pytest.mark.parametrize(
    "payload", [b"", b"\xc1", b"\x93\x01", encode(["db"]), encode(["d" * 600, "*"]), b"\x91" * 900]
)
def test_a_question_that_cannot_be_read_has_no_answer(payload: bytes) -> None:
    assert connections(db={uri("web"): 1}).answer(payload, ROOM, 1.0) is None


@pytest.mark.parametrize(
    "payload", [b"", b"\xc1", encode([]), encode([{"db": [["web"]]}]), encode([{"db": [["web", -1]]}])]
)
def test_an_answer_that_cannot_be_read_is_none(payload: bytes) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        read_answer(payload)


async def test_every_member_of_a_pool_is_asked() -> None:
    async with agents() as running:
        first = await running.lan("n1", server=True)
        second = await running.lan("n2")
        await second.join([address(first)])
        await soon(lambda: len(seen(first)) == len(seen(second)) == 2, "both members see each other")
        asked: list[tuple[str, bytes]] = []

        def replying(reply: bytes) -> Callable[[str, bytes, int], bytes]:
            def answer(name: str, payload: bytes, room: int) -> bytes:
                asked.append((name, payload))
                return reply

            return answer

        first.on_query, second.on_query = replying(b"one"), replying(b"two")
        answers, alive = await second.query(QUERY, b"question")
        assert answers == {"n1": b"one", "n2": b"two"}
        assert sorted(alive) == ["n1", "n2"]
        assert asked == [(QUERY, b"question")] * 2
        first.on_query = lambda name, payload, room: b"x" * (room + 64)
        second.on_query = lambda name, payload, room: b"x" * room
        answers, _ = await second.query(QUERY, b"")
        assert list(answers) == ["n2"], "the one that was too long is not sent, the longest that fits is"
