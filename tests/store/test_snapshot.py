"""States as bytes: what is read back, and what is refused."""

import asyncio
import random
from collections.abc import Iterator

import msgspec
import pytest

from lictor.model.command import KVWrite, Restore, RestorePart
from lictor.model.errors import InvalidRequest, Refused
from lictor.model.kv import KVEntry
from lictor.store import commands, snapshot
from lictor.store.snapshot import Image
from lictor.store.store import Store
from lictor.store.watch import Dependent
from tests.store.random_commands import Dice
from tests.store.test_invariants import contents, run


def filled() -> tuple[Store, bytes]:
    store = Store()
    run(store, Dice(5).script(200))
    return store, b"".join(Image(store).encode())


def restored(store: Store, state: bytes) -> None:
    """Restore a state that came in parts."""
    for number, start in enumerate(range(0, len(state), 1000)):
        commands.apply(store, RestorePart("t", number, state[start : start + 1000]), 1.0)
    commands.apply(store, Restore("t", -(-len(state) // 1000)), 1.0)


def test_an_image_is_of_one_moment() -> None:
    """What is written after it was taken is not in it, however late it is encoded."""
    store = Store()
    commands.apply(store, KVWrite("set", "a", b"1"), 1.0)
    image = Image(store)
    commands.apply(store, KVWrite("set", "b", b"2"), 1.0)
    _, rows = snapshot.decode(b"".join(image.encode()))
    assert [row.key for row in rows["kv"]] == ["a"]


async def test_many_rows_go_in_chunks_of_about_one_size() -> None:
    """So that no step of making or reading one takes long."""
    store = Store()
    for number in range(5000):
        commands.apply(store, KVWrite("set", f"small{number}", b"v"), 1.0)
    for number in range(300):
        commands.apply(store, KVWrite("set", f"large{number}", bytes(20_000)), 1.0)
    pieces = list(Image(store).encode())
    assert len(pieces) < 100
    assert max(map(len, pieces)) < snapshot.CHUNK_BYTES + 21_000
    other = Store()
    await snapshot.load_pieces(other, pieces)
    assert contents(other) == contents(store)


async def test_pieces_may_be_cut_anywhere_and_the_loop_turns_meanwhile() -> None:
    store, state = filled()
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    for size in (1, 3, 1000, len(state)):
        other, before = Store(), turns
        await snapshot.load_pieces(other, (state[at : at + size] for at in range(0, len(state), size)))
        assert contents(other) == contents(store)
        assert turns - before > 5
    counting.cancel()


async def test_loading_replaces_everything_at_once_and_tells_everybody() -> None:
    _, state = filled()
    store = Store()
    run(store, Dice(6).script(200))
    before, seen = contents(store), []

    class Told(Dependent):
        def changed(self) -> None:
            seen.append(contents(store))

    store.watches.add(Told(), (("nodes",),))

    def pieces() -> Iterator[bytes]:
        for at in range(0, len(state), 1000):
            assert contents(store) == before, "nothing of what is half loaded is seen"
            yield state[at : at + 1000]

    await snapshot.load_pieces(store, pieces())
    other = Store()
    await snapshot.load_pieces(other, [state])
    assert seen == [contents(other)], "told once, with all of it there"
    assert contents(store) == contents(other)


async def test_what_is_no_whole_state_is_not_loaded() -> None:
    store, state = filled()
    before = contents(store)
    for length in [*range(40), *range(40, len(state), 101)]:
        with pytest.raises(InvalidRequest):
            await snapshot.load_pieces(store, [state[:length]])
    assert contents(store) == before


def test_a_listing_counts_what_a_state_holds() -> None:
    store, state = filled()
    listed = snapshot.describe(state)
    counted = {snapshot.TYPES[name]: len(table) for name, table in store.tables.items() if len(table)}
    assert {name: count for name, count, _ in listed} == counted
    sizes = [size for _, _, size in listed]
    assert sizes == sorted(sizes, reverse=True)
    assert 0 < sum(sizes) < len(state)


def test_what_is_cut_off_is_refused() -> None:
    store, state = filled()
    before = contents(store)
    for length in [*range(40), *range(40, len(state), 101)]:
        with pytest.raises(InvalidRequest):
            restored(store, state[:length])
    for row in list(store.restoring):
        store.restoring.delete(store.restoring.key(row))
    assert contents(store) == before


def test_parts_that_are_missing_are_told_and_change_nothing() -> None:
    """Of two restores at the same time, the later one counts."""
    store, state = filled()
    commands.apply(store, RestorePart("first", 0, state[:100]), 1.0)
    commands.apply(store, RestorePart("second", 0, state), 1.0)
    with pytest.raises(Refused, match="try again"):
        commands.apply(store, Restore("second", 1 << 60), 1.0)  # at once, however many parts are claimed
    commands.apply(store, RestorePart("first", 1, state[100:]), 1.0)
    nodes = list(store.nodes)
    with pytest.raises(Refused, match="another snapshot was being restored"):
        commands.apply(store, Restore("first", 2), 1.0)
    assert list(store.nodes) == nodes
    commands.apply(store, Restore("second", 1), 1.0)
    assert len(store.restoring) == 0


def test_noise_is_refused_or_read_whole() -> None:
    """A flipped bit may make another state, which only a checksum can tell; it never makes a traceback."""
    _, state = filled()
    dice = random.Random(3)
    for _ in range(300):
        bad = bytearray(state)
        bad[dice.randrange(len(bad))] ^= 1 << dice.randrange(8)
        try:
            snapshot.decode(bytes(bad))
        except InvalidRequest:
            pass
    for _ in range(200):
        with pytest.raises(InvalidRequest):
            snapshot.decode(dice.randbytes(dice.randrange(0, 400)))


async def test_a_server_that_was_loaded_amid_a_restore_ends_it_like_the_others() -> None:
    """Nothing tells them apart in the end, also where the state cannot be read, or names a row twice."""
    _, state = filled()
    half = len(state) // 2
    header, _ = snapshot.decode(state)
    counts = dict.fromkeys(header.rows, 0) | {"kv": 2}
    frames = [
        msgspec.structs.replace(header, rows=counts),
        {"table": "kv", "rows": [KVEntry(0, "twice", 0, b"x")] * 2},
    ]
    twice = b"".join(len(data).to_bytes(4, "big") + data for data in map(msgspec.msgpack.encode, frames))
    for given in (state, state[:-1], state[:half] + b"\xc1" + state[half:], twice, b""):
        outcomes = []
        for loaded in (False, True):
            store = Store()
            run(store, Dice(9).script(50))
            commands.apply(store, RestorePart("t", 0, given[:half]), 1.0)
            if loaded:
                other = Store()
                await snapshot.load_pieces(other, Image(store).encode())
                store = other
            commands.apply(store, RestorePart("t", 1, given[half:]), 1.0)
            try:
                commands.apply(store, Restore("t", 2), 1.0)
                outcomes.append(("restored", contents(store), store.index))
            except InvalidRequest as error:
                outcomes.append((str(error), contents(store), store.index))
        assert outcomes[0] == outcomes[1]
        assert (outcomes[0][0] == "restored") == (given is state)


def test_another_format_is_named() -> None:
    _, state = filled()
    header, _ = snapshot.decode(state)
    newer = msgspec.msgpack.encode(msgspec.structs.replace(header, format=99))
    with pytest.raises(InvalidRequest, match="format 99; this version reads format 1"):
        snapshot.decode(len(newer).to_bytes(4, "big") + newer)
