"""Snapshots of a server: written to a file that is then sent, and checked before they are restored.

Plain blocking work on files and bytes; callers on an event loop run it in a thread.
"""

import hashlib
import io
import tempfile
from collections.abc import Iterable, Iterator
from typing import IO

from lictor.model.errors import InvalidRequest, Refused
from lictor.raft.consensus import Peer
from lictor.store import archive, snapshot

MAX_STATE = 192 * 1024 * 1024  # bytes of a state: it is held in memory while it is restored
MAX_ARCHIVE = MAX_STATE
CHUNK = 256 * 1024
IN_MEMORY = 8 * 1024 * 1024  # bytes up to which no temporary file is made


def write(pieces: Iterable[bytes], *, index: int, term: int, moment: float, peers: Iterable[Peer]) -> IO[bytes]:
    """An archive of a state, in a temporary file that is read from its beginning and deleted when it is closed.

    `pieces` are the state's bytes, `moment` is when it was taken, in seconds since 1970. Raises `Refused` for a state
    that is larger than can be restored.
    """
    with tempfile.SpooledTemporaryFile(IN_MEMORY) as state:
        digest, size = hashlib.sha256(), 0
        for piece in pieces:
            state.write(piece)
            digest.update(piece)
            size += len(piece)
        if size > MAX_STATE:
            raise Refused(f"the state has {size} bytes; a snapshot can hold at most {MAX_STATE}")
        state.seek(0)
        servers = [{"Suffrage": 0 if p.voter else 1, "ID": p.id, "Address": p.address} for p in peers]
        identity = f"{term}-{index}-{round(moment * 1000)}"
        meta = archive.Meta(1, identity, index, term, configuration={"Servers": servers}, size=size)
        out = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115 - the caller closes it
        try:
            _write(out, archive.pack(meta, digest.hexdigest(), _chunks(state), moment))
        except BaseException:
            out.close()
            raise
    return out


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    while chunk := file.read(CHUNK):
        yield chunk


def _write(out: IO[bytes], body: Iterable[bytes]) -> None:
    digest = hashlib.sha256()
    out.write(archive.head(digest.digest()))
    for piece in body:
        digest.update(piece)
        out.write(piece)
    out.seek(0)
    out.write(archive.head(digest.digest()))
    out.seek(0)


def restorable_state(data: bytes) -> bytes:
    """The state in an archive, once all of it has been found whole and readable. Raises `Refused` otherwise."""
    try:
        archive.check_seal(data)
        found = archive.read_archive(io.BytesIO(data), MAX_STATE)
        if found.meta.size != len(found.state):
            raise InvalidRequest(
                f"failed to read snapshot file: {archive.STATE} has {len(found.state)} bytes, "
                f"{archive.META} says {found.meta.size}"
            )
        snapshot.decode(found.state)
    except InvalidRequest as error:
        raise Refused(str(error)) from None
    return found.state
