"""A look of `lictor check`: whether the mesh's certificate authority can do its work, and for how long."""

from __future__ import annotations

import datetime
import time
from typing import Any

from lictor.cli import api
from lictor.cli.checks import Finding, broken, ok, warning

SECTION = "mesh"
DAY = 86400.0
SOON_DAYS = 30.0
OFF = "Connect must be enabled"


def authority(client: api.Client) -> list[Finding]:
    """What there is to say of it: nothing where there is no mesh."""
    try:
        roots = client.get("/v1/connect/ca/roots").json()
    except api.ApiError as error:
        if OFF in error.body:
            return []
        return [warning(SECTION, "has an authority that cannot be asked for", str(error))]
    active = next((root for root in roots.get("Roots") or [] if root.get("Active")), None)
    trouble = _trouble(client)
    if active is None:
        return [
            broken(
                SECTION,
                "has no certificate authority: no service can have an identity",
                trouble or "The leader makes one when it begins: its log says what keeps it from that.",
            )
        ]
    found = [_lasts(active)]
    former = len(roots["Roots"]) - 1
    if former:
        named = "a former root until its" if former == 1 else f"{former} former roots until their"
        found.append(ok(SECTION, f"trusts {named} leaves have ended"))
    if trouble:
        found.append(
            warning(
                SECTION,
                "has an authority in trouble: certificates that were issued are good until they end",
                f"{trouble}\nMend that, or take another provider: lictor connect ca set-config",
            )
        )
    return found


def _lasts(active: dict[str, Any]) -> Finding:
    text = str(active.get("NotAfter", ""))
    try:
        end = datetime.datetime.fromisoformat(text).timestamp()
    except ValueError:
        return warning(SECTION, f"has a root whose end cannot be read: {text}", "Is the agent of another version?")
    days = (end - time.time()) / DAY
    if days <= 0:
        return broken(
            SECTION,
            f"has a root that ended at {text}: nobody trusts anybody",
            "Give it another root: lictor connect ca set-config",
        )
    said = f"has a certificate authority, whose root lasts {days:.0f} more days"
    if days < SOON_DAYS:
        return warning(
            SECTION,
            said,
            "The built-in provider replaces a root that it made by itself. One that you gave, or Vault's, is yours\n"
            "to replace: lictor connect ca set-config",
        )
    return ok(SECTION, said)


def _trouble(client: api.Client) -> str:
    """What the leader complains of, as far as the token may know."""
    try:
        state = client.get("/v1/connect/ca/configuration").json().get("State")
    except api.ApiError:
        return ""
    return str((state or {}).get("Trouble", ""))
