"""A look of `lictor check`: whether a secondary datacenter has the primary's config entries, and so its intentions."""

from __future__ import annotations

from collections.abc import Mapping

from lictor.cli.checks import Finding, ok, warning

SECTION = "mesh"


def primary(stats: Mapping[str, str]) -> list[Finding]:
    """What there is to say of the group `primary` of a server's statistics: nothing where it has none. The server that
    leads knows best.
    """
    if not stats:
        return []
    name, complete = stats.get("datacenter", ""), stats.get("config_entries") == "complete"
    if stats.get("failure"):
        held = "those that are known hold" if complete else "none are known for certain"
        return [
            warning(
                SECTION,
                f"does not follow the config entries and intentions of datacenter {name}; {held}",
                f"{stats['failure']}\nThey cannot be written here meanwhile.",
            )
        ]
    if not complete:
        return [warning(SECTION, f"has not all config entries and intentions of datacenter {name} yet", "Look again.")]
    return [ok(SECTION, f"has the config entries and intentions of datacenter {name}")]
