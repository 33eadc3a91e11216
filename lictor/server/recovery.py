"""The way out when a majority of the servers is gone for good: the file `raft/peers.json`, which names the servers that
are left. It is put into the data folder of each of these while all are stopped, read when they start, and removed when
the configuration is what it says.
"""

import os
from pathlib import Path

import msgspec

from lictor.model.errors import InvalidRequest
from lictor.model.host_port import split_host_port
from lictor.raft.consensus import Peer, ServerRecord

NAME = "peers.json"
MAX_BYTES = 1024 * 1024

_EXAMPLE = '[{"id": "<node id>", "address": "<host:port>", "non_voter": false}]'


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    id: str
    address: str
    non_voter: bool = False


def read_peers(folder: Path, me: ServerRecord) -> list[Peer] | None:
    """The servers that a raft folder's `peers.json` names; None where there is no such file. Blocks.

    Raises `InvalidRequest` for a file that cannot be meant, and `OSError`.
    """
    path = folder / NAME
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return None
    try:
        entries = msgspec.json.decode(data, type=list[_Entry])
    except msgspec.MsgspecError as error:
        raise InvalidRequest(f"{path}: {error}; it must look like {_EXAMPLE}") from None
    problem = _problem(entries, me)
    if problem:
        raise InvalidRequest(f"{path}: {problem}")
    return [Peer(entry.id.lower(), "", entry.address, leader=False, voter=not entry.non_voter) for entry in entries]


def _problem(entries: list[_Entry], me: ServerRecord) -> str:
    """What is wrong with the servers; empty for nothing."""
    ids = [entry.id.lower() for entry in entries]
    addresses = [entry.address for entry in entries]
    for entry in entries:
        try:
            port = split_host_port(entry.address, 0)[1]
        except ValueError as error:
            return str(error)
        if not entry.id or not port:
            return f"a server needs an id and an address with a port: {_EXAMPLE}"
    for name, values in (("id", ids), ("address", addresses)):
        twice = next((value for value in values if values.count(value) > 1), None)
        if twice is not None:
            return f"the {name} {twice} is there twice"
    if all(entry.non_voter for entry in entries):
        return "at least one of the servers must be a voter"
    if me.id.lower() not in ids:
        return (
            f"this server, whose id is {me.id}, is not there: add it, or remove the file and keep this server stopped"
        )
    return ""


def remove_peers(folder: Path) -> None:
    """Remove the file, for good: it must not count again at the next start. Blocks. Raises `OSError`."""
    (folder / NAME).unlink()
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
