"""What was signed for the services of this node and has not ended: the pure part of `leaves_revoking`.

A service's record has its leaves that may still be shown to others, be they in use or not, and those that are to be
revoked. A service that was registered on this node and is so no more has all of its leaves revoked.
"""

from collections.abc import Container, Iterable

import msgspec

MOST = 16_384  # services; of more, those are left out that were signed for the longest ago
MOST_EACH = 256  # leaves of a service, likewise


class Issued(msgspec.Struct, frozen=True):
    """A leaf by its serial number and the fingerprint of its certificate; `until` in seconds since 1970."""

    serial: str
    fingerprint: str
    until: float


class Record(msgspec.Struct, frozen=True):
    """A service's leaves that have not ended. `registered` says that the service has an instance on this node."""

    service: str
    registered: bool = False
    issued: tuple[Issued, ...] = ()
    revoking: tuple[Issued, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.issued or self.revoking)


class Ledger:
    """The records. What has changed is to be kept on disk: `changed` tells it once."""

    def __init__(self) -> None:
        self._records: dict[str, Record] = {}
        self._spelt: dict[str, dict[str, None]] = {}  # services by their names in lower case: the catalog has no other
        self._changed: dict[str, None] = {}

    def get(self, service: str) -> Record:
        """A service's record."""
        return self._records.get(service) or Record(service)

    def load(self, record: Record, now: float) -> None:
        """Take over what an earlier run has kept."""
        self._put(record, now)

    def signed(self, service: str, leaf: Issued, now: float, *, registered: bool) -> None:
        """A leaf was signed, or found on disk."""
        record = self.get(service)
        kept = [one for one in record.issued if one.serial != leaf.serial]
        known = registered or record.registered
        self._put(msgspec.structs.replace(record, registered=known, issued=(*kept, leaf)[-MOST_EACH:]), now)

    def here(self, name: str, now: float) -> None:
        """A service of this name, in lower case, is registered on this node."""
        for service in self.named(name):
            record = self._records[service]
            if not record.registered:
                self._put(msgspec.structs.replace(record, registered=True), now)

    def left(self, name: str, now: float) -> list[str]:
        """No service of this name, in lower case, is registered on this node any more: its leaves are to be revoked.
        Returns the services, as their leaves spell them.
        """
        found = [service for service in self.named(name) if self._records[service].issued]
        for service in found:
            record = self._records[service]
            revoking = (*record.revoking, *record.issued)[-MOST_EACH:]
            self._put(Record(service, revoking=revoking), now)
        return found

    def named(self, name: str) -> list[str]:
        """The services that have a record and this name, which is in lower case."""
        return list(self._spelt.get(name, ()))

    def registered(self) -> list[str]:
        """The names, in lower case, of the services that were registered on this node when that was last known."""
        return list({record.service.lower(): None for record in self._records.values() if record.registered})

    def to_revoke(self, most: int, now: float, later: Container[str] = ()) -> list[tuple[str, Issued]]:
        """Some of the leaves that are to be revoked, with their services; without those of `later` services."""
        found: list[tuple[str, Issued]] = []
        for record in list(self._records.values()):
            if record.revoking and record.service not in later:
                self._put(record, now)
                found += [(record.service, one) for one in self.get(record.service).revoking]
            if len(found) >= most:
                break
        return found[:most]

    def revoked(self, done: Iterable[tuple[str, Issued]], now: float) -> None:
        """Leaves were revoked."""
        for service, leaf in done:
            record = self.get(service)
            left = tuple(one for one in record.revoking if one.serial != leaf.serial)
            self._put(msgspec.structs.replace(record, revoking=left), now)

    def changed(self) -> list[Record]:
        """The records that have changed since this was last asked; empty ones are to be kept no more."""
        found = [self.get(service) for service in self._changed]
        self._changed.clear()
        return found

    def _put(self, record: Record, now: float) -> None:
        issued = tuple(one for one in record.issued if one.until > now)
        revoking = tuple(one for one in record.revoking if one.until > now)
        record = msgspec.structs.replace(record, issued=issued, revoking=revoking)
        service = record.service
        before = self._records.pop(service, None)
        if record != before:
            self._changed[service] = None
        if not record:
            spelt = self._spelt.get(service.lower(), {})
            spelt.pop(service, None)
            if not spelt:
                self._spelt.pop(service.lower(), None)
            return
        self._records[service] = record
        self._spelt.setdefault(service.lower(), {})[service] = None
        while len(self._records) > MOST:
            oldest = next(iter(self._records))
            self._put(Record(oldest), now)
