"""A session: the lease that holds KV locks, tied to a node, to checks and to a TTL."""

import msgspec

RELEASE = "release"
DELETE = "delete"
TTL_MIN = 10.0  # seconds
TTL_MAX = 86400.0
TTL_MULTIPLIER = 2.0  # the leader waits this many TTLs before it ends a session
LOCK_DELAY_DEFAULT = 15.0  # seconds
LOCK_DELAY_MAX = 60.0


class ServiceCheck(msgspec.Struct, frozen=True, rename="pascal"):
    """A service's check that a session depends on."""

    id: str = msgspec.field(default="", name="ID")
    namespace: str = ""


class Session(msgspec.Struct, frozen=True, rename="pascal"):
    """A row of the session table. `lock_delay` is in nanoseconds, as the API shows it; `ttl` is the text that was
    given. `checks` are node checks under the field's former name, shown where they were given so.
    """

    id: str = msgspec.field(default="", name="ID")
    name: str = ""
    node: str = ""
    lock_delay: int = 0
    behavior: str = RELEASE
    ttl: str = msgspec.field(default="", name="TTL")
    node_checks: tuple[str, ...] | None = None
    service_checks: tuple[ServiceCheck, ...] | None = None
    checks: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET
    create_index: int = 0
    modify_index: int = 0

    @property
    def check_ids(self) -> tuple[str, ...]:
        """The ids of every check on the session's node that ends it by going critical."""
        former = self.checks if self.checks is not msgspec.UNSET else ()
        named = (*(self.node_checks or ()), *(c.id for c in self.service_checks or ()), *former)
        return tuple(dict.fromkeys(named))
