"""`/v1/operator/keyring`: the keys that gossip is encrypted with, on every member of the pool between datacenters and
of each datacenter's own.
"""

from typing import Any

import msgspec

from lictor.agent.keyrings import KeyOperation, on_keyrings
from lictor.agent.pools import KEY_OPERATIONS, KeyringState
from lictor.http.api import Api
from lictor.http.bodies import boolean, read_record, whole
from lictor.http.reply import Reply
from lictor.http.request import Request
from lictor.http.routes import Family
from lictor.model.authorizer import READ, WRITE
from lictor.model.errors import InvalidRequest, Refused
from lictor.model.service_rules import multierror

family = Family(at_servers=True)

MAX_RELAYS = 5
LIST, INSTALL, USE, REMOVE = KEY_OPERATIONS


class KeyBody(msgspec.Struct, frozen=True, rename="pascal"):
    """The body of a change of the keyring."""

    key: str = ""
    token: str = ""
    relay_factor: int = 0
    local_only: bool = False


@family.action("GET", "/v1/operator/keyring", elsewhere=False)
async def list_keys(api: Api, request: Request) -> Any:
    """The gossip keys in use, and on how many members of each pool."""
    relays, local = _parameters(request)
    request.require("keyring", "", READ)
    return [_shown(state) for state in await _done(api, request, LIST, "", relays, local=local)]


@family.action("POST", "/v1/operator/keyring", elsewhere=False)
async def install_key(api: Api, request: Request) -> Any:
    """Give every member a further key."""
    return await _change(api, request, INSTALL)


@family.action("PUT", "/v1/operator/keyring", elsewhere=False)
async def use_key(api: Api, request: Request) -> Any:
    """Make every member encrypt with a key."""
    return await _change(api, request, USE)


@family.action("DELETE", "/v1/operator/keyring", elsewhere=False)
async def remove_key(api: Api, request: Request) -> Any:
    """Take a key from every member."""
    return await _change(api, request, REMOVE)


async def _change(api: Api, request: Request, operation: str) -> Reply:
    body = read_record(request, KeyBody, "Bad request: Request decode failed: ")
    relays, local = _parameters(request)
    if local:
        raise InvalidRequest("Bad request: Invalid use of local-only: local-only can only be set for list requests")
    request.require("keyring", "", WRITE)
    await _done(api, request, operation, body.key, relays, local=False)
    return Reply()


async def _done(
    api: Api, request: Request, operation: str, key: str, relays: int, *, local: bool
) -> list[KeyringState]:
    """How an operation went in each pool. Raises `Refused` with every failure of any member."""
    states = await on_keyrings(api.agent, KeyOperation(operation, key, relays, request.token), local=local)
    problems: list[str] = []
    for state in states:
        if state.error:
            problems.append(f"{'WAN' if state.wan else f'{state.datacenter} (LAN)'} error: {state.error}")
            problems += [f"{node}: {message}" for node, message in sorted(state.messages.items())]
    if problems:
        raise Refused(multierror(problems))
    return states


def _shown(state: KeyringState) -> dict[str, Any]:
    shown: dict[str, Any] = {"WAN": state.wan, "Datacenter": state.datacenter, "Segment": ""}
    if state.messages:
        shown["Messages"] = state.messages
    return shown | {"Keys": state.keys, "PrimaryKeys": state.primary_keys, "NumNodes": state.nodes}


def _parameters(request: Request) -> tuple[int, bool]:
    """Through how many others answers come, and whether only this datacenter's pool is asked."""
    factor, local = request.get("relay-factor"), request.get("local-only")
    relays = 0
    if factor:
        try:
            relays = whole(factor)
        except ValueError as error:
            raise InvalidRequest(f"Bad request: Error parsing relay factor: {error}") from None
        if not 0 <= relays <= MAX_RELAYS:
            raise InvalidRequest(f"Bad request: Invalid relay-factor: Relay factor must be in range: [0, {MAX_RELAYS}]")
    try:
        return relays, boolean(local) if local else False
    except ValueError as error:
        raise InvalidRequest(f"Bad request: Error parsing local-only: {error}") from None
