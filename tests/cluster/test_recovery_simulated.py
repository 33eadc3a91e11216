"""A majority is lost for good, and those that are left go on, on virtual time."""

import asyncio
import random
from functools import partial

import pytest

from lictor.model.errors import LictorError
from lictor.raft.consensus import Peer
from tests.cluster.simulated import Cluster, Process
from tests.simulation.loop import SimLoop, run

FIVE = ("a", "b", "c", "d", "e")


async def _propose(line: bytes, process: Process) -> None:
    await process.replica.propose(line, 2.0)


def _peers(*names: str) -> list[Peer]:
    return [Peer(f"id-{name}", "", f"{name}:8300", leader=False, voter=True) for name in names]


@pytest.mark.parametrize("seed", range(15))
def test_two_of_five_go_on_with_all_that_either_acknowledged_and_agree_on_the_rest(seed: int) -> None:
    """One of the two was cut off as a leader, and holds what was never agreed on: its tail gives way."""

    async def story(cluster: Cluster) -> None:
        chance = random.Random(seed)
        for name in FIVE:
            cluster.add(name, FIVE, expect=5).start()
        await cluster.until(lambda: cluster.agree(*FIVE), "a cluster of five")
        first = cluster.leader()
        assert first is not None
        acknowledged = [b"%d" % n for n in range(chance.choice((0, 5)))]
        for line in acknowledged:
            await first.ask(partial(_propose, line))
        others = [host for host in cluster.hosts.values() if host is not first]
        for host in others:
            cluster.network.cut |= {(first.address, host.address), (host.address, first.address)}
        lost = [first.ask(partial(_propose, b"lost %d" % n)) for n in range(chance.choice((1, 3, 20)))]

        def taken_over() -> bool:
            return any(h.process and h.process.replica.is_leader for h in others)

        await cluster.until(taken_over, "another leads")
        second = next(h for h in others if h.process and h.process.replica.is_leader)
        for number in range(chance.choice((0, 1, 20))):
            acknowledged.append(b"later %d" % number)
            await second.ask(partial(_propose, acknowledged[-1]))
        for result in lost:
            with pytest.raises(LictorError):
                await result
        # Whoever is left has all that was acknowledged, as its operator has made sure.
        await cluster.until(
            lambda: all(h.process is not None and acknowledged == h.process.machine.lines for h in others),
            "all have all",
        )
        for host in cluster.hosts.values():
            host.kill(power=True)
        left = [first, chance.choice(others)]
        cluster.network.cut.clear()
        cluster.network.break_some(1.0)
        for host in left:
            host.recover = _peers(*(one.name for one in left))
            host.start()
        await cluster.until(lambda: cluster.agree(*(host.name for host in left)), "the two go on")
        await left[0].ask(partial(_propose, b"new"))
        acknowledged.append(b"new")
        await cluster.until(lambda: all(h.process and acknowledged == h.process.machine.lines for h in left), "agreed")
        await left[1].ask(partial(_propose, b"newer"))

    loop = SimLoop()  # type: ignore[abstract]
    run(loop, story(Cluster(loop, seed)))


def test_one_of_three_goes_on_alone_and_others_join_it_anew() -> None:
    async def story(cluster: Cluster) -> None:
        for name in "abc":
            cluster.add(name, FIVE).start()
        await cluster.until(lambda: cluster.agree("a", "b", "c"), "a cluster of three")
        await cluster.hosts["b"].ask(partial(_propose, b"kept"))
        await cluster.until(lambda: cluster.hosts["c"].process.machine.lines == [b"kept"], "it is everywhere")  # type: ignore[union-attr]
        for host in cluster.hosts.values():
            host.kill(power=True)
        cluster.hosts["c"].recover = _peers("c")
        cluster.hosts["c"].start()
        await cluster.until(lambda: cluster.agree("c"), "it goes on")
        await cluster.hosts["c"].ask(partial(_propose, b"alone"))
        for name in "ab":
            cluster.hosts[name].wipe()
            cluster.hosts[name].start()
        await cluster.until(lambda: cluster.agree("a", "b", "c"), "the others are back")
        await cluster.until(
            lambda: all(h.process and h.process.machine.lines == [b"kept", b"alone"] for h in cluster.hosts.values()),
            "all have all",
        )
        await asyncio.sleep(10)
        assert cluster.agree("a", "b", "c")

    loop = SimLoop()  # type: ignore[abstract]
    run(loop, story(Cluster(loop, 1)))
