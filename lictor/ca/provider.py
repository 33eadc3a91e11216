"""What a provider of the mesh's CA does: an interface, with `builtin` and `vault` behind it.

The leader owns the provider (`lictor.server.connect_ca`); what it must not forget it keeps in `state`, which is
replicated, held by the servers alone, and never shown. The files of certificates are PEM, everywhere.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import msgspec

from lictor.model.errors import LictorError
from lictor.model.spiffe import SpiffeId


class ProviderError(LictorError):
    """The provider cannot do what was asked. The message says what, and what would help; it holds no secret."""


class ProviderUnavailable(ProviderError):
    """It may work later: the provider is away, sealed, or slow. What was issued before goes on being good."""


class Authority(msgspec.Struct, frozen=True):
    """What signs: the root that everybody trusts, and the certificates between it and a leaf, the issuer of leaves
    first; none where the root itself issues them.
    """

    root: str
    intermediates: tuple[str, ...] = ()


class Above(Protocol):
    """The authority of the primary datacenter, for the provider of another one."""

    @property
    def root(self) -> str:
        """Its active root; empty while it has not been heard of."""
        ...

    async def sign(self, request: str) -> str:
        """Have a request for an intermediate signed. Returns the certificate, then what is between it and the root, and
        perhaps others. Raises `ProviderError`.
        """
        ...


class Surroundings(msgspec.Struct, frozen=True):
    """What a provider is given of the world. `clock` gives seconds since 1970, `chance` so many random bits, and `work`
    does what takes long elsewhere. With an authority `above`, the provider has no root of its own: it signs leaves with
    an intermediate that is signed there.
    """

    trust_domain: str
    datacenter: str
    clock: Callable[[], float]
    chance: Callable[[int], int]
    work: Callable[..., Awaitable[Any]]
    above: Above | None = None


class Provider(Protocol):
    """One provider with one configuration. Every method but `close` raises `ProviderError`, and a coroutine may be
    called again after it failed: it takes up where it was.
    """

    @property
    def kind(self) -> str:
        """`consul` for the built-in one, `vault`."""
        ...

    @property
    def state(self) -> dict[str, Any]:
        """What the next leader's provider needs to go on. Read after `open` and after `renew`."""
        ...

    @property
    def problem(self) -> str:
        """What threatens its work though nothing has failed yet; empty where nothing does."""
        ...

    async def open(self) -> Authority:
        """Find the authority that the configuration and the state name, or make it."""
        ...

    async def renew(self) -> Authority:
        """Make another issuer of leaves under the same root where the present one is about to end (or should be
        another for what the configuration says now); the authority as it is where not.
        """
        ...

    async def sign(self, request: str, identity: SpiffeId, seconds: float) -> str:
        """Sign a leaf for a request whose identity and key were checked. Returns the leaf, then its intermediates."""
        ...

    async def sign_intermediate(self, request: str, identity: SpiffeId) -> str:
        """Sign the request of another datacenter's authority."""
        ...

    async def cross_sign(self, root: str) -> str:
        """Sign another authority's root, so that who trusts only the old root trusts what the new one signs."""
        ...

    async def close(self, *, remove: bool) -> None:
        """Stop; with `remove` also take away what was made in places that nobody else uses, as nothing is signed with
        it any more. Never raises: what could not be taken away is said in the log.
        """
        ...
