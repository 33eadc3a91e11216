"""How fresh the answers of the DNS door are: `allow_stale`, `max_stale`, and what happens without a leader. The store's
origin is in the test's hands.
"""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator
from typing import Any

import pytest
from dnslib import DNSRecord

from lictor.dns import server as door
from lictor.dns.server import DnsServer
from lictor.dns.settings import DnsSettings
from lictor.model.clock import lease_clock
from lictor.model.command import Register
from lictor.model.errors import NoLeader
from lictor.model.node import Node
from lictor.model.service import NodeService
from lictor.store.commands import apply
from tests.dns.test_dns_server import WEB, found, framed, make_store, over_tcp, over_udp, pack
from tests.patience import PATIENCE

QUESTION = pack("web.service.consul")
NOERROR, SERVFAIL, NXDOMAIN, REFUSED = 0, 2, 3, 5


class Steered:
    """A follower's store. What was acknowledged elsewhere arrives with the next confirmation."""

    def __init__(self) -> None:
        self.store = make_store()
        self.fresh_until = 0.0
        self.last_contact = 0.02
        self.leads = True
        self.asked = 0
        self.behind: list[str] = []
        self.let = asyncio.Event()
        self.let.set()
        self.stale = 0

    async def confirm(self, consistent: bool) -> None:
        self.asked += 1
        await self.let.wait()
        if not self.leads:
            raise NoLeader
        for address in self.behind:
            instance = NodeService(id="w", service="web")
            apply(self.store, Register(Node(node=address, address=address), instance), 0)
        self.behind.clear()
        self.store.flush()

    def count(self, number: int) -> None:
        self.stale += number


class Served:
    def __init__(self, origin: Steered, server: DnsServer) -> None:
        self.origin = origin
        self.server = server
        self.address = server.bound[0]

    async def ask(self, data: bytes = QUESTION, *, tcp: bool = False) -> bytes:
        if tcp:
            return (await over_tcp(self.address, framed(data), 1))[0]
        return (await over_udp(self.address, data))[0]

    async def asked(self, number: int) -> None:
        """Return once as many confirmations are under way."""
        async with asyncio.timeout(PATIENCE):
            while self.origin.asked < number:
                await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def served(**settings: Any) -> AsyncIterator[Served]:
    origin = Steered()
    server = DnsServer(
        origin.store, DnsSettings("here", udp_answer_limit=10, **settings), origin=origin, on_stale=origin.count
    )
    await server.start([("127.0.0.1", 0)])
    try:
        yield Served(origin, server)
    finally:
        origin.let.set()
        await server.close()


def rcode(answer: bytes) -> int:
    return int(DNSRecord.parse(answer).header.rcode)


TCP = pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])


@TCP
async def test_a_follower_answers_from_its_own_store_by_default(tcp: bool) -> None:
    async with served() as dns:
        dns.origin.behind.append("10.0.0.9")
        dns.origin.leads = False
        dns.origin.last_contact = 3600.0
        for _ in range(4):
            assert found(await dns.ask(tcp=tcp)) == WEB
        assert dns.origin.asked == 0
        assert dns.server.counters["hits"] >= 1


@TCP
async def test_where_nothing_may_be_stale_each_question_is_confirmed(tcp: bool) -> None:
    async with served(allow_stale=False) as dns:
        for number in range(1, 5):
            assert found(await dns.ask(tcp=tcp)) == WEB
            assert dns.origin.asked == number
        assert dns.server.counters["hits"] >= 1, "what was confirmed comes from memory"
        dns.origin.behind.append("10.0.0.9")
        assert found(await dns.ask(tcp=tcp)) == [*WEB, "10.0.0.9"]
        for _ in range(3):
            assert rcode(await dns.ask(pack("none.service.consul"), tcp=tcp)) == NXDOMAIN
        assert dns.origin.asked == 8


async def test_a_leader_under_its_lease_needs_no_confirmation() -> None:
    async with served(allow_stale=False) as dns:
        dns.origin.fresh_until = lease_clock() + 1000
        for _ in range(4):
            assert found(await dns.ask()) == WEB
        assert dns.origin.asked == 0
        dns.origin.fresh_until = lease_clock() - 0.001
        dns.origin.behind.append("10.0.0.9")
        assert found(await dns.ask()) == [*WEB, "10.0.0.9"]


@TCP
async def test_a_store_that_has_become_too_old_is_confirmed_first(tcp: bool) -> None:
    async with served(max_stale=30.0) as dns:
        for _ in range(4):
            await dns.ask(tcp=tcp)
        assert dns.origin.asked == 0
        dns.origin.last_contact = 28.5
        await dns.ask(tcp=tcp)
        assert dns.origin.asked == 0, "that is not too old"
        dns.origin.last_contact = 31.0
        dns.origin.behind.append("10.0.0.9")
        async with asyncio.timeout(PATIENCE):
            while found(await dns.ask(tcp=tcp)) == WEB:
                await asyncio.sleep(0.05)
        dns.origin.last_contact = 0.0
        asked = dns.origin.asked
        assert found(await dns.ask(tcp=tcp)) == [*WEB, "10.0.0.9"]
        assert dns.origin.asked == asked


async def test_a_short_max_stale_is_kept_to_the_moment() -> None:
    async with served(max_stale=0.5) as dns:
        for contact, asked in ((0.1, 0), (0.5, 0), (0.51, 1), (0.2, 1), (math.inf, 2)):
            dns.origin.last_contact = contact
            assert found(await dns.ask()) == WEB
            assert dns.origin.asked == asked


async def test_cache_max_age_bounds_the_age_of_what_the_agent_holds() -> None:
    async with served(use_cache=True, cache_max_age=0.5, allow_stale=False) as dns:
        for contact, asked in ((0.1, 0), (0.5, 0), (0.51, 1), (0.2, 1)):
            dns.origin.last_contact = contact
            assert found(await dns.ask()) == WEB
            assert dns.origin.asked == asked
        dns.origin.leads = False
        assert found(await dns.ask()) == WEB
        dns.origin.last_contact = 0.51
        assert rcode(await dns.ask()) == SERVFAIL


async def test_use_cache_without_a_maximum_age_answers_whatever_the_age_and_never_beyond_max_stale() -> None:
    async with served(use_cache=True, allow_stale=False, max_stale=1.5) as dns:
        for contact, asked in ((1.5, 0), (1.6, 1)):
            dns.origin.last_contact = contact
            assert found(await dns.ask()) == WEB
            assert dns.origin.asked == asked


async def test_cache_max_age_means_nothing_without_use_cache() -> None:
    async with served(cache_max_age=0.5) as dns:
        dns.origin.last_contact = 3600.0
        assert found(await dns.ask()) == WEB
        assert dns.origin.asked == 0


@TCP
async def test_without_a_leader_what_must_be_confirmed_fails(tcp: bool) -> None:
    async with served(allow_stale=False) as dns:
        for _ in range(3):
            await dns.ask(tcp=tcp)
        dns.origin.leads = False
        assert rcode(await dns.ask(tcp=tcp)) == SERVFAIL
        assert rcode(await dns.ask(pack("none.service.consul"), tcp=tcp)) == SERVFAIL
        assert rcode(await dns.ask(pack("www.example.com"), tcp=tcp)) == REFUSED
        assert dns.server.counters["servfail"] == 2
        dns.origin.leads = True
        assert found(await dns.ask(tcp=tcp)) == WEB


async def test_a_store_that_never_had_a_leader_is_not_told_from() -> None:
    async with served() as dns:
        dns.origin.leads = False
        dns.origin.last_contact = math.inf
        dns.server.reload(dns.server.settings)
        assert rcode(await dns.ask()) == SERVFAIL


async def test_questions_that_wait_share_confirmations_and_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "MAX_UNCONFIRMED", 3)
    async with served(allow_stale=False) as dns:
        dns.origin.let.clear()
        waiting = [asyncio.create_task(dns.ask()) for _ in range(3)]
        async with asyncio.timeout(PATIENCE):
            while dns.server.held < 3:
                await asyncio.sleep(0.005)
        assert rcode(await dns.ask()) == SERVFAIL
        dns.origin.let.set()
        assert [found(await answer) for answer in waiting] == [WEB] * 3
        assert dns.server.held == 0


async def test_answers_from_a_store_without_contact_are_counted() -> None:
    async with served() as dns:
        for _ in range(5):
            await dns.ask()
        dns.origin.last_contact = 6.0
        async with asyncio.timeout(PATIENCE):
            while not dns.origin.stale:
                await dns.ask()
                await asyncio.sleep(0.02)
