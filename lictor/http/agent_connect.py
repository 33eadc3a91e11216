"""`/v1/agent/connect`: the roots, a service's own certificate, and whether a connection may be let in, for programs and
proxies.

All are answered on the node: roots and certificates are kept here, also on disk, and the decision goes by intentions
that the agent holds. So they go on while the servers are away.
"""

import random
from typing import Any

import msgspec

from lictor.agent.leaves_book import Leaf, utc_text
from lictor.http.api import Api
from lictor.http.bodies import DECODE_FAILED, read_record
from lictor.http.connect_ca import roots_json
from lictor.http.intentions import policy, require_mesh
from lictor.http.reply import Headers, json_reply
from lictor.http.request import Request
from lictor.http.routes import Family
from lictor.http.waiting import JITTER
from lictor.model.authorizer import WRITE
from lictor.model.errors import InvalidRequest, Refused
from lictor.model.spiffe import BadSpiffeId, ServiceId, parse_spiffe_id
from lictor.store.reads import connect_ca, intentions

family = Family()

_BAD = "Bad request: "
AUTHORIZE_LIMIT = 64 * 1024  # bytes of a body


class ShownLeaf(msgspec.Struct, frozen=True, rename="pascal"):
    """A leaf as the API shows it."""

    serial_number: str
    cert_pem: str = msgspec.field(name="CertPEM")
    private_key_pem: str = msgspec.field(name="PrivateKeyPEM")
    service: str
    service_uri: str = msgspec.field(name="ServiceURI")
    valid_after: str
    valid_before: str
    create_index: int
    modify_index: int


class ConnectAuthorizeRequest(msgspec.Struct, frozen=True, rename="pascal"):
    """What is asked of a connection: the service that was called, and what its caller's certificate says."""

    target: str = ""
    client_cert_uri: str = msgspec.field(default="", name="ClientCertURI")
    client_cert_serial: str = ""


@family.action("GET", "/v1/agent/connect/ca/roots")
async def roots(api: Api, request: Request) -> Any:
    """All roots that are trusted; with `index` the next ones."""
    require_mesh(api)
    _check_datacenter(api, request)
    index, seconds = request.index, _seconds(api, request)
    here = bool(api.agent.leaves.roots)
    found, known = await api.agent.leaves.trusted(index=index, wait=seconds)
    contact, leader = api.agent.leader_contact()
    headers = (
        ("X-Consul-Index", str(known)),
        ("X-Consul-Knownleader", "true" if leader else "false"),
        ("X-Consul-Lastcontact", str(contact)),
        *_cached(api, here=here and not index),
    )
    return json_reply(roots_json(found), pretty=request.pretty, headers=headers)


def _check_datacenter(api: Api, request: Request) -> None:
    datacenter = request.get("dc")
    if datacenter and datacenter != api.agent.datacenter:
        raise Refused("No path to datacenter")


def _seconds(api: Api, request: Request) -> float:
    """How long to wait: what is asked for within bounds, and a little more at random."""
    wait, settings = request.wait, api.settings
    seconds = min(wait, settings.wait_max) if wait else settings.wait_default
    return seconds + random.uniform(0, seconds / JITTER)


@family.action("GET", "/v1/agent/connect/ca/leaf/:service")
async def leaf(api: Api, request: Request) -> Any:
    """A service's certificate with its key; with `index` the next one. The first is signed when it is asked for."""
    require_mesh(api)
    service, leaves = request.vars["service"], api.agent.leaves
    request.require("service", service, WRITE)
    _check_datacenter(api, request)
    index, seconds = request.index, _seconds(api, request)
    here = leaves.held(service)
    found = await leaves.get(service, token=request.token, index=index, wait=seconds)
    headers = (("X-Consul-Index", str(found.modify_index)), *_cached(api, here=here and not index))
    return json_reply(_shown(found), pretty=request.pretty, headers=headers)


def _shown(found: Leaf) -> ShownLeaf:
    return ShownLeaf(
        found.serial,
        found.certificate,
        found.key,
        found.service,
        found.uri,
        utc_text(found.valid_after),
        utc_text(found.valid_before),
        found.create_index,
        found.modify_index,
    )


@family.action("POST", "/v1/agent/connect/authorize", body_limit=AUTHORIZE_LIMIT)
async def authorize(api: Api, request: Request) -> Any:
    """Whether the service that a certificate names may connect to the target, and why. Whether the certificate is a
    good one is for whoever has it in hand to see.
    """
    require_mesh(api)
    given = read_record(request, ConnectAuthorizeRequest, _BAD + DECODE_FAILED)
    if not given.target:
        raise InvalidRequest(f"{_BAD}Target service must be specified")
    source = _caller(given.client_cert_uri)
    request.require("service", given.target, WRITE)
    default, client = policy(api), api.agent.client
    here = client is None or client.covers(api.agent.store.read(intentions.for_destination, given.target).seen)
    if given.client_cert_serial:
        revoked = (await api.agent.read(lambda view: connect_ca.is_revoked(view, given.client_cert_serial))).value
        if revoked:
            answer = {"Authorized": False, "Reason": "The certificate has been revoked"}
            return json_reply(answer, pretty=request.pretty, headers=_cached(api, here=here))
    decision = (await api.agent.read(lambda view: intentions.decision(view, source, given.target, default))).value
    answer = {"Authorized": decision.allowed, "Reason": decision.reason}
    return json_reply(answer, pretty=request.pretty, headers=_cached(api, here=here))


def _caller(uri: str) -> ServiceId:
    try:
        found = parse_spiffe_id(uri)
    except BadSpiffeId:
        raise InvalidRequest(f"{_BAD}ClientCertURI not a valid Connect identifier") from None
    if not isinstance(found, ServiceId):
        raise InvalidRequest(f"{_BAD}ClientCertURI not a valid Service identifier")
    return found


def _cached(api: Api, *, here: bool) -> Headers:
    """Whether the answer was here before it was asked for, and how old it may be, in seconds."""
    if not here:
        return (("X-Cache", "MISS"),)
    age = api.agent.last_contact if api.agent.client is not None else 0.0
    return (("X-Cache", "HIT"), ("Age", str(int(age)) if age < float("inf") else "0"))
