"""Tickets of TLS sessions: who gets one, and what is read of a client's first bytes to know it."""

from __future__ import annotations

import ssl

from hypothesis import given, settings
from hypothesis import strategies as some

from lictor.connect_proxy.certificates import Identity
from lictor.connect_proxy.client_hello import ticket_of
from tests.connect_proxy.authority import Authority


class Shaken:
    """A handshake in memory, and what the client has of it afterwards."""

    def __init__(
        self, server: Identity, client: ssl.SSLContext, session: ssl.SSLSession | None = None, *, bye: bool = True
    ) -> None:
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        asks = client.wrap_bio(to_client, to_server, False, b"web.example", session)
        self._go_on(asks)
        self.hello = to_server.read()
        to_server.write(self.hello)
        context = server.server_for(self.hello)
        self.gets_ticket = context.num_tickets > 0
        answers = context.wrap_bio(to_server, to_client, True)
        for end in (answers, asks, answers):
            self._go_on(end)
        server.accepted(answers, self.gets_ticket)
        answers.write(b"hello")
        assert asks.read(100) == b"hello"
        self.resumed = bool(answers.session_reused)
        assert asks.session_reused is self.resumed
        assert answers.getpeercert(True), "the peer is known of a resumed session, too"
        session = asks.session
        assert session is not None
        self.session: ssl.SSLSession = session
        for end in (asks, answers) if bye else ():
            try:
                end.unwrap()
            except ssl.SSLWantReadError:
                pass  # it has said good-bye, and that is enough

    @staticmethod
    def _go_on(end: ssl.SSLObject) -> None:
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            pass  # the other side is next


def both() -> tuple[Identity, ssl.SSLContext]:
    """A server and a client of one mesh."""
    authority = Authority()
    return authority.identity("web"), authority.identity("client").client


def test_who_keeps_a_ticket_gets_no_other_from_its_second_use_on() -> None:
    server, client = both()
    first = Shaken(server, client)
    assert (first.resumed, first.gets_ticket) == (False, True)
    uses = [Shaken(server, client, first.session) for _ in range(4)]
    assert [one.resumed for one in uses] == [True] * 4
    assert [one.gets_ticket for one in uses] == [True, False, False, False]
    assert server.server.session_stats()["number"] == 2, "none is made that is not wanted"


def test_who_uses_each_ticket_once_gets_another_every_time() -> None:
    server, client = both()
    last = Shaken(server, client)
    for _ in range(5):
        last = Shaken(server, client, last.session)
        assert (last.resumed, last.gets_ticket) == (True, True)


def test_who_comes_with_a_ticket_that_is_good_no_more_gets_another_in_the_end() -> None:
    server, client = both()
    old = Shaken(server, client).session
    for _ in range(3):
        Shaken(server, client, old)
    other = Identity(server.leaf, server.roots)
    tries = [Shaken(other, client, old) for _ in range(3)]
    assert not any(one.resumed for one in tries)
    assert all(one.gets_ticket for one in tries), "full handshakes are not taken for uses of the ticket"
    assert Shaken(other, client, tries[-1].session).resumed


def test_who_keeps_a_ticket_that_is_good_no_more_gets_another_by_the_second_try() -> None:
    server, client = both()
    old = Shaken(server, client).session
    Shaken(server, client, old)
    Shaken(server, client, old, bye=False)  # which is how TLS forgets a session
    tries = [Shaken(server, client, old) for _ in range(2)]
    assert not any(one.resumed for one in tries)
    assert [one.gets_ticket for one in tries] == [False, True]
    assert Shaken(server, client, tries[-1].session).resumed


def test_a_ticket_is_found_in_a_hello_that_offers_one() -> None:
    server, client = both()
    first = Shaken(server, client)
    assert ticket_of(first.hello) is None
    again, and_again = Shaken(server, client, first.session), Shaken(server, client, first.session)
    found = ticket_of(again.hello)
    assert found and found in again.hello
    assert ticket_of(and_again.hello) == found, "it is the same each time"
    assert ticket_of(again.hello + b"more") == found
    for length in range(len(again.hello)):
        assert ticket_of(again.hello[:length]) is None, "half a hello offers nothing"


def test_a_client_of_tls_1_2_offers_none() -> None:
    server, client = both()
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    assert ticket_of(hello_of(client)) is None
    assert server.server_for(hello_of(client)).num_tickets == 1


def hello_of(client: ssl.SSLContext) -> bytes:
    """What a client says first."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    try:
        client.wrap_bio(incoming, outgoing).do_handshake()
    except ssl.SSLWantReadError:
        pass
    return outgoing.read()


@settings(max_examples=300, deadline=None)
@given(some.binary(max_size=600), some.booleans())
def test_nothing_that_a_stranger_sends_is_trouble(data: bytes, looks_right: bool) -> None:
    found = ticket_of(b"\x16\x03\x01\x02\x00\x01" + data if looks_right else data)
    assert found is None or found in data
