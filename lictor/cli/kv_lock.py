"""Locks and semaphores in the KV store, laid out as Consul's clients lay them out, so that both exclude each other.

A session stands for the holder; when it ends, by itself or because its TTL ran out, the lock is free.

- A lock is the key `PREFIX/.lock`, acquired by the session, with flags 0x2ddccbc058a50c18.
- A semaphore of N is the key `PREFIX/.lock` with flags 0xe0f69a2baa414de0 and the value
  `{"Limit":N,"Holders":{"<session>":true}}`, changed with compare-and-set; each contender also acquires
  `PREFIX/<session>` with its session, and a holder whose contender key is gone holds nothing.

Source: the "Distributed Semaphore" and "Leader Election" guides of Consul's documentation.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from typing import Any, Protocol

import msgspec

from lictor.cli import api

LOCK_FLAGS = 0x2DDCCBC058A50C18
SEMAPHORE_FLAGS = 0xE0F69A2BAA414DE0

SESSION_TTL = 15.0
WAIT_SECONDS = 15.0
REFUSED_SECONDS = 5.0
"""How long to wait when nobody holds the lock and it still cannot be had: the lock delay of the last holder."""

MONITOR_RETRY_SECONDS = 1.0
FOUND = frozenset({200, 404})


class LockError(Exception):
    """The lock cannot be had or kept; the text is the one that Consul's client gives."""


class Entry(msgspec.Struct, frozen=True):
    """A KV entry as far as locks care."""

    key: str
    flags: int
    session: str
    modify_index: int
    value: bytes


class Lock(Protocol):
    """What a lock and a semaphore have in common."""

    def acquire(self, timeout: float) -> bool:
        """Wait until it is held; False after `timeout` seconds (0: never). Raises LockError, api.ApiError."""

    def watch(self, index: int) -> int | None:
        """Wait for a change after index: the next index while it is held, None when it is lost. Raises ApiError."""

    def release(self) -> None:
        """Give it back. Raises LockError, api.ApiError."""

    def clean_up(self) -> bool:
        """Remove the keys; False when somebody else holds the lock. Raises LockError, api.ApiError."""


class Session:
    """A session kept alive by a thread until `close`."""

    def __init__(self, client: api.Client, name: str, behavior: str, **more: Any) -> None:
        """Create the session; raises api.ApiError."""
        self._client = client
        body = {"Name": name, "TTL": f"{SESSION_TTL:.0f}s", "Behavior": behavior, **more}
        self.id: str = client.put("/v1/session/create", body=api.encode(body)).json()["ID"]
        self._ended = threading.Event()
        threading.Thread(target=self._renew, name="session renewal", daemon=True).start()

    def _renew(self) -> None:
        while not self._ended.wait(SESSION_TTL / 2):
            try:
                answer = self._client.put(f"/v1/session/renew/{self.id}", accept=FOUND)
            except api.ApiError:
                continue  # the TTL may outlast the trouble; if not, whoever watches the lock sees it lost
            if answer.status == 404:
                return

    def close(self) -> None:
        """Destroy the session. A failure is no error: its TTL ends it."""
        self._ended.set()
        try:
            self._client.put(f"/v1/session/destroy/{self.id}")
        except api.ApiError:
            return


class Mutex:
    """One holder at a time."""

    def __init__(self, client: api.Client, prefix: str, session: str) -> None:
        self.key = join(prefix, ".lock")
        self._client = client
        self._session = session

    def acquire(self, timeout: float) -> bool:
        """Wait until the key is acquired; False after `timeout` seconds (0: never)."""
        clock = _Clock(timeout)
        index = 0
        while (wait := clock.wait()) is not None:
            entry, index = self._read(index, wait)
            if entry is not None and entry.session == self._session:
                return True
            if entry is not None and entry.session:
                continue
            query = {"acquire": self._session, "flags": str(LOCK_FLAGS)}
            if self._client.put(f"/v1/kv/{self.key}", query).json():
                return True
            entry, index = self._read(0, 0)
            if entry is None or not entry.session:
                clock.sleep(REFUSED_SECONDS)
        return False

    def watch(self, index: int) -> int | None:
        """The next index while the key is ours, None when it is not."""
        entry, index = self._read(index, WAIT_SECONDS)
        return index if entry is not None and entry.session == self._session else None

    def release(self) -> None:
        """Give the key back."""
        query = {"release": self._session, "flags": str(LOCK_FLAGS)}
        if not self._client.put(f"/v1/kv/{self.key}", query).json():
            raise LockError("Lock not held")

    def clean_up(self) -> bool:
        """Delete the key unless somebody holds it."""
        entry, _ = self._read(0, 0)
        if entry is None:
            return True
        return not entry.session and _delete(self._client, entry)

    def _read(self, index: int, wait: float) -> tuple[Entry | None, int]:
        entries, index = _entries(self._client, self.key, index, wait, None)
        entry = entries[0] if entries else None
        if entry is not None and entry.flags != LOCK_FLAGS:
            raise LockError("Existing key does not match lock use")
        return entry, index


class Semaphore:
    """At most `limit` holders at a time."""

    def __init__(self, client: api.Client, prefix: str, session: str, limit: int) -> None:
        self.prefix = join(prefix, "")
        self._client = client
        self._session = session
        self._limit = limit
        self._contender = f"{self.prefix}{session}"

    def acquire(self, timeout: float) -> bool:
        """Wait until we are among the holders; False after `timeout` seconds (0: never)."""
        query = {"acquire": self._session, "flags": str(SEMAPHORE_FLAGS)}
        if not self._client.put(f"/v1/kv/{self._contender}", query).json():
            raise LockError("failed to make contender entry: the session cannot acquire it")
        clock = _Clock(timeout)
        index = 0
        while (wait := clock.wait()) is not None:
            entry, holders, limit, index = self._read(index, wait)
            if limit != self._limit:
                raise LockError(f"semaphore limit conflict (lock: {limit}, local: {self._limit})")
            if self._session in holders:
                return True
            if len(holders) < limit and self._write(entry, {*holders, self._session}):
                return True
        return False

    def watch(self, index: int) -> int | None:
        """The next index while we are among the holders, None when we are not."""
        _, holders, _, index = self._read(index, WAIT_SECONDS)
        return index if self._session in holders else None

    def release(self) -> None:
        """Leave the holders, and remove our contender key."""
        while True:
            entry, holders, _, _ = self._read(0, 0)
            if entry is None or self._session not in holders:
                break
            if self._write(entry, holders - {self._session}):
                break
        self._client.delete(f"/v1/kv/{self._contender}")

    def clean_up(self) -> bool:
        """Delete the semaphore's key unless somebody holds it."""
        entry, holders, _, _ = self._read(0, 0)
        if entry is None:
            return True
        return not holders and _delete(self._client, entry)

    def _read(self, index: int, wait: float) -> tuple[Entry | None, frozenset[str], int, int]:
        """The semaphore's key, those of its holders that are alive, its limit, and the index of all this."""
        entries, index = _entries(self._client, self.prefix, index, wait, "")
        key = self.prefix + ".lock"
        entry = next((entry for entry in entries if entry.key == key), None)
        if entry is None:
            return None, frozenset(), self._limit, index
        if entry.flags != SEMAPHORE_FLAGS:
            raise LockError("Existing key does not match semaphore use")
        alive = {other.session for other in entries if other is not entry and other.session}
        limit, holders = _decode(entry.value, self._limit)
        return entry, holders & alive, limit, index

    def _write(self, entry: Entry | None, holders: frozenset[str] | set[str]) -> bool:
        value = json.dumps(
            {"Limit": self._limit, "Holders": dict.fromkeys(sorted(holders), True)}, separators=(",", ":")
        )
        query = {"cas": str(entry.modify_index if entry else 0), "flags": str(SEMAPHORE_FLAGS)}
        return bool(self._client.put(f"/v1/kv/{self.prefix}.lock", query, value.encode()).json())


class _Clock:
    """How long an attempt may still wait."""

    def __init__(self, timeout: float) -> None:
        self._deadline = time.monotonic() + timeout if timeout else None
        self._first = True

    def wait(self) -> float | None:
        """Seconds that the next query may block; None when the time is over. The first is always allowed."""
        first, self._first = self._first, False
        if self._deadline is None:
            return WAIT_SECONDS
        left = self._deadline - time.monotonic()
        if left <= 0 and not first:
            return None
        return min(max(left, 0.01), WAIT_SECONDS)

    def sleep(self, seconds: float) -> None:
        """Wait, but not beyond the deadline."""
        if self._deadline is not None:
            seconds = min(seconds, self._deadline - time.monotonic())
        time.sleep(max(seconds, 0))


def join(prefix: str, name: str) -> str:
    """A key below prefix, without the doubled and leading slashes that `PREFIX` may have."""
    return "/".join([*(part for part in prefix.split("/") if part), name])


def _entries(client: api.Client, key: str, index: int, wait: float, recurse: str | None) -> tuple[list[Entry], int]:
    """The entries at or below key, and their index to wait on the next time (0 when it went backwards)."""
    blocking = {"index": str(index), "wait": f"{int(wait * 1000)}ms"} if index and wait else {}
    answer = client.get(f"/v1/kv/{key}", {"consistent": "", "recurse": recurse, **blocking}, accept=FOUND)
    found = answer.json() if answer.status == 200 else []
    entries = [
        Entry(
            item["Key"],
            item.get("Flags", 0),
            item.get("Session") or "",
            item["ModifyIndex"],
            base64.b64decode(item.get("Value") or ""),
        )
        for item in found
    ]
    return entries, answer.index if answer.index >= index else 0


def _decode(value: bytes, limit: int) -> tuple[int, frozenset[str]]:
    if not value:
        return limit, frozenset()
    try:
        content = json.loads(value)
        holders = frozenset(name for name, holds in (content.get("Holders") or {}).items() if holds)
        return int(content["Limit"]), holders
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LockError(f"failed to decode lock: {error}") from None


def _delete(client: api.Client, entry: Entry) -> bool:
    return bool(client.delete(f"/v1/kv/{entry.key}", {"cas": str(entry.modify_index)}).json())


class Monitor:
    """Watches a held lock from a thread of its own and says when it is lost.

    `retries`: how many failures in a row (a second apart) are taken for the servers' trouble rather than for the loss.
    """

    def __init__(self, lock: Lock, retries: int, lost: threading.Event) -> None:
        self._lock = lock
        self._retries = retries
        self._lost = lost
        self._ended = threading.Event()
        threading.Thread(target=self._watch, name="lock monitor", daemon=True).start()

    def _watch(self) -> None:
        index: int | None = 0
        failures = 0
        while not self._ended.is_set():
            try:
                index = self._lock.watch(index or 0)
                failures = 0
            except (api.ApiError, LockError) as error:
                failures += 1
                client_fault = isinstance(error, LockError) or (error.status is not None and error.status < 500)
                if failures <= self._retries and not client_fault:
                    self._ended.wait(MONITOR_RETRY_SECONDS)
                    continue
                index = None
            if index is None:
                self._lost.set()
                return

    def close(self) -> None:
        """Stop watching; what the lock does from now on is our own doing."""
        self._ended.set()
