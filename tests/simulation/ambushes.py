"""Faults that wait for the moment at which they do most harm: they look into the servers, as bad luck need not, and
strike between two messages. Each is aimed at one rule of consensus, and is without effect while that rule is kept.
"""

import asyncio
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lictor.model.errors import LictorError
from lictor.raft.core.message import Message, MessageKind
from tests.simulation.cluster import Cluster, Host
from tests.simulation.process import Lost, Process, Unavailable


class Ambushes:
    """See above."""

    def __init__(self, cluster: Cluster, chance: random.Random) -> None:
        self._cluster = cluster
        self._chance = chance
        self._timeout = cluster.settings.election_timeout
        self._tick = cluster.settings.tick
        self._under_way = False

    async def run(self, kind: str) -> None:
        """Lay one ambush, unless there is one: two would spoil each other."""
        if self._under_way:
            return
        self._under_way = True
        try:
            await getattr(self, kind)()
        finally:
            self._under_way = False

    # -- means --------------------------------------------------------------------------------------------------------

    def _crash(self, host: Host) -> None:
        """End a server and start it again."""
        if host.process is not None:
            self._cluster.counts.crashes += 1
            host.kill(power=self._chance.random() < 0.5)
        host.start()

    @contextmanager
    def _cut(self, pairs: set[tuple[str, str]]) -> Iterator[None]:
        """Nothing passes between addresses."""
        network = self._cluster.network
        self._cluster.counts.cuts += 1
        self._cluster.note(f"cut {sorted(pairs)}")
        network.cut |= pairs
        network.kept |= pairs
        try:
            yield
        finally:
            network.kept -= pairs
            network.cut -= pairs
            self._cluster.note("healed")

    @contextmanager
    def _quiet(self) -> Iterator[None]:
        """Clients only read: who is cut off is as good a candidate as any other."""
        self._cluster.quiet += 1
        try:
            yield
        finally:
            self._cluster.quiet -= 1

    @contextmanager
    def _trap(self, trap: Callable[[Message], None]) -> Iterator[None]:
        self._cluster.traps.append(trap)
        try:
            yield
        finally:
            self._cluster.traps.remove(trap)

    async def _until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Whether it became so in time."""
        ends = self._cluster.loop.now + seconds
        while not condition():
            if self._cluster.loop.now >= ends:
                return False
            await asyncio.sleep(self._tick / 16)
        return True

    def _parts(self) -> tuple[Host | None, list[Host]]:
        """The leader and the other voters, in any order."""
        leaders = self._cluster.leaders()
        leader = leaders[-1] if leaders else None
        others = [host for host in self._cluster.voters() if host is not leader]
        self._chance.shuffle(others)
        return leader, others

    def _host(self, number: int) -> Host | None:
        return next((host for host in self._cluster.hosts if host.number == number), None)

    # -- ambushes -----------------------------------------------------------------------------------------------------

    async def usurper(self) -> None:
        """One does not hear the leader for so long that it may stand at any time. All that heard the leader are started
        again, and do not hear it any more: what they told it before still gives it a lease, by a clock that is slow
        where theirs are fast. Then the one stands: at some time, or just when a majority may vote again.
        """
        leader, others = self._parts()
        if leader is None or len(others) < 2:
            return
        usurper, *rest = others
        with self._quiet():
            await asyncio.sleep(2 * self._tick)
            with self._cut(_between([leader], [usurper])):
                await asyncio.sleep(1.3 * self._timeout)
                with self._cut({(leader.address, host.address) for host in rest}):
                    for host in rest:
                        self._crash(host)
                        host.clock.turn(self._cluster.rates[1])
                    leader.clock.turn(self._cluster.rates[0])
                    needed = (len(rest) + 2) // 2  # of them for a majority
                    await self._until(lambda: sum(map(_is_up, rest)) >= needed, self._timeout / 2)
                    if self._chance.random() < 0.5:
                        await asyncio.sleep(self._chance.uniform(0.0, self._timeout / 3))
                    else:
                        await asyncio.sleep(_held_for(rest, needed) + 0.001)
                    self._cluster.stand(usurper)
                    await asyncio.sleep(self._timeout)

    async def handed_over(self) -> None:
        """The leader hands over, and hears nothing any more as soon as its successor asks for votes."""
        leader, others = self._parts()
        if leader is None or len(others) < 2:
            return
        cluster = self._cluster
        pairs = _between([leader], [host for host in cluster.hosts if host is not leader])

        async def work(process: Process) -> None:
            await process.replica.transfer(others[0].record().id, self._timeout)

        def shut(message: Message) -> None:
            if message.kind is MessageKind.VOTE and message.sender == others[0].number:
                cluster.network.cut |= pairs

        cluster.counts.transfers += 1
        with self._trap(shut):
            try:
                await cluster.ask(leader, work, 2 * self._timeout)
            except (Unavailable, Lost, LictorError):
                pass
            finally:
                cluster.network.cut -= pairs

    async def deposed(self) -> None:
        """Nobody hears the leader, or it hears nobody, and others elect another one, while somebody reads at it."""
        leader, others = self._parts()
        if leader is None or len(others) < 2:
            return
        process = leader.process
        pairs = {(leader.address, host.address) for host in self._cluster.hosts if host is not leader}
        if self._chance.random() < 0.5:
            pairs = {(b, a) for a, b in pairs}
        reader = asyncio.ensure_future(self._read_at(leader))
        try:
            with self._cut(pairs):
                await self._until(
                    lambda: any(host.process and host.process.leads for host in others), 5 * self._timeout
                )
                frozen = self._chance.random() < 0.3 and leader.process is process and not leader.frozen
                if frozen:
                    leader.freeze(suspend=self._chance.random() < 0.5)
                await asyncio.sleep(self._chance.uniform(0.0, self._timeout))
                if frozen:
                    leader.thaw()
                    await asyncio.sleep(self._tick)
        finally:
            reader.cancel()

    async def _read_at(self, host: Host) -> None:
        """Read at one server, as often as anything may change."""
        observer = self._cluster.observer
        while True:
            needed = observer.acknowledged

            async def work(process: Process, needed: int = needed) -> None:
                if process.leads:
                    await process.confirm("default")
                    observer.fresh(process.owner.name, process.watched.position, needed, "default")

            try:
                await self._cluster.ask(host, work, self._tick)
            except (Unavailable, Lost, LictorError):
                await asyncio.sleep(self._tick)
            await asyncio.sleep(self._tick / 8)

    async def forgetful(self) -> None:
        """Whoever votes ends as soon as it has said so, and is back within the same election."""
        leader, others = self._parts()
        if leader is None or not others:
            return
        share = self._chance.choice((0.5, 1.0))

        def strike(message: Message) -> None:
            voter = self._host(message.sender)
            if voter is not None and message.kind is MessageKind.VOTE_RESPONSE and self._chance.random() < share:
                self._cluster.loop.later(0.0, self._crash, voter)

        with self._quiet(), self._trap(strike):
            self._crash(leader)
            await asyncio.sleep(4 * self._timeout)

    async def late_vote(self) -> None:
        """A candidate stalls; one hears of its term earlier than of its request, and ends as soon as it has voted."""
        leader, others = self._parts()
        if leader is None or len(others) < 2:
            return
        asked: list[Host] = []  # the candidate, and who is asked late
        terms: list[int] = []
        over = False

        def stall() -> None:
            if not over:
                asked[0].freeze(suspend=False)

        def watch(message: Message) -> None:
            if message.kind is MessageKind.VOTE and not asked:
                candidate, late = self._host(message.sender), self._host(message.to)
                if candidate is not None and late is not None:
                    asked.extend((candidate, late))
                    terms.append(message.term)
                    self._cluster.network.cut.add((candidate.address, late.address))
                    self._cluster.loop.later(self._tick / 100, stall)
            elif message.kind is MessageKind.VOTE_RESPONSE and asked and message.sender == asked[1].number:
                self._cluster.loop.later(0.0, self._crash, asked[1])

        with self._quiet(), self._trap(watch):
            self._crash(leader)
            try:
                if await self._until(lambda: bool(asked), 4 * self._timeout):
                    await self._until(lambda: _term(asked[1]) >= terms[0], 3 * self._timeout)
                    self._cluster.network.cut.discard((asked[0].address, asked[1].address))
                    await asyncio.sleep(self._timeout)
            finally:
                over = True
                if asked:
                    self._cluster.network.cut.discard((asked[0].address, asked[1].address))
                    asked[0].thaw()

    async def two_majorities(self) -> None:
        """One part does not hear of an election in the other. Then a voter ends, and is back on the first part's side,
        which elects somebody, too.
        """
        cluster = self._cluster
        leader, others = self._parts()
        if leader is None or len(others) < 2 or len(others) % 2:
            return
        voters = [leader, *others]
        inner, outer = voters[: len(voters) // 2 + 1], voters[len(voters) // 2 + 1 :]
        term, swing = _term(leader), inner[-1]

        def leads_anew() -> bool:
            return any(_term(host) > term and host.process and host.process.replica.node.is_leader for host in inner)

        with self._quiet():
            with self._cut(_between(inner, outer)):
                self._crash(leader)
                if not await self._until(leads_anew, 4 * self._timeout):
                    return
                if swing.process is not None and swing.process.up and swing.process.replica.node.is_leader:
                    swing = inner[0]
                cluster.network.cut -= _between([swing], outer)
            rest = [host for host in inner if host is not swing]
            with self._cut(_between(rest, [swing, *outer])):
                self._crash(swing)
                await asyncio.sleep(3 * self._timeout)


def _between(some: list[Host], others: list[Host]) -> set[tuple[str, str]]:
    there = {(a.address, b.address) for a in some for b in others}
    return there | {(b, a) for a, b in there}


def _term(host: Host) -> int:
    process = host.process
    return process.replica.term if process is not None and process.up else 0


def _is_up(host: Host) -> bool:
    return host.process is not None and host.process.up


def _held_for(hosts: list[Host], needed: int) -> float:
    """After how many seconds so many of these may vote again, which they do not since they may have heard a leader."""
    waits = []
    for host in hosts:
        if host.process is not None and host.process.up:
            held = host.process.replica._post._hold._until - host.clock.steady()
            waits.append(max(0.0, held / host.clock.rate))
    return sorted(waits)[needed - 1] if len(waits) >= needed else 0.0
