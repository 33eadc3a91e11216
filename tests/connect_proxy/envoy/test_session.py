"""What one Envoy is told and when, in both variants of xDS."""

from __future__ import annotations

import pytest

from lictor.connect_proxy.envoy import names
from lictor.connect_proxy.envoy.compiling import Resource
from lictor.connect_proxy.envoy.session import (
    MOST_NAMES,
    DeltaSession,
    Nack,
    Request,
    Response,
    Session,
    StateSession,
    TooMuch,
)

Offered = dict[str, dict[str, Resource]]


def resource(name: str, version: str = "1", *needs: tuple[str, str]) -> Resource:
    """A resource without content."""
    return Resource(name, version, b"", needs)


def offered(*clusters: str, version: str = "1", listener: str = "1", secret: str = "1") -> Offered:
    """A listener with routes, a secret, and clusters with their endpoints."""
    return {
        names.CLUSTER: {name: resource(name, version, (names.ENDPOINTS, name)) for name in clusters},
        names.ENDPOINTS: {name: resource(name) for name in clusters},
        names.SECRET: {"leaf": resource("leaf", secret)},
        names.LISTENER: {"public": resource("public", listener, (names.ROUTES, "public"))},
        names.ROUTES: {"public": resource("public")},
    }


def told(responses: list[Response]) -> list[tuple[str, list[str], list[str]]]:
    """Responses as type, names, and names of what is gone."""
    return [(names.short(one.type_url), [r.name for r in one.resources], list(one.removed)) for one in responses]


def acknowledge(session: Session, responses: list[Response], *asked: str, error: str | None = None) -> list[Nack]:
    """Answer every response, as Envoy does; the other variant names what it asks for again."""
    state = isinstance(session, StateSession)
    found = []
    for one in responses:
        wanted = asked if state and one.type_url not in (names.CLUSTER, names.LISTENER) else ()
        nack = session.take(Request(one.type_url, one.nonce, error, tuple(wanted)))
        if nack is not None:
            found.append(nack)
    return found


def settled(session: Session, resources: Offered) -> None:
    """An Envoy that has asked for everything and been told."""
    for kind in (names.CLUSTER, names.LISTENER):
        session.take(Request(kind))
    session.take(Request(names.ENDPOINTS, names=tuple(resources[names.ENDPOINTS])))
    session.take(Request(names.SECRET, names=("leaf",)))
    session.take(Request(names.ROUTES, names=("public",)))
    session.offer(resources)
    while responses := session.due():
        for one in responses:
            again = tuple(r.name for r in one.resources) if isinstance(session, StateSession) else ()
            session.take(
                Request(one.type_url, one.nonce, names=() if one.type_url in (names.CLUSTER, names.LISTENER) else again)
            )


@pytest.mark.parametrize("make", [DeltaSession, StateSession])
def test_nothing_is_told_before_there_is_something(make: type[DeltaSession | StateSession]) -> None:
    session = make()
    session.take(Request(names.CLUSTER))
    assert session.due() == []


@pytest.mark.parametrize("make", [DeltaSession, StateSession])
def test_what_is_referred_to_is_told_first(make: type[DeltaSession | StateSession]) -> None:
    session = make()
    for kind in (names.LISTENER, names.CLUSTER):
        session.take(Request(kind))
    session.offer(offered("db"))
    assert told(session.due()) == [("Cluster", ["db"], []), ("Listener", ["public"], [])]


@pytest.mark.parametrize("make", [DeltaSession, StateSession])
def test_an_offer_without_a_difference_is_not_told(make: type[DeltaSession | StateSession]) -> None:
    session = make()
    settled(session, offered("db"))
    session.offer(offered("db"))
    assert session.due() == []


@pytest.mark.parametrize("make", [DeltaSession, StateSession])
def test_a_changed_secret_is_told_alone(make: type[DeltaSession | StateSession]) -> None:
    session = make()
    settled(session, offered("db"))
    session.offer(offered("db", secret="2"))
    assert told(session.due()) == [("Secret", ["leaf"], [])]


@pytest.mark.parametrize("make", [DeltaSession, StateSession])
def test_one_response_of_a_type_is_under_way_at_a_time(make: type[DeltaSession | StateSession]) -> None:
    session = make()
    settled(session, offered("db"))
    session.offer(offered("db", secret="2"))
    first = session.due()
    session.offer(offered("db", secret="3"))
    assert session.due() == []
    acknowledge(session, first, "leaf")
    assert told(session.due()) == [("Secret", ["leaf"], [])]


@pytest.mark.parametrize("make", [DeltaSession, StateSession])
def test_what_comes_later_in_the_order_waits_for_what_is_under_way(make: type[DeltaSession | StateSession]) -> None:
    session = make()
    settled(session, offered())
    session.offer(offered("db"))
    first = session.due()
    assert [kind for kind, _, _ in told(first)] == ["Cluster"]
    session.offer(offered("db", "api", listener="2"))
    assert session.due() == [], "the listener may lead to a cluster that Envoy has not heard of"
    acknowledge(session, first)
    assert [kind for kind, _, _ in told(session.due())] == ["Cluster", "Listener", "RouteConfiguration"]


@pytest.mark.parametrize("make", [DeltaSession, StateSession])
def test_what_was_refused_is_said_and_not_sent_again_until_it_changes(make: type[DeltaSession | StateSession]) -> None:
    session = make()
    settled(session, offered("db"))
    session.offer(offered("db", listener="bad"))
    refused = [one for one in session.due() if one.type_url == names.LISTENER]
    assert acknowledge(session, refused, error="no such filter") == [Nack(names.LISTENER, "no such filter")]
    session.offer(offered("db", listener="bad"))
    assert "Listener" not in [kind for kind, _, _ in told(session.due())]
    session.offer(offered("db", listener="good"))
    assert ("Listener", ["public"], []) in told(session.due())


@pytest.mark.parametrize("make", [DeltaSession, StateSession])
def test_endpoints_are_told_again_after_their_cluster_has_changed(make: type[DeltaSession | StateSession]) -> None:
    session = make()
    settled(session, offered("db"))
    session.offer(offered("db", version="2"))
    assert told(session.due()) == [("Cluster", ["db"], []), ("ClusterLoadAssignment", ["db"], [])]


@pytest.mark.parametrize("make", [DeltaSession, StateSession])
def test_a_type_that_is_never_served_is_let_be(make: type[DeltaSession | StateSession]) -> None:
    session = make()
    assert session.take(Request("type.googleapis.com/envoy.service.runtime.v3.Runtime", names=("x",))) is None
    session.offer(offered("db"))
    assert session.due() == []


@pytest.mark.parametrize("make", [DeltaSession, StateSession])
def test_an_envoy_that_asks_for_too_much_is_stopped(make: type[DeltaSession | StateSession]) -> None:
    session = make()
    with pytest.raises(TooMuch):
        for start in range(0, 10 * MOST_NAMES, MOST_NAMES + 1):
            wanted = tuple(map(str, range(start, start + MOST_NAMES + 1)))
            session.take(Request(names.ENDPOINTS, names=wanted))


@pytest.mark.parametrize("make", [DeltaSession, StateSession])
def test_an_answer_to_a_former_response_changes_nothing(make: type[DeltaSession | StateSession]) -> None:
    session = make()
    settled(session, offered("db"))
    session.offer(offered("db", secret="2"))
    (last,) = session.due()
    assert session.take(Request(names.SECRET, "of-another-time", "refused", ())) is None
    session.offer(offered("db", secret="3"))
    assert session.due() == [], "the last response is still under way"
    acknowledge(session, [last], "leaf")
    assert told(session.due()) == [("Secret", ["leaf"], [])]


def test_delta_what_is_gone_is_taken_away_after_what_referred_to_it() -> None:
    session = DeltaSession()
    settled(session, offered("db", "api"))
    session.offer(offered("db", listener="2"))
    assert told(session.due()) == [
        ("Listener", ["public"], []),
        ("RouteConfiguration", ["public"], []),
        ("ClusterLoadAssignment", [], ["api"]),
        ("Cluster", [], ["api"]),
    ]


def test_delta_an_envoy_that_comes_back_is_told_only_what_differs() -> None:
    session = DeltaSession()
    session.take(Request(names.CLUSTER, initial={"db": "1", "api": "0", "old": "1"}))
    session.take(Request(names.ENDPOINTS, names=("db", "api"), initial={"db": "1", "api": "1"}))
    session.offer(offered("db", "api"))
    assert told(session.due()) == [
        ("Cluster", ["api"], []),
        ("ClusterLoadAssignment", ["api"], []),
    ], "a cluster that changes has its endpoints told again"
    acknowledge(session, [Response(names.CLUSTER, "00000001", "", ())])
    assert told(session.due()) == [("Cluster", [], ["old"])]


def test_delta_what_is_asked_for_and_not_there_is_said_to_be_gone_once() -> None:
    session = DeltaSession()
    session.take(Request(names.ROUTES, names=("nowhere",)))
    session.offer(offered("db"))
    found = session.due()
    assert told(found) == [("RouteConfiguration", [], ["nowhere"])]
    acknowledge(session, found)
    assert session.due() == []


def test_delta_what_is_asked_for_later_is_told_then() -> None:
    session = DeltaSession()
    settled(session, offered("db", "api"))
    session.take(Request(names.ENDPOINTS, unsubscribed=("api",)))
    assert session.due() == []
    session.take(Request(names.ENDPOINTS, names=("api",)))
    assert told(session.due()) == [("ClusterLoadAssignment", ["api"], [])]


def test_delta_everything_is_asked_for_with_an_asterisk() -> None:
    session = DeltaSession()
    session.take(Request(names.SECRET, names=("*",)))
    session.offer(offered("db"))
    found = session.due()
    assert told(found) == [("Secret", ["leaf"], [])]
    acknowledge(session, found)
    session.take(Request(names.SECRET, unsubscribed=("*",)))
    session.offer(offered("db", secret="2"))
    assert session.due() == []


def test_state_each_response_has_everything_and_a_version() -> None:
    session = StateSession()
    settled(session, offered("db", "api"))
    session.offer(offered("db", "api") | {names.CLUSTER: offered("db")[names.CLUSTER]})
    (response,) = session.due()
    assert told([response]) == [("Cluster", ["db"], [])]
    assert response.version


def test_state_what_is_asked_for_again_is_told_again() -> None:
    session = StateSession()
    settled(session, offered("db"))
    session.offer(offered("db", secret="2"))
    found = session.due()
    acknowledge(session, found, "leaf")
    assert session.due() == []
    acknowledge(session, found, "leaf")
    assert told(session.due()) == [("Secret", ["leaf"], [])], "Envoy waits for it"
