"""The methods that a server answers, by kind of traffic, and whom it answers."""

import msgspec

from lictor.model.transport import OnCall, OnMessage, OnStream


class Handlers(msgspec.Struct, frozen=True):
    """By method's name. `open` holds the kind, as in `lictor.rpc.frame`, and name of those that are for all agents and
    not for servers alone.
    """

    messages: dict[str, OnMessage] = msgspec.field(default_factory=dict)
    calls: dict[str, OnCall] = msgspec.field(default_factory=dict)
    streams: dict[str, OnStream] = msgspec.field(default_factory=dict)
    open: set[tuple[int, str]] = msgspec.field(default_factory=set)

    def admit(self, kind: int, method: str, agents: bool) -> None:
        """Let all agents use a method, or servers only."""
        if agents:
            self.open.add((kind, method))
        else:
            self.open.discard((kind, method))
