"""The user events that concern this agent: whom an event is for, and the last 256 in the order in which they came."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from uuid import UUID

import msgpack  # type: ignore[import-untyped]
import msgspec

from lictor.model.errors import Refused
from lictor.model.regex import Regex, RegexError
from lictor.model.service import NodeService
from lictor.model.user_event import MAX_PAYLOAD, UserEvent
from lictor.store.watch import Topic

KEPT = 256
WIRE_NAME = "consul:event:"  # what the pool puts before an event's name
VERSION = 1  # of events, the newest that is understood
WIRE_REST = 30  # bytes that the pool's own fields take beside name and payload, as Consul counts them


class EventLog:
    """Recent events. `tell` is called with the topic `("agent", "events")` for each."""

    def __init__(self, tell: Callable[[Iterable[Topic]], object]) -> None:
        self._tell = tell
        self._events: deque[UserEvent] = deque(maxlen=KEPT)
        self._clock = 0

    @property
    def clock(self) -> int:
        """The Lamport time of the newest event."""
        return self._clock

    def add(self, event: UserEvent) -> UserEvent:
        """Take an event in. Returns it with its Lamport time."""
        self._clock = max(self._clock + 1, event.l_time)
        stamped = msgspec.structs.replace(event, l_time=event.l_time or self._clock)
        self._events.append(stamped)
        self._tell([("agent", "events")])
        return stamped

    def recent(self, name: str = "") -> list[UserEvent]:
        """The events of a name, or all, oldest first."""
        return [e for e in self._events if not name or e.name == name]


def index_of(events: list[UserEvent]) -> int:
    """The index that a caller waits to see changed: that of the last event, from the halves of its id; 1 for none."""
    if not events:
        return 1
    number = UUID(events[-1].id).int
    return (number >> 64) ^ (number & ((1 << 64) - 1))


def check_event(event: UserEvent) -> None:
    """Refuse an event that cannot be sent: a filter that is no expression, a tag without a service, too many bytes."""
    for kind, pattern in (("node", event.node_filter), ("service", event.service_filter), ("tag", event.tag_filter)):
        try:
            Regex(pattern)
        except RegexError as error:
            raise Refused(f"Invalid {kind} filter: error parsing regexp: {error}") from None
    if event.tag_filter and not event.service_filter:
        raise Refused("Cannot provide tag filter without service filter")
    if len(WIRE_NAME + event.name) + len(wire_payload(event)) + WIRE_REST > MAX_PAYLOAD:
        raise Refused(
            f'1 error occurred:\n\t* error broadcasting event to segment "": user event exceeds configured limit of '
            f"{MAX_PAYLOAD} bytes before encoding\n\n"
        )


def wire_payload(event: UserEvent) -> bytes:
    """An event as the pool carries it; what is empty is left out."""
    fields = {
        "ID": event.id,
        "n": event.name,
        "p": event.payload,
        "nf": event.node_filter,
        "sf": event.service_filter,
        "tf": event.tag_filter,
        "v": event.version,
    }
    return msgspec.msgpack.encode({key: value for key, value in fields.items() if value})


class _WireEvent(msgspec.Struct, frozen=True):
    id: str = msgspec.field(default="", name="ID")
    name: str = msgspec.field(default="", name="n")
    payload: bytes | None = msgspec.field(default=None, name="p")
    node_filter: str = msgspec.field(default="", name="nf")
    service_filter: str = msgspec.field(default="", name="sf")
    tag_filter: str = msgspec.field(default="", name="tf")
    version: int = msgspec.field(default=0, name="v")


def from_wire(payload: bytes, l_time: int) -> UserEvent:
    """The event that came with a Lamport time. Raises `ValueError` for what is none."""
    try:
        # The format's old revision, which others write, has one type for texts and bytes.
        plain = msgpack.unpackb(payload, raw=True)
        if not isinstance(plain, dict):
            raise ValueError("an event is a map")
        fields = {key.decode(): value for key, value in plain.items() if isinstance(key, bytes)}
        fields = {key: v.decode() if isinstance(v, bytes) and key != "p" else v for key, v in fields.items()}
        found = msgspec.convert(fields, _WireEvent)
        known = UUID(found.id)
    except (ValueError, msgspec.ValidationError, msgpack.exceptions.UnpackException) as error:
        raise ValueError(str(error) or type(error).__name__) from None
    if found.version > VERSION:
        raise ValueError(f"it has version {found.version}, and {VERSION} is understood")
    return UserEvent(
        id=str(known),
        name=found.name,
        payload=found.payload,
        node_filter=found.node_filter,
        service_filter=found.service_filter,
        tag_filter=found.tag_filter,
        version=found.version,
        l_time=l_time,
    )


def concerns(event: UserEvent, node: str, services: Iterable[NodeService]) -> bool:
    """Whether an event is for this node: its name and, where asked for, one of its services and their tags match."""
    try:
        if event.node_filter and not Regex(event.node_filter).search(node):
            return False
        if not event.service_filter:
            return True
        by_name = Regex(event.service_filter)
        by_tag = Regex(event.tag_filter) if event.tag_filter else None
    except RegexError:
        return False
    return any(
        by_name.search(service.service) and (by_tag is None or any(by_tag.search(tag) for tag in service.tags))
        for service in services
    )
