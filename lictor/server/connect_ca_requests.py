"""Requests for certificates of the mesh: what is asked and answered, who may have which, and how many at a time."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable

import msgspec

from lictor.ca.configuration import Common
from lictor.model.authorizer import WRITE, Authorizer, require
from lictor.model.errors import Forbidden, InvalidRequest, RateExceeded
from lictor.model.spiffe import AgentId, GatewayId, ServiceId, SpiffeId

PATIENCE = 0.5  # seconds that a request may wait for its turn


class SigningLimited(RateExceeded):
    """More certificates are asked for than configuration allows."""

    def __init__(self) -> None:
        super(RateExceeded, self).__init__("Rate limit reached, try again later")


class SignRequest(msgspec.Struct, frozen=True):
    """A request for a leaf, in PEM, with the token of who asks."""

    request: str
    token: str = ""


class SignedLeaf(msgspec.Struct, frozen=True):
    """A leaf and what stands between it and the roots, in one PEM, the leaf first. `uri` is its SPIFFE id, `root` the
    id of the root it was signed under; times are in seconds since 1970, `index` is that of the servers' state then.
    """

    certificate: str
    serial_number: str
    uri: str
    valid_after: float
    valid_before: float
    root: str
    index: int


def check_identity(identity: SpiffeId, trust_domain: str, datacenter: str, authorizer: Authorizer) -> None:
    """See that who asks may have a certificate of an identity. Raises `InvalidRequest`, `Forbidden`."""
    if identity.domain != trust_domain:
        raise InvalidRequest(
            f"SPIFFE ID in CSR from a different trust domain: {identity.domain}, we are {trust_domain}"
        )
    match identity:
        case ServiceId(datacenter=other, service=service, namespace=namespace, partition=partition):
            resource, name = "service", service
            if namespace != "default" or partition:
                raise InvalidRequest("SPIFFE ID in CSR names a namespace or partition other than default")
        case AgentId(datacenter=other, node=node):
            resource, name = "node", node
        case GatewayId(datacenter=other):
            resource, name = "mesh", ""
        case _:
            raise InvalidRequest("SPIFFE ID in CSR must be a service, agent or mesh gateway ID")
    if other != datacenter:
        raise InvalidRequest(f"SPIFFE ID in CSR from a different datacenter: {other}, we are {datacenter}")
    try:
        require(authorizer, resource, name, WRITE)
    except Forbidden:
        raise Forbidden(f'Permission denied: it takes {resource}:write on "{name}"') from None


class Turns:
    """How fast and how many at a time: a rate, or where there is none a number at a time. `time` is in seconds."""

    def __init__(self, time: Callable[[], float]) -> None:
        self._time = time
        self._next = 0.0
        self._busy = 0
        self._freed = asyncio.Event()

    @contextlib.asynccontextmanager
    async def turn(self, common: Common) -> AsyncGenerator[None, None]:
        """Wait for a turn, for half a second at most. Raises `SigningLimited`."""
        if common.csr_rate > 0:
            await self._by_rate(common.csr_rate)
            yield
            return
        if common.csr_concurrent > 0:
            await self._by_number(common.csr_concurrent)
        self._busy += 1
        try:
            yield
        finally:
            self._busy -= 1
            self._freed.set()

    async def _by_rate(self, rate: float) -> None:
        now = self._time()
        at = max(self._next, now)
        if at - now > PATIENCE:
            raise SigningLimited
        self._next = at + 1 / rate
        if at > now:
            await asyncio.sleep(at - now)

    async def _by_number(self, most: int) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                while self._busy >= most:
                    self._freed.clear()
                    await self._freed.wait()
        except TimeoutError:
            raise SigningLimited from None
