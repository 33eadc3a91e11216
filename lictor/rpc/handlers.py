"""The methods that a server answers, by kind of traffic."""

import msgspec

from lictor.model.transport import OnCall, OnMessage, OnStream


class Handlers(msgspec.Struct, frozen=True):
    """By method's name."""

    messages: dict[str, OnMessage] = msgspec.field(default_factory=dict)
    calls: dict[str, OnCall] = msgspec.field(default_factory=dict)
    streams: dict[str, OnStream] = msgspec.field(default_factory=dict)
