"""An agent's pools: who may be in them, what they keep on disk, how agents find each other, what goes through them."""

from __future__ import annotations

import asyncio
import json
import stat
import sys
from pathlib import Path

import pytest

from lictor.agent.admission import Admission, networks_of
from lictor.agent.config.join_sources import parse_join
from lictor.agent.events import WIRE_NAME
from lictor.agent.gossip_metrics import GossipMetrics
from lictor.agent.joining import NotFoundThere, places
from lictor.agent.lan import LanPool
from lictor.agent.metrics import Metrics
from lictor.agent.pools import KeyringState, Pools
from lictor.agent.retry_join import RetryJoin
from lictor.gossip.keyring import encode_key
from lictor.model.errors import LictorError, Refused
from lictor.model.ids import new_id
from lictor.model.member import ALIVE, FAILED, LEFT
from tests.gossip.agents import PROBING, address, agents, config, member, seen
from tests.patience import soon

KEY, OTHER_KEY = encode_key(bytes(range(16))), encode_key(bytes(range(32)))


def rules(*, wan: bool = False, networks: tuple[str, ...] = (), living: dict[str, str] | None = None) -> Admission:
    held = living or {}
    return Admission(
        wan=wan,
        datacenter="dc1",
        node_id="id-own",
        member_name="own",
        networks=networks_of(networks),
        holder=lambda node_id: held.get(node_id, ""),
    )


@pytest.mark.parametrize(
    ("tags", "problem"),
    [
        ({"role": "node", "dc": "dc1", "id": "id-c1"}, ""),
        ({"role": "consul", "dc": "dc1", "id": "id-c1"}, ""),
        ({"color": "red"}, ""),
        ({"role": "node", "dc": "dc2", "id": "id-c1"}, "Member 'c1' part of wrong datacenter 'dc2'"),
        ({"role": "consul", "dc": "dc2", "id": "id-c1"}, "Member 'c1' part of wrong datacenter 'dc2'"),
        ({"role": "node", "dc": "dc1", "segment": "x"}, "Member 'c1' part of wrong segment 'x' (expected '')"),
        (
            {"role": "node", "dc": "dc1", "id": "id-own"},
            "Member 'c1' has conflicting node ID 'id-own' with this agent's ID",
        ),
        (
            {"role": "node", "dc": "dc1", "id": "id-c2"},
            "Member 'c1' has conflicting node ID 'id-c2' with member 'c2'",
        ),
    ],
)
def test_who_may_be_in_a_datacenter_s_pool(tags: dict[str, str], problem: str) -> None:
    assert rules(living={"id-c2": "c2", "id-c1": "c1"})("c1", "10.0.0.1", tags) == problem


def test_only_servers_may_be_in_the_pool_between_datacenters() -> None:
    assert rules(wan=True)("s.dc2", "10.0.0.1", {"role": "consul", "dc": "dc2", "id": "x"}) == ""
    assert rules(wan=True)("c.dc1", "10.0.0.1", {"role": "node", "dc": "dc1"}) == "Member 'c.dc1' is not a server"


def test_only_allowed_networks_may_join() -> None:
    allowed = rules(networks=("10.0.0.0/8", "fd00::/8"))
    for host, problem in (("10.1.2.3", ""), ("fd00::1", ""), ("192.168.0.1", "192.168.0.1 is not allowed")):
        assert allowed("c1", host, {"role": "node", "dc": "dc1"}) == problem


async def test_agents_that_join_see_each_other_with_what_each_says_of_itself() -> None:
    async with agents() as made:
        server, client = await made.lan("s1", server=True), await made.lan("c1")
        changes: list[int] = []
        server.on_change = lambda: changes.append(len(server.members()))
        assert await client.join([address(server)]) == 1
        await soon(lambda: seen(server) == {"s1": ALIVE, "c1": ALIVE}, "the server sees the client")
        await soon(lambda: changes and changes[-1] == 2, "the change is told")
        assert [m.name for m in client.members()] == ["c1", "s1"]
        (found,) = client.servers()
        own = member(server, "s1")
        assert (found.node, found.datacenter, found.status) == ("s1", "dc1", ALIVE)
        assert found.address == f"127.0.0.1:{own.tags['port']}"
        assert member(client, "s1").tags == own.tags
        assert own.tags["role"], own.tags["wan_join_port"]
        tags = member(server, "c1").tags
        assert (tags["role"], tags["dc"], "port" in tags, "wan_join_port" in tags) == ("node", "dc1", False, False)
        assert not server.alone()
        await client.leave()
        await soon(lambda: seen(server)["c1"] == LEFT, "the client has left")
        assert server.alone()


async def test_one_that_fails_is_seen_to_and_is_forced_to_leave_and_forgotten() -> None:
    async with agents() as made:
        one, two, three = [await made.lan(name, *PROBING) for name in "abc"]
        for pool in (two, three):
            await pool.join([address(one)])
        await soon(lambda: set(seen(two)) == {"a", "b", "c"}, "all know each other")
        await made.end(three)
        await soon(lambda: seen(one)["c"] == seen(two)["c"] == FAILED, "the failure is seen")
        one.force_leave("c", prune=False)
        await soon(lambda: seen(two)["c"] == LEFT, "it counts as left")
        one.force_leave("c", prune=True)
        await soon(lambda: "c" not in seen(two), "it is forgotten")
        assert two.forgotten == {"c"}


async def test_an_agent_of_another_datacenter_is_refused_with_the_reason() -> None:
    async with agents() as made:
        one, other = await made.lan("a"), await made.lan("b", "-datacenter=dc2")
        with pytest.raises(Refused, match="Member 'a' part of wrong datacenter 'dc1'"):
            await other.join([address(one)])
        assert seen(other) == {"b": ALIVE}


async def test_an_agent_with_the_id_of_a_living_one_is_refused() -> None:
    node_id = new_id()
    async with agents() as made:
        one, two = await made.lan("a", node_id=node_id), await made.lan("b")
        await two.join([address(one)])
        double = await made.lan("c", node_id=node_id)
        with pytest.raises(Refused, match="has conflicting node ID"):
            await double.join([address(two)])
        assert set(seen(two)) == {"a", "b"}


async def test_what_cannot_be_joined_is_told_in_serf_s_words() -> None:
    async with agents() as made:
        one = await made.lan("a")
        closed = config("b").ports.serf_lan
        with pytest.raises(Refused) as refused:
            await one.join([f"127.0.0.1:{closed}", "no-such-host.invalid"])
        lines = str(refused.value).splitlines()
        assert lines[0] == "2 errors occurred:"
        assert f"\t* Failed to join 127.0.0.1: dial tcp 127.0.0.1:{closed}: connect: connection refused" in lines
        assert any("Failed to resolve no-such-host.invalid" in line for line in lines)


async def test_changed_meta_of_the_configuration_reaches_the_others_as_tags() -> None:
    async with agents() as made:
        one, two = await made.lan("a"), await made.lan("b")
        await two.join([address(one)])
        one.reload(config("a", "-hcl", 'advertise_reconnect_timeout = "30m"'))
        await soon(lambda: "b" in seen(one) and member(two, "a").tags.get("rc_tm") == "30m0s", "the new tags arrive")


async def test_user_events_reach_everybody_once_the_sender_too() -> None:
    async with agents() as made:
        pools = [await made.lan(name) for name in "abc"]
        heard: dict[str, list[tuple[str, bytes]]] = {pool.name: [] for pool in pools}
        for pool in pools:
            pool.on_event = lambda name, payload, time, pool=pool: heard[pool.name].append((name, payload))
        for pool in pools[1:]:
            await pool.join([address(pools[0])])
        for number in range(5):
            pools[number % 3].fire(f"{WIRE_NAME}e{number}", b"x")
        await soon(lambda: all(len(events) == 5 for events in heard.values()), "all events everywhere")
        pools[0].fire(f"{WIRE_NAME}last", b"")
        await soon(lambda: all(events[-1] == (f"{WIRE_NAME}last", b"") for events in heard.values()), "the last")
        assert {name: len(events) for name, events in heard.items()} == {"a": 6, "b": 6, "c": 6}
        with pytest.raises(Refused, match="exceeds configured limit of 512 bytes"):
            pools[0].fire("x", bytes(600))


async def test_one_that_restarts_finds_the_others_by_its_journal(tmp_path: Path) -> None:
    flags = [f"-serf-lan-port={config('a').ports.serf_lan}"]
    async with agents() as made:
        one = await made.lan("a", *flags, folder=tmp_path)
        two = await made.lan("b")
        await one.join([address(two)])
        journal = tmp_path / "serf" / "local.snapshot"
        await soon(lambda: "alive: b" in journal.read_text(), "the other one is in the journal")
        assert stat.S_IMODE(journal.stat().st_mode) == 0o600
        await made.end(one)
        again = await made.lan("a", *flags, folder=tmp_path)
        await soon(lambda: seen(again).get("b") == ALIVE and seen(two)["a"] == ALIVE, "they are together again")
        await again.leave()
        await made.end(again)
        left = await made.lan("a", *flags, folder=tmp_path)
        assert seen(left) == {"a": ALIVE}


# -- keys -------------------------------------------------------------------------------------------------------------


def ring(folder: Path) -> list[str]:
    found = json.loads((folder / "serf" / "local.keyring").read_text())
    assert isinstance(found, list)
    return found


async def test_the_first_key_is_kept_in_a_file_which_counts_from_then_on(tmp_path: Path) -> None:
    async with agents() as made:
        await made.lan("a", f"-encrypt={KEY}", folder=tmp_path)
        assert ring(tmp_path) == [KEY]
        assert stat.S_IMODE((tmp_path / "serf" / "local.keyring").stat().st_mode) == 0o600
        again = await made.lan("a", f"-encrypt={OTHER_KEY}", folder=tmp_path)
        other = await made.lan("b", f"-encrypt={KEY}")
        await other.join([address(again)])
        await soon(lambda: seen(again).get("b") == ALIVE, "the key of the file is used")


async def test_without_a_keyring_file_the_configuration_counts(tmp_path: Path) -> None:
    async with agents() as made:
        await made.lan("a", f"-encrypt={KEY}", "-disable-keyring-file", folder=tmp_path)
        assert not (tmp_path / "serf" / "local.keyring").exists()


@pytest.mark.parametrize("text", ["", "[]", '["short"]', '{"a": 1}', "[1]"])
async def test_a_damaged_keyring_file_keeps_the_agent_from_starting(tmp_path: Path, text: str) -> None:
    (tmp_path / "serf").mkdir()
    (tmp_path / "serf" / "local.keyring").write_text(text)
    made = LanPool(config("a", folder=tmp_path), new_id(), tmp_path)
    with pytest.raises(LictorError, match=r"the gossip keys in .*local\.keyring cannot be read"):
        await made.start()
    await made.close()


async def test_who_has_another_key_or_none_is_not_let_in() -> None:
    async with agents() as made:
        one = await made.lan("a", f"-encrypt={KEY}")
        for flags in ([], [f"-encrypt={OTHER_KEY}"]):
            other = await made.lan("b", *flags)
            with pytest.raises(Refused):
                await other.join([address(one)])
        assert seen(one) == {"a": ALIVE}


async def test_a_key_is_replaced_in_the_whole_pool(tmp_path: Path) -> None:
    folders = {name: tmp_path / name for name in "abc"}
    async with agents() as made:
        pools = [await made.lan(name, f"-encrypt={KEY}", folder=folder) for name, folder in folders.items()]
        for pool in pools[1:]:
            await pool.join([address(pools[0])])
        await soon(lambda: all(len(seen(pool)) == 3 for pool in pools), "all know each other")

        async def done(operation: str, key: str = "") -> KeyringState:
            """Again until all have answered: an answer may be lost, and each of these can be repeated."""
            while True:
                state = await pools[1].keys(operation, key, 0)
                if state.nodes == 3 and not state.error:
                    return state
                assert "reported success" in state.error, state

        assert (await done("list")).keys == {KEY: 3}
        await done("install", OTHER_KEY)
        listed = await done("list")
        assert (listed.keys, listed.primary_keys) == ({KEY: 3, OTHER_KEY: 3}, {KEY: 3})
        await done("use", OTHER_KEY)
        await done("remove", KEY)
        assert (await done("list")).primary_keys == {OTHER_KEY: 3}
        assert [ring(folder) for folder in folders.values()] == [[OTHER_KEY]] * 3
        refused = await pools[0].keys("remove", OTHER_KEY, 0)
        assert refused.error.endswith("nodes reported failure")
        assert "Removing the primary key is not allowed" in refused.messages.values()
        assert (await pools[0].keys("install", "no key!", 0)).error == "Invalid key: not base64"
        newcomer = await made.lan("d", f"-encrypt={OTHER_KEY}")
        assert await newcomer.join([address(pools[2])]) == 1


async def test_keys_of_a_pool_that_is_not_encrypted() -> None:
    async with agents() as made:
        state = await (await made.lan("a")).keys("list", "", 0)
        assert state.error == "1/1 nodes reported failure"
        assert state.messages == {"a": "Keyring is empty (encryption not enabled)"}


# -- joining ----------------------------------------------------------------------------------------------------------


async def test_a_program_s_output_says_where_to_join(tmp_path: Path) -> None:
    script = tmp_path / "where.py"
    script.write_text("print('10.0.0.1'); print('10.0.0.2:99 [::1]:98')")
    source = parse_join(f'provider=exec args="{sys.executable} {script}" timeout=60s')
    assert await places(source, 8301) == [("10.0.0.1", 8301), ("10.0.0.2", 99), ("::1", 98)]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("print()", "the program printed no address"),
        ("print('a:b:c=d')", "is no address"),
        ("raise SystemExit(3)", "the program ended with code 3"),
    ],
)
async def test_a_program_that_gives_no_address_says_why(tmp_path: Path, text: str, problem: str) -> None:
    script = tmp_path / "where.py"
    script.write_text(text)
    with pytest.raises(NotFoundThere, match=problem):
        await places(parse_join(f'provider=exec args="{sys.executable} {script}" timeout=60s'), 8301)


async def test_a_program_that_does_not_end_or_is_not_there_says_so() -> None:
    with pytest.raises(NotFoundThere, match=r"did not end within 0\.1 s"):
        await places(parse_join('provider=exec args="sleep 600" timeout=100ms'), 8301)
    with pytest.raises(NotFoundThere, match="cannot be run"):
        await places(parse_join('provider=exec args="/no/such/program"'), 8301)


async def test_joining_is_tried_until_somebody_is_there() -> None:
    async with agents() as made:
        port = config("later").ports.serf_lan
        one = await made.lan("a")
        trying = asyncio.create_task(
            RetryJoin(
                pool=one,
                sources=[parse_join(f"127.0.0.1:{port}"), parse_join(address(one))],
                interval=0.05,
                give_up=lambda reason: pytest.fail(reason),
            ).run()
        )
        await asyncio.sleep(0)
        later = await made.lan("b", f"-serf-lan-port={port}")
        await soon(trying.done, "it has joined")
        await soon(lambda: seen(later).get("a") == ALIVE, "they are together")


async def test_joining_ends_after_so_many_attempts() -> None:
    async with agents() as made:
        one = await made.lan("a")
        reasons: list[str] = []
        closed = parse_join(f"127.0.0.1:{config('b').ports.serf_lan}")
        await RetryJoin(pool=one, sources=[closed], interval=0.01, most=3, give_up=reasons.append).run()
        (reason,) = reasons
        assert reason.startswith("retry_max = 3: nobody could be joined: Failed to join 127.0.0.1: dial tcp")


async def test_servers_that_know_each_other_by_calls_meet_in_both_pools() -> None:
    async with agents() as made:
        one = await made.pools("a", server=True)
        assert one.lan is not None and one.wan is not None
        lan = one.lan
        heard: list[str] = []

        def prepare(pools: Pools) -> None:
            own = lan.members()[0]
            pools.servers_known = lambda: [("a", (own.addr, own.port))]
            pools.on_servers = lambda servers: heard.extend(server.node for server in servers)

        two = await made.pools("b", server=True, prepare=prepare)
        assert two.lan is not None and two.wan is not None
        await soon(lambda: two.lan is not None and seen(two.lan).get("a") == ALIVE, "the LAN pool")
        wan = two.wan
        await soon(lambda: seen(wan) == {"a.dc1": ALIVE, "b.dc1": ALIVE}, "the WAN pool")
        assert {"a", "b"} <= set(heard)
        assert {server.node for server in wan.servers()} == {"a", "b"}


async def test_a_client_has_no_pool_between_datacenters() -> None:
    async with agents() as made:
        client = await made.pools("c")
        assert (client.lan is not None, client.wan) == (True, None)
        assert client.members(wan=True) == []


async def test_a_taken_port_is_told_before_anything_begins() -> None:
    async with agents() as made:
        one = await made.lan("a")
        own = one.members()[0]
        taken = Pools(config("b", f"-serf-lan-port={own.port}"), new_id(), None, lambda reason: None)
        with pytest.raises(OSError, match=f"cannot listen on tcp://127.0.0.1:{own.port} for gossip"):
            taken.open()
        await taken.close()


async def test_gossip_knows_too_little_at_first_to_call_anybody_gone() -> None:
    async with agents() as made:
        pools = await made.pools("a")
        known = pools.agents()
        assert [m.name for m in known.members] == ["a"]
        assert (known.settled, known.complete) == (False, False)
    closed = Pools(config("b", "-serf-lan-port=-1"), new_id(), None, lambda reason: None)
    assert closed.agents().complete


async def test_a_failed_member_is_kept_for_as_long_as_it_asked_for() -> None:
    async with agents() as made:
        one = await made.lan("a", "-hcl", 'reconnect_timeout = "10h"')
        kept = []
        for name, asked in (("b", "5m"), ("c", "")):
            flags = ["-hcl", f'advertise_reconnect_timeout = "{asked}"'] if asked else []
            other = await made.lan(name, *flags)
            await other.join([address(one)])
        await soon(lambda: set(seen(one)) == {"a", "b", "c"}, "all are there")
        assert one._pool is not None
        for found in one._pool.serf.members():
            kept.append((found.name, one._pool.serf.reconnect_timeout_of(found)))
        assert sorted(kept) == [("a", 36000.0), ("b", 300.0), ("c", 36000.0)]


async def test_what_goes_through_a_pool_is_counted_under_the_names_of_consul_s_metrics() -> None:
    metrics = Metrics(0.0)
    one = LanPool(config("a", *PROBING), new_id(), None, meter=GossipMetrics(metrics))
    await one.start()
    try:
        async with agents() as made:
            two = await made.lan("b")
            for pool, other in ((two, one), (one, two)):
                await pool.join([address(other)])
            one.fire("e", b"")
            await soon(lambda: seen(one).get("b") == ALIVE, "they are together")

            def counted() -> set[str]:
                return {counter.identity.name for counter, total in metrics.counters() if total is not None}

            wanted = {f"memberlist.{name}" for name in ("udp.sent", "udp.received", "tcp.accept", "msg.alive")}
            wanted |= {"serf.member.join", "serf.events"}
            await soon(lambda: wanted <= counted(), "all are counted")
            await soon(
                lambda: (
                    {"memberlist.probeNode", "memberlist.pushPullNode", "serf.msgs.sent", "serf.msgs.received"}
                    <= {sample.identity.name for sample, _ in metrics.samples()}
                ),
                "probes and exchanges are timed, messages measured",
            )
            gauges = {identity.name for identity, _ in metrics.gauges()}
            assert {"memberlist.health.score", "serf.queue.Event", "memberlist.queue.broadcasts"} <= gauges
            states = {
                identity.labels: value
                for identity, value in metrics.gauges()
                if identity.name == "memberlist.node.instances"
            }
            assert states[("network", "lan"), ("node_state", "alive")] == 2
            assert states[("network", "lan"), ("node_state", "left")] == 0
    finally:
        await one.close()
