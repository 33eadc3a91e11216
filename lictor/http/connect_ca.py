"""`/v1/connect/ca`: the mesh's authority, whom to trust and how it is configured."""

import contextlib
import datetime
from typing import Any

import msgspec

from lictor.ca.configuration import shown
from lictor.http.api import Api
from lictor.http.bodies import DECODE_FAILED, boolean, read_record
from lictor.http.reply import Reply
from lictor.http.request import Request
from lictor.http.routes import Family, ReadFunction
from lictor.model.authorizer import READ, WRITE
from lictor.model.connect_ca import CARoot
from lictor.model.errors import InvalidRequest, NoLeader
from lictor.model.spiffe import trust_domain
from lictor.server.connect_ca import NotEnabled
from lictor.server.connect_ca_settings import CAChange
from lictor.store.reads import connect_ca
from lictor.store.store import View

family = Family(at_servers=True)

_BAD = f"Bad request: {DECODE_FAILED}"
MAX_DEPTH = 16  # levels of nesting that a provider's configuration may have


class ConfigurationBody(msgspec.Struct, frozen=True, rename="pascal", forbid_unknown_fields=True):
    """The body that configures the authority. `NewRoot`, which is Lictor's own, has another root made in any case."""

    provider: str = ""
    config: dict[str, Any] | None = None
    state: dict[str, str] | None = None
    force_without_cross_signing: bool = False
    new_root: bool = False
    create_index: int = 0
    modify_index: int = 0


def _require_mesh(api: Api) -> None:
    if not api.agent.config.connect.enabled:
        raise NotEnabled


def _time(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(int(seconds), datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _root(root: CARoot) -> dict[str, Any]:
    return {
        "ID": root.id,
        "Name": root.name,
        "SerialNumber": root.serial_number,
        "SigningKeyID": root.signing_key_id,
        "ExternalTrustDomain": root.cluster,
        "NotBefore": _time(root.not_before),
        "NotAfter": _time(root.not_after),
        "RootCert": root.root,
        "IntermediateCerts": [*root.intermediates, *root.crosses] or None,
        "Active": root.active,
        "PrivateKeyType": root.key_type,
        "PrivateKeyBits": root.key_bits,
        "CreateIndex": root.create_index,
        "ModifyIndex": root.modify_index,
    }


def roots_json(trusted: connect_ca.Trusted) -> dict[str, Any]:
    """The roots as the API shows them, and Lictor's own: the serial numbers of revoked leaves, where there are any."""
    roots = trusted.roots
    active = next((root for root in roots if root.active), None)
    return {
        "ActiveRootID": active.id if active is not None else "",
        "TrustDomain": trust_domain(active.cluster) if active is not None else "",
        "Roots": [_root(root) for root in roots],
        **({"Revoked": [leaf.serial for leaf in trusted.revoked]} if trusted.revoked else {}),
    }


@family.read("/v1/connect/ca/roots")
def roots(api: Api, request: Request) -> ReadFunction:
    """All roots that are trusted; with `pem` their certificates, and what is between them and leaves, alone."""
    _require_mesh(api)
    pem = request.has("pem") and _wants_pem(request.get("pem"))

    def run(view: View) -> Any:
        if not pem:
            return roots_json(connect_ca.trusted(view))
        certificates = [
            text for root in connect_ca.roots(view) for text in (root.root, *root.intermediates, *root.crosses)
        ]
        return Reply(200, "".join(certificates).encode(), "application/pem-certificate-chain")

    return run


def _wants_pem(text: str) -> bool:
    try:
        return boolean(text)
    except ValueError:
        raise InvalidRequest("Bad request: The 'pem' query parameter must be a boolean value") from None


@family.action("GET", "/v1/connect/ca/configuration")
async def configuration(api: Api, request: Request) -> Any:
    """The authority's configuration, without what is secret of it. `State` tells of what keeps it from its work."""
    _require_mesh(api)
    request.require("operator", "", READ)
    await api.confirm(request)
    found = api.agent.store.read(connect_ca.configuration).value
    leadership, server, trouble = api.agent.leadership, api.agent.server, ""
    if leadership is not None and server is not None and server.consensus.leader:
        with contextlib.suppress(NoLeader):
            trouble = await leadership.connect_ca.leaders_trouble()
    return {
        "Provider": found.provider if found is not None else "",
        "Config": shown(found.config) or None if found is not None else None,
        "State": {"Trouble": trouble} if trouble else None,
        "ForceWithoutCrossSigning": found is not None and found.force_without_cross_signing,
        "CreateIndex": found.create_index if found is not None else 0,
        "ModifyIndex": found.modify_index if found is not None else 0,
    }


@family.action("PUT", "/v1/connect/ca/configuration")
async def set_configuration(api: Api, request: Request) -> Any:
    """Configure the authority anew; with another key, root or provider, another root takes the place of the former."""
    _require_mesh(api)
    request.require("operator", "", WRITE)
    given = read_record(request, ConfigurationBody, _BAD)
    if not 0 <= given.modify_index < 1 << 63:
        raise InvalidRequest(f"{_BAD}ModifyIndex is a whole number from 0 on")
    config = given.config or {}
    _refuse_unstorable(config)
    leadership = api.agent.leadership
    if leadership is None:
        raise NoLeader
    await leadership.connect_ca.change(
        CAChange(given.provider, config, given.force_without_cross_signing, given.modify_index, given.new_root)
    )
    return Reply()


def _refuse_unstorable(value: Any, depth: int = 0) -> None:
    """Numbers of more than 64 bits and endless nesting cannot be kept."""
    if depth > MAX_DEPTH:
        raise InvalidRequest(f"{_BAD}more than {MAX_DEPTH} levels of nesting")
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            _refuse_unstorable(item, depth + 1)
    elif isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
        raise InvalidRequest(f"{_BAD}a number has more than 64 bits")
