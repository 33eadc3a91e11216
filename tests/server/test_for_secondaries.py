"""What servers of the primary datacenter answer those of others: by rights of a token, and never for garbage."""

import asyncio

import pytest

from lictor.ca import certificates
from lictor.model.errors import Forbidden, InvalidRequest, LictorError, Refused
from lictor.model.spiffe import ServiceId, trust_domain
from lictor.server import for_secondaries, revoked_elsewhere
from lictor.server.datacenters import Datacenters
from lictor.server.for_secondaries import AskEntries, AskRoots, AskSignature, ForSecondaries, decode_roots, encode
from lictor.store.reads.config_changes import Position
from tests.agent.checks.virtual_time import run_virtually
from tests.server.test_connect_ca_secondary import Two, root_of

CALLS = (for_secondaries.ROOTS, for_secondaries.SIGN, for_secondaries.ENTRIES, revoked_elsewhere.CALL)


def of(two: Two, name: str) -> Datacenters:
    """What a server calls other datacenters with."""
    places = {**two.one.places, **two.two.places}
    found = places[name].leadership.datacenters
    assert found is not None
    return found


def test_garbage_is_refused() -> None:
    async def scenario() -> None:
        two = Two()
        await two.made()
        for method in CALLS:
            for body in (
                b"",
                b"\xc1",
                b"\x93\x01\x02\x03",
                encode({"position": {"index": -1}, "seen": 5, "request": 7, "servers": 9}),
            ):
                with pytest.raises(InvalidRequest, match="cannot be read"):
                    await of(two, "x").call("dc1", method, body, 5)
        with pytest.raises(InvalidRequest):
            await of(two, "x").call("dc1", for_secondaries.SIGN, encode(AskSignature("no request")), 5)
        await two.close()

    run_virtually(scenario())


def test_only_authorities_of_this_mesh_are_signed() -> None:
    async def scenario() -> None:
        two = Two()
        await two.made()
        web = ServiceId(trust_domain(root_of(two.one).cluster), "dc2", "web")
        request = certificates.make_request(certificates.make_key(), web)
        with pytest.raises(Refused, match="not that of an authority of this trust domain"):
            await of(two, "y").call("dc1", for_secondaries.SIGN, encode(AskSignature(request)), 5)
        await two.close()

    run_virtually(scenario())


def test_a_secondary_answers_nothing_that_is_for_a_primary() -> None:
    async def scenario() -> None:
        two = Two()
        await two.made()
        for method in CALLS[:3]:
            with pytest.raises(LictorError, match="does not answer"):
                await of(two, "a").call("dc2", method, b"", 5)
        await two.close()

    run_virtually(scenario())


class _Nothing:
    """The rights of nobody."""

    def allows(self, resource: str, name: str, access: str) -> bool:
        return False


def test_it_takes_rights_to_have_an_authority_signed_and_to_read_entries() -> None:
    async def scenario() -> None:
        two = Two()
        await two.made()
        asked: list[str] = []

        def rights(token: str) -> _Nothing:
            asked.append(token)
            return _Nothing()

        for place in two.one.places.values():
            assert place.leadership.datacenters is not None
            ForSecondaries(place.server, place.leadership.connect_ca, place.leadership.datacenters, rights)
        for method, body in (
            (for_secondaries.SIGN, encode(AskSignature("x", "t1"))),
            (for_secondaries.ENTRIES, encode(AskEntries(Position(), "t2"))),
        ):
            with pytest.raises(Forbidden):
                await of(two, "z").call("dc1", method, body, 5)
        assert asked == ["t1", "t2"]
        answer = await of(two, "z").call("dc1", for_secondaries.ROOTS, encode(AskRoots()), 5)
        assert [root.id for root in decode_roots(answer).roots] == [root_of(two.one).id], "everybody may know the roots"
        await two.close()

    run_virtually(scenario())


def test_who_knows_the_roots_waits_for_others() -> None:
    async def scenario() -> None:
        two = Two()
        await two.made()
        seen = decode_roots(await of(two, "z").call("dc1", for_secondaries.ROOTS, encode(AskRoots()), 5)).seen
        began = asyncio.get_running_loop().time()
        again = await of(two, "z").call("dc1", for_secondaries.ROOTS, encode(AskRoots(seen)), 60)
        assert decode_roots(again).seen == seen
        assert asyncio.get_running_loop().time() - began >= for_secondaries.WAIT
        await two.close()

    run_virtually(scenario())
