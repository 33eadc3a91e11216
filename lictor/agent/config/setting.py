"""What a configuration key carries besides its name, type and default: its documentation, flag and habits.

The record classes in `sections` and `keys` are the one table of the configuration. Each field is annotated with a
`Setting`; reading, checking, `lictor agent -h`, docs/configuration.md, the reload rules and the effective
configuration that the API shows are all derived from there.
"""

from __future__ import annotations

import msgspec


class Setting(msgspec.Struct, frozen=True):
    """One key's properties.

    `doc` is a sentence for the documentation and the flag's help. `flag` is the command-line flag without dash, `""`
    for none. `reload` says whether a change takes effect on reload. `secret` values are never shown. `debug` is the
    name under which `/v1/agent/self` shows the key, where it does not follow from the key itself. `since` is the
    version of Consul that introduced the key, where configurations of older versions lack it.
    """

    doc: str
    flag: str = ""
    reload: bool = False
    secret: bool = False
    debug: str = ""
    since: str = ""
