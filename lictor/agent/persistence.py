"""What an agent keeps on disk of its own: registered services, checks, the state of TTL checks, its node id, its
tokens.

One JSON file each under the data directory, written aside, synced and renamed, readable by its owner only; a file's
name is the hash of the id it holds. A file that cannot be read is named in the log and left where it is.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from lictor.agent.checks.ttl import TtlState
from lictor.agent.logs import logger
from lictor.agent.registration import CheckRegistration, ServiceRegistration
from lictor.model.ids import is_id, new_id

ASIDE = ".new"  # ends the name of a file that is being written

T = TypeVar("T")
log = logger("agent")


def write_file(path: Path, data: bytes) -> None:
    """Put `data` at `path`, whole and synced or not at all; mode 0600. Raises `OSError`."""
    replace_file(path, data, os.fsync)
    sync_folder(path.parent)


def replace_file(path: Path, data: bytes, sync: Callable[[int], None]) -> None:
    """Put `data` at `path`, whole or not at all; mode 0600. `sync` is given the descriptor once all is written.
    Raises `OSError`."""
    make_folder(path.parent)
    aside = path.with_name(path.name + ASIDE)
    # What an earlier run left, or another has put there, is not written into: it could be a link, or open to others.
    aside.unlink(missing_ok=True)
    fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:
        file.write(data)
        file.flush()
        sync(fd)
    os.replace(aside, path)


def make_folder(path: Path) -> None:
    """Make a folder and those above it that are missing, mode 0700, to survive a power cut. Raises `OSError`."""
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)
        sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Have the names in a folder survive a power cut. Raises `OSError`."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _left_to_the_system(fd: int) -> None:
    """A TTL check's state is written at every update and is worth little: losing it to a power cut costs one update."""


def _name(identifier: str) -> str:
    return hashlib.sha256(identifier.encode()).hexdigest()


class AgentFiles:
    """The files of one agent; without a folder (`-dev`) nothing is kept. The calls block, and one is made at a time."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    @property
    def kept(self) -> bool:
        """Whether anything is kept."""
        return self._folder is not None

    def node_id(self, configured: str = "") -> str:
        """The node's id: the configured one, else the one that is kept, else one made now; it is kept from now on.

        Raises `OSError`.
        """
        if self._folder is None:
            return configured or new_id()
        path = self._folder / "node-id"
        try:
            found = path.read_text(errors="replace").strip().lower()
        except FileNotFoundError:
            found = ""
        wanted = configured or (found if is_id(found) else new_id())
        if wanted != found:
            write_file(path, wanted.encode() + b"\n")
        return wanted

    def save_service(self, registration: ServiceRegistration) -> None:
        """Keep a service without its checks, which are kept one by one. Raises `OSError`."""
        self._save("services", registration.service.id, msgspec.structs.replace(registration, checks=()))

    def save_check(self, registration: CheckRegistration) -> None:
        """Keep a check. Raises `OSError`."""
        self._save("checks", registration.check.check_id, registration)

    def save_ttl(self, state: TtlState) -> None:
        """Keep a TTL check's last update. Raises `OSError`."""
        if self._folder is not None:
            path = self._folder / "checks/state" / _name(state.check_id)
            replace_file(path, msgspec.json.encode(state), _left_to_the_system)

    def forget_service(self, service_id: str) -> None:
        """Keep a service no more."""
        self._remove("services", service_id)

    def forget_check(self, check_id: str) -> None:
        """Keep a check and its state no more."""
        self._remove("checks", check_id)
        self._remove("checks/state", check_id)

    def services(self) -> list[ServiceRegistration]:
        """Every service that is kept."""
        return list(self._load("services", ServiceRegistration))

    def checks(self) -> list[CheckRegistration]:
        """Every check that is kept."""
        return list(self._load("checks", CheckRegistration))

    def ttl_states(self) -> list[TtlState]:
        """The last update of every TTL check."""
        return list(self._load("checks/state", TtlState))

    def save_tokens(self, tokens: dict[str, str]) -> None:
        """Keep the agent's tokens. Raises `OSError`."""
        if self._folder is not None:
            write_file(self._folder / "acl-tokens.json", msgspec.json.encode(tokens))

    def tokens(self) -> dict[str, str]:
        """The agent's tokens, where they were kept."""
        if self._folder is None:
            return {}
        try:
            return msgspec.json.decode((self._folder / "acl-tokens.json").read_bytes(), type=dict[str, str])
        except FileNotFoundError:
            return {}
        except msgspec.MsgspecError as error:
            log.error("the saved tokens cannot be read and are left out: set them again", error=str(error))
            return {}

    def _save(self, kind: str, identifier: str, record: msgspec.Struct) -> None:
        if self._folder is not None:
            write_file(self._folder / kind / _name(identifier), msgspec.json.encode(record))

    def _remove(self, kind: str, identifier: str) -> None:
        if self._folder is None:
            return
        path = self._folder / kind / _name(identifier)
        try:
            path.unlink()
        except FileNotFoundError:
            return
        sync_folder(path.parent)

    def _load(self, kind: str, record: type[T]) -> Iterator[T]:
        folder = self._folder / kind if self._folder is not None else None
        if folder is None or not folder.is_dir():
            return
        for path in sorted(folder.iterdir()):
            if not path.is_file() or path.suffix == ASIDE:
                continue
            try:
                yield msgspec.json.decode(path.read_bytes(), type=record)
            except (OSError, msgspec.MsgspecError) as error:
                log.error(
                    "a saved registration cannot be read and is left out: register it again, then remove the file",
                    file=str(path),
                    error=str(error),
                )
