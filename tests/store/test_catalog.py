"""The catalog's commands: names, ids, and what ends with what."""

import pytest

from lictor.model.check import Check
from lictor.model.command import Deregister, Register, SessionCreate
from lictor.model.errors import Refused
from lictor.model.node import Node
from lictor.model.service import NodeService
from lictor.model.session import Session
from lictor.store import commands
from lictor.store.reads import catalog, health
from lictor.store.store import Store

ID = "11111111-1111-1111-1111-111111111111"
SESSION = "aaaaaaaa-1111-1111-1111-111111111111"


def register(store: Store, node: Node, service: NodeService | None = None, *checks: Check) -> None:
    commands.apply(store, Register(node, service, checks), 1.0)


def web(**more: object) -> NodeService:
    return NodeService(id="w", service="web", **more)  # type: ignore[arg-type]


def test_names_have_no_case() -> None:
    store = Store()
    register(store, Node(node="Foo", address="1"), NodeService(id="W", service="Web"))
    register(store, Node(node="foo", address="2"), NodeService(id="w", service="web"))
    assert len(store.nodes) == len(store.services) == 1
    assert len(store.read(catalog.service, "WEB", (), {}).value) == 1


def test_the_same_again_changes_nothing() -> None:
    store = Store()
    check = Check(check_id="c", status="passing", service_id="w")
    register(store, Node(node="n"), web(), check)
    touched = dict(store.touched)
    register(store, Node(node="n"), web(), check)
    assert store.touched == touched


def test_a_node_known_by_its_id_is_renamed_and_loses_what_it_had() -> None:
    store = Store()
    register(store, Node(id=ID, node="old"), web())
    created = store.nodes.rows["old"].create_index
    register(store, Node(id=ID, node="new"))
    assert list(store.nodes.rows) == ["new"]
    assert store.nodes.rows["new"].create_index == created
    assert len(store.services) == 0


def test_a_live_node_keeps_its_name() -> None:
    store = Store()
    alive = Check(check_id="serfHealth", status="passing")
    register(store, Node(id=ID, node="n"), None, alive)
    other = Node(id=ID.replace("1", "2"), node="N")
    with pytest.raises(Refused, match="failed inserting node: Error while renaming Node ID.*is reserved by node"):
        register(store, other)
    register(store, Node(id=ID, node="n"), None, Check(check_id="serfHealth", status="critical"))
    register(store, other)
    assert store.nodes.rows["n"].id == other.id


def test_a_check_follows_its_service() -> None:
    store = Store()
    register(store, Node(node="n"), web(tags=("a",)), Check(check_id="c", status="passing", service_id="w"))
    assert (store.checks.rows["n", "c"].service_name, store.checks.rows["n", "c"].service_tags) == ("web", ("a",))
    register(store, Node(node="n"), web(tags=("b",)))
    assert store.checks.rows["n", "c"].service_tags == ("b",)
    commands.apply(store, Deregister("n", service_id="w"), 1.0)
    assert len(store.checks) == 0
    assert store.read(health.checks_of_service, "web", {}).value == []


def test_what_is_missing_is_named() -> None:
    store = Store()
    for service, check, text in (
        (None, Check(check_id="c", service_id="x"), 'inserting check: Missing service registration on node "n"'),
        (None, Check(), "inserting check: failed inserting check: object missing primary index"),
        (NodeService(), None, "inserting service: failed inserting service: object missing primary index"),
    ):
        with pytest.raises(Refused, match=f"failed {text}"):
            register(store, Node(node="n"), service, *([check] if check is not None else []))
    assert len(store.nodes) == 0, "a refused registration leaves nothing behind"


def test_sessions_end_with_their_node_and_their_checks() -> None:
    store = Store()
    for status in ("critical", "gone", "node"):
        register(store, Node(node="n"), None, Check(check_id="c", status="passing"))
        commands.apply(store, SessionCreate(Session(id=SESSION, node="n", node_checks=("c",))), 1.0)
        if status == "critical":
            register(store, Node(node="n"), None, Check(check_id="c", status="critical"))
        else:
            commands.apply(store, Deregister("n", check_id="c" if status == "gone" else ""), 1.0)
        assert len(store.sessions) == 0, status


def test_a_session_needs_its_node_and_healthy_checks() -> None:
    store = Store()
    session = Session(id=SESSION, node="n", node_checks=("c",))
    for text in ("Missing node registration", "Missing check 'c' registration", "Check 'c' is in critical state"):
        with pytest.raises(Refused, match=text):
            commands.apply(store, SessionCreate(session), 1.0)
        register(store, Node(node="n"), None, *([Check(check_id="c")] if len(store.nodes) else []))


def test_a_failed_command_takes_an_index_and_nothing_else() -> None:
    store = Store()
    index = store.index
    with pytest.raises(Refused):
        commands.apply(store, SessionCreate(Session(id=SESSION, node="n")), 1.0)
    assert store.index == index + 1
    assert store.touched == {}
