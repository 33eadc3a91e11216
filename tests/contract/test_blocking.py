"""Blocking queries: what wakes them, what does not, and the rules of the index."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from tests.contract.client import Answer, Api
from tests.contract.covers import covers
from tests.patience import PATIENCE, eventually

# Long enough that a query that should still wait is seen to wait, short enough for a test suite.
STILL_WAITING_SECONDS = 0.25
# A wait that no test waits for to its end: an answer before is known by coming within PATIENCE.
LONG = "5m"


@pytest.fixture
def background() -> Iterator[ThreadPoolExecutor]:
    """Threads in which queries wait."""
    with ThreadPoolExecutor(8) as executor:
        yield executor


def waits(query: Future[Answer]) -> bool:
    """Whether a query is still unanswered after a while."""
    try:
        query.result(STILL_WAITING_SECONDS)
    except TimeoutError:
        return True
    return False


def ask(background: ThreadPoolExecutor, api: Api, path: str, index: int, wait: str = LONG) -> Future[Answer]:
    """A query that waits in the background."""
    joint = "&" if "?" in path else "?"
    return background.submit(api.get, f"{path}{joint}index={index}&wait={wait}")


def service(name: str, node: str, status: str = "passing") -> dict[str, object]:
    """A registration for the catalog: one node, one service, one check."""
    return {
        "Node": node,
        "Address": "10.20.0.1",
        "Service": {"ID": name, "Service": name, "Port": 80},
        "Check": {"CheckID": f"check-{name}", "Name": "c", "ServiceID": name, "Status": status},
    }


# What each kind of query is woken by. `{name}` is the case's own.
READS = (
    "/v1/kv/{name}",
    "/v1/kv/{name}?recurse",
    "/v1/kv/{name}?keys",
    "/v1/catalog/nodes",
    "/v1/catalog/services",
    "/v1/catalog/service/{name}",
    "/v1/catalog/node/{name}",
    "/v1/health/service/{name}",
    "/v1/health/node/{name}",
    "/v1/health/checks/{name}",
    "/v1/health/state/any",
    "/v1/session/list",
    "/v1/session/node/{name}",
    "/v1/query",
    "/v1/config/service-defaults",
    "/v1/internal/ui/nodes",
    "/v1/internal/ui/services",
)


@pytest.mark.parametrize("path", READS)
def test_the_index_is_never_zero(api: Api, name: str, path: str) -> None:
    """A client that gets 0 would ask in a tight loop."""
    assert api.get(path.format(name=name)).index > 0


@pytest.mark.parametrize("path", READS)
def test_without_an_index_a_query_answers_at_once(api: Api, name: str, path: str) -> None:
    """`wait` alone does not block."""
    joint = "&" if "?" in path else "?"
    assert api.get(f"{path.format(name=name)}{joint}wait={LONG}").seconds < PATIENCE
    assert api.get(f"{path.format(name=name)}{joint}index=0&wait={LONG}").seconds < PATIENCE


@pytest.mark.parametrize("path", READS)
def test_an_old_index_answers_at_once(api: Api, name: str, path: str) -> None:
    """What changed since the index is told immediately."""
    api.put(f"/v1/kv/{name}", "v")
    api.put("/v1/catalog/register", service(name, name))
    api.put("/v1/session/create", {"Node": name, "NodeChecks": []})
    api.post("/v1/query", {"Name": name, "Service": {"Service": name}})
    api.put("/v1/config", {"Kind": "service-defaults", "Name": name})
    now = eventually(lambda: api.get(path.format(name=name)), "an answer")
    joint = "&" if "?" in path else "?"
    answer = api.get(f"{path.format(name=name)}{joint}index={now.index - 1}&wait={LONG}")
    assert answer.seconds < PATIENCE
    assert answer.index >= now.index


@pytest.mark.parametrize("path", READS)
def test_an_unchanged_query_comes_back_after_wait(api: Api, name: str, path: str) -> None:
    """It takes `wait`, and up to a sixteenth more; the index stays."""
    index = api.get(path.format(name=name)).index
    joint = "&" if "?" in path else "?"
    answer = api.get(f"{path.format(name=name)}{joint}index={index}&wait=200ms")
    assert answer.index >= index
    if answer.index == index:
        assert 0.19 < answer.seconds < PATIENCE


@covers("GET /v1/kv/:key", "index", "wait")
def test_a_key_wakes_its_readers(api: Api, name: str, background: ThreadPoolExecutor) -> None:
    """A write wakes who waits for the key, and the answer is the new one."""
    api.put(f"/v1/kv/{name}", "one")
    first = api.get(f"/v1/kv/{name}")
    query = ask(background, api, f"/v1/kv/{name}", first.index)
    assert waits(query)
    api.put(f"/v1/kv/{name}", "two")
    answer = query.result(PATIENCE)
    assert answer.index > first.index
    assert answer.json()[0]["ModifyIndex"] == answer.index
    assert api.get(f"/v1/kv/{name}?raw").text == "two"


@covers("GET /v1/kv/:key", "index", "recurse", "keys")
@pytest.mark.parametrize("form", ["", "?recurse", "?keys"])
def test_another_key_does_not_wake(api: Api, name: str, form: str, background: ThreadPoolExecutor) -> None:
    """Only what is looked at counts."""
    api.put(f"/v1/kv/{name}/a", "one")
    index = api.get(f"/v1/kv/{name}/a{form}").index
    query = ask(background, api, f"/v1/kv/{name}/a{form}", index, "1s")
    api.put(f"/v1/kv/{name}/b", "other")
    answer = query.result(PATIENCE)
    assert answer.index == index
    assert answer.seconds > 0.99


@covers("GET /v1/kv/:key", "index")
def test_a_missing_key_can_be_waited_for(api: Api, name: str, background: ThreadPoolExecutor) -> None:
    """404 carries an index, and creation wakes."""
    missing = api.get(f"/v1/kv/{name}")
    assert missing.status == 404
    query = ask(background, api, f"/v1/kv/{name}", missing.index)
    api.put(f"/v1/kv/{name}", "now")
    assert eventually(lambda: api.get(f"/v1/kv/{name}").status == 200, "the key is there")
    answer = query.result(PATIENCE)
    # A reader may be told of writes elsewhere while its key is absent; then it asks again.
    while answer.status == 404:
        answer = api.get(f"/v1/kv/{name}?index={answer.index}&wait=10s")
    assert answer.status == 200


@covers("DELETE /v1/kv/:key")
@pytest.mark.parametrize("form", ["", "?recurse", "?keys"])
def test_deleting_wakes_and_the_index_does_not_go_back(
    api: Api, name: str, form: str, background: ThreadPoolExecutor
) -> None:
    """A tombstone keeps the index of a prefix from falling."""
    api.put(f"/v1/kv/{name}/a", "1")
    api.put(f"/v1/kv/{name}/ab", "2")
    before = api.get(f"/v1/kv/{name}/a{form}")
    query = ask(background, api, f"/v1/kv/{name}/a{form}", before.index)
    assert waits(query)
    api.delete(f"/v1/kv/{name}/a?recurse")
    gone = query.result(PATIENCE)
    assert gone.status == 404
    assert gone.index > before.index
    assert api.get(f"/v1/kv/{name}/a{form}").index >= gone.index


@covers("GET /v1/kv/:key", "index")
def test_an_index_from_the_future_waits(api: Api, name: str) -> None:
    """It is compared, not checked: a client that restored an older state recovers by the answer's smaller index."""
    api.put(f"/v1/kv/{name}", "v")
    answer = api.get(f"/v1/kv/{name}?index=999999999&wait=200ms")
    assert answer.status == 200
    assert 0 < answer.index < 999999999


@covers("GET /v1/health/service/:service", "index", "wait", "passing")
@pytest.mark.parametrize("form", ["", "?passing"])
def test_health_of_a_service_wakes_by_status(api: Api, name: str, form: str, background: ThreadPoolExecutor) -> None:
    """A check's new status wakes who looks at the service."""
    api.put("/v1/catalog/register", service(name, name))
    first = api.get(f"/v1/health/service/{name}{form}")
    query = ask(background, api, f"/v1/health/service/{name}{form}", first.index)
    assert waits(query)
    api.put("/v1/catalog/register", service(name, name, "critical"))
    answer = query.result(PATIENCE)
    assert answer.index > first.index
    assert len(answer.json()) == (0 if form else 1)


@covers("GET /v1/health/service/:service", "index")
@covers("GET /v1/catalog/service/:service", "index")
@pytest.mark.parametrize("path", ["/v1/health/service/{name}", "/v1/catalog/service/{name}"])
def test_another_service_does_not_wake(api: Api, name: str, path: str, background: ThreadPoolExecutor) -> None:
    """A service that exists is watched alone, however busy the catalog is."""
    api.put("/v1/catalog/register", service(name, name))
    first = api.get(path.format(name=name))
    query = ask(background, api, path.format(name=name), first.index, "1s")
    api.put("/v1/catalog/register", service(f"{name}-other", f"{name}-other"))
    answer = query.result(PATIENCE)
    assert answer.index == first.index
    assert answer.seconds > 0.99


@covers("GET /v1/health/service/:service", "index")
def test_a_service_that_comes_and_goes_wakes(api: Api, name: str, background: ThreadPoolExecutor) -> None:
    """The first instance and the last one's leaving wake a watcher; the index only grows."""
    path = f"/v1/health/service/{name}"
    index = api.get(path).index
    query = ask(background, api, path, index)
    api.put("/v1/catalog/register", service(name, name))
    answer = query.result(PATIENCE)
    assert len(answer.json()) == 1
    assert answer.index > index
    query = ask(background, api, path, answer.index)
    assert waits(query)
    api.put("/v1/catalog/deregister", {"Node": name, "ServiceID": name})
    gone = query.result(PATIENCE)
    assert gone.json() == []
    assert gone.index > answer.index


@covers("GET /v1/catalog/services", "index")
def test_the_list_of_services_wakes_by_a_new_one(api: Api, name: str, background: ThreadPoolExecutor) -> None:
    """A new service wakes who waits for the list."""
    index = api.get("/v1/catalog/services").index
    query = ask(background, api, "/v1/catalog/services", index)
    api.put("/v1/catalog/register", service(name, name))
    assert name in query.result(PATIENCE).json()


@covers("GET /v1/catalog/nodes", "index")
def test_the_list_of_nodes_wakes_by_a_new_one(api: Api, name: str, background: ThreadPoolExecutor) -> None:
    """A new node wakes who waits for the list."""
    index = api.get("/v1/catalog/nodes").index
    query = ask(background, api, "/v1/catalog/nodes", index)
    api.put("/v1/catalog/register", {"Node": name, "Address": "10.20.0.2"})
    assert name in [node["Node"] for node in query.result(PATIENCE).json()]


@covers("GET /v1/catalog/node/:node", "index")
def test_a_node_wakes_by_its_services(api: Api, name: str, background: ThreadPoolExecutor) -> None:
    """A service added to a node wakes who looks at the node."""
    api.put("/v1/catalog/register", {"Node": name, "Address": "10.20.0.2"})
    index = api.get(f"/v1/catalog/node/{name}").index
    query = ask(background, api, f"/v1/catalog/node/{name}", index)
    api.put("/v1/catalog/register", service(name, name))
    assert name in query.result(PATIENCE).json()["Services"]


@covers("GET /v1/health/state/:state", "index")
@covers("GET /v1/health/node/:node", "index")
@covers("GET /v1/health/checks/:service", "index")
@pytest.mark.parametrize("path", ["/v1/health/state/critical", "/v1/health/node/{name}", "/v1/health/checks/{name}"])
def test_checks_wake_their_readers(api: Api, name: str, path: str, background: ThreadPoolExecutor) -> None:
    """By state, by node and by service."""
    api.put("/v1/catalog/register", service(name, name))
    index = api.get(path.format(name=name)).index
    query = ask(background, api, path.format(name=name), index)
    api.put("/v1/catalog/register", service(name, name, "critical"))
    assert [check["Status"] for check in query.result(PATIENCE).json()] == ["critical"]


@covers("GET /v1/session/list", "index")
@covers("GET /v1/session/info/:session", "index")
def test_sessions_wake_their_readers(api: Api, name: str, background: ThreadPoolExecutor) -> None:
    """Creation wakes the list, destruction wakes the session's own readers."""
    index = api.get("/v1/session/list").index
    query = ask(background, api, "/v1/session/list", index)
    session = api.put("/v1/session/create", {"Name": name}).json()["ID"]
    assert [item["ID"] for item in query.result(PATIENCE).json()] == [session]
    info = api.get(f"/v1/session/info/{session}")
    query = ask(background, api, f"/v1/session/info/{session}", info.index)
    assert waits(query)
    api.put(f"/v1/session/destroy/{session}")
    assert query.result(PATIENCE).json() == []


@covers("GET /v1/query", "index")
def test_the_list_of_queries_wakes(api: Api, name: str, background: ThreadPoolExecutor) -> None:
    """A new prepared query wakes who waits for the list."""
    index = api.get("/v1/query").index
    query = ask(background, api, "/v1/query", index)
    api.post("/v1/query", {"Name": name, "Service": {"Service": name}})
    assert [item["Name"] for item in query.result(PATIENCE).json()] == [name]


@covers("GET /v1/config/:kind/:name", "index")
def test_a_config_entry_wakes(api: Api, name: str, background: ThreadPoolExecutor) -> None:
    """A change of the entry wakes its readers."""
    api.put("/v1/config", {"Kind": "service-defaults", "Name": name, "Protocol": "tcp"})
    index = api.get(f"/v1/config/service-defaults/{name}").index
    query = ask(background, api, f"/v1/config/service-defaults/{name}", index)
    assert waits(query)
    api.put("/v1/config", {"Kind": "service-defaults", "Name": name, "Protocol": "http"})
    assert query.result(PATIENCE).json()["Protocol"] == "http"


@covers("GET /v1/event/list", "index")
def test_events_wake(api: Api, name: str, background: ThreadPoolExecutor) -> None:
    """A new event wakes who waits for its name."""
    api.put(f"/v1/event/fire/{name}", "one")
    first = eventually(lambda: (a := api.get(f"/v1/event/list?name={name}")).json() and a, "the event is listed")
    query = ask(background, api, f"/v1/event/list?name={name}", first.index)
    assert waits(query)
    api.put(f"/v1/event/fire/{name}", "two")
    assert len(query.result(PATIENCE).json()) == 2


@covers("GET /v1/coordinate/node/:node", "index")
def test_coordinates_wake(api: Api, name: str, background: ThreadPoolExecutor) -> None:
    """A new coordinate wakes who waits for the node's."""
    api.put("/v1/catalog/register", {"Node": name, "Address": "10.20.0.2"})
    index = api.get(f"/v1/coordinate/node/{name}").index or 1
    query = ask(background, api, f"/v1/coordinate/node/{name}", index)
    zero = {"Vec": [0.0] * 8, "Error": 1.5, "Adjustment": 0, "Height": 0.00001}
    api.put("/v1/coordinate/update", {"Node": name, "Coord": zero})
    answer = query.result(PATIENCE)
    while answer.status == 404 or not answer.json():
        answer = api.get(f"/v1/coordinate/node/{name}?index={answer.index}&wait=10s")
    assert answer.json()[0]["Coord"] == zero


@covers("GET /v1/agent/service/:service_id", "hash", "wait")
def test_an_agents_service_blocks_by_its_hash(api: Api, name: str, background: ThreadPoolExecutor) -> None:
    """The agent's own view has no index: the content's hash is given instead, and a change of content wakes."""
    api.put("/v1/agent/service/register", {"Name": name, "Port": 1})
    first = api.get(f"/v1/agent/service/{name}")
    hashed = first.headers["x-consul-contenthash"]
    assert hashed == first.json()["ContentHash"]
    assert "x-consul-index" not in first.headers
    again = api.get(f"/v1/agent/service/{name}?hash={hashed}&wait=200ms")
    assert again.seconds > 0.19
    assert again.headers["x-consul-contenthash"] == hashed
    assert api.get(f"/v1/agent/service/{name}?hash=other&wait={LONG}").seconds < PATIENCE
    query = background.submit(api.get, f"/v1/agent/service/{name}?hash={hashed}&wait={LONG}")
    assert waits(query)
    api.put("/v1/agent/service/register", {"Name": name, "Port": 2})
    answer = query.result(PATIENCE)
    assert answer.json()["Port"] == 2
    assert answer.headers["x-consul-contenthash"] != hashed


@covers("GET /v1/agent/service/:service_id", "hash")
def test_an_agents_service_that_goes_wakes(api: Api, name: str, background: ThreadPoolExecutor) -> None:
    """Deregistration answers 404 to who waits."""
    api.put("/v1/agent/service/register", {"Name": name})
    hashed = api.get(f"/v1/agent/service/{name}").headers["x-consul-contenthash"]
    query = background.submit(api.get, f"/v1/agent/service/{name}?hash={hashed}&wait={LONG}")
    assert waits(query)
    api.put(f"/v1/agent/service/deregister/{name}")
    assert query.result(PATIENCE).status == 404


@covers("GET /v1/kv/:key", "wait")
def test_wait_has_jitter_at_most_a_sixteenth(api: Api, name: str) -> None:
    """A thousand clients with one `wait` do not come back at one moment."""
    api.put(f"/v1/kv/{name}", "v")
    index = api.get(f"/v1/kv/{name}").index
    for _ in range(3):
        answer = api.get(f"/v1/kv/{name}?index={index}&wait=500ms")
        assert 0.49 <= answer.seconds < PATIENCE
