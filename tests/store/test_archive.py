"""Snapshot archives: written, read back, and refused whole when damaged anywhere."""

from __future__ import annotations

import gzip
import hashlib
import io
import random
import tarfile

import pytest

from lictor.model.errors import InvalidRequest
from lictor.store.archive import META, STATE, SUMS, Meta, read_archive, write_archive

STATE_BYTES = random.Random(7).randbytes(5000)
DESCRIPTION = Meta(version=1, id="2-84-1795204233259", index=84, term=2, size=len(STATE_BYTES))


def _archive(members: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return packed.getvalue()


def _members(archive: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        return {info.name: file.read() for info in tar if (file := tar.extractfile(info))}


def test_what_is_written_is_read() -> None:
    archive = read_archive(io.BytesIO(write_archive(DESCRIPTION, STATE_BYTES, 1e9)))
    assert archive.meta == DESCRIPTION
    assert archive.state == STATE_BYTES


def test_the_layout_is_consuls() -> None:
    members = _members(write_archive(DESCRIPTION, STATE_BYTES, 1e9))
    assert list(members) == [META, STATE, SUMS]
    assert members[META].startswith(b'{"Version":1,"ID":"2-84-1795204233259","Index":84,"Term":2,')
    assert members[SUMS].decode() == "".join(
        f"{hashlib.sha256(members[name]).hexdigest()}  {name}\n" for name in (META, STATE)
    )


def test_one_state_at_one_time_is_one_file() -> None:
    assert write_archive(DESCRIPTION, STATE_BYTES, 1e9) == write_archive(DESCRIPTION, STATE_BYTES, 1e9)


def test_a_file_that_is_no_archive_is_called_so() -> None:
    for data in (b"", b"Kind = 1", b"\x1f"):
        with pytest.raises(InvalidRequest):
            read_archive(io.BytesIO(data))
    with pytest.raises(InvalidRequest, match="failed to decompress snapshot: gzip: invalid header"):
        read_archive(io.BytesIO(b"Kind = 1"))
    with pytest.raises(InvalidRequest, match="failed to read snapshot file"):
        read_archive(io.BytesIO(gzip.compress(b"not a tar")))


@pytest.mark.parametrize("name", [META, STATE, SUMS])
def test_a_missing_member_is_named(name: str) -> None:
    members = _members(write_archive(DESCRIPTION, STATE_BYTES, 1e9))
    del members[name]
    with pytest.raises(InvalidRequest, match=name):
        read_archive(io.BytesIO(_archive(members)))


@pytest.mark.parametrize("name", [META, STATE])
def test_a_changed_member_is_named(name: str) -> None:
    members = _members(write_archive(DESCRIPTION, STATE_BYTES, 1e9))
    members[name] += b" "
    with pytest.raises(InvalidRequest, match=f'hash check failed for "{name}"'):
        read_archive(io.BytesIO(_archive(members)))


def test_an_unexpected_member_is_refused() -> None:
    members = _members(write_archive(DESCRIPTION, STATE_BYTES, 1e9)) | {"../etc/passwd": b"x"}
    with pytest.raises(InvalidRequest, match="unexpected file"):
        read_archive(io.BytesIO(_archive(members)))


def test_metadata_that_is_none_is_refused() -> None:
    meta = b'{"Version": "one"}'
    sums = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in ((META, meta), (STATE, b"s")))
    with pytest.raises(InvalidRequest, match="metadata"):
        read_archive(io.BytesIO(_archive({META: meta, STATE: b"s", SUMS: sums.encode()})))


def test_cut_off_anywhere_is_refused() -> None:
    whole = write_archive(DESCRIPTION, STATE_BYTES, 1e9)
    for length in [*range(64), *range(64, len(whole), 97), len(whole) - 1]:
        with pytest.raises(InvalidRequest):
            read_archive(io.BytesIO(whole[:length]))


def test_one_wrong_byte_is_refused_or_changes_nothing() -> None:
    whole = write_archive(DESCRIPTION, STATE_BYTES, 1e9)
    dice = random.Random(11)
    for _ in range(400):
        damaged = bytearray(whole)
        damaged[dice.randrange(len(whole))] ^= 1 << dice.randrange(8)
        try:
            archive = read_archive(io.BytesIO(bytes(damaged)))
        except InvalidRequest:
            continue
        assert (archive.meta, archive.state) == (DESCRIPTION, STATE_BYTES)


def test_noise_is_refused() -> None:
    dice = random.Random(13)
    for _ in range(300):
        noise = dice.randbytes(dice.randrange(1, 2000))
        for data in (noise, b"\x1f\x8b\x08\x00" + noise, gzip.compress(noise)):
            with pytest.raises(InvalidRequest):
                read_archive(io.BytesIO(data))
