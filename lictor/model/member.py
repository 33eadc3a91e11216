"""A member of the gossip pool, as the API shows it."""

import msgspec

ALIVE, LEAVING, LEFT, FAILED = 1, 2, 3, 4
STATUS_NAMES = {0: "none", ALIVE: "alive", LEAVING: "leaving", LEFT: "left", FAILED: "failed"}


class Member(msgspec.Struct, frozen=True, rename="pascal"):
    """An agent: its name, gossip address, tags and status (1 alive, 2 leaving, 3 left, 4 failed)."""

    name: str
    addr: str
    port: int
    tags: dict[str, str]
    status: int = ALIVE
    protocol_min: int = 1
    protocol_max: int = 5
    protocol_cur: int = 2
    delegate_min: int = 2
    delegate_max: int = 5
    delegate_cur: int = 4
