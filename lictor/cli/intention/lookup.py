"""Intentions as the command line names and prints them, and where they are found."""

from __future__ import annotations

from typing import Any

from lictor.cli import api
from lictor.cli.api import ApiError
from lictor.cli.command import CommandError

BASE = "/v1/connect/intentions"
EXACT = f"{BASE}/exact"
NOT_FOUND = 404
FOUND_OR_NOT = frozenset({200, NOT_FOUND})


def text(intention: dict[str, Any]) -> str:
    """`web => db (allow)`."""
    return f"{source(intention)} => {destination(intention)} ({action(intention)})"


def source(intention: dict[str, Any]) -> str:
    """The source's name, with its namespace where that is another one than the default."""
    peer = intention.get("SourcePeer")
    name = _named(intention, "Source")
    return f"peer:{peer}/{name}" if peer else name


def destination(intention: dict[str, Any]) -> str:
    """The destination's name, with its namespace where that is another one than the default."""
    return _named(intention, "Destination")


def _named(intention: dict[str, Any], end: str) -> str:
    namespace, name = intention.get(f"{end}NS", ""), str(intention.get(f"{end}Name", ""))
    return name if namespace in ("", "default") else f"{namespace}/{name}"


def action(intention: dict[str, Any]) -> str:
    """`allow`, `deny`, or how many permissions there are."""
    permissions = len(intention.get("Permissions") or ())
    if not permissions:
        return str(intention.get("Action", ""))
    return "1 permission" if permissions == 1 else f"{permissions} permissions"


def split(target: str, what: str) -> tuple[str, str]:
    """Namespace and name of `name` or `namespace/name`. Raises CommandError."""
    namespace, slash, name = target.partition("/")
    if not slash:
        return "", target
    if "/" in name:
        raise CommandError(f"Error: Invalid intention {what}: target can contain at most one '/'")
    return namespace, name


def find(client: api.Client, source: str, destination: str) -> dict[str, Any] | None:
    """The intention with just these ends; None where there is none. Raises ApiError."""
    ends = {"source": source, "destination": destination}
    try:
        answer = client.get(EXACT, ends, accept=FOUND_OR_NOT)
    except ApiError as error:
        if "UUID" not in error.body:
            raise
        return _listed(client, source, destination)
    found: dict[str, Any] | None = answer.json() if answer.status != NOT_FOUND else None
    return found


def _listed(client: api.Client, source_name: str, destination_name: str) -> dict[str, Any] | None:
    """The same at an agent of Consul before 1.9, which takes `exact` for an id."""
    for one in client.get(BASE).json() or ():
        if (source(one), destination(one)) == (source_name, destination_name):
            found: dict[str, Any] = one
            return found
    return None


def named(client: api.Client, args: list[str]) -> dict[str, Any]:
    """The intention of an id, or of a source and a destination. Raises CommandError."""
    if len(args) not in (1, 2):
        raise CommandError("Error: command requires exactly 1 or 2 arguments")
    if len(args) == 2:
        with api.failing("Error reading the intention"):
            found = find(client, *args)
        if found is None:
            raise CommandError(f'Error: Intention with source "{args[0]}" and destination "{args[1]}" not found.')
        return found
    with api.failing("Error reading the intention"):
        answer = client.get(f"{BASE}/{args[0]}", accept=FOUND_OR_NOT)
        if answer.status == NOT_FOUND:
            raise CommandError(f'Error: Intention with ID "{args[0]}" not found.')
        of_id: dict[str, Any] = answer.json()
        return of_id
