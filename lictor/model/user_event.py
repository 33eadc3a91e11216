"""A user event: a named message with a payload that reaches every agent, filtered by node, service and tag."""

import msgspec

MAX_PAYLOAD = 512  # bytes, name and payload together; what a gossip message can carry


class UserEvent(msgspec.Struct, frozen=True, rename="pascal"):
    """An event as the API shows it. `payload` is base64 in JSON, null where there is none; `l_time` is the Lamport
    time.
    """

    id: str = msgspec.field(default="", name="ID")
    name: str = ""
    payload: bytes | None = None
    node_filter: str = ""
    service_filter: str = ""
    tag_filter: str = ""
    version: int = 1
    l_time: int = msgspec.field(default=0, name="LTime")
