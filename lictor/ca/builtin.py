"""The built-in provider: its root and key are in the servers' replicated state, and sign leaves themselves.

In the primary datacenter no intermediate stands between root and leaf, as in Consul: its key would be kept beside the
root's, so it would protect nothing, and every handshake would send and check one certificate more. Another datacenter's
authority is an intermediate under this root.

Serial numbers are random, 63 bits of them: a leaf needs no entry in the servers' log.
"""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import msgspec

from lictor.ca import certificates
from lictor.ca.certificates import BadCertificate
from lictor.ca.configuration import BUILTIN, Common, read_common, text_of
from lictor.ca.provider import Authority, ProviderError, Surroundings
from lictor.model.spiffe import SigningId, SpiffeId

SERIAL_BITS = 63  # so that its JSON is a whole number everywhere


class BuiltinState(msgspec.Struct, frozen=True, rename="pascal"):
    """What is replicated. `given` is whether an operator brought the root."""

    private_key: str = ""
    root_cert: str = ""
    given: bool = False


class BuiltinProvider:
    """See `lictor.ca.provider.Provider`. `config` has the keys of Consul's API, of which `PrivateKey` and `RootCert`
    are taken over into the state. Raises `ProviderError` for a configuration that cannot be used.
    """

    def __init__(self, config: dict[str, Any], state: dict[str, Any], around: Surroundings) -> None:
        self._common: Common = read_common(config)
        self._key, self._root = text_of(config, "PrivateKey"), text_of(config, "RootCert")
        self._names_key = "PrivateKeyType" in config or "PrivateKeyBits" in config
        self._around = around
        self._state = msgspec.convert(state, BuiltinState, strict=False)

    @property
    def kind(self) -> str:
        """Consul's name of it."""
        return BUILTIN

    @property
    def state(self) -> dict[str, Any]:
        """Key and root."""
        found: dict[str, Any] = msgspec.to_builtins(self._state)
        return found

    @property
    def problem(self) -> str:
        """None: it depends on nobody."""
        return ""

    async def open(self) -> Authority:
        """The root that the configuration gives, else the one that there is if its key is of the kind wanted, else a
        new one.
        """
        with told():
            self._state = await self._wanted()
        return Authority(self._state.root_cert)

    async def _wanted(self) -> BuiltinState:
        now, old = self._around.clock(), self._state
        if self._root:
            return self._given(now)
        if self._key:
            if old.root_cert and not old.given and certificates.belongs_to(old.root_cert, self._key):
                return old
            return self._new(self._key, now)
        if old.root_cert and not old.given and self._suits(old.private_key):
            return old
        kind, bits = self._common.key_type, self._common.key_bits
        return self._new(await self._around.work(certificates.make_key, kind, bits), now)

    def _suits(self, key: str) -> bool:
        """Whether a key is of the kind that the configuration names, if it names one."""
        return not self._names_key or certificates.key_kind(key) == (self._common.key_type, self._common.key_bits)

    def _given(self, now: float) -> BuiltinState:
        key, chain = self._key, certificates.split_chain(self._root)
        if len(chain) != 1:
            raise ProviderError("RootCert must be one certificate")
        root = chain[0]
        if not key and self._state.root_cert and self._state.given:
            key = self._state.private_key  # it is never shown: whoever writes back what was read does not have it
        if not key:
            raise ProviderError("RootCert needs its PrivateKey")
        found = certificates.read_certificate(root)
        if not certificates.belongs_to(root, key):
            raise ProviderError("RootCert is not the certificate of PrivateKey")
        if not found.is_authority or not found.self_signed:
            raise ProviderError("RootCert must be a certificate authority (CA:TRUE) that signs itself")
        if not found.not_before <= now < found.not_after:
            raise ProviderError("RootCert is not valid at this time")
        return BuiltinState(key, root, given=True)

    def _new(self, key: str, now: float) -> BuiltinState:
        around = self._around
        serial = self._serial()
        name = certificates.authority_name("pri", f"{serial & 0xFFFFFFFF:08x}", around.trust_domain)
        identity = SigningId(around.trust_domain)
        return BuiltinState(key, certificates.make_root(key, identity, name, self._common.root_life, now, serial))

    async def renew(self) -> Authority:
        """The root signs itself: there is nothing under it to renew."""
        return Authority(self._state.root_cert)

    async def sign(self, request: str, identity: SpiffeId, seconds: float) -> str:
        """Sign a leaf with the root's key."""
        state, now, serial = self._opened(), self._around.clock(), self._serial()
        with told():
            return certificates.sign_leaf(state.root_cert, state.private_key, request, identity, seconds, now, serial)

    async def sign_intermediate(self, request: str, identity: SpiffeId) -> str:
        """Sign the authority of another datacenter, which may sign leaves and no other authority."""
        state = self._opened()
        serial = self._serial()
        name = certificates.authority_name("sec", f"{serial & 0xFFFFFFFF:08x}", identity.domain)
        now, life = self._around.clock(), self._common.intermediate_life
        with told():
            return certificates.sign_intermediate(
                state.root_cert, state.private_key, request, identity, name, life, now, serial
            )

    async def cross_sign(self, root: str) -> str:
        """Sign another root with this one's key."""
        state = self._opened()
        with told():
            return certificates.cross_sign(
                state.root_cert, state.private_key, root, self._around.clock(), self._serial()
            )

    async def close(self, *, remove: bool) -> None:
        """There is nothing but the state, which goes with the configuration."""

    def _opened(self) -> BuiltinState:
        if not self._state.root_cert:
            raise ProviderError("the authority is not open yet")
        return self._state

    def _serial(self) -> int:
        return self._around.chance(SERIAL_BITS) | 1


@contextmanager
def told() -> Generator[None, None, None]:
    """What is wrong with a certificate here is the authority's trouble, not that of whoever asks."""
    try:
        yield
    except BadCertificate as error:
        raise ProviderError(str(error)) from None
