"""The identities that an agent keeps on disk, for a restart while the servers are away: `data_dir/leaves`.

One file a service, another in `issued` for all of its leaves that have not ended, and two for the roots and the revoked
leaves that were last known: JSON, readable by the agent alone, written whole or not at all. What cannot be used is
named in the log and left where it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import msgspec

from lictor.agent.leaves_book import Leaf
from lictor.agent.leaves_issued import Record
from lictor.agent.logs import logger
from lictor.agent.persistence import ASIDE, make_folder, sync_folder, write_file
from lictor.model.connect_ca import CARoot, RevokedLeaf

LARGEST = 256 * 1024  # bytes of a file
ROOTS = "roots.json"
REVOKED = "revoked.json"
MOST_REVOKED = 16 * 1024 * 1024  # bytes of the file with revoked leaves
ISSUED = "issued"

log = logger("agent.leaf-certs")


class LeafFiles:
    """The folder; without one (`-dev`) nothing is kept. The calls block, and one is made at a time."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    @property
    def kept(self) -> bool:
        """Whether anything is kept."""
        return self._folder is not None

    def save(self, leaf: Leaf) -> None:
        """Keep a leaf in place of the service's last one. Raises `OSError`."""
        if self._folder is not None:
            make_folder(self._folder)
            write_file(self._path(self._folder, leaf.service), msgspec.json.encode(leaf))

    def forget(self, service: str) -> None:
        """Keep a service's leaf no more. Raises `OSError`."""
        if self._folder is None:
            return
        path = self._path(self._folder, service)
        try:
            path.unlink()
        except FileNotFoundError:
            return
        sync_folder(self._folder)

    def leaves(self) -> Iterator[Leaf]:
        """Every leaf that is kept and whole, whether it is still good or not."""
        folder = self._folder
        if folder is None or not folder.is_dir():
            return
        for path in sorted(folder.iterdir()):
            if path.name in (ROOTS, REVOKED) or path.suffix == ASIDE or not path.is_file():
                continue
            try:
                yield _checked(msgspec.json.decode(_content(path), type=Leaf))
            except (OSError, ValueError) as error:
                log.error(
                    "a kept certificate cannot be used, and another one is asked for: remove the file",
                    file=str(path),
                    error=str(error),
                )

    def save_issued(self, record: Record) -> None:
        """Keep what was signed for a service; nothing, where that is all over. Raises `OSError`."""
        if self._folder is None:
            return
        folder = self._folder / ISSUED
        path = self._path(folder, record.service)
        if record:
            make_folder(self._folder)
            make_folder(folder)
            write_file(path, msgspec.json.encode(record))
        elif path.exists():
            path.unlink()
            sync_folder(folder)

    def issued(self) -> Iterator[Record]:
        """Every record that is kept and whole."""
        folder = self._folder / ISSUED if self._folder is not None else None
        if folder is None or not folder.is_dir():
            return
        for path in sorted(folder.iterdir()):
            if path.suffix == ASIDE:
                continue
            try:
                yield msgspec.json.decode(_content(path), type=Record)
            except (OSError, ValueError) as error:
                log.error("what was signed cannot be read: remove the file", file=str(path), error=str(error))

    def save_roots(self, roots: list[CARoot]) -> None:
        """Keep the roots that are trusted. Raises `OSError`."""
        if self._folder is not None:
            make_folder(self._folder)
            write_file(self._folder / ROOTS, msgspec.json.encode(roots))

    def roots(self) -> list[CARoot]:
        """The roots that were kept last; none where there are none."""
        if self._folder is None:
            return []
        path = self._folder / ROOTS
        try:
            return msgspec.json.decode(_content(path), type=list[CARoot])
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            log.error("the kept roots cannot be used: remove the file", file=str(path), error=str(error))
            return []

    def save_revoked(self, leaves: list[RevokedLeaf]) -> None:
        """Keep which leaves are not to be believed. Raises `OSError`."""
        if self._folder is not None:
            make_folder(self._folder)
            write_file(self._folder / REVOKED, msgspec.json.encode(leaves))

    def revoked(self) -> list[RevokedLeaf]:
        """The revoked leaves that were kept last."""
        if self._folder is None:
            return []
        path = self._folder / REVOKED
        try:
            return msgspec.json.decode(_content(path, MOST_REVOKED), type=list[RevokedLeaf])
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            log.error("the kept list of revoked certificates cannot be used", file=str(path), error=str(error))
            return []

    def _path(self, folder: Path, service: str) -> Path:
        return folder / hashlib.sha256(service.encode()).hexdigest()


def _content(path: Path, most: int = LARGEST) -> bytes:
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"it has more than {most} bytes")
    return content


def _checked(leaf: Leaf) -> Leaf:
    """A leaf whose certificate and key belong together. Raises `ValueError`."""
    from lictor.ca.certificates import BadCertificate, belongs_to, read_certificate  # takes a while to import

    try:
        found = read_certificate(leaf.certificate)
        if not belongs_to(leaf.certificate, leaf.key):
            raise ValueError("the key is not the certificate's")
    except BadCertificate as error:
        raise ValueError(str(error)) from None
    if found.uris != (leaf.uri,) or (found.not_before, found.not_after) != (leaf.valid_after, leaf.valid_before):
        raise ValueError("it is not what its certificate says")
    return leaf
