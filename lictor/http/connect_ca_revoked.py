"""`/v1/connect/ca/revoked`: the certificates of the mesh that nobody is to believe, though they have not ended.
Lictor's own.
"""

import time
from typing import Any

import msgspec

from lictor.agent.leaves_book import utc_text
from lictor.http.api import Api
from lictor.http.bodies import DECODE_FAILED, read_record
from lictor.http.intentions import require_mesh
from lictor.http.reply import Reply
from lictor.http.request import Request
from lictor.http.routes import Family, ReadFunction
from lictor.model.authorizer import READ, WRITE
from lictor.model.command import LeavesRevoke
from lictor.model.connect_ca import RevokedLeaf, fingerprint
from lictor.model.errors import InvalidRequest
from lictor.model.spiffe import BadSpiffeId, ServiceId, parse_spiffe_id
from lictor.store.reads import connect_ca
from lictor.store.store import View

family = Family(at_servers=True)

_BAD = f"Bad request: {DECODE_FAILED}"
UNKNOWN_LIFE = 366 * 86400.0  # seconds for which a certificate is revoked whose end is not known: no leaf lives longer


class RevokeBody(msgspec.Struct, frozen=True, rename="pascal", forbid_unknown_fields=True):
    """Which certificate: its serial number or, better, all of it, without which Envoy does not know it."""

    serial_number: str = ""
    cert_pem: str = msgspec.field(default="", name="CertPEM")


@family.read("/v1/connect/ca/revoked")
def revoked(api: Api, request: Request) -> ReadFunction:
    """All of them."""
    require_mesh(api)
    request.require("operator", "", READ)
    return lambda view: _shown(view)


def _shown(view: View) -> list[dict[str, Any]]:
    return [
        {
            "SerialNumber": leaf.serial,
            "Fingerprint": leaf.fingerprint,
            "Service": leaf.service,
            "Node": leaf.node,
            "ValidBefore": utc_text(leaf.until),
            "CreateIndex": leaf.create_index,
        }
        for leaf in connect_ca.revoked(view)
    ]


@family.action("PUT", "/v1/connect/ca/revoked")
async def revoke(api: Api, request: Request) -> Any:
    """Revoke one. Doing it again changes nothing."""
    require_mesh(api)
    request.require("operator", "", WRITE)
    given = read_record(request, RevokeBody, _BAD)
    if bool(given.serial_number) == bool(given.cert_pem):
        raise InvalidRequest(f"{_BAD}either SerialNumber or CertPEM is needed")
    leaf = _leaf(given.cert_pem) if given.cert_pem else RevokedLeaf(given.serial_number.strip().lower())
    if not leaf.until:
        leaf = msgspec.structs.replace(leaf, until=time.time() + UNKNOWN_LIFE)
    await api.agent.apply(LeavesRevoke((leaf,)))
    return Reply()


def _leaf(pem: str) -> RevokedLeaf:
    from lictor.ca.certificates import BadCertificate, read_certificate  # takes a while to import

    try:
        found = read_certificate(pem)
        digest = fingerprint(pem)
    except (BadCertificate, ValueError) as error:
        raise InvalidRequest(f"{_BAD}CertPEM: {error}") from None
    if found.is_authority:
        raise InvalidRequest("an authority cannot be revoked: have another root take its place (see docs/ca.md)")
    return RevokedLeaf(found.serial_number, digest, _service(found.uris), "", found.not_after)


def _service(uris: tuple[str, ...]) -> str:
    try:
        named = parse_spiffe_id(uris[0]) if uris else None
    except BadSpiffeId:
        return ""
    return named.service if isinstance(named, ServiceId) else ""
