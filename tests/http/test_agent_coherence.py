"""Every cached answer about the agent's own state is the one that would be computed now, whatever happens."""

import random

import pytest

from lictor.agent.registration import ServiceRegistration
from lictor.model.command import Register
from lictor.model.service import NodeService
from tests.http.conftest import Door

SERVICES = ("a", "b", "c")
READS = (
    "/v1/agent/services",
    "/v1/agent/services?filter=Port == 1",
    "/v1/agent/checks",
    "/v1/agent/checks?filter=Status == passing",
    "/v1/agent/members",
    "/v1/agent/version",
    "/v1/event/list",
    "/v1/event/list?name=e1",
    *(f"/v1/agent/service/{name}" for name in SERVICES),
    *(f"/v1/agent/service/{name}-sidecar-proxy" for name in SERVICES),
    *(f"/v1/agent/health/service/id/{name}" for name in SERVICES),
    *(f"/v1/agent/health/service/name/{name}" for name in SERVICES),
    *(f"/v1/agent/health/service/name/{name}?format=text" for name in SERVICES),
    "/v1/agent/health/service/name/shared",
)


async def change(door: Door, chance: random.Random) -> None:
    """One random change of what the reads show."""
    name = chance.choice(SERVICES)
    statuses = ("pass", "warn", "fail")
    what = chance.randrange(12)
    if what == 0:
        body = {"ID": name, "Name": chance.choice((name, "shared")), "Port": chance.randrange(3)}
        extra = {"Checks": [{"CheckID": f"{name}-c", "TTL": "1h", "Status": "passing"}], "Tags": [chance.choice("xy")]}
        await door.put("/v1/agent/service/register", {**body, **(extra if chance.random() < 0.5 else {})})
    elif what == 1:
        body = {"Name": name, "Connect": {"SidecarService": {}}, "EnableTagOverride": True}
        await door.put("/v1/agent/service/register?replace-existing-checks=true", body)
    elif what == 2:
        await door.put(f"/v1/agent/service/deregister/{name}")
    elif what == 3:
        body = {"ID": f"{name}-c", "Name": "check", "TTL": "1h"}
        await door.put("/v1/agent/check/register", {**body, **({"ServiceID": name} if chance.random() < 0.8 else {})})
    elif what == 4:
        await door.put(f"/v1/agent/check/deregister/{name}-c")
    elif what in (5, 6):
        await door.put(f"/v1/agent/check/{chance.choice(statuses)}/{name}-c?note={chance.randrange(3)}")
    elif what == 7:
        await door.put(f"/v1/agent/service/maintenance/{name}?enable={chance.choice(('true', 'false'))}")
    elif what == 8:
        await door.put(f"/v1/agent/maintenance?enable={chance.choice(('true', 'false'))}&reason={chance.randrange(2)}")
    elif what == 9:
        await door.put(f"/v1/event/fire/e{chance.randrange(2)}", b"%d" % chance.randrange(9))
    elif what == 10:
        await door.put("/v1/agent/check/register", {"ID": "node-c", "Name": "n", "TTL": "1h", "Status": "warning"})
    else:
        # Somebody changes the tags in the catalog, and the node takes them over.
        theirs = NodeService(id=name, service=name, tags=(str(chance.randrange(5)),), enable_tag_override=True)
        await door.agent.apply(Register(door.agent.node(), theirs))
        await door.agent.anti_entropy.sync_whole()


@pytest.mark.parametrize("seed", range(6))
async def test_a_cached_answer_is_the_one_computed_afresh(door: Door, seed: int) -> None:
    chance = random.Random(seed)
    compared = 0
    for step in range(60):
        await change(door, chance)
        for path in chance.sample(READS, 8):
            # The same read under bytes that no earlier request had.
            separator = "&" if "?" in path else "?"
            before = await door.get(f"{path}{separator}before={step}")
            status, headers, body = await door.get(path)
            fresh_status, fresh_headers, fresh_body = await door.get(f"{path}{separator}fresh={step}")
            if before[2] != fresh_body:
                continue  # a sidecar's check has run meanwhile
            assert (status, body) == (fresh_status, fresh_body), (seed, step, path)
            for name in ("x-consul-contenthash", "x-consul-index", "x-consul-reason"):
                assert headers.get(name) == fresh_headers.get(name), (seed, step, path)
            compared += 1
    assert compared > 400
    assert door.http.api.hits > 20, "some answers must have come from the cache, or this compares nothing"


async def test_the_state_may_change_without_the_door(door: Door) -> None:
    """A change that no request made drops the cached answer too."""
    while door.http.api.hits == 0:
        assert await door.json("/v1/agent/services") == {}
    door.agent.local.put_service(ServiceRegistration(NodeService(id="web", service="web")))
    assert set(await door.json("/v1/agent/services")) == {"web"}
