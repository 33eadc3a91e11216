"""Environment variables: Consul's names, and their `LICTOR_` twins, which win.

    env("HTTP_ADDR")        # LICTOR_HTTP_ADDR, else CONSUL_HTTP_ADDR, else None

An empty variable counts as absent, as it does for Consul's own client. Its own file because the command line, the
agent and the tests must agree on the order of the two names.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

PREFIXES = ("LICTOR_", "CONSUL_")


def env(name: str, environment: Mapping[str, str] | None = None) -> str | None:
    """The value of `LICTOR_<name>`, else of `CONSUL_<name>`, else None. `environment` defaults to the process's."""
    variables = os.environ if environment is None else environment
    for prefix in PREFIXES:
        value = variables.get(prefix + name)
        if value:
            return value
    return None


def env_bool(name: str, environment: Mapping[str, str] | None = None) -> bool | None:
    """The variable as a truth value (1, t, true, 0, f, false), None when absent.

    Raises ValueError naming the variable when it is neither.
    """
    text = env(name, environment)
    if text is None:
        return None
    lowered = text.strip().lower()
    if lowered in ("1", "t", "true"):
        return True
    if lowered in ("0", "f", "false"):
        return False
    raise ValueError(f'CONSUL_{name} or LICTOR_{name} is "{text}": use true or false')
