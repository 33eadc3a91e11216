"""`lictor snapshot inspect`, which needs no agent, and what `save` leaves behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lictor.model.kv import KVEntry
from lictor.store import snapshot
from lictor.store.archive import Meta, write_archive
from lictor.store.store import Store
from tests.cli.command_line import CommandLine, here


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A snapshot of a store with a few keys."""
    store = Store()
    table = store.tables["kv"]
    for position, key in enumerate(("web/port", "web/name", "db/port/main", "lone"), start=1):
        table.put(KVEntry(lock_index=0, key=key, flags=0, value=b"v" * 100 * position, modify_index=position))
    store.index = 4
    state = b"".join(snapshot.Image(store).encode())
    path = tmp_path / "backup.snap"
    path.write_bytes(write_archive(Meta(version=1, id="1-4-99", index=4, term=1, size=len(state)), state, 1e9))
    return path


def test_inspect_tells_what_is_in_a_snapshot(saved: Path) -> None:
    outcome = here("snapshot", "inspect", str(saved))
    assert (outcome.code, outcome.err) == (0, "")
    lines = outcome.out.splitlines()
    assert lines[0] == " ID           1-4-99"
    assert lines[2:5] == [" Index        4", " Term         1", " Version      1"]
    assert lines[6] == " Type       Count      Size"
    assert lines[8].startswith(" KVS        4          1.")
    assert lines[-1].startswith(" Total                 1.") and lines[-1].endswith("KB")


def test_inspect_takes_the_kv_store_apart(saved: Path) -> None:
    asked = here("snapshot", "inspect", "-kvdetails", "-kvdepth=1", "-format=json", str(saved))
    shown = json.loads(asked.out)
    assert shown["Meta"]["Index"] == 4
    assert [(share["Name"], share["Count"]) for share in shown["StatsKV"]] == [("lone", 1), ("web", 2), ("db", 1)]
    assert shown["TotalSizeKV"] == sum(share["Sum"] for share in shown["StatsKV"]) == shown["Stats"][0]["Sum"]
    filtered = here("snapshot", "inspect", "-kvdetails", "-kvfilter=web/", str(saved)).out
    assert " web/port " in filtered and " web/name " in filtered and "lone" not in filtered


def test_inspect_refuses_a_damaged_file(saved: Path) -> None:
    whole = saved.read_bytes()
    saved.write_bytes(whole[:-40])
    outcome = here("snapshot", "inspect", str(saved))
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err.startswith("Error verifying snapshot: ")


def test_save_that_fails_leaves_nothing_behind(nobody: CommandLine, tmp_path: Path) -> None:
    outcome = here("snapshot", "save", str(tmp_path / "a.snap"), env=nobody.env)
    assert outcome.code == 1
    assert outcome.err.startswith('Error saving snapshot: Get "http://127.0.0.1:1/v1/snapshot": dial tcp')
    assert list(tmp_path.iterdir()) == []


def test_save_keeps_the_old_file_when_it_fails(nobody: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "a.snap").write_text("old")
    assert here("snapshot", "save", str(tmp_path / "a.snap"), env=nobody.env).code == 1
    assert (tmp_path / "a.snap").read_text() == "old"
