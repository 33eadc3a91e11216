"""Writes that may come twice count once."""

import random
from typing import Any

import msgspec
import pytest

from lictor.model.command import Batch, Command, KVOp, KVWrite, Numbered, Restore, RestorePart, SettingWrite, Txn
from lictor.model.errors import InvalidRequest, LictorError, NotFound, Refused
from lictor.store import commands, numbered, snapshot
from lictor.store.numbered_results import decode_result, encode_result
from lictor.store.snapshot import Image
from lictor.store.store import Store
from lictor.store.txn import TxnError, TxnFailed
from tests.store.random_commands import READS, Dice
from tests.store.test_invariants import assert_indexes, contents

PLAIN = ("nodes", "services", "checks", "kv", "sessions", "queries", "coordinates", "config", "settings")


def apply(store: Store, command: Command, now: float = 1000.0) -> Any:
    """Apply a command as a log entry is; returns its result or error."""
    (result,) = commands.apply_batch(store, Batch(now, (command,)))
    store.flush()
    return result


def shown(result: Any) -> Any:
    """A result as the API shows it."""
    if isinstance(result, TxnFailed):
        return [(e.op_index, e.what) for e in result.errors]
    return f"{type(result).__name__}: {result}" if isinstance(result, LictorError) else msgspec.json.encode(result)


def values(store: Store) -> dict[str, Any]:
    return {name: store.read(read).value for name, read in READS.items()}


def rows(store: Store) -> dict[str, Any]:
    return {name: dict(store.tables[name].rows) for name in PLAIN}


@pytest.mark.parametrize("seed", range(4))
def test_repetitions_change_nothing_and_get_the_first_answer(seed: int) -> None:
    """Two writers, whose writes come again now and then, in the middle of later ones."""
    chance, dice, store = random.Random(seed), Dice(seed), Store()
    sent: list[tuple[Numbered, Any]] = []
    for _ in range(300):
        number = len(sent)
        if sent and chance.random() < 0.4:
            command, first = chance.choice(sent[-20:])
            before = rows(store)
            assert shown(apply(store, command)) == shown(first), f"the answer to the repetition of {command}"
            assert rows(store) == before, f"the repetition of {command} has changed something"
        else:
            command = Numbered(number % 2, number, max(0, number - 40), dice.command())  # type: ignore[arg-type]
            sent.append((command, apply(store, command)))
    assert_indexes(store)
    assert len(store.numbered_answers) <= 42


def test_numbered_commands_do_what_the_commands_do() -> None:
    bare, store = Store(), Store()
    for number, command in enumerate(Dice(7).script(300)):
        expected = apply(bare, command, 1000.0 + number)
        result = apply(store, Numbered(1, number, number, command), 1000.0 + number)  # type: ignore[arg-type]
        assert shown(result) == shown(expected)
    assert rows(store) == rows(bare)
    assert values(store) == values(bare)


def test_a_compare_and_set_that_took_effect_is_not_told_that_it_failed() -> None:
    store = Store()
    command = Numbered(5, 1, 1, KVWrite("cas", "k", b"1", index=0))
    assert apply(store, command) is True
    assert apply(store, command) is True
    assert apply(store, KVWrite("cas", "k", b"2", index=0)) is False


def test_an_error_is_remembered_as_well() -> None:
    store = Store()
    command = Numbered(5, 1, 1, KVWrite("lock", "k", b"1", session="nobody"))
    assert isinstance(apply(store, command), Refused)
    again = apply(store, command)
    assert isinstance(again, Refused)
    assert str(again) == 'invalid session "nobody"'


def test_a_mistake_in_carrying_out_is_no_reason_to_try_again() -> None:
    store = Store()
    command = Numbered(5, 1, 1, SettingWrite("s", {}))
    broken, commands._HANDLERS[SettingWrite] = commands._HANDLERS[SettingWrite], lambda s, c: 1 / 0
    try:
        first = apply(store, command)
    finally:
        commands._HANDLERS[SettingWrite] = broken
    assert str(first) == str(apply(store, command)) == "Internal Server Error: the servers' logs say more"
    assert store.settings.get("s") is None


def test_what_is_settled_is_dropped_and_not_carried_out_again() -> None:
    store = Store()
    for number in range(10):
        apply(store, Numbered(5, number, 0, KVWrite("set", f"k{number}")))
    assert len(store.numbered_answers) == 10
    apply(store, Numbered(5, 10, 8, KVWrite("set", "last")))
    assert sorted(number for _, number in store.numbered_answers.rows) == [8, 9, 10]
    apply(store, KVWrite("delete", "k3"))
    again = apply(store, Numbered(5, 3, 0, KVWrite("set", "k3")))
    assert isinstance(again, Refused)
    assert store.kv.get("k3") is None


def test_one_origin_has_a_bounded_number_of_answers() -> None:
    store = Store()
    for number in range(3 * numbered.WAITING):
        apply(store, Numbered(5, number, 0, KVWrite("set", "k", b"%d" % number)))
        assert len(store.numbered_answers) <= numbered.WAITING
    newest = Numbered(5, 3 * numbered.WAITING - 1, 0, KVWrite("delete", "k"))
    assert apply(store, newest) is True
    assert store.kv.get("k") is not None, "the newest are those that are kept"


def test_silent_origins_are_dropped_when_others_are_heard() -> None:
    store = Store()
    for origin in range(100):
        apply(store, Numbered(origin, 1, 1, KVWrite("set", "k")), 1000.0 + origin)
    assert len(store.numbered_origins) == 100
    now = 1050.0 + numbered.SILENCE + numbered.NOTED
    for number in range(20):
        apply(store, Numbered(99, number, 1, KVWrite("set", "k")), now)
    assert min(row.heard for row in store.numbered_origins) >= now - numbered.SILENCE
    assert {origin for origin, _ in store.numbered_answers.rows} == {row.origin for row in store.numbered_origins}


def test_who_goes_on_writing_is_not_silent() -> None:
    store = Store()
    now = 0.0
    while now < 3 * numbered.SILENCE:
        now += 50.0
        apply(store, Numbered(1, int(now), int(now), KVWrite("set", "k")), now)
        apply(store, Numbered(int(now) + 10, 1, 1, KVWrite("set", "k")), now)
        assert (1, int(now)) in store.numbered_answers.rows
    assert len(store.numbered_origins) <= 3 + numbered.SILENCE / 50


def test_the_longest_silent_origins_go_beyond_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numbered, "ORIGINS", 10)
    store = Store()
    for origin in range(25):
        apply(store, Numbered(origin, 1, 1, KVWrite("set", "k")))
        apply(store, Numbered(3, origin + 1, origin, KVWrite("set", "k")))
    assert {row.origin for row in store.numbered_origins} == {3, *range(16, 25)}
    assert {origin for origin, _ in store.numbered_answers.rows} == {3, *range(16, 25)}
    monkeypatch.setattr(numbered, "ANSWERS", 20)
    for number in range(2, 40):
        apply(store, Numbered(24, number, 0, KVWrite("set", "k")))
        assert len(store.numbered_answers) <= max(20, number)
    assert {row.origin for row in store.numbered_origins} == {24}


def test_a_long_answer_is_not_kept_and_the_write_not_repeated() -> None:
    store = Store()
    for number in range(10):
        apply(store, KVWrite("set", f"t/{number}", bytes(5000)))
    command = Numbered(5, 1, 1, Txn((KVOp("set", "n", b"1"), KVOp("get-tree", "t/"))))
    assert len(apply(store, command)) == 11
    apply(store, KVWrite("set", "n", b"2"))
    again = apply(store, command)
    assert isinstance(again, LictorError)
    assert "was carried out" in str(again)
    entry = store.kv.get("n")
    assert entry is not None
    assert entry.value == b"2"


async def test_a_snapshot_carries_what_was_carried_out() -> None:
    store = Store()
    command = Numbered(5, 1, 1, KVWrite("cas", "k", b"1", index=0))
    apply(store, command)
    other = Store()
    await snapshot.load_pieces(other, Image(store).encode())
    assert contents(other) == contents(store)
    assert_indexes(other)
    assert apply(other, command) is True


async def test_a_snapshot_of_before_there_were_numbers_is_loaded() -> None:
    pieces = []
    store = Store()
    apply(store, KVWrite("set", "k", b"1"))
    for piece in Image(store).encode():
        body = msgspec.msgpack.decode(piece[4:])
        if "rows" in body and "format" in body:
            body["rows"] = {n: c for n, c in body["rows"].items() if not n.startswith("numbered")}
            data = msgspec.msgpack.encode(body)
            piece = len(data).to_bytes(4, "big") + data
        pieces.append(piece)
    assert b"numbered" not in b"".join(pieces)
    other = Store()
    await snapshot.load_pieces(other, pieces)
    assert contents(other) == contents(store)


def test_a_restore_does_not_forget_what_was_carried_out() -> None:
    old, store = Store(), Store()
    apply(old, Numbered(7, 1, 1, KVWrite("set", "old")))
    command = Numbered(5, 1, 1, KVWrite("set", "new"))
    apply(store, command)
    state = b"".join(Image(old).encode())
    apply(store, Numbered(5, 2, 1, RestorePart("t", 0, state)))
    last = Numbered(5, 3, 1, Restore("t", 1))
    assert apply(store, last) is None
    assert store.kv.get("new") is None
    assert apply(store, command) is True
    assert apply(store, last) is None
    assert store.kv.get("new") is None, "not carried out again"
    assert {origin for origin, _ in store.numbered_answers.rows} == {5}
    assert_indexes(store)


def test_results_come_back() -> None:
    for result in (None, True, False, 3, "id", [{"KV": 1}]):
        assert decode_result(encode_result(result)) == result
    for error in (LictorError("a"), Refused("b"), InvalidRequest("c"), NotFound("d")):
        back = decode_result(encode_result(error))
        assert type(back) is type(error)
        assert str(back) == str(error)
    back = decode_result(encode_result(TxnFailed([TxnError(1, "no"), TxnError(3, "never")])))
    assert isinstance(back, TxnFailed)
    assert back.errors == [TxnError(1, "no"), TxnError(3, "never")]


def test_a_numbered_command_holds_no_other() -> None:
    inner = msgspec.msgpack.encode(Numbered(1, 1, 1, KVWrite("set", "k")))
    outer = msgspec.msgpack.encode({"c": "numbered", "origin": 1, "number": 1, "low": 1, "command": msgspec.Raw(inner)})
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(outer, type=Command)
