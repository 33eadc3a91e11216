"""What one Envoy has asked for and been told, and what to tell it next: both variants of xDS, no network. Pure.

    session = DeltaSession()
    nack = session.take(request)              # what came from Envoy; not None where it refused what it was sent
    session.offer(resources)                  # what it should have from now on
    for response in session.due(): ...        # what to send now

Rules that both follow:

- A resource is told when its version is not the one that was told last; when nothing differs, nothing is sent.
- One response of a type is under way at a time; what changes meanwhile goes with the next. No type is told before those
  that stand before it in `names.ORDER`, so that nothing refers to what Envoy has not heard of; what is gone is taken
  away in the opposite order.
- What was refused is not sent again until it changes.
- When a cluster changes, Envoy waits for its endpoints to be told again, and with a listener for its routes: these
  count as not told then (`Resource.needs`).

Source: the xDS protocol (https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Protocol

import msgspec

from lictor.connect_proxy.envoy import names
from lictor.connect_proxy.envoy.compiling import Resource

MOST_NAMES = 20_000  # names that one Envoy may ask for by type
WILDCARD = "*"
# Types of which an Envoy that names none has them all.
_WHOLE = (names.CLUSTER, names.LISTENER)
# What others refer to is taken away once nothing does any more, in this order.
_REFERRED_TO = (names.SECRET, names.ENDPOINTS, names.CLUSTER)

Offered = Mapping[str, Mapping[str, Resource]]


class TooMuch(ValueError):
    """An Envoy asks for more than anybody needs."""


class Request(msgspec.Struct, frozen=True):
    """A request of either variant, as far as it matters here. `initial` are the versions that Envoy says it has."""

    type_url: str
    nonce: str = ""
    error: str | None = None
    names: tuple[str, ...] = ()
    unsubscribed: tuple[str, ...] = ()
    initial: Mapping[str, str] = msgspec.field(default_factory=dict)


class Response(msgspec.Struct, frozen=True):
    """A response of either variant: resources in full, and in the delta variant names of what is gone."""

    type_url: str
    nonce: str
    version: str
    resources: tuple[Resource, ...]
    removed: tuple[str, ...] = ()


class Nack(msgspec.Struct, frozen=True):
    """Envoy refused what it was sent, and says why."""

    type_url: str
    reason: str


class Session(Protocol):
    """Either variant; see above."""

    def take(self, request: Request) -> Nack | None:
        """Something came from Envoy. Raises `TooMuch`."""
        ...

    def offer(self, resources: Offered) -> None:
        """What Envoy should have from now on."""
        ...

    def due(self) -> list[Response]:
        """What to send now."""
        ...


class _Told:
    """What is known of one type of resource in the delta variant. `told` are the versions that were sent; `missing`
    names that were asked for and are not there.
    """

    __slots__ = ("everything", "missing", "nonce", "subscribed", "told")

    def __init__(self) -> None:
        self.subscribed: set[str] = set()
        self.everything = False
        self.told: dict[str, str] = {}
        self.missing: set[str] = set()
        self.nonce = ""  # of the response that is under way


class DeltaSession:
    """The delta variant: single resources come and go."""

    def __init__(self) -> None:
        self._types: dict[str, _Told] = {}
        self._offered: Offered | None = None
        self._count = 0

    def take(self, request: Request) -> Nack | None:
        """Subscribe, unsubscribe, and learn whether the last response was taken over. Raises `TooMuch`."""
        kind = request.type_url
        known = self._types.get(kind)
        if known is None:
            if kind not in names.ORDER:
                return None  # nothing of it is ever here
            known = self._types[kind] = _Told()
            known.everything = kind in _WHOLE and not request.names
            known.told.update(request.initial)
        self._subscribe(known, request)
        if not request.nonce or request.nonce != known.nonce:
            return None
        known.nonce = ""
        return Nack(kind, request.error) if request.error is not None else None

    def _subscribe(self, known: _Told, request: Request) -> None:
        for name in request.names:
            if name == WILDCARD:
                known.everything = True
                continue
            known.subscribed.add(name)
            # Asked for again, it is to be told again: Envoy may have forgotten it.
            if name not in request.initial:
                known.told.pop(name, None)
            known.missing.discard(name)
        for name in request.unsubscribed:
            if name == WILDCARD:
                known.everything = False
                known.told = {one: version for one, version in known.told.items() if one in known.subscribed}
                continue
            known.subscribed.discard(name)
            known.told.pop(name, None)
            known.missing.discard(name)
        if len(known.subscribed) + len(known.told) > 2 * MOST_NAMES:
            raise TooMuch(f"more than {MOST_NAMES} resources of type {names.short(request.type_url)} are asked for")

    def offer(self, resources: Offered) -> None:
        """What Envoy should have from now on."""
        self._offered = resources

    def due(self) -> list[Response]:
        """What differs, in order; see the rules above."""
        if self._offered is None:
            return []
        found: list[Response] = []
        for kind in names.ORDER:
            known = self._types.get(kind)
            if known is None:
                continue
            changed = self._changed(kind, known)
            gone = self._absent(kind, known)
            if kind not in _REFERRED_TO:
                gone += self._removed(kind, known)
            if changed or gone:
                if known.nonce:
                    return found  # what comes after it in the order waits too
                found.append(self._response(kind, known, changed, gone))
        for kind in _REFERRED_TO:
            known = self._types.get(kind)
            removed = self._removed(kind, known) if known is not None else []
            if known is not None and removed and not known.nonce:
                found.append(self._response(kind, known, [], removed))
        return found

    def _wanted(self, kind: str, known: _Told) -> dict[str, Resource]:
        assert self._offered is not None
        every = self._offered.get(kind, {})
        if known.everything:
            return dict(every)
        return {name: every[name] for name in known.subscribed if name in every}

    def _changed(self, kind: str, known: _Told) -> list[Resource]:
        wanted = self._wanted(kind, known)
        return [one for name, one in sorted(wanted.items()) if known.told.get(name) != one.version]

    def _removed(self, kind: str, known: _Told) -> list[str]:
        wanted = self._wanted(kind, known)
        return sorted(name for name in known.told if name not in wanted)

    def _absent(self, kind: str, known: _Told) -> list[str]:
        assert self._offered is not None
        every = self._offered.get(kind, {})
        return sorted(
            name
            for name in known.subscribed
            if name not in every and name not in known.told and name not in known.missing
        )

    def _response(self, kind: str, known: _Told, changed: list[Resource], removed: list[str]) -> Response:
        self._count += 1
        known.nonce = f"{self._count:08x}"
        for one in changed:
            known.told[one.name] = one.version
            known.missing.discard(one.name)
            for other, name in one.needs:
                children = self._types.get(other)
                if children is not None:
                    children.told.pop(name, None)
                    children.missing.discard(name)
        for name in removed:
            known.told.pop(name, None)
            if name in known.subscribed:
                known.missing.add(name)
        return Response(kind, known.nonce, "", tuple(changed), tuple(removed))


class _State:
    """What is known of one type of resource in the other variant. `told` are the versions that were sent, None where
    they are to be sent whether they differ or not; `pending`: the last response was not answered yet.
    """

    __slots__ = ("asked", "everything", "nonce", "pending", "told")

    def __init__(self) -> None:
        self.asked: tuple[str, ...] = ()
        self.everything = False
        self.told: dict[str, str] | None = None
        self.nonce = ""
        self.pending = False


class StateSession:
    """State of the world: each response has all resources of its type that were asked for."""

    def __init__(self) -> None:
        self._types: dict[str, _State] = {}
        self._offered: Offered | None = None
        self._count = 0

    def take(self, request: Request) -> Nack | None:
        """Learn what is asked for, and whether the last response was taken over. Raises `TooMuch`."""
        kind = request.type_url
        if kind not in names.ORDER:
            return None  # nothing of it is ever here
        if len(request.names) > MOST_NAMES:
            raise TooMuch(f"more than {MOST_NAMES} resources of type {names.short(kind)} are asked for")
        known = self._types.setdefault(kind, _State())
        if known.nonce and request.nonce != known.nonce:
            return None  # about a former response; what it asks for comes again with the answer to the last one
        answers, known.pending = known.pending, False
        asked = tuple(sorted(set(request.names) - {WILDCARD}))
        everything = WILDCARD in request.names or (kind in _WHOLE and not asked)
        if (asked, everything) != (known.asked, known.everything) or not answers:
            # Something else is asked for, or the same once more: Envoy waits for it.
            known.asked, known.everything, known.told = asked, everything, None
        return Nack(kind, request.error) if answers and request.error is not None else None

    def offer(self, resources: Offered) -> None:
        """What Envoy should have from now on."""
        self._offered = resources

    def due(self) -> list[Response]:
        """Every type of which something differs, in order; see the rules above."""
        if self._offered is None:
            return []
        found: list[Response] = []
        for kind in names.ORDER:
            known = self._types.get(kind)
            if known is None:
                continue
            wanted = self._wanted(kind, known)
            versions = {name: one.version for name, one in wanted.items()}
            if known.told == versions or not (wanted or known.told or kind in _WHOLE):
                continue
            if known.pending:
                return found  # what comes after it in the order waits too
            found.append(self._response(kind, known, wanted, versions))
        return found

    def _wanted(self, kind: str, known: _State) -> dict[str, Resource]:
        assert self._offered is not None
        every = self._offered.get(kind, {})
        if known.everything:
            return dict(sorted(every.items()))
        return {name: every[name] for name in known.asked if name in every}

    def _response(self, kind: str, known: _State, wanted: dict[str, Resource], versions: dict[str, str]) -> Response:
        self._count += 1
        before, known.told = known.told or {}, versions
        known.nonce, known.pending = f"{self._count:08x}", True
        for name, one in wanted.items():
            if before.get(name) != one.version:
                for other, _ in one.needs:
                    if other in self._types:
                        self._types[other].told = None
        digest = hashlib.blake2b(repr(sorted(versions.items())).encode(), digest_size=8).hexdigest()
        return Response(kind, known.nonce, digest, tuple(wanted.values()))
