"""A look of `lictor check`: whether the services of the agent have certificates that are good."""

from __future__ import annotations

from collections.abc import Mapping

from lictor.cli.checks import Finding, broken, ok, warning

SECTION = "mesh"
SERVERS = "The servers sign them: see whether they answer and have an authority, by `lictor check` on one of them."


def identities(stats: Mapping[str, str]) -> list[Finding]:
    """What there is to say of the group `leaf_certs` of an agent's statistics: nothing where it holds none."""
    held, expired = _number(stats.get("held", "")), _number(stats.get("expired", ""))
    trouble = stats.get("trouble", "")
    if not held:
        return []
    found = []
    if expired:
        found.append(
            broken(
                SECTION,
                f"has {_certificates(expired)} that ended, of {held} in all: nobody believes these services",
                f"{trouble}\n{SERVERS}".strip(),
            )
        )
    elif trouble:
        found.append(
            warning(
                SECTION,
                f"is not given certificates at present; the first of {held} that it holds ends at {stats['next_ends']}",
                f"{trouble}\n{SERVERS}",
            )
        )
    else:
        found.append(ok(SECTION, f"holds {_certificates(held)} for services of this node"))
    return found


def _certificates(count: int) -> str:
    return "1 certificate" if count == 1 else f"{count} certificates"


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 0
