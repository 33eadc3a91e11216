"""`/v1/snapshot`: an archive that restores, or changes nothing."""

import gzip
import io
import random
import tarfile

import pytest

from lictor.agent.forwarding import SPAN, Asked, Block, block
from lictor.server import archive
from tests.http.conftest import Door


async def save(door: Door) -> bytes:
    status, headers, body = await door.get("/v1/snapshot")
    assert (status, headers["content-type"]) == (200, "application/x-gzip")
    assert int(headers["x-consul-index"]) == door.agent.store.index
    assert headers["x-consul-knownleader"] == "true"
    return body


async def test_what_was_saved_is_restored(door: Door) -> None:
    await door.put("/v1/kv/a", b"one")
    await door.put("/v1/catalog/register", {"Node": "m", "Address": "10.0.0.1", "Service": {"Service": "web"}})
    saved = await save(door)
    await door.put("/v1/kv/a", b"two")
    await door.put("/v1/kv/b", b"new")
    await door.put("/v1/catalog/deregister", {"Node": "m"})
    _, before, _ = await door.get("/v1/kv/a")
    assert await door.put("/v1/snapshot", saved) == (200, b"")
    _, after, value = await door.get("/v1/kv/a?raw")
    assert value == b"one"
    assert (await door.get("/v1/kv/b"))[0] == 404
    assert len(await door.json("/v1/catalog/service/web")) == 1
    assert int(after["x-consul-index"]) > int(before["x-consul-index"]), "an index never falls"


async def test_a_state_of_any_length_is_restored_for_another_datacenter(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its request is numbered, and comes to more commands than one request has numbers."""
    monkeypatch.setattr("lictor.agent.agent.RESTORE_PART", 16)
    await door.put("/v1/kv/a", b"one")
    saved = await save(door)
    await door.put("/v1/kv/a", b"two")
    state = archive.restorable_state(saved)
    assert len(state) > 16 * SPAN
    token = block.set(Block(Asked("PUT", "/v1/snapshot?dc=dc1", {}, "", "", b"", 7, 1, 1)))
    try:
        await door.agent.restore(state)
    finally:
        block.reset(token)
    assert (await door.get("/v1/kv/a?raw"))[2] == b"one"


async def test_the_archive_has_consuls_form(door: Door) -> None:
    with tarfile.open(fileobj=io.BytesIO(await save(door))) as opened:
        assert opened.getnames() == ["meta.json", "state.bin", "SHA256SUMS"]


async def test_damage_anywhere_is_refused_and_changes_nothing(door: Door) -> None:
    await door.put("/v1/kv/a", b"one")
    saved = await save(door)
    await door.put("/v1/kv/a", b"two")
    index = door.agent.store.index
    dice = random.Random(1)
    damaged = [saved[:n] for n in (0, 1, 9, 10, 40, 60, len(saved) // 2, len(saved) - 1)]
    damaged += [saved + b"\0", b"x", gzip.compress(b"x"), gzip.compress(gzip.decompress(saved))]
    for _ in range(150):
        bad = bytearray(saved)
        bad[dice.randrange(len(saved))] ^= 1 << dice.randrange(8)
        damaged.append(bytes(bad))
    for data in damaged:
        status, text = await door.put("/v1/snapshot", data)
        assert status == 500, "damage was accepted"
        assert text.startswith((b"failed to decompress snapshot: ", b"failed to read snapshot file: "))
    assert door.agent.store.index == index
    assert (await door.get("/v1/kv/a?raw"))[2] == b"two"


async def test_an_archive_of_another_program_is_called_so(door: Door) -> None:
    packed = io.BytesIO()
    with (
        tarfile.open(fileobj=packed, mode="w:gz") as archive,
        tarfile.open(fileobj=io.BytesIO(await save(door))) as own,
    ):
        for member in own:
            archive.addfile(member, own.extractfile(member))
    status, text = await door.put("/v1/snapshot", packed.getvalue())
    assert status == 500
    assert b"written by another program" in text


async def test_a_bomb_does_not_go_off(door: Door) -> None:
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb") as zipped:
        info = tarfile.TarInfo("state.bin")
        info.size = 1 << 40
        zipped.write(info.tobuf() + bytes(50_000_000))
    status, text = await door.put("/v1/snapshot", packed.getvalue())
    assert (status, b"too large" in text) == (500, True)
