"""The file that `PUT /v1/snapshot` takes and `GET /v1/snapshot` gives: Consul's archive around the state's bytes.

A gzipped tar of three members: `meta.json` (which index, which term, how large), `state.bin` (the state, see
`snapshot`) and `SHA256SUMS` (one line `<hex digest>  <name>` for each of the other two). Its own file because the
servers write and read it and `lictor snapshot` looks into it.

An archive that is damaged anywhere is refused whole. Not every bit of a gzip file is protected by its own checksum, so
what this program writes has a seal: the SHA-256 of all that follows the gzip header, in that header's extra field,
which other programs pass over.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

import msgspec

from lictor.model.errors import InvalidRequest

META = "meta.json"
STATE = "state.bin"
SUMS = "SHA256SUMS"

MAX_SMALL_MEMBER = 1024 * 1024
"""Bytes of `meta.json` and of `SHA256SUMS` beyond which an archive is refused."""
MAX_STATE = 4 * 1024**3
"""Bytes of `state.bin` beyond which an archive is refused."""

FILE_MODE = 0o600

# The gzip header (RFC 1952, section 2.3) with an extra field `Li` of 32 bytes, and no time, so that it is always the
# same up to there.
_HEAD = b"\x1f\x8b\x08\x04" + bytes(5) + b"\xff" + b"\x24\x00Li\x20\x00"


class Meta(msgspec.Struct, frozen=True, rename="pascal"):
    """What an archive says of its state. `size` is in bytes; `configuration` is Raft's, as the API shows it."""

    version: int
    id: str = msgspec.field(name="ID")
    index: int
    term: int
    peers: str | None = None
    configuration: Any = None
    configuration_index: int = 0
    size: int = 0


class Archive(msgspec.Struct, frozen=True):
    """A whole archive whose checksums were right."""

    meta: Meta
    state: bytes


def write_archive(meta: Meta, state: bytes, now: float) -> bytes:
    """The archive's bytes; `now`, in seconds since 1970, is the time its members carry."""
    body = b"".join(pack(meta, hashlib.sha256(state).hexdigest(), [state], now))
    return head(hashlib.sha256(body).digest()) + body


def head(digest: bytes) -> bytes:
    """What an archive begins with; `digest` is the SHA-256 of all that follows."""
    return _HEAD + digest


def pack(meta: Meta, state_digest: str, state: Iterable[bytes], now: float) -> Iterator[bytes]:
    """What follows an archive's head, a piece at a time. `state` gives `meta.size` bytes, whose SHA-256 is
    `state_digest` in hexadecimal.
    """
    description = msgspec.json.encode(meta)
    sums = f"{hashlib.sha256(description).hexdigest()}  {META}\n{state_digest}  {STATE}\n".encode()
    # Level 6 halves the time of the highest for a few percent of size; a snapshot is waited for.
    packer = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
    crc = length = 0
    for piece in _tar(
        ((META, len(description), (description,)), (STATE, meta.size, state), (SUMS, len(sums), (sums,))), now
    ):
        crc = zlib.crc32(piece, crc)
        length += len(piece)
        yield packer.compress(piece)
    yield packer.flush()
    yield crc.to_bytes(4, "little") + (length & 0xFFFFFFFF).to_bytes(4, "little")


def _tar(members: Iterable[tuple[str, int, Iterable[bytes]]], now: float) -> Iterator[bytes]:
    for name, size, pieces in members:
        info = tarfile.TarInfo(name)
        info.size, info.mode, info.mtime = size, FILE_MODE, int(now)
        yield info.tobuf(tarfile.USTAR_FORMAT)
        yield from pieces
        yield bytes(-size % tarfile.BLOCKSIZE)
    yield bytes(2 * tarfile.BLOCKSIZE)


def check_seal(data: bytes) -> None:
    """Raises InvalidRequest unless these are, to the last bit, the bytes of an archive that this program wrote."""
    start = len(_HEAD) + hashlib.sha256().digest_size
    if not data:
        raise InvalidRequest("failed to decompress snapshot: EOF")
    if not data.startswith(_HEAD):
        raise InvalidRequest(f"failed to read snapshot file: {_stranger(data)}")
    if hashlib.sha256(memoryview(data)[start:]).digest() != data[len(_HEAD) : start]:
        raise InvalidRequest("failed to read snapshot file: the archive is cut off or damaged: checksum does not match")


def _stranger(data: bytes) -> str:
    """What an archive is that this program has not written. Raises InvalidRequest where it is none at all."""
    read_archive(io.BytesIO(data), 64 * MAX_SMALL_MEMBER)
    return "it was written by another program (Consul?); only what `lictor snapshot save` has written can be restored"


def read_archive(stream: BinaryIO, max_state: int = MAX_STATE) -> Archive:
    """The archive that stream holds, whoever wrote it.

    Raises InvalidRequest, in Consul's words, for anything but a whole one with at most `max_state` bytes of state.
    """
    try:
        members = _members(stream, max_state)
    except gzip.BadGzipFile:
        raise InvalidRequest("failed to decompress snapshot: gzip: invalid header") from None
    except (EOFError, zlib.error) as error:
        raise InvalidRequest(f"failed to read snapshot file: the archive is cut off or damaged: {error}") from None
    except (tarfile.TarError, ValueError) as error:
        # ValueError is what tarfile lets out when the number in an extended header is none.
        raise InvalidRequest(f"failed to read snapshot file: {error}") from None
    for name in (META, STATE, SUMS):
        if name not in members:
            raise InvalidRequest(f'failed to read snapshot file: the archive has no "{name}"')
    _check_sums(members)
    try:
        meta = msgspec.json.decode(members[META], type=Meta)
    except msgspec.MsgspecError as error:
        raise InvalidRequest(f"failed to read snapshot file: failed to decode snapshot metadata: {error}") from None
    return Archive(meta, members[STATE])


def _members(stream: BinaryIO, max_state: int) -> dict[str, bytes]:
    members: dict[str, bytes] = {}
    with gzip.GzipFile(fileobj=stream, mode="rb") as zipped, tarfile.open(fileobj=zipped, mode="r|") as tar:
        for info in tar:
            if info.name not in (META, STATE, SUMS) or not info.isfile() or info.name in members:
                raise InvalidRequest(f'failed to read snapshot file: unexpected file "{info.name}" in snapshot')
            if info.size > (max_state if info.name == STATE else MAX_SMALL_MEMBER):
                raise InvalidRequest(f'failed to read snapshot file: "{info.name}" is too large: {info.size} bytes')
            file = tar.extractfile(info)
            assert file is not None, "a regular member has content"
            members[info.name] = file.read()
        # gzip checks its own sum only when it is read to its end; what a tar is padded with is not much.
        padding = 0
        while piece := zipped.read(64 * 1024):
            padding += len(piece)
            if padding > MAX_SMALL_MEMBER:
                raise InvalidRequest("failed to read snapshot file: too much follows its last file")
    return members


def _check_sums(members: dict[str, bytes]) -> None:
    listed: dict[str, str] = {}
    for line in members[SUMS].decode("ascii", "replace").splitlines():
        digest, _, name = line.partition("  ")
        listed[name] = digest
    for name in (META, STATE):
        if name not in listed:
            raise InvalidRequest(f'failed checking integrity of snapshot: file missing from hashes: "{name}"')
        if hashlib.sha256(members[name]).hexdigest() != listed[name]:
            raise InvalidRequest(f'failed checking integrity of snapshot: hash check failed for "{name}"')
