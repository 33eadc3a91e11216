"""What is revoked in one datacenter of the mesh is refused in all."""

import asyncio

from lictor.model.command import LeavesRevoke, RevokedForget
from lictor.model.connect_ca import RevokedLeaf
from tests.agent.checks.virtual_time import run_virtually
from tests.server.group import Group, until
from tests.server.test_connect_ca_secondary import OWN, Two


async def revoke(group: Group, *serials: int, until: float = 50_000.0) -> None:
    leaves = tuple(RevokedLeaf(f"{number >> 8:02x}:{number & 255:02x}", until=until) for number in serials)
    await next(iter(group.places.values())).server.apply(LeavesRevoke(leaves))


def revoked(group: Group) -> set[str]:
    return {leaf.serial for place in group.places.values() for leaf in place.store.ca_revoked}


def test_each_hears_of_the_other() -> None:
    async def scenario() -> None:
        two = Two()
        await revoke(two.one, 1, 2)
        await two.made()
        await revoke(two.two, 3)
        await until(lambda: len(revoked(two.one) & revoked(two.two)) == 3, "the same in both", 30)
        two.part()
        await revoke(two.one, 4)
        two.two.lead("id-y")
        await asyncio.sleep(100)
        assert len(revoked(two.two)) == 3
        two.meet()
        await until(lambda: len(revoked(two.two)) == 4, "what was revoked meanwhile", 60)
        written = two.one.index, two.two.index
        await asyncio.sleep(200)
        assert (two.one.index, two.two.index) == written, "what is known is not told again and again"
        await two.close()

    run_virtually(scenario())


def test_many_come_in_parts_and_what_has_ended_does_not_come_back() -> None:
    async def scenario() -> None:
        two = Two()
        for start in range(1, 2501, 500):
            await revoke(two.one, *range(start, start + 500), until=1300.0)
        await two.made()
        await until(lambda: len(revoked(two.two)) == 2500, "all of them", 60)
        await two.two.places["x"].server.apply(RevokedForget(6000.0))
        two.two.lead("id-y")
        await until(lambda: len(revoked(two.two)) == 2500, "all of them again, as they have not ended", 60)
        await asyncio.sleep(400)
        await two.two.places["x"].server.apply(RevokedForget(6000.0))
        two.two.lead("id-x")
        await asyncio.sleep(60)
        assert not revoked(two.two)
        await two.close()

    run_virtually(scenario())


def test_another_mesh_is_not_listened_to() -> None:
    async def scenario() -> None:
        joined: list[Group] = []
        first = Group("a", authority=OWN, datacenter="dc1", primary="dc1", joined=joined)
        other = Group("x", authority=OWN, datacenter="dc9", primary="dc9", joined=joined)
        first.lead("id-a")
        other.lead("id-x")
        for group in joined:
            for place in group.places.values():
                place.leadership.connect_ca.begin()
        await revoke(other, 7)
        await asyncio.sleep(100)
        assert not revoked(first)
        for group in joined:
            await group.close()

    run_virtually(scenario())
