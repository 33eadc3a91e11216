"""Servers find each other, form one cluster or join it, on virtual time."""

import asyncio
import random
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

import msgspec
import pytest

from lictor.model.errors import Refused
from lictor.model.transport import Caller, OnCall
from lictor.raft.consensus import ServerChange, ServerRecord
from lictor.server.formation_settings import FormationSettings
from lictor.server.joining import JOIN, KEPT_OUT, JoinAsked, ask_to_join
from tests.cluster.simulated import Cluster, Host, Process
from tests.simulation.loop import SimLoop, run
from tests.simulation.network import Weather

ALL = ("a", "b", "c")


def simulate(story: Callable[[Cluster], Coroutine[Any, Any, None]], seed: int = 1) -> None:
    """Run a story to its end."""
    loop = SimLoop()  # type: ignore[abstract]
    run(loop, story(Cluster(loop, seed)))


async def three(cluster: Cluster, join: Sequence[str] = ALL) -> None:
    """A cluster of a, b and c."""
    for name in ALL:
        cluster.add(name, join).start()
    await cluster.until(lambda: cluster.agree(*ALL), "a cluster of three", 30.0)


def test_three_that_know_one_of_them_form_a_cluster_of_voters() -> None:
    async def story(cluster: Cluster) -> None:
        await three(cluster, ["b"])
        leader = cluster.leader()
        assert leader is not None
        assert leader.process is not None
        assert all(peer.voter for peer in leader.process.replica.peers())
        assert len({host.promise for host in cluster.hosts.values()}) == 1

    simulate(story)


def test_nothing_is_formed_before_all_that_are_expected_are_there() -> None:
    async def story(cluster: Cluster) -> None:
        for name in ALL:
            cluster.add(name, ALL)
        cluster.hosts["a"].start()
        cluster.hosts["b"].start()
        await asyncio.sleep(300)
        assert all(cluster.hosts[name].process.replica.blank for name in "ab")  # type: ignore[union-attr]
        cluster.hosts["c"].start()
        await cluster.until(lambda: cluster.agree(*ALL), "a cluster of three", 30.0)

    simulate(story)


def test_more_than_expected_end_in_one_cluster() -> None:
    async def story(cluster: Cluster) -> None:
        names = ("a", "b", "c", "d", "e")
        for name in names:
            cluster.add(name, ["c", "d"]).start()
        await cluster.until(lambda: cluster.agree(*names), "a cluster of five", 60.0)
        leader = cluster.leader()
        assert leader is not None
        assert leader.process is not None
        assert sum(peer.voter for peer in leader.process.replica.peers()) == 3

    simulate(story)


def test_a_late_server_joins_as_a_learner_and_a_read_replica_never_forms() -> None:
    async def story(cluster: Cluster) -> None:
        cluster.add("r", ALL, read_replica=True).start()
        for name in "ab":
            cluster.add(name, ALL).start()
        await asyncio.sleep(30)
        assert all(host.process.replica.blank for host in cluster.hosts.values())  # type: ignore[union-attr]
        cluster.add("c", ALL).start()
        await cluster.until(lambda: cluster.agree("a", "b", "c", "r"), "the read replica has joined")
        cluster.add("z", ["b"], expect=0).start()
        await cluster.until(lambda: cluster.agree("a", "b", "c", "r", "z"), "the late one has joined")
        leader = cluster.leader()
        assert leader is not None
        assert leader.process is not None
        assert {p.node for p in leader.process.replica.peers() if not p.voter} == {"r", "z"}

    simulate(story)


def test_a_single_server_forms_alone_at_once_and_takes_others() -> None:
    async def story(cluster: Cluster) -> None:
        cluster.add("a", [], alone=True, expect=0).start()
        await cluster.until(lambda: cluster.leader() is not None, "it leads", 0.9)
        cluster.add("b", ["a"], expect=0).start()
        await cluster.until(lambda: cluster.agree("a", "b"), "the other has joined", 30.0)

    simulate(story)


def test_different_expectations_form_nothing() -> None:
    async def story(cluster: Cluster) -> None:
        for name in "ab":
            cluster.add(name, ALL, expect=3).start()
        cluster.add("c", ALL, expect=5).start()
        await asyncio.sleep(120)
        assert all(host.process.replica.blank for host in cluster.hosts.values())  # type: ignore[union-attr]

    simulate(story)


def test_servers_of_another_datacenter_are_left_alone() -> None:
    async def story(cluster: Cluster) -> None:
        for name in "ab":
            cluster.add(name, ALL).start()
        cluster.add("c", ALL, datacenter="dc2").start()
        await asyncio.sleep(60)
        assert all(host.process.replica.blank for host in cluster.hosts.values())  # type: ignore[union-attr]
        cluster.add("d", ALL).start()
        await cluster.until(lambda: cluster.agree("a", "b", "d"), "the three of one datacenter")
        await asyncio.sleep(60)
        assert cluster.hosts["c"].process.replica.blank  # type: ignore[union-attr]
        assert cluster.agree("a", "b", "d")

    simulate(story)


def test_all_restart_under_new_addresses() -> None:
    async def story(cluster: Cluster) -> None:
        await three(cluster)
        for host in cluster.hosts.values():
            host.kill(power=True)
        for name, host in cluster.hosts.items():
            host.address = f"{name}-new:8300"
            host.settings = _settings(host, join=("b-new",))
            host.start()
        addresses = {f"{name}-new:8300" for name in ALL}

        def moved() -> bool:
            leader = cluster.leader()
            if leader is None or leader.process is None:
                return False
            return {peer.address for peer in leader.process.replica.peers()} == addresses

        await cluster.until(moved, "the configuration has the new addresses")

    simulate(story)


def test_addresses_that_were_swapped_are_taken_over() -> None:
    async def story(cluster: Cluster) -> None:
        await three(cluster)
        for host in cluster.hosts.values():
            host.kill()
        addresses = {"a": "b:8300", "b": "c:8300", "c": "a:8300"}
        for name, host in cluster.hosts.items():
            host.address = addresses[name]
            host.start()

        def moved() -> bool:
            leader = cluster.leader()
            if leader is None or leader.process is None:
                return False
            return {peer.node: peer.address for peer in leader.process.replica.peers()} == addresses

        await cluster.until(moved, "the configuration has the new addresses")

    simulate(story)


def test_a_wiped_server_takes_its_own_place_again() -> None:
    async def story(cluster: Cluster) -> None:
        await three(cluster)
        host = cluster.hosts["b"]
        assert host.process is not None
        before = host.process.replica.number
        host.kill()
        host.wipe()
        host.start()
        await cluster.until(
            lambda: cluster.agree(*ALL) and host.process and host.process.replica.number != before, "it has joined anew"
        )

    simulate(story)


def test_a_living_server_is_not_replaced_by_one_with_its_node_id() -> None:
    async def story(cluster: Cluster) -> None:
        await three(cluster)
        clone = cluster.add("clone", ALL, expect=0)
        clone.start()
        await cluster.until(lambda: clone.process is not None, "the clone starts")
        assert clone.process is not None
        victim = cluster.hosts["a"]
        clone.name = "a"  # the node id and name of another
        asked: list[str] = []
        leading = cluster.leader()
        assert leading is not None
        assert leading.process is not None
        doorkeeper = leading.process.formation._doorkeeper
        leading.process.transport.on_call(JOIN, partial(_counted, asked, doorkeeper._on_join))
        await asyncio.sleep(60)
        assert 10 <= len(asked) <= 70  # it goes on asking, without haste
        assert clone.process.replica.blank
        assert cluster.agree(*ALL)
        leader = cluster.leader()
        assert leader is not None
        assert leader.process is not None
        numbers = {peer.node: peer.number for peer in leader.process.replica.peers()}
        assert victim.process is not None
        assert numbers["a"] == victim.process.replica.number

    simulate(story)


def test_nobody_is_renamed_but_by_itself() -> None:
    async def story(cluster: Cluster) -> None:
        await three(cluster)
        leader = cluster.leader()
        assert leader is not None
        victim, stranger = (host for host in cluster.hosts.values() if host is not leader)
        assert victim.process is not None
        forged = victim.process.replica.number

        async def ask(process: Process) -> None:
            record = ServerRecord("id-other", "other", victim.address, forged)
            await ask_to_join(process.transport, [leader.address], JoinAsked(record, "dc1"))

        with pytest.raises(Refused, match="does not answer at"):
            await stranger.ask(ask)
        assert cluster.agree(*ALL)

    simulate(story)


@pytest.mark.parametrize("leads", [True, False])
def test_a_server_leaves_and_comes_back_only_where_it_is_told_to(leads: bool) -> None:
    async def story(cluster: Cluster) -> None:
        await three(cluster)
        leader = cluster.leader()
        host = next(host for host in cluster.hosts.values() if (host is leader) == leads)
        rest = [name for name in ALL if name != host.name]
        assert await host.ask(lambda process: process.leave())
        await cluster.until(lambda: cluster.agree(*rest), "two are left")
        host.settings = _settings(host, join=())
        host.start()
        await asyncio.sleep(60)
        assert cluster.agree(*rest)
        host.kill()
        host.settings = _settings(host, join=(), rejoin_after_leave=True)
        host.start()
        await cluster.until(lambda: cluster.agree(*ALL), "it is back")

    simulate(story)


def test_a_server_that_was_removed_while_it_was_down_learns_it_and_joins_again() -> None:
    async def story(cluster: Cluster) -> None:
        await three(cluster)
        leader = cluster.leader()
        assert leader is not None
        gone = next(host for host in cluster.hosts.values() if host is not leader)
        rest = [name for name in ALL if name != gone.name]
        gone.kill()
        await leader.ask(lambda process: process.formation.force_leave(f"id-{gone.name}"))
        await cluster.until(lambda: cluster.agree(*rest), "it is removed")
        term = leader.process.replica.term  # type: ignore[union-attr]
        gone.start()
        await cluster.until(lambda: cluster.agree(*ALL), "it has joined again")
        assert cluster.leader() is leader
        assert leader.process.replica.term == term, "it disturbs nobody"  # type: ignore[union-attr]

    simulate(story)


def test_a_server_that_is_removed_while_it_runs_stays_out_for_a_while() -> None:
    async def story(cluster: Cluster) -> None:
        await three(cluster)
        leader = cluster.leader()
        assert leader is not None
        gone = next(host for host in cluster.hosts.values() if host is not leader)
        rest = [name for name in ALL if name != gone.name]
        await leader.ask(lambda process: process.formation.force_leave(f"id-{gone.name}"))
        await asyncio.sleep(60)
        assert cluster.agree(*rest)
        assert await gone.ask(_leader) == ""
        assert await leader.ask(_leader) == leader.address
        await cluster.until(lambda: cluster.agree(*ALL), "it is back", 2 * KEPT_OUT)

    simulate(story)


def test_a_server_that_was_taken_for_dead_joins_again_by_itself() -> None:
    async def story(cluster: Cluster) -> None:
        await three(cluster)
        leader = cluster.leader()
        assert leader is not None
        gone = next(host for host in cluster.hosts.values() if host is not leader)
        rest = [name for name in ALL if name != gone.name]
        record = ServerRecord(f"id-{gone.name}", gone.name, gone.address)
        others = [host.address for host in cluster.hosts.values() if host is not gone]
        cluster.network.cut = {pair for other in others for pair in ((gone.address, other), (other, gone.address))}
        await leader.ask(lambda process: process.replica.change(ServerChange.REMOVE, record, 30.0))
        await cluster.until(lambda: cluster.agree(*rest), "it is removed")
        await asyncio.sleep(10)
        cluster.network.cut.clear()
        await cluster.until(lambda: cluster.agree(*ALL), "it has joined again")

    simulate(story)


def test_the_last_voter_does_not_leave() -> None:
    async def story(cluster: Cluster) -> None:
        host = cluster.add("a", [], alone=True)
        host.start()
        await cluster.until(lambda: cluster.leader() is not None, "it leads")
        assert not await host.ask(lambda process: process.leave())
        host.start()
        await cluster.until(lambda: cluster.leader() is host, "it leads again")

    simulate(story)


def test_whoever_finds_nobody_gives_up_after_retry_max() -> None:
    async def story(cluster: Cluster) -> None:
        host = cluster.add("a", ["b", "nowhere"], retry_max=3)
        host.start()
        await cluster.until(lambda: host.process is not None and host.process.given_up, "it gives up", 30.0)
        assert "b:8300" in host.process.given_up  # type: ignore[union-attr]

    simulate(story)


def test_a_server_of_one_cluster_never_joins_another() -> None:
    """Not even where it lost sight of its own, and is told of the other's servers."""

    async def story(cluster: Cluster) -> None:
        for name in ALL:
            cluster.add(name, ALL).start()
        for name in "xyz":
            cluster.add(name, "xyz").start()
        await cluster.until(lambda: cluster.agree(*ALL) and cluster.agree(*"xyz"), "two clusters")
        lost = cluster.hosts["a"]
        lost.kill()
        lost.settings = _settings(lost, join=("x", "y", "z"))
        for name in "bc":
            cluster.hosts[name].kill()
        lost.start()
        await asyncio.sleep(60)
        assert cluster.agree(*"xyz")
        assert await lost.ask(_leader) == ""
        assert set(cluster.members("a")) == set(ALL)
        for name in "bc":
            cluster.hosts[name].start()
        await cluster.until(lambda: cluster.agree(*ALL), "it is back in its own cluster")
        assert cluster.agree(*"xyz")
        asking = JoinAsked(ServerRecord("id-q", "q", "a:8300", 5), "dc1", "another cluster")
        with pytest.raises(Refused, match="it belongs to another cluster"):
            await cluster.hosts["x"].ask(partial(_ask_for, asking))

    simulate(story)


def test_a_server_that_is_told_of_two_clusters_joins_neither(caplog: pytest.LogCaptureFixture) -> None:
    async def story(cluster: Cluster) -> None:
        cluster.add("a", [], alone=True).start()
        cluster.add("x", [], alone=True).start()
        await cluster.until(lambda: cluster.agree("a") and cluster.agree("x"), "two clusters")
        cluster.add("b", ["a", "x"], expect=0).start()
        await asyncio.sleep(60)
        assert cluster.agree("a")
        assert cluster.agree("x")
        assert "a at a:8300 and x at x:8300 belong to different clusters" in caplog.text
        cluster.hosts["x"].kill()
        await cluster.until(lambda: cluster.agree("a", "b"), "it joins the one that is left")

    with caplog.at_level("INFO", logger="lictor"):
        simulate(story)


async def _ask_for(asked: JoinAsked, process: Process) -> None:
    leader = process.replica.leader
    if process.replica.is_leader:
        await process.formation._doorkeeper._join(asked, "")
    else:
        await ask_to_join(process.transport, [leader], asked)


def test_a_server_that_cannot_be_reached_where_it_says_is_no_founder() -> None:
    async def story(cluster: Cluster) -> None:
        for name in ALL:
            cluster.add(name, ALL)
        odd = cluster.hosts["c"]
        odd.start()
        await cluster.until(lambda: odd.process is not None, "it starts")
        cluster.hosts["a"].start()
        cluster.hosts["b"].start()
        odd.address = "elsewhere:8300"  # what it says; it listens at c:8300
        await asyncio.sleep(60)
        assert all(host.process.replica.blank for host in cluster.hosts.values())  # type: ignore[union-attr]
        odd.address = "c:8300"
        await cluster.until(lambda: cluster.agree(*ALL), "a cluster of three")

    simulate(story)


async def _counted(asked: list[str], answer: OnCall, caller: Caller, body: bytes) -> bytes:
    asked.append(caller.address)
    return await answer(caller, body)


async def _leader(process: Process) -> str:
    return process.replica.leader


def _settings(host: Host, **changes: Any) -> FormationSettings:
    return msgspec.structs.replace(host.settings, **changes)


# -- any schedule -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(40))
def test_no_server_is_ever_in_two_clusters_and_all_end_in_one(seed: int) -> None:
    simulate(lambda cluster: _any_schedule(cluster, random.Random(seed)), seed)


async def _any_schedule(cluster: Cluster, chance: random.Random) -> None:
    """Servers come, crash and come back, and lose sight of each other, while they form; then all is well."""
    names = [*"abcdef"][: chance.choice((3, 3, 4, 5, 6))]
    cluster.network.weather.tail = chance.choice((0.01, 0.1))
    cluster.network.weather.slow = chance.choice((0.2, 3.0))
    for name in names:
        cluster.add(name, ["a", *chance.sample(names, chance.choice((1, 2, len(names))))], expect=3)
    for _ in range(chance.choice((0, 3, 10, 30))):
        await asyncio.sleep(chance.expovariate(1 / chance.choice((0.01, 0.3, 2.0))))
        host = cluster.hosts[chance.choice(names)]
        if host.process is None:
            host.start()
        elif chance.random() < 0.4:
            host.kill(power=chance.random() < 0.5)
        if chance.random() < 0.3:
            source, target = chance.sample([host.address for host in cluster.hosts.values()], 2)
            cluster.network.cut ^= {(source, target)}
        _one_cluster_each(cluster)
    cluster.network.cut.clear()
    cluster.network.weather = Weather()
    cluster.network.break_some(1.0)
    for host in cluster.hosts.values():
        host.start()

    def settled() -> bool:
        _one_cluster_each(cluster)
        for host in cluster.hosts.values():
            process = host.process
            if process is None or not process.up or not process.replica.leader or not cluster.members(host.name):
                return False
        return len(names) == 6 or cluster.agree(*names)

    await cluster.until(settled, "everybody is in a cluster", 400.0)


def _one_cluster_each(cluster: Cluster) -> None:
    """Each leader marks its cluster, once; servers of different clusters must not share a member."""
    groups: dict[bytes, set[int]] = {}
    for host in cluster.hosts.values():
        process = host.process
        if process is None or not process.up:
            continue
        lines = process.machine.lines
        if lines:
            groups.setdefault(lines[0], set()).update(peer.number for peer in process.replica.peers())
        elif process.replica.is_leader:
            mark = b"%d" % cluster.chance.getrandbits(60)
            host.ask(partial(_propose, mark)).add_done_callback(_retrieved)
    found = list(groups.values())
    for number, group in enumerate(found):
        for other in found[number + 1 :]:
            assert not group & other, f"two clusters share servers: {cluster.describe()}"


async def _propose(mark: bytes, process: Process) -> None:
    await process.replica.propose(mark, 5.0)


def _retrieved(done: "asyncio.Future[Any]") -> None:
    if not done.cancelled():
        done.exception()
