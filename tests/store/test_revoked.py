"""Leaves that nobody is to believe: what is taken, what is kept, and for how long."""

import math

import pytest

from lictor.model.command import LeavesRevoke, Restore, RestorePart, RevokedForget
from lictor.model.connect_ca import RevokedLeaf, plain_serial
from lictor.model.errors import InvalidRequest, Refused
from lictor.store import commands, revoked
from lictor.store.reads import connect_ca
from lictor.store.snapshot import Image
from lictor.store.store import Store

NOW = 1e9
PRINT = "ab" * 32


def leaf(serial: str, until: float = NOW + 3600.0, fingerprint: str = PRINT) -> RevokedLeaf:
    return RevokedLeaf(serial, fingerprint, "web", "n1", until)


def add(store: Store, *leaves: RevokedLeaf) -> int:
    count: int = commands.apply(store, LeavesRevoke(leaves), NOW)
    return count


def serials(store: Store) -> list[str]:
    return [row.serial for row in store.read(connect_ca.revoked).value]


def test_revoked_leaves_wake_those_who_verify_and_a_second_time_changes_nothing() -> None:
    store = Store()
    before = store.read(connect_ca.trusted).index
    assert add(store, leaf("0a:01"), leaf("02")) == 2
    found = store.read(connect_ca.trusted)
    assert found.index > before
    assert [row.serial for row in found.value.revoked] == ["02", "0a:01"]
    assert add(store, leaf("0a:01", NOW + 9.0)) == 0
    assert store.read(connect_ca.trusted) == found


def test_a_serial_number_is_the_same_however_it_is_written() -> None:
    assert plain_serial("00:0A:01") == plain_serial("a01") == plain_serial("0a:01") == "a01"


def test_a_fingerprint_that_was_not_known_is_added() -> None:
    store = Store()
    add(store, leaf("0a", fingerprint=""))
    assert add(store, leaf("0a")) == 0
    [row] = store.ca_revoked
    assert row.fingerprint == PRINT and row.create_index < store.index


def test_what_has_ended_is_not_taken_and_forgotten_later() -> None:
    store = Store()
    assert add(store, leaf("01", NOW - revoked.GRACE - 1.0), leaf("02", NOW - 1.0), leaf("03")) == 2
    index = store.read(connect_ca.revoked).index
    assert commands.apply(store, RevokedForget(NOW - 2.0), NOW) == 0
    assert store.read(connect_ca.revoked).index == index
    assert commands.apply(store, RevokedForget(NOW), NOW) == 1
    assert serials(store) == ["03"]
    assert store.read(connect_ca.revoked).index > index


@pytest.mark.parametrize("until", [math.inf, math.nan, 1e300])
def test_none_is_kept_for_ever(until: float) -> None:
    store = Store()
    add(store, leaf("01", until))
    assert [row.until for row in store.ca_revoked] == [NOW + revoked.LONGEST]


@pytest.mark.parametrize(
    "row",
    [
        leaf(""),
        leaf("0A"),
        leaf("00"),
        leaf("0a:"),
        leaf("ab:" * 64 + "ab"),
        leaf("0a\n"),
        leaf("0a", fingerprint="ab"),
        leaf("0a", fingerprint=PRINT.upper()),
        RevokedLeaf("0a", PRINT, "w" * 2049, "n1", NOW + 1.0),
        RevokedLeaf("0a", PRINT, "web", "n" * 2049, NOW + 1.0),
    ],
)
def test_what_is_no_leaf_is_refused_with_all_that_came_with_it(row: RevokedLeaf) -> None:
    store = Store()
    with pytest.raises(InvalidRequest):
        add(store, leaf("01"), row)
    assert serials(store) == []


def test_there_are_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store()
    many = tuple(leaf(f"{number >> 8:02x}:{number & 255:02x}") for number in range(1, revoked.AT_ONCE + 2))
    with pytest.raises(InvalidRequest, match="at most 1000"):
        add(store, *many)
    monkeypatch.setattr(revoked, "MOST", 3)
    with pytest.raises(Refused, match="no room"):
        add(store, *many[:4])
    assert serials(store) == []
    add(store, *many[:3])
    assert add(store, *many[:3]) == 0


def test_a_snapshot_has_them_and_a_restore_makes_none_believed_again() -> None:
    store = Store()
    add(store, leaf("01"))
    state = b"".join(Image(store).encode())
    commands.apply(store, RevokedForget(NOW + 7200.0), NOW)
    add(store, leaf("02"))
    commands.apply(store, RestorePart("t", 0, state), NOW)
    commands.apply(store, Restore("t", 1), NOW)
    assert serials(store) == ["01", "02"]
