"""What the authority is told: by this server's configuration, and by an operator while it runs."""

from typing import Any

import msgspec

from lictor.ca.configuration import BUILTIN


class CASettings(msgspec.Struct, frozen=True):
    """What this server's configuration says: whether there is a mesh, and what a new cluster begins with. `cluster`, a
    UUID, makes its trust domain; without one it gets a random one.
    """

    enabled: bool = True
    provider: str = BUILTIN
    config: dict[str, Any] = {}
    cluster: str = ""


NO_MESH = CASettings(enabled=False)


class CAChange(msgspec.Struct, frozen=True):
    """Another configuration. With `modify_index` it counts only if the present one still has that; `force` has a root
    put in place that the former one did not sign. `new_root` has the provider make another root whatever it has.
    """

    provider: str
    config: dict[str, Any]
    force: bool = False
    modify_index: int = 0
    new_root: bool = False
