"""-kind and -name: which config entry `read` and `delete` are about."""

from __future__ import annotations

from lictor.cli.command import CommandError
from lictor.model.goflags import FlagSet


def add_naming(flags: FlagSet) -> None:
    """Declare -kind and -name."""
    flags.string("kind", "", "Kind of the entry.")
    flags.string("name", "", "Name of the entry.")


def naming(options: FlagSet) -> tuple[str, str]:
    """Kind and name as given; raises CommandError when one is missing."""
    for flag in ("kind", "name"):
        if not options[flag]:
            raise CommandError(f"Must specify the -{flag} parameter")
    return options["kind"], options["name"]
