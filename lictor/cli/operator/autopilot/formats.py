"""-format of the verbs that show what autopilot knows: tables and lines for people, or the API's JSON."""

from __future__ import annotations

import json
from typing import Any

from lictor.cli.command import CommandError
from lictor.model.goflags import FlagSet

FORMATS = ("pretty", "json")


def format_flag(flags: FlagSet) -> None:
    """Declare -format."""
    flags.string("format", "pretty", "Output format: pretty or json.")


def wants_json(options: FlagSet) -> bool:
    """Whether JSON was asked for; raises CommandError for an unknown format."""
    if options["format"] not in FORMATS:
        raise CommandError(f"Unknown format: {options['format']}", "The formats are pretty and json.")
    return bool(options["format"] == "json")


def as_json(value: Any) -> str:
    """The API's answer, indented."""
    return json.dumps(value, indent=4, ensure_ascii=False)
