"""Sessions in time: expiry, renewal, lock delay, and what invalidates them."""

from __future__ import annotations

import time

import pytest

from tests.contract.client import Api
from tests.contract.covers import covers
from tests.contract.servers import Server
from tests.patience import eventually


def create(api: Api, **fields: object) -> str:
    """A session's id."""
    answer = api.put("/v1/session/create", fields)
    assert answer.status == 200, answer.text
    return str(answer.json()["ID"])


@covers("PUT /v1/session/create", "TTL")
@pytest.mark.parametrize(("behavior", "status"), [("release", 200), ("delete", 404)])
def test_a_session_without_renewal_expires(tuned: Server, name: str, behavior: str, status: int) -> None:
    """Between once and somewhat more than twice its TTL; then its locks go the way of its behaviour."""
    api = tuned.api
    session, started = "", 0.0

    def locked() -> bool:
        """Where the machine stands still for as long as the TTL, the session is gone before it has the lock."""
        nonlocal session, started
        started = time.monotonic()
        session = create(api, TTL="1s", Behavior=behavior, LockDelay="0s")
        return bool(api.put(f"/v1/kv/{name}?acquire={session}", "v").json())

    eventually(locked, "the session has the lock")
    eventually(lambda: api.get(f"/v1/session/info/{session}").json() == [], "the session has expired")
    assert time.monotonic() - started > 0.9
    entry = api.get(f"/v1/kv/{name}")
    assert entry.status == status
    if status == 200:
        assert "Session" not in entry.json()[0]


@covers("PUT /v1/session/renew/:session")
def test_a_renewed_session_lives(tuned: Server, name: str) -> None:
    """Each renewal gives it its TTL again. Where the machine lets a whole TTL pass between two, it begins anew."""
    api = tuned.api

    def lived() -> bool:
        begun = told = time.monotonic()
        session = create(api, TTL="1s", Name=name)
        while told < begun + 2.6:
            time.sleep(0.2)
            before, told = told, time.monotonic()
            renewed = api.put(f"/v1/session/renew/{session}")
            if renewed.status == 404 and time.monotonic() - before > 1:
                return False
            assert renewed.status == 200
            assert renewed.json()[0]["ID"] == session
        return True

    eventually(lived, "nothing stood still between two renewals")


@covers("PUT /v1/session/create", "LockDelay")
def test_after_invalidation_the_lock_delay_passes(tuned: Server, name: str) -> None:
    """A lock that was taken away cannot be had for the delay; a lock that was released can, at once."""
    api = tuned.api
    first, second = create(api, LockDelay="1s"), create(api, LockDelay="0s")
    assert api.put(f"/v1/kv/{name}?acquire={first}", "1").json() is True
    assert api.put(f"/v1/kv/{name}?release={first}", "1").json() is True
    assert api.put(f"/v1/kv/{name}?acquire={second}", "2").json() is True
    assert api.put(f"/v1/kv/{name}?release={second}", "2").json() is True
    assert api.put(f"/v1/kv/{name}?acquire={first}", "1").json() is True
    started = time.monotonic()
    api.put(f"/v1/session/destroy/{first}")
    eventually(lambda: api.put(f"/v1/kv/{name}?acquire={second}", "2").json(), "the lock delay has passed")
    assert time.monotonic() - started > 0.99


@covers("PUT /v1/session/create", "LockDelay")
def test_the_lock_delay_holds_in_a_transaction(tuned: Server, name: str) -> None:
    """`lock` in a transaction respects it as well."""
    api = tuned.api
    first, second = create(api, LockDelay="60s"), create(api)
    api.put(f"/v1/kv/{name}?acquire={first}", "1")
    api.put(f"/v1/session/destroy/{first}")
    answer = api.put("/v1/txn", [{"KV": {"Verb": "lock", "Key": name, "Value": "Mg==", "Session": second}}])
    assert answer.status == 409
    assert answer.json()["Errors"][0]["OpIndex"] == 0


@covers("PUT /v1/catalog/deregister")
def test_a_node_takes_its_sessions_along(api: Api, name: str) -> None:
    """Deregistering a node destroys its sessions and frees their locks."""
    api.put("/v1/catalog/register", {"Node": name, "Address": "10.30.0.1"})
    session = create(api, Node=name, NodeChecks=[], LockDelay="0s")
    assert api.put(f"/v1/kv/{name}?acquire={session}", "v").json() is True
    api.put("/v1/catalog/deregister", {"Node": name})
    assert api.get(f"/v1/session/info/{session}").json() == []
    assert "Session" not in api.get(f"/v1/kv/{name}").json()[0]


@covers("PUT /v1/catalog/deregister")
def test_a_check_takes_its_sessions_along(api: Api, name: str) -> None:
    """Deregistering a check destroys the sessions that are bound to it, and no others."""
    check = {"CheckID": name, "Name": "c", "Status": "passing"}
    api.put("/v1/catalog/register", {"Node": name, "Address": "10.30.0.1", "Check": check})
    bound, free = create(api, Node=name, NodeChecks=[name]), create(api, Node=name, NodeChecks=[])
    api.put("/v1/catalog/deregister", {"Node": name, "CheckID": name})
    assert api.get(f"/v1/session/info/{bound}").json() == []
    assert len(api.get(f"/v1/session/info/{free}").json()) == 1


@covers("PUT /v1/session/create", "NodeChecks")
def test_a_critical_check_in_the_catalog_takes_its_sessions(api: Api, name: str) -> None:
    """Critical ends them, warning does not."""

    def check(status: str) -> None:
        record = {"CheckID": name, "Name": "c", "Status": status}
        api.put("/v1/catalog/register", {"Node": name, "Address": "10.30.0.1", "Check": record})

    check("passing")
    session = create(api, Node=name, NodeChecks=[name])
    check("warning")
    assert len(api.get(f"/v1/session/info/{session}").json()) == 1
    check("critical")
    assert api.get(f"/v1/session/info/{session}").json() == []


@pytest.mark.newer("the reference does not know the session verb of a transaction")
@covers("PUT /v1/txn")
def test_a_transaction_can_destroy_a_session(api: Api, name: str) -> None:
    """The session verb `delete`."""
    session = create(api, LockDelay="0s")
    api.put(f"/v1/kv/{name}?acquire={session}", "v")
    answer = api.put("/v1/txn", [{"Session": {"Verb": "delete", "Session": {"ID": session}}}])
    assert answer.status == 200, answer.text
    assert api.get(f"/v1/session/info/{session}").json() == []
