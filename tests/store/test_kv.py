"""Keys, values, locks: the commands one by one."""

import pytest

from lictor.model.command import KVWrite, Register, SessionCreate, SessionDestroy
from lictor.model.errors import Refused
from lictor.model.kv import KVEntry
from lictor.model.node import Node
from lictor.model.session import Session
from lictor.store import commands
from lictor.store.reads import kv
from lictor.store.store import Store

ONE, TWO = "11111111-1111-1111-1111-111111111111", "22222222-2222-2222-2222-222222222222"


@pytest.fixture
def store() -> Store:
    """A store with a node and two sessions on it, the second with a lock delay of 5 seconds."""
    made = Store()
    commands.apply(made, Register(Node(node="n")), 100.0)
    commands.apply(made, SessionCreate(Session(id=ONE, node="n")), 100.0)
    commands.apply(made, SessionCreate(Session(id=TWO, node="n", lock_delay=5 * 10**9, behavior="delete")), 100.0)
    return made


def write(
    store: Store, verb: str, key: str = "k", value: bytes | None = b"v", now: float = 100.0, **more: object
) -> bool:
    return bool(commands.apply(store, KVWrite(verb, key, value, **more), now))  # type: ignore[arg-type]


def row(store: Store, key: str = "k") -> KVEntry | None:
    return store.read(kv.entry, key).value


def held(store: Store, key: str = "k") -> KVEntry:
    found = row(store, key)
    assert found is not None
    return found


def test_the_same_again_keeps_its_index(store: Store) -> None:
    write(store, "set")
    first = held(store)
    write(store, "set")
    assert held(store) == first
    write(store, "set", flags=1)
    assert held(store).modify_index > first.modify_index
    assert held(store).create_index == first.create_index


def test_an_empty_value_is_none(store: Store) -> None:
    write(store, "set", value=b"")
    assert held(store).value is None


def test_compare_and_set(store: Store) -> None:
    assert not write(store, "cas", index=5)
    assert write(store, "cas", index=0)
    assert not write(store, "cas", index=0)
    assert write(store, "cas", value=b"w", index=held(store).modify_index)
    assert held(store).value == b"w"


def test_compare_and_delete(store: Store) -> None:
    assert write(store, "delete-cas", index=5), "what is not there is deleted"
    write(store, "set")
    assert not write(store, "delete-cas", index=1)
    assert write(store, "delete-cas", index=held(store).modify_index)
    assert row(store) is None


def test_deleting_a_tree(store: Store) -> None:
    for key in ("a", "a/b", "ab", "b"):
        write(store, "set", key)
    write(store, "delete-tree", "a/")
    assert [r.key for r in store.read(kv.tree, "").value] == ["a", "ab", "b"]
    write(store, "delete-tree", "")
    assert store.read(kv.tree, "").value == []


def test_keys_are_cut_at_the_separator(store: Store) -> None:
    for key in ("a/b/c", "a/b/d", "a/e", "a/"):
        write(store, "set", key)
    assert store.read(kv.keys, "a/", "/").value == ["a/", "a/b/", "a/e"]
    assert store.read(kv.keys, "", "").value == ["a/", "a/b/c", "a/b/d", "a/e"]


def test_a_lock_is_held_by_one(store: Store) -> None:
    assert write(store, "lock", session=ONE)
    assert (held(store).session, held(store).lock_index) == (ONE, 1)
    assert write(store, "lock", value=b"w", session=ONE), "the holder may take it again"
    assert held(store).lock_index == 1
    assert not write(store, "lock", session=TWO)
    assert not write(store, "unlock", session=TWO)
    write(store, "set", value=b"x")
    assert held(store).session == ONE, "a plain write leaves the lock"
    assert write(store, "unlock", session=ONE)
    assert not isinstance(held(store).session, str)


def test_a_lock_needs_a_session(store: Store) -> None:
    for session, text in (("", "missing session"), ("zz", 'invalid session "zz"')):
        with pytest.raises(Refused, match=text):
            write(store, "lock", session=session)
    assert row(store) is None


def test_ending_a_session_frees_its_locks(store: Store) -> None:
    write(store, "lock", "mine", session=ONE)
    write(store, "lock", "theirs", session=TWO)
    commands.apply(store, SessionDestroy(ONE), 100.0)
    assert held(store, "mine").value == b"v"
    assert not isinstance(held(store, "mine").session, str)
    commands.apply(store, SessionDestroy(TWO), 100.0)
    assert row(store, "theirs") is None, "behaviour delete"


def test_the_lock_delay_holds_others_off(store: Store) -> None:
    write(store, "lock", session=TWO)
    commands.apply(store, SessionDestroy(TWO), 100.0)
    assert not write(store, "lock", session=ONE, now=104.9)
    assert write(store, "set", now=104.9), "it is about the lock alone"
    assert write(store, "lock", session=ONE, now=105.0)


def test_a_lock_delay_ends_although_a_clock_was_ahead_and_is_set_right(store: Store) -> None:
    tomorrow = 100.0 + 86_400.0
    write(store, "lock", session=TWO, now=tomorrow)
    commands.apply(store, SessionDestroy(TWO), tomorrow)
    assert not write(store, "lock", session=ONE, now=tomorrow + 1.0)
    assert write(store, "lock", session=ONE, now=101.0), "nobody waits until tomorrow"
    write(store, "unlock", session=ONE, now=101.0)
    three = "33333333-3333-3333-3333-333333333333"
    commands.apply(store, SessionCreate(Session(id=three, node="n", lock_delay=5 * 10**9)), 102.0)
    write(store, "lock", session=three, now=102.0)
    commands.apply(store, SessionDestroy(three), 102.0)
    assert not write(store, "lock", session=ONE, now=100.0), "clocks that are little apart do not end it"
    assert not write(store, "lock", session=ONE, now=106.9)
    assert write(store, "lock", session=ONE, now=107.0)


def test_a_key_that_was_deleted_keeps_its_index_until_it_is_reaped(store: Store) -> None:
    write(store, "set", "a/b")
    write(store, "delete", "a/b")
    gone = store.index
    assert store.read(kv.entry, "a/b").index == gone
    assert store.read(kv.tree, "a/").index == gone
    assert store.read(kv.entry, "never").index == 1
    store.reap(gone)
    assert len(store.tombstones) == 0
    assert store.read(kv.entry, "a/b").index == gone
    assert store.read(kv.entry, "never").index == gone, "the floor is under everything that is not there"
