"""Locks and semaphores, laid out in the key/value store as Consul's clients lay them out: all exclude each other.

A session stands for the holder: when it ends, by itself or because nobody renewed it, what it held is free.

- A lock is a key, acquired by the session, with flags 0x2ddccbc058a50c18.
- A semaphore of N is the key `PREFIX/.lock` with flags 0xe0f69a2baa414de0 and the value
  `{"Limit":N,"Holders":{"<session>":true}}`, changed with compare-and-set; each contender also acquires
  `PREFIX/<session>` with its session, and a holder whose contender key is gone holds nothing.

Source: the "Distributed Semaphore" and "Leader Election" guides of Consul's documentation.

All of it is flows (`lictor.client.flows`). One that holds a lock goes on renewing the session and looking at the key;
it ends when the lock is lost, and in time: before the session can have ended.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Protocol

from lictor.client.calls import Answer, Call, blocking
from lictor.client.errors import ApiError, ClientError, LockError, NoLeader, ServerError, TooMany
from lictor.client.families.kv import KV
from lictor.client.families.session import Session
from lictor.client.flows import Flow, Pause, WithAnswer
from lictor.model.kv import KVEntry
from lictor.model.session import Session as Row

LOCK_FLAGS = 0x2DDCCBC058A50C18
SEMAPHORE_FLAGS = 0xE0F69A2BAA414DE0

TTL = 15.0  # seconds that a session lives without being renewed; the servers give it up to twice that
PAUSE = 1.0  # seconds between tries where nobody holds the lock and it still cannot be had: the lock delay


class Clock(Protocol):
    """Seconds from any beginning."""

    def __call__(self) -> float: ...


class Lease:
    """The session of one holder."""

    def __init__(self, name: str, behavior: str, ttl: float, lock_delay: float | None, clock: Callable[[], float]):
        self.id = ""
        self.ttl = ttl
        self._name = name
        self._delete = behavior == "delete"
        self._lock_delay = lock_delay
        self._clock = clock
        self._renewed = 0.0

    @property
    def query(self) -> float:
        """Seconds that a query may block, so that the session is renewed in time."""
        return self.ttl / 3

    @property
    def safe(self) -> bool:
        """Whether the session cannot have ended, for all that is known."""
        return self._clock() - self._renewed < self.ttl

    def renewed(self) -> Flow[bool]:
        """Renew the session where that is due; whether it lives."""
        now, session = self._clock(), self.id
        if not session or now - self._renewed < self.ttl / 3:
            return bool(session)
        found: Row | None = yield Session.renew.describe(None, session)
        if found is not None:
            self._renewed = now
        return found is not None

    def live(self) -> Flow[bool]:
        """Make the session, or renew it where that is due; whether it is the one from before."""
        if (yield from self.renewed()):
            return True
        now = self._clock()
        self.id = yield Session.create.describe(
            None,
            self._name,
            ttl=self.ttl,
            behavior="delete" if self._delete else "release",
            lock_delay=self._lock_delay,
        )
        self._renewed = now
        return False

    def end(self) -> Flow[None]:
        """End the session. A failure is no error: its TTL ends it."""
        if self.id:
            try:
                yield Session.destroy.describe(None, self.id)
            except ClientError:
                pass
            self.id = ""


class Place(Protocol):
    """A lock or a semaphore, for one holder."""

    lease: Lease

    def try_once(self, index: int, wait: float) -> Flow[tuple[bool, int]]:
        """Look, waiting for a change after `index` (0: not at all), and take it where it is free. Returns whether it is
        held, and the index to wait on next; 0 for a pause. Raises `LockError`.
        """
        ...

    def begin(self) -> None:
        """Nothing is held: from now on, what is free may be taken."""
        ...

    def release(self) -> Flow[None]:
        """Give it back."""
        ...


def acquire(place: Place, clock: Callable[[], float], timeout: float | None) -> Flow[bool]:
    """Wait until it is held; False after `timeout` seconds (None: never). Raises `ClientError`."""
    lease = place.lease
    place.begin()
    deadline = None if timeout is None else clock() + timeout
    index, held = 0, False
    try:
        while True:
            if not (yield from lease.live()):
                index = 0
            left = lease.query if deadline is None else min(lease.query, deadline - clock())
            held, index = yield from place.try_once(index, max(left, 0.001))
            if held:
                return True
            if deadline is not None and clock() >= deadline:
                return False
            if not index:
                yield Pause(PAUSE if deadline is None else max(0.001, min(PAUSE, deadline - clock())))
    finally:
        if not held:
            yield from lease.end()


def keep(place: Place) -> Flow[None]:
    """Keep what is held, until it is lost: then this is over. Outages are borne as long as the session must live."""
    lease = place.lease
    index = 0
    while True:
        try:
            if not (yield from lease.renewed()):
                return
            held, index = yield from place.try_once(index, lease.query)
            if not held:
                return
        except LockError:
            return
        except ClientError as error:
            passing = not isinstance(error, ApiError) or isinstance(error, NoLeader | ServerError | TooMany)
            if not passing or not lease.safe:
                return
            index = 0
            if not (yield Pause(min(PAUSE, lease.ttl / 10))):
                return
        if not lease.safe:
            return


class Mutex:
    """One holder at a time. `value` is what the key shows while it is held."""

    def __init__(self, key: str, value: bytes, lease: Lease) -> None:
        self.key = key
        self.lease = lease
        self._value = value
        self._mine = False

    def try_once(self, index: int, wait: float) -> Flow[tuple[bool, int]]:
        """See `Place`. A lock that was held and is not any more is not taken again."""
        session = self.lease.id
        read = blocking(KV.get.describe(None, self.key), index, wait)
        answer: Answer[KVEntry | None] = yield WithAnswer(read)
        entry = answer.value
        if entry is not None and entry.flags != LOCK_FLAGS:
            raise LockError(f"the key {self.key} is there already, and is no lock")
        holder = entry.session if entry is not None and isinstance(entry.session, str) else ""
        if holder and holder == session:
            return True, answer.index
        if holder or self._mine:
            return False, answer.index
        self._mine = yield KV.put.describe(None, self.key, self._value, flags=LOCK_FLAGS, acquire=session)
        return self._mine, 0

    def begin(self) -> None:
        """See `Place`."""
        self._mine = False

    def release(self) -> Flow[None]:
        """Give the key back, and remove it where nobody else has taken it since."""
        if self.lease.id:
            yield KV.put.describe(None, self.key, self._value, flags=LOCK_FLAGS, release=self.lease.id)
            entry: KVEntry | None = yield KV.get.describe(None, self.key)
            if entry is not None and entry.flags == LOCK_FLAGS and not isinstance(entry.session, str):
                yield KV.delete.describe(None, self.key, cas=entry.modify_index)
        yield from self.lease.end()


class Semaphore:
    """At most `limit` holders at a time."""

    def __init__(self, prefix: str, limit: int, lease: Lease) -> None:
        self.prefix = prefix.rstrip("/") + "/"
        self.lease = lease
        self._limit = limit
        self._mine = False
        self._entered = ""  # the session that has a contender key

    def try_once(self, index: int, wait: float) -> Flow[tuple[bool, int]]:
        """See `Place`."""
        session = self.lease.id
        if self._entered != session:
            if self._mine:
                return False, 0
            key = self.prefix + session
            if not (yield KV.put.describe(None, key, b"", flags=SEMAPHORE_FLAGS, acquire=session)):
                raise LockError(f"the session cannot acquire {key}")
            self._entered, index = session, 0
        read = blocking(KV.list.describe(None, self.prefix), index, wait)
        answer: Answer[list[KVEntry]] = yield WithAnswer(read)
        entry, holders = self._holders(answer.value)
        if session in holders:
            return True, answer.index
        if self._mine or len(holders) >= self._limit:
            return False, answer.index
        self._mine = yield self._write(entry, holders | {session})
        return self._mine, 0 if self._mine else answer.index

    def begin(self) -> None:
        """See `Place`."""
        self._mine = False

    def release(self) -> Flow[None]:
        """Leave the holders, and remove the contender key."""
        session = self.lease.id
        while session:
            entry, holders = self._holders((yield KV.list.describe(None, self.prefix)))
            if entry is None or session not in holders or (yield self._write(entry, holders - {session})):
                yield KV.delete.describe(None, self.prefix + session)
                break
        yield from self.lease.end()

    def _holders(self, entries: list[KVEntry]) -> tuple[KVEntry | None, frozenset[str]]:
        """The semaphore's key, and those of its holders that are alive."""
        key = self.prefix + ".lock"
        entry = next((entry for entry in entries if entry.key == key), None)
        if entry is None:
            return None, frozenset()
        if entry.flags != SEMAPHORE_FLAGS:
            raise LockError(f"the key {key} is there already, and is no semaphore")
        alive = {other.session for other in entries if other is not entry and isinstance(other.session, str)}
        try:
            value = json.loads(entry.value or b"{}")
            limit = int(value.get("Limit", self._limit))
            holders = frozenset(name for name, holds in (value.get("Holders") or {}).items() if holds)
        except (ValueError, TypeError, AttributeError) as error:
            raise LockError(f"the semaphore {key} cannot be read: {error}") from None
        if limit != self._limit:
            raise LockError(f"the semaphore {key} has the limit {limit}, and {self._limit} was asked for")
        return entry, holders & alive

    def _write(self, entry: KVEntry | None, holders: frozenset[str]) -> Call[bool]:
        body = {"Limit": self._limit, "Holders": dict.fromkeys(sorted(holders), True)}
        content = json.dumps(body, separators=(",", ":")).encode()
        index = entry.modify_index if entry is not None else 0
        return KV.put.describe(None, self.prefix + ".lock", content, flags=SEMAPHORE_FLAGS, cas=index)
