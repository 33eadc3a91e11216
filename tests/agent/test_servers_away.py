"""Ten minutes of virtual time without servers: what a client agent has and gives out stands, identities that are due
are asked for again and again without haste, and the log stays readable.
"""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import pytest

from lictor.agent.following import follow
from lictor.agent.leaves import Leaves
from lictor.agent.leaves_files import LeafFiles
from lictor.agent.replica_image import Moment, read_image
from lictor.model.command import AuthorityWrite, ConfigWrite, Register
from lictor.model.connect_ca import CAConfiguration
from lictor.model.errors import NoLeader
from lictor.model.node import Node
from lictor.model.service import NodeService, ServiceConnect
from lictor.store.reads import connect_ca, health, intentions
from lictor.store.reads.connect_ca import Trusted
from lictor.store.store import Answer, View
from tests.agent.replicas import Member, World, simulated, until
from tests.agent.test_leaves import CLUSTER, Authority

AWAY = 600.0
LIFE = 500.0  # of a leaf: it is due for renewal, and ends, while the servers are away


def page(port: int) -> Register:
    service = NodeService(id="page", service="page", port=port, connect=ServiceConnect(native=True))
    return Register(Node(node="n1", address="10.0.0.9"), service)


def intention(action: str) -> ConfigWrite:
    sources = [{"Name": "web", "Action": action, "Type": "consul", "Precedence": 9}]
    return ConfigWrite("upsert", "service-intentions", "page", {"Sources": sources})


def proxy(view: View) -> tuple[list[int], list[str], int]:
    """What a proxy follows: endpoints, intentions, roots."""
    rows = health.connect(view, "page", (), {})
    rules = intentions.for_destination(view, "page")
    return [row.service.port for row in rows], [rule.action for rule in rules], len(connect_ca.roots(view))


class Seen:
    """What somebody who follows the read has been given."""

    def __init__(self, member: Member) -> None:
        self.given: list[tuple[list[int], list[str], int]] = []
        self._task = asyncio.create_task(self._follow(member))

    async def _follow(self, member: Member) -> None:
        async with aclosing(follow(member.store, member.replica, proxy)) as answers:
            async for answer in answers:
                self.given.append(answer.value)

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


@pytest.mark.parametrize("restarted", [False, True])
def test_ten_minutes_without_servers_change_nothing_and_the_log_stays_readable(
    restarted: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def no_thread(function: Any) -> None:
        function()

    monkeypatch.setattr("lictor.agent.leaves.asyncio.to_thread", no_thread)  # there are none in virtual time
    caplog.set_level("INFO", "lictor")
    authority = Authority()
    authority.life = LIFE

    async def scenario(world: World) -> None:
        began = time.time()

        class Virtual:
            @staticmethod
            def time() -> float:
                return began + world.loop.time()

        monkeypatch.setattr("tests.agent.test_leaves.time", Virtual)
        place = world.server()
        settings = CAConfiguration(CLUSTER, "consul", {}, {})
        world.write(page(80), intention("allow"), AuthorityWrite(0, settings, (authority.root,)))
        member = Member(world, "10.0.1.1:1")

        def roots() -> AsyncGenerator[Answer[Trusted], None]:
            return follow(member.store, member.replica, connect_ca.trusted)

        leaves = Leaves(
            "dc1",
            LeafFiles(None),
            authority.sign,
            roots,
            chance=lambda: 0.0,
            wall=Virtual.time,
            steady=world.loop.time,
        )
        leaves.start()
        leaf = await leaves.get("page")
        seen = Seen(member)
        wanted = ([80], ["allow"], 1)
        await until(lambda: seen.given == [wanted])
        image = member.replica.image("dc1", Moment(0.0)).encode()

        await place.vanish()
        authority.refusal = NoLeader()
        asked = len(authority.asked)
        if restarted:
            await seen.close()
            await member.replica.close()
            member = Member(world, "10.0.1.2:1")
            member.replica.resume(read_image(image, "dc1"), Moment(0.0))
            seen = Seen(member)
        ends = LIFE
        for minute in range(1, 11):
            await asyncio.sleep(AWAY / 10)
            assert seen.given == [wanted], "what is followed stands, and is not told again"
            assert (await member.replica.read(proxy)).value == wanted
            assert member.replica.age >= minute * AWAY / 10 - 5.0
            if world.loop.time() < ends - 60.0:
                assert await leaves.get("page") == leaf
        tries = len(authority.asked) - asked
        assert 3 <= tries <= 60, "it goes on being tried, without haste"
        lines = [record for record in caplog.records if record.name.startswith("lictor")]
        assert 1 <= len(lines) <= 6, [record.getMessage() for record in lines]

        # They are back: all that has changed comes, and identities are signed again.
        authority.refusal = None
        world.write(page(81), intention("deny"))
        place.return_()
        await until(lambda: seen.given[-1] == ([81], ["deny"], 1))
        await until(lambda: member.replica.age < 2.0)
        await until(lambda: not leaves.trouble, seconds=120.0)
        assert (await leaves.get("page")).serial != leaf.serial
        await seen.close()
        await leaves.close()
        await member.replica.close()

    simulated(scenario)
