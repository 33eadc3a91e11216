"""Names that an agent does not hold: asked for once however many ask, and bounded, so that a flood of names that nobody
has leaves the others alone. What fills the store is in the test's hands.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from dnslib import DNSRecord

from lictor.dns import server as door
from lictor.dns.newcomers import BURST, REMEMBERED, Newcomers
from lictor.dns.server import DnsServer
from lictor.dns.settings import DnsSettings
from lictor.model.errors import NoLeader
from lictor.store.watch import Topic
from tests.dns.test_dns_server import WEB, found, make_store, pack
from tests.patience import PATIENCE

QUESTION = pack("web.service.consul")
NOERROR, SERVFAIL, NXDOMAIN = 0, 2, 3


class Filling:
    """Holds what it is asked to, once `let` is set; or cannot, or finds nobody to ask."""

    def __init__(self) -> None:
        self.held: set[Topic] = set()
        self.asked: list[Topic] = []
        self.let = asyncio.Event()
        self.let.set()
        self.able = True
        self.away = False
        self.resolved = 0

    def covers(self, seen: tuple[Topic, ...]) -> bool:
        return self.held.issuperset(seen)

    async def cover(self, seen: tuple[Topic, ...]) -> bool:
        self.asked += seen
        await self.let.wait()
        if self.away:
            raise NoLeader
        if self.able:
            self.held.update(seen)
        return self.able

    async def resolve(self, data: bytes, sender: str, tcp: bool) -> bytes:
        self.resolved += 1
        return data[:2] + b"resolved"


class Served:
    def __init__(self, filling: Filling, server: DnsServer) -> None:
        self.filling = filling
        self.server = server

    def ask(self, data: bytes = QUESTION) -> "asyncio.Task[bytes]":
        return asyncio.create_task(self.server.ask(data, "127.0.0.1", False))

    async def answers(self, *questions: bytes) -> list[bytes]:
        async with asyncio.timeout(PATIENCE):
            return await asyncio.gather(*map(self.ask, questions))


@contextlib.asynccontextmanager
async def served() -> AsyncIterator[Served]:
    filling = Filling()
    server = DnsServer(make_store(), DnsSettings("here", udp_answer_limit=10), partial=filling)
    await server.start([])
    try:
        yield Served(filling, server)
    finally:
        filling.let.set()
        await server.close()


def rcode(answer: bytes) -> int:
    return int(DNSRecord.parse(answer).header.rcode)


async def test_a_name_that_many_ask_for_at_once_is_asked_of_the_servers_once() -> None:
    async with served() as dns:
        dns.filling.let.clear()
        tasks = [dns.ask(QUESTION) for _ in range(100)]
        async with asyncio.timeout(PATIENCE):
            while dns.server.unheld < 100:
                await asyncio.sleep(0)
        dns.filling.let.set()
        async with asyncio.timeout(PATIENCE):
            assert all([found(await task) == WEB for task in tasks])
        assert dns.filling.asked == [("service", "web")]
        assert dns.server.unheld == 0


async def test_a_flood_of_names_that_nobody_has_leaves_the_others_alone() -> None:
    async with served() as dns:
        dns.server._newcomers = Newcomers(0.0, rate=1e-6)
        assert found((await dns.answers(QUESTION))[0]) == WEB
        made_up = [pack(f"x{number}.service.consul") for number in range(2 * BURST)]
        answers = [rcode(answer) for answer in await dns.answers(*made_up)]
        assert answers.count(NXDOMAIN) == BURST - 1
        refused = [question for question, code in zip(made_up, answers, strict=True) if code == SERVFAIL]
        assert len(refused) == BURST + 1
        assert len(dns.filling.asked) == BURST
        assert found((await dns.answers(pack("WEB.service.consul")))[0]) == WEB, "what is held needs no allowance"
        assert rcode((await dns.answers(refused[0]))[0]) == NXDOMAIN, "who asks again is let in"
        assert dns.server.counters["names_refused"] == len(refused)


async def test_there_is_a_bound_on_what_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "MAX_UNHELD", 10)
    async with served() as dns:
        dns.filling.let.clear()
        tasks = [dns.ask(QUESTION) for _ in range(30)]
        async with asyncio.timeout(PATIENCE):
            while sum(task.done() for task in tasks) < 20:
                await asyncio.sleep(0)
        assert dns.server.unheld == 10
        dns.filling.let.set()
        codes = [rcode(answer) for answer in await asyncio.gather(*tasks)]
        assert (codes.count(SERVFAIL), codes.count(NOERROR)) == (20, 10)


async def test_what_cannot_be_held_is_answered_by_a_server_and_without_one_not_at_all() -> None:
    async with served() as dns:
        dns.filling.able = False
        assert (await dns.answers(QUESTION))[0][2:] == b"resolved"
        assert dns.filling.resolved == 1
        dns.filling.away = True
        assert rcode((await dns.answers(QUESTION))[0]) == SERVFAIL
        assert dns.server.unheld == 0


def test_the_allowances() -> None:
    names = Newcomers(0.0, rate=1.0, burst=2)
    assert [names.admit(name, 0.0) for name in "abcd"] == [True, True, False, False]
    assert [names.admit(name, 0.0) for name in "ced"] == [True, False, True]
    assert not names.admit("e", 0.0), "that allowance is used up too"
    assert names.admit("f", 1.0)
    for number in range(3 * REMEMBERED):
        names.admit(number, 1.0)
    assert len(names._refused) + len(names._refused_before) <= REMEMBERED
